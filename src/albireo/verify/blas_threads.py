"""Keeps numpy's matrix products on one thread while they are many and small.

Called by numerics.py. A product of a few rows takes less than a millisecond; two threads that must meet after each take
thirty where the machine is busy with something else. Where numpy has no OpenBLAS nothing changes but the speed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: OpenBLAS as it is built for numpy's wheels and by distributions.
_SYMBOLS = ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads")
_MAPS = Path("/proc/self/maps")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """One thread inside the block, as many as before behind it."""
    found = [pair for path in _libraries() if (pair := _controls(path)) is not None]
    before = [get() for get, _ in found]
    for _, put in found:
        put(1)
    try:
        yield
    finally:
        for (_, put), count in zip(found, before, strict=True):
            put(count)


def _libraries() -> set[str]:
    """Libraries of this process that may be OpenBLAS."""
    try:
        paths = {line.split(maxsplit=5)[-1].strip() for line in _MAPS.read_text().splitlines()}
    except OSError:
        return set()
    return {path for path in paths if "openblas" in Path(path).name.lower()}


def _controls(path: str) -> tuple[ctypes._NamedFuncPointer, ctypes._NamedFuncPointer] | None:
    """How to ask for and set the number of threads; None where the library is another one."""
    library = ctypes.CDLL(path)
    for name in _SYMBOLS:
        get, put = (getattr(library, name.format(verb), None) for verb in ("get", "set"))
        if get is not None and put is not None:
            return get, put
    return None
