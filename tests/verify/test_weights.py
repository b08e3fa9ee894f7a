"""Every kind of packed constant: equal when it is right, and the element by name when one byte is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from albireo.api.build import build
from albireo.artifact.reader import open_engine
from albireo.config import BuildConfig
from albireo.models import load_architecture, open_checkpoint
from albireo.verify.weights import Damage, find_damage
from tiny_models import make_checkpoint, random_weights
from verify.models import constants, graph_of, loaded

QWEN2 = load_architecture("qwen2").tiny


def found(engine: Path, checkpoint: Path, dtype: str) -> Damage | None:
    program = loaded(engine).program
    with open_checkpoint(checkpoint, graph_of(checkpoint, dtype)) as weights:
        return find_damage(program, open_engine(engine).ranks[0], weights, lambda _: None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_elements_are_named(dtype: str, tmp_path: Path) -> None:
    """A merged linear, an interleaved one, a bias, a norm, a table, and a rotation: one element each is altered."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", QWEN2, seed=2, dtype="float32")
    engine = build(checkpoint, tmp_path / "engine", BuildConfig(dtype=dtype)).directory
    assert found(engine, checkpoint, dtype) is None
    tensors = random_weights(QWEN2, 2)
    kinds = set()
    for constant in constants(engine):
        if ".layers." in constant["name"] and ".layers.1." not in constant["name"]:
            continue
        damaged = Path(shutil.copytree(engine, tmp_path / "damaged"))
        wide = constant["packing"] == "rope" or constant["packing"].endswith("float32")
        kind = np.uint32 if wide else np.uint16
        size = constant["num_bytes"] // np.dtype(kind).itemsize
        stored = np.memmap(damaged / "weights.0.bin", kind, "r+", constant["offset"], (size,))
        at = int(np.flatnonzero(stored)[size // 3])
        stored[at] ^= np.array(1 << (8 * np.dtype(kind).itemsize - 1), kind)
        stored.flush()
        damage = found(damaged, checkpoint, dtype)
        assert damage is not None and damage.constant == constant["name"]
        assert damage.seen == -damage.wanted and damage.num_bytes == 1
        assert constant["offset"] <= damage.byte < constant["offset"] + constant["num_bytes"]
        kinds.add(constant["packing"].partition(".")[0])
        if constant["packing"] != "rope":
            _check_place(damage, tensors)
        else:
            assert "position " in damage.at and damage.readers[0] == "layers.0.attn"
        shutil.rmtree(damaged)
    assert kinds == {"p64", "row", "rope"}


def _check_place(damage: Damage, tensors: dict[str, np.ndarray]) -> None:
    """The number wanted is the one that the checkpoint has at the place that is named."""
    source, place = damage.at.split(", ", 1) if not damage.at.startswith("row ") else (damage.constant, damage.at)
    row, column = (int(part.split()[1]) for part in place.split(", "))
    number = tensors[source].reshape(len(tensors[source]), -1)[row, column]
    assert damage.wanted == pytest.approx(float(number), rel=2**-8)
    assert damage.at in str(damage) and damage.readers[0] in str(damage)
