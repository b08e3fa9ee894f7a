"""Tiny checkpoints and texts for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from albireo.compress.texts import Text
from albireo.models import load_architecture
from tiny_models import make_checkpoint

#: Architectures whose linears share tensors, which are not quantized into checkpoints.
JOINED = {"phi3"}
#: Wide enough for groups of 32 and 64 in every linear, with biases.
LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_hidden_layers": 2,
}


def llama(path: Path, dtype: str = "bfloat16", **changes: Any) -> Path:
    config = {**load_architecture("llama").tiny, **LLAMA, **changes}
    return make_checkpoint(path, config, seed=3, dtype=dtype)


def text(vocab_size: int = 131, num_windows: int = 6, length: int = 40, seed: int = 0) -> Text:
    ids = np.random.default_rng(seed).integers(0, vocab_size, (num_windows, length))
    return Text("drawn", tuple(tuple(map(int, row)) for row in ids))
