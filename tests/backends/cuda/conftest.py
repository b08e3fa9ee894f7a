"""Kernels run in Triton's interpreter here, on CPU tensors; that is decided before they are imported."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

# tiles are small: threads that share one wait for each other, and spin, for longer than it takes
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import pytest

pytest.importorskip("triton", reason="the CUDA backend needs Triton, which is there for Linux only")

import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

if not isinstance(tl.sum, InterpretedFunction):
    raise pytest.UsageError("Triton was imported before its interpreter was asked for: start with TRITON_INTERPRET=1")

from backends.cuda.interpreter import hasten

hasten()

_M_MMAP_THRESHOLD = -3
if hasattr(ctypes.CDLL(None), "mallopt"):
    # glibc raises it as large arrays come and go. What a model has room for, and no test touches, would then be written
    # with zeros; fresh memory is zero.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)

_HERE = Path(__file__).parent
#: Begin what other processes do, and wait for nothing; and what waits for these.
_FIRST = (
    "test_every_kernel_file_has_cases",
    "test_each_part_is_in_one_call_of_ten_minutes",
    "test_nobody_waits_for_what_is_compiled",
)
_LAST = ("test_every_part_runs", "test_a_step_leaves_its_kernels_for_whoever_serves")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`pytest -m cuda` is this folder. Kernels are compiled, and a script runs, beside its other tests: begun first,
    looked at last."""
    places = [place for place, item in enumerate(items) if _HERE in item.path.parents]
    for place, item in zip(places, sorted((items[place] for place in places), key=_turn), strict=True):
        item.add_marker(pytest.mark.cuda)
        items[place] = item


def _turn(item: pytest.Item) -> int:
    if item.name in _FIRST:
        return 0
    return 2 if item.name in _LAST or item.path.name == "test_aot.py" else 1


@pytest.fixture(autouse=True, scope="module")
def _tapes_are_kept() -> Iterator[None]:
    """Tapes stay until the end, objects by the million: each is looked at for garbage once, behind a file's tests."""
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, 1 << 30)
    yield
    gc.set_threshold(young, middle, old)
    gc.collect()
    gc.freeze()


@pytest.fixture
def ordered_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    """tl.dot that adds up each element in one order, as a GPU does.

    The interpreter's is a BLAS library's, where an element's bits depend on how many rows there are beside it.
    """
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def create_dot(self, a, b, acc, input_precision, max_num_imprecise_acc):  # type: ignore[no-untyped-def]
        product = np.einsum("mk,kn->mn", a.data, b.data, dtype=acc.data.dtype)
        return TensorHandle(product + acc.data, acc.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
