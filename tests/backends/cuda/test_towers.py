"""Vision towers as programs of the executor for GPUs, interpreted, beside transformers and the CPU's kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_hearers
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.open import open_model
from albireo.backends.weights import Weights
from albireo.errors import OutOfMemory
from albireo.execution.vision import VisionRunner, num_blocks
from albireo.graph.program import Program
from tiny_towers import FAMILIES, farthest, opened, opened_by, save, tiles, transformers_rows

#: One of each kind of tower.
NAMES = (
    "gemma3",
    "gemma4",
    "gemma4_unified",
    "glm4v",
    "glm_ocr",
    "got_ocr2",
    "idefics3",
    "internvl",
    "lfm2_vl",
    "llava_next",
    "cohere2_vision",
    "minicpmv4_6",
    "mistral3",
    "ovis2",
    "paddleocr_vl",
    "qwen2_5_vl",
    "qwen3_vl",
)
#: Of these in bfloat16: kernels of a type are the same for all towers.
ROUNDED = ("idefics3", "internvl")


def layers(name: str) -> dict[str, Any]:
    """Two are as many as differ: of qwen2_5_vl the first sees windows, the second all."""
    vision = FAMILIES[name].vision
    changes: dict[str, Any] = {key: 2 for key in ("num_hidden_layers", "depth") if key in vision}
    return changes | ({"fullatt_block_indexes": [1]} if "fullatt_block_indexes" in vision else {})


def open_program(program: Program, weights: Weights) -> CudaModel:
    return open_model(
        program,
        weights,
        num_blocks=num_blocks(program),
        max_positions=program.maxima["T"],
        is_tower=True,
        is_eager=True,
        device=torch.device("cpu"),
    )


def on_gpu(folder: Path, dtype: str, max_patches: int = 160) -> VisionRunner:
    return opened_by(open_program, CudaCatalog(90), folder, dtype, max_patches)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of exp in gelu's tanh form, where it gives the limit
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in NAMES if name not in ROUNDED),
        *((name, "bfloat16") for name in ROUNDED),
        *(pytest.param(name, "float32", marks=pytest.mark.thorough) for name in ROUNDED),
    ],
)
def test_as_near_to_exact_as_transformers(name: str, dtype: str, tmp_path: Path) -> None:
    """All layers of a tower write one layer of keys and values; rows see all of a tile."""
    folder, given = save(tmp_path, name, dtype, **layers(name)), tiles(name)[-1:]
    exact, theirs = (transformers_rows(folder, name, each, given) for each in ("float64", dtype))
    runner = on_gpu(folder, dtype)
    ours = [runner.rows(tile) for tile in given]
    noise = farthest(theirs, exact)
    assert farthest(ours, exact) < noise * (4 if dtype == "float32" else 1.2)
    cpu = opened(folder, dtype)
    assert farthest(ours, [cpu.rows(tile).astype(np.float64) for tile in given]) < noise * 4


def test_a_gpu_without_room_for_the_largest_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albireo.backends.cuda.model.blocks_that_fit", lambda wanted, *rest: wanted - 1)
    with pytest.raises(OutOfMemory, match="room for 10 of the 11 blocks of its largest tile"):
        on_gpu(save(tmp_path, "idefics3"), "float32")


def test_bits_do_not_depend_on_tiles_before_nor_on_what_is_planned(tmp_path: Path) -> None:
    folder, (_, first, second) = save(tmp_path, "mistral3", "bfloat16"), tiles("mistral3")
    runner = on_gpu(folder, "bfloat16")
    alone = runner.rows(second)
    kept = alone.copy()
    runner.rows(first)
    assert np.array_equal(runner.rows(second), kept) and np.array_equal(alone, kept)
    assert np.array_equal(on_gpu(folder, "bfloat16", 300).rows(second), kept)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of exp in silu, where it gives the limit
@pytest.mark.parametrize("name", list(tiny_hearers.FAMILIES))
def test_towers_that_hear(name: str, tmp_path: Path) -> None:
    """Their stems are programs of the executor, too."""
    folder = tiny_hearers.save(tmp_path, name)
    given = tiny_hearers.tiles(folder, tiny_hearers.sound(0.77))[:1]
    kinds = ("float64", "float32")
    exact, theirs = (tiny_hearers.Theirs(folder, name, kind).rows(tiny_hearers.sound(0.77)) for kind in kinds)
    ours = tiny_hearers.opened_by(open_program, CudaCatalog(90), folder, "float32").rows(given[0])
    assert farthest([ours], [exact]) < 4 * farthest([theirs], [exact])
