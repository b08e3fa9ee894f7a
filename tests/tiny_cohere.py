"""A tiny Cohere Transcribe of random weights, as transformers saves it, with a tokenizer of a token a byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import CohereAsrConfig, CohereAsrFeatureExtractor, CohereAsrForConditionalGeneration, GenerationConfig

from made_once import made_once

RATE = 16000
LANGUAGES = ("ar", "de", "el", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "vi", "zh")
SPECIALS = (
    "<unk>",
    "<|nospeech|>",
    "<pad>",
    "<|endoftext|>",
    "<|startoftranscript|>",
    "▁",
    "<|startofcontext|>",
    "<|emo:undefined|>",
    *(f"<|{code}|>" for code in LANGUAGES),
    "<|pnc|>",
    "<|noitn|>",
    "<|notimestamp|>",
    "<|nodiarize|>",
)


def extractor() -> CohereAsrFeatureExtractor:
    """Without the noise that is drawn by torch."""
    return CohereAsrFeatureExtractor(feature_size=16, dither=0.0)


@made_once
def save(folder: Path, *, dtype: str = "float32", seed: int = 3) -> Path:
    """A model directory."""
    torch.manual_seed(seed)
    config = CohereAsrConfig(
        vocab_size=256 + len(SPECIALS),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        encoder_config={
            "hidden_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 80,
            "subsampling_conv_channels": 6,
            "num_mel_bins": 16,
        },
    )
    model = CohereAsrForConditionalGeneration(config).to(getattr(torch, dtype))
    draw(model)
    save_beside(folder, model, extractor(), SPECIALS)
    return folder


def draw(model: Any, left: tuple[str, ...] = ("inv_freq",)) -> None:
    """Weights by which sounds differ. Args: left: parts of names of what stays as it is."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if not value.is_floating_point() or any(part in name for part in left):
            continue
        if "running_var" in name:
            torch.nn.init.uniform_(value, 0.5, 2.0)
        elif value.dim() > 1 and "bias" not in name:
            torch.nn.init.normal_(value, 0.0, 1.0 if "emb" in name else 1.5 * value[0].numel() ** -0.5)
        else:
            torch.nn.init.normal_(value, float("norm" in name and name.endswith("weight")), 0.2)


def save_beside(folder: Path, model: Any, extractor: Any, names: Sequence[str]) -> None:
    """The model, what makes its spectra, and a tokenizer of a token a byte behind special ones of these names."""
    model.generation_config = GenerationConfig(bos_token_id=4, eos_token_id=3, pad_token_id=2)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({name: place for place, name in enumerate((*names, *alphabet))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def opened(folder: Path, dtype: str = "float32") -> CohereAsrForConditionalGeneration:
    """transformers' own."""
    kind = CohereAsrForConditionalGeneration
    return kind.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager").eval()


def heard(samples: NDArray[np.float32]) -> dict[str, torch.Tensor]:
    """What its encoder is given of a sound alone."""
    given = extractor()(samples, sampling_rate=RATE, return_tensors="pt")
    return {key: given[key] for key in ("input_features", "attention_mask")}


def theirs(folder: Path, samples: NDArray[np.float32], prompt: list[int], num: int) -> tuple[list[int], list[float]]:
    """The likeliest tokens behind a prompt and their log-probabilities, by transformers, without its cache."""
    model, ids, found, values = opened(folder), list(prompt), list[int](), list[float]()
    with torch.no_grad():
        given = heard(samples)
        for _ in range(num):
            row = model(**given, decoder_input_ids=torch.tensor([ids])).logits[0, -1].clone()
            logprobs = torch.log_softmax(row, -1)
            row[3] = -torch.inf
            token = int(row.argmax())
            values.append(float(logprobs[token]))
            found.append(token)
            ids.append(token)
    return found, values
