"""What hastens Triton's interpreter changes no bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import triton.language as tl
from triton.runtime import interpreter

from backends.cuda import interpreter_tapes
from backends.cuda.interpreter_plans import CONVERT
from backends.cuda.operations import PLANES, computed, ways


@pytest.fixture(scope="module")
def as_it_is(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    path = tmp_path_factory.mktemp("interpreter") / "as_it_is.npz"
    subprocess.run([sys.executable, Path(__file__).with_name("operations.py"), path], check=True)
    return dict(np.load(path))


def test_operations_give_the_bits_of_the_interpreter_as_it_is(
    as_it_is: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are interpreted, and written down; and from the tape."""
    assert np.count_nonzero(as_it_is["computed"].any(axis=(1, 2))) > PLANES - 2
    for _ in range(interpreter_tapes._BEFORE + 2):
        assert np.array_equal(computed(), as_it_is["computed"])
    monkeypatch.setattr(interpreter_tapes, "_write", lambda *args: pytest.fail("all was written"))
    assert np.array_equal(computed(), as_it_is["computed"])


def test_ways_through_a_kernel_give_the_bits_of_the_interpreter_as_it_is(
    as_it_is: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loops, branches and counters of several programs; those that were here go on from the tape."""
    assert len(np.unique(as_it_is["ways"])) > 60
    for _ in range(interpreter_tapes._BEFORE + 2):
        assert np.array_equal(ways(), as_it_is["ways"])
    monkeypatch.setattr(interpreter_tapes, "_write", lambda *args: pytest.fail("all was written"))
    assert np.array_equal(ways(), as_it_is["ways"])


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (tl.bfloat16, tl.float32),
        (tl.float8e4nv, tl.float32),
        (tl.float8e4nv, tl.float16),
        (tl.float8e4nv, tl.bfloat16),
    ],
)
def test_every_number_of_few_bits_is_converted_alike(source: tl.dtype, target: tl.dtype) -> None:
    every = np.arange(1 << source.primitive_bitwidth).astype(f"uint{source.primitive_bitwidth}")
    data = every.reshape(16, -1)[:, ::-1]
    ours, theirs = (convert(data, source, target, None) for convert in (interpreter._convert_float, CONVERT))
    assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype


def test_numbers_of_32_bits_are_converted_alike() -> None:
    rng = np.random.default_rng(2)
    for bits in (rng.integers(0, 1 << 32, (64, 64), np.uint32), rng.integers(0, 1 << 24, (8, 64), np.uint32)):
        data = bits.view(np.float32)
        ours = interpreter._convert_float(data, tl.float32, tl.bfloat16, None)
        assert np.array_equal(ours, CONVERT(data, tl.float32, tl.bfloat16, None))
