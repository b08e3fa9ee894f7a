"""What hastens Triton's interpreter changes no bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import triton.language as tl
from triton.runtime import interpreter

from backends.cuda.interpreter_plans import CONVERT
from backends.cuda.operations import PLANES, computed


def test_operations_give_the_bits_of_the_interpreter_as_it_is(tmp_path: Path) -> None:
    """Twice: the second time by what the first one found."""
    subprocess.run([sys.executable, Path(__file__).with_name("operations.py"), tmp_path / "as_it_is.npy"], check=True)
    as_it_is = np.load(tmp_path / "as_it_is.npy")
    assert np.count_nonzero(as_it_is.any(axis=(1, 2))) > PLANES - 2
    for _ in range(2):
        assert np.array_equal(computed(), as_it_is)


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
