"""Whose tokens are being computed, in a file mapped into both processes: readable after the worker was killed.

Written by the worker before each step, read by the client when the worker is gone. Does not know what the keys mean.

Layout: number of keys, then the keys, 8 bytes little-endian each. Zero keys: nothing was being computed.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from pathlib import Path

#: Keys there is room for; of a larger step the first are kept.
MAX_KEYS = 8191


class Ledger:
    """The worker's side."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8 * (MAX_KEYS + 1))

    def note(self, keys: Sequence[int]) -> None:
        """Computing begins for these; none: it is over."""
        keys = keys[:MAX_KEYS]
        struct.pack_into(f"<{len(keys)}Q", self._memory, 8, *keys)
        struct.pack_into("<Q", self._memory, 0, len(keys))


def create(path: Path) -> None:
    """An empty ledger."""
    path.write_bytes(bytes(8 * (MAX_KEYS + 1)))


def read(path: Path) -> list[int]:
    """The keys in the ledger, each once; none when a worker took it away, as it does when it ends in order."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    (num,) = struct.unpack_from("<Q", data)
    return list(dict.fromkeys(struct.unpack_from(f"<{min(num, MAX_KEYS)}Q", data, 8)))
