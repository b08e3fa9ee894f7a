"""Tiny models that write no text, with random weights, as transformers makes and saves them; and what it computes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Vectors = list[NDArray[np.float64]]


def save_encoder(folder: Path, config: Mapping[str, Any], seed: int = 0, dtype: str = "float32") -> Path:
    """The class that config names first. Every weight is drawn: norms around one, the rest such that activations stay
    near unit size. Weights are numbers of dtype."""
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    given = {key: value for key, value in config.items() if key not in ("architectures", "model_type", "torch_dtype")}
    made = transformers.AutoConfig.for_model(config["model_type"], **given)
    model = getattr(transformers, config["architectures"][0])(made).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                scale = 1.0 if "embeddings" in name or "embed_tokens" in name else parameter.shape[1] ** -0.5
                parameter.normal_(0.0, 1.3 * scale)
            else:
                parameter.normal_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0, 0.2)
            parameter.copy_(parameter.to(getattr(torch, dtype)))
    model.save_pretrained(folder)
    return folder


def hidden_states(folder: Path, prompts: Sequence[Sequence[int]], dtype: str) -> Vectors:
    """transformers' last hidden states of each prompt, [n, E]."""
    return [
        out.last_hidden_state[0].double().numpy() for out in _outputs(transformers.AutoModel, folder, prompts, dtype)
    ]


def logits(folder: Path, prompts: Sequence[Sequence[int]], dtype: str, **inputs: Any) -> Vectors:
    """Of a classifier, of each prompt."""
    kind = transformers.AutoModelForSequenceClassification
    return [out.logits[0].double().numpy() for out in _outputs(kind, folder, prompts, dtype, **inputs)]


def token_logits(folder: Path, prompts: Sequence[Sequence[int]], dtype: str) -> Vectors:
    """Of a classifier of tokens, of each prompt [n, labels]."""
    kind = transformers.AutoModelForTokenClassification
    return [out.logits[0].double().numpy() for out in _outputs(kind, folder, prompts, dtype)]


def _outputs(kind: Any, folder: Path, prompts: Sequence[Sequence[int]], dtype: str, **inputs: Any) -> list[Any]:
    torch.set_num_threads(1)
    model = kind.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager").eval()
    with torch.no_grad():
        return [model(torch.tensor([list(prompt)]), **inputs) for prompt in prompts]


def change_config(folder: Path, **values: Any) -> None:
    """Keys of config.json; None takes one away."""
    path = folder / "config.json"
    data = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
