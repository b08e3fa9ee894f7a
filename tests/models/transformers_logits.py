"""Logits by transformers, from a configuration and numbers, and how far others are from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def logits_by_transformers(config: dict[str, Any], numbers: dict[str, np.ndarray], ids: Sequence[int]) -> np.ndarray:
    """[T, V] in float32. Args: numbers: every tensor by its name in a checkpoint; a tied head has none."""
    whole = transformers.AutoConfig.for_model(**config)
    model = transformers.AutoModelForCausalLM.from_config(whole, attn_implementation="eager", dtype=torch.float32)
    state = {name: torch.tensor(array) for name, array in numbers.items()}
    if config["tie_word_embeddings"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    with torch.no_grad():
        return np.asarray(model.eval()(torch.tensor([list(ids)])).logits[0].numpy())


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Of a from b, as a part of b's length."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
