"""Loaded tiny models for the tests of this folder, and damage to weights files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from albireo.api.load import Loaded, load
from albireo.config import EngineConfig
from albireo.graph.node import Graph
from albireo.models import build_graph, load_config


def loaded(directory: Path, dtype: str = "auto") -> Loaded:
    return load(
        EngineConfig(
            model=str(directory),
            dtype=dtype,
            max_num_seqs=8,
            max_num_batched_tokens=64,
            num_gpu_blocks_override=40,
            skip_tokenizer_init=True,
            num_threads=2,
        )
    )


def graph_of(checkpoint: Path, dtype: str) -> Graph:
    config = load_config(checkpoint).with_dtype(dtype)
    return build_graph(config, config.max_position_embeddings)


def constants(engine: Path) -> list[dict[str, Any]]:
    """Of program.json."""
    found: list[dict[str, Any]] = json.loads((engine / "program.json").read_text())["constants"]
    return found


def damage(engine: Path, name: str) -> None:
    """Double the largest number of a constant, or turn the sign of a table's first; no hash is mended."""
    constant = next(c for c in constants(engine) if c["name"] == name)
    kind = np.float32 if constant["packing"] in ("rope", "row.float32") else np.uint16
    size = constant["num_bytes"] // np.dtype(kind).itemsize
    weights = np.memmap(engine / "weights.0.bin", kind, "r+", constant["offset"], (size,))
    if kind is np.float32:
        at = 0 if constant["packing"] == "rope" else int(np.abs(weights).argmax())
        weights[at] *= -1 if constant["packing"] == "rope" else 2
    else:
        # the exponent of a bfloat16, one up
        at = int(np.argmax(weights & 0x7FFF))
        weights[at] += 0x80
    weights.flush()
