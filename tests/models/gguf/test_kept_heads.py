"""Heads of files are read once in a start, and not kept behind it."""

from __future__ import annotations

import gc
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from albireo.models.checkpoint.mapped_file import MappedFile
from albireo.models.gguf.kept_heads import heads_kept, read_once


class Head:
    """What is read."""


def test_a_start_reads_a_file_once_whichever_thread_asks(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"1234")

    def read() -> Head:
        return read_once(MappedFile(path, 1, "a head").identity, Head)

    with ThreadPoolExecutor(4) as threads, heads_kept():
        found = list(threads.map(lambda _: read(), range(20)))
        assert len(set(map(id, found))) == 1
        os.utime(path, ns=(0, 7))
        assert read() is not found[0], "it was written anew"
        path.write_bytes(b"12345")
        os.utime(path, ns=(0, 7))
        with heads_kept():
            again = read()
        assert read() is again, "another start ended, this one has not"
        assert again is not found[0], "it has become longer"
        kept = weakref.ref(again)
        del again, found
    gc.collect()
    assert kept() is None
    assert read() is not read(), "no start, nothing is kept"


def test_a_head_is_kept_for_the_file_that_was_opened(tmp_path: Path) -> None:
    """Not for the one that has come to its path since, of the same size and time."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"1234")
    opened = MappedFile(path, 1, "a head")
    (tmp_path / "other").write_bytes(b"5678")
    (tmp_path / "other").rename(path)
    with heads_kept():
        first = read_once(opened.identity, lambda: bytes(opened.view))
        other = MappedFile(path, 1, "a head")
        assert (first, read_once(other.identity, lambda: bytes(other.view))) == (b"1234", b"5678")


def test_what_cannot_be_read_is_told_each_time() -> None:
    def read() -> None:
        raise ValueError("damaged")

    with heads_kept():
        for _ in range(2):
            with pytest.raises(ValueError, match="damaged"):
                read_once((1, 2, 3, 4), read)
