"""Heads of files are read once in a start, and not kept behind it."""

from __future__ import annotations

import gc
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from albireo.models.gguf.kept_heads import heads_kept, read_once


class Head:
    """What is read."""


def test_a_start_reads_a_file_once_whichever_thread_asks(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"1234")
    with ThreadPoolExecutor(4) as threads, heads_kept():
        found = list(threads.map(lambda _: read_once(path, 4, Head), range(20)))
        assert len(set(map(id, found))) == 1
        assert read_once(path, 3, Head) is not found[0], "it was mapped when it was shorter"
        os.utime(path, ns=(0, 7))
        assert read_once(path, 4, Head) is not found[0], "it was written anew"
        with heads_kept():
            again = read_once(path, 4, Head)
        assert read_once(path, 4, Head) is again, "another start ended, this one has not"
        kept = weakref.ref(again)
        del again, found
    gc.collect()
    assert kept() is None
    assert read_once(path, 4, Head) is not read_once(path, 4, Head), "no start, nothing is kept"


def test_what_cannot_be_read_is_told_each_time(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"1234")

    def read() -> None:
        raise ValueError("damaged")

    with heads_kept():
        for _ in range(2):
            with pytest.raises(ValueError, match="damaged"):
                read_once(path, 4, read)
