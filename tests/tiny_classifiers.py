"""Tiny classifiers and encoders with random weights, as transformers saves them, each beside its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_tokenizers import bert_tokenizer, roberta_tokenizer

_WIDTH, _LAYERS, _HEADS, _FFN = 64, 2, 4, 96
_SIZES = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "intermediate_size": _FFN,
}
_SIZES_OF = {
    "DistilBert": {"dim": _WIDTH, "n_layers": _LAYERS, "n_heads": _HEADS, "hidden_dim": _FFN},
    "Qwen3": {**_SIZES, "num_key_value_heads": 2, "head_dim": 16},
}


def save_model(folder: Path, kind: str, name: str, tokenizer: Any, **config: Any) -> Any:
    """Args: kind: class of its configuration, as Bert; name: what follows that in the model's class.
    Returns: the model of transformers, as it was saved."""
    import torch
    import transformers

    torch.manual_seed(7)
    sizes = {**_SIZES_OF.get(kind, _SIZES), "max_position_embeddings": 66}
    made = getattr(transformers, f"{kind}Config")(**sizes, vocab_size=len(tokenizer), **config)
    model = getattr(transformers, kind + name)(made).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            is_norm = "norm" in parameter_name.lower() and parameter_name.endswith("weight")
            parameter.normal_(1.0 if is_norm else 0.0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def save_classifier(folder: Path, kind: str, labels: tuple[str, ...], **config: Any) -> tuple[Any, Any]:
    """Returns: the model and the tokenizer of transformers."""
    tokenizer = roberta_tokenizer() if kind == "Roberta" else bert_tokenizer()
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    pad = {"pad_token_id": tokenizer.pad_token_id}
    return save_model(folder, kind, "ForSequenceClassification", tokenizer, **names, **pad, **config), tokenizer


def logits_of(model: Any, tokenizer: Any, *texts: str, **options: Any) -> list[float]:
    """What transformers gives for a text or a pair."""
    import torch

    with torch.no_grad():
        found: list[float] = model(**tokenizer(*texts, return_tensors="pt", **options)).logits[0].tolist()
    return found
