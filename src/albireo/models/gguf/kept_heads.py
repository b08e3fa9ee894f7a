"""Heads of GGUF files, each read once in a start, which asks four times: settings, encodings, weights, tokenizer.

Used by api/load.py, which says while what lasts, and by split.py. A head has hundreds of thousands of strings: it is
not kept longer. Does not know what a head is.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_lock = threading.Lock()
#: What is kept, by what tells one file from another, and how many starts want it to be.
_kept: dict[tuple[int, ...], Any] = {}
_starts: list[object] = []


@contextlib.contextmanager
def heads_kept() -> Iterator[None]:
    """Within, read_once() reads no file twice, whichever thread asks; behind the last, nothing is left."""
    start = object()
    with _lock:
        _starts.append(start)
    try:
        yield
    finally:
        with _lock:
            _starts.remove(start)
            if not _starts:
                _kept.clear()


def read_once(file: tuple[int, ...], read: Callable[[], T]) -> T:
    """What read() gives, or gave for the same file; who gets it must not change it.

    Args: file: the identity of the MappedFile that is read. What lies at its path may be another file by now.
    Raises: what read() does, each time anew.
    """
    if not _starts:
        return read()
    with _lock:
        if not _starts:  # the last has just ended
            return read()
        if file not in _kept:
            _kept[file] = read()
        kept: T = _kept[file]
        return kept
