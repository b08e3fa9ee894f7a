"""Whose tokens and grammars are being made, in a file mapped into both processes: readable after the worker was killed.

Written by the worker before each step and compilation, read by the client when the worker is gone. Does not know what
the keys mean.

Layout: two lists, of grammars and of tokens; each the number of its keys, then room for them, 8 bytes little-endian
each. Zero keys: nothing was being made.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from pathlib import Path

#: Keys there is room for; of a larger step the first are kept.
MAX_KEYS = 8175
#: As many grammars may be compiled at one time.
MAX_COMPILED = 15
_SIZE = 8 * (1 + MAX_COMPILED + 1 + MAX_KEYS)
_TOKENS = 8 * (1 + MAX_COMPILED)


class Ledger:
    """The worker's side."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SIZE)

    def note(self, keys: Sequence[int]) -> None:
        """Computing begins for these; none: it is over."""
        self._write(_TOKENS, keys[:MAX_KEYS])

    def note_compiled(self, keys: Sequence[int]) -> None:
        """The grammars of these are being compiled. One thread at a time calls it, beside note()."""
        self._write(0, keys[:MAX_COMPILED])

    def _write(self, place: int, keys: Sequence[int]) -> None:
        struct.pack_into(f"<{len(keys)}Q", self._memory, place + 8, *keys)
        struct.pack_into("<Q", self._memory, place, len(keys))


def create(path: Path) -> None:
    """An empty ledger."""
    path.write_bytes(bytes(_SIZE))


def read(path: Path) -> list[int]:
    """The keys in the ledger, each once; none when a worker took it away, as it does when it ends in order."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    return list(dict.fromkeys([*_keys(data, _TOKENS, MAX_KEYS), *_keys(data, 0, MAX_COMPILED)]))


def _keys(data: bytes, place: int, limit: int) -> tuple[int, ...]:
    (num,) = struct.unpack_from("<Q", data, place)
    return struct.unpack_from(f"<{min(num, limit)}Q", data, place + 8)
