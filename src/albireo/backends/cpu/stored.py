"""Constants that were packed earlier: from memory into a file's layout, and from a file back into memory.

Called by api/build.py (image) and by model.py (read_stored). Reading is one pass at disk speed; nothing is packed. What
several processes share is mapped: the pages of the file's cache are everybody's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.cpu.pack import ALIGN, constant_offsets, pack_constants, padded_bytes, write_rope_table
from albireo.backends.stored_weights import StoredWeights
from albireo.backends.weights import Weights
from albireo.errors import Corrupt
from albireo.graph.program import PackedConstant

#: Two readers keep a disk, or the memory behind a warm page cache, busy; more gain nothing.
NUM_READERS = 2
_CHUNK = 8 << 20


@dataclass(frozen=True, slots=True)
class Image:
    """All constants of a program as they lie in memory; offsets by name. A file of these bytes can be read back."""

    memory: _native.Memory
    offsets: Mapping[str, int]

    @property
    def data(self) -> memoryview:
        return self.memory.view().data


def image_bytes(constants: Mapping[str, PackedConstant]) -> int:
    """Size of an Image."""
    return constant_offsets(constants)[1]


def empty_image(constants: Mapping[str, PackedConstant]) -> Image:
    """Room for constants, zeros."""
    offsets, num_bytes = constant_offsets(constants)
    return Image(_native.Memory(num_bytes), offsets)


def pack_image(
    pool: _native.ThreadPool,
    constants: Mapping[str, PackedConstant],
    weights: Weights,
    progress: Callable[[int], None],
) -> Image:
    """Pack everything. progress is called with the bytes just finished."""
    image = empty_image(constants)
    pack_constants(pool, constants, weights, image.memory, image.offsets, progress)
    return image


def read_stored(
    stored: StoredWeights,
    constants: Mapping[str, PackedConstant],
    memory: _native.Memory,
    offsets: Mapping[str, int],
    progress: Callable[[int], None],
) -> None:
    """Fill memory from a file.

    Args: offsets: of each constant in memory. progress is called with the bytes just read.
    Raises: Corrupt when the file ends too early.
    """
    runs: list[tuple[int, int, int]] = []
    for name, constant in constants.items():
        if not stored.has(constant):
            write_rope_table(constant, memory, offsets[name])
            progress(constant.num_bytes)
            continue
        _append(runs, stored.offsets[name], offsets[name], constant.num_bytes)
    view = memory.view()
    fd = os.open(stored.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        mapped = [run for run in runs if stored.is_shared and run[0] % ALIGN == 0]
        _map(fd, mapped, memory)
        with ThreadPoolExecutor(NUM_READERS, "albireo-read") as readers:
            for num_bytes in readers.map(lambda run: _touch(view, *run), _chunks(mapped)):
                progress(num_bytes)
            others = [run for run in runs if run not in mapped]
            for num_bytes in readers.map(lambda run: _read(fd, view, *run), _chunks(others)):
                progress(num_bytes)
    finally:
        os.close(fd)


def _append(runs: list[tuple[int, int, int]], source: int, target: int, num_bytes: int) -> None:
    """Add a run, joined with the last where nothing but its padding lies between them in the file and in memory."""
    if runs:
        first_source, first_target, length = runs[-1]
        step = source - first_source
        if step == padded_bytes(length) and target - first_target == step:
            runs[-1] = (first_source, first_target, step + num_bytes)
            return
    runs.append((source, target, num_bytes))


def _chunks(runs: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    for source, target, num_bytes in runs:
        for start in range(0, num_bytes, _CHUNK):
            yield source + start, target + start, min(_CHUNK, num_bytes - start)


def _map(fd: int, runs: list[tuple[int, int, int]], memory: _native.Memory) -> None:
    """Raises: Corrupt when the file ends too early: its missing pages would kill who touches them."""
    size = os.fstat(fd).st_size
    for source, target, num_bytes in runs:
        if source + num_bytes > size:
            raise Corrupt(f"the weights file ends at byte {size}; it was truncated while it was read")
        memory.map(fd, source, target, num_bytes)


def _touch(view: NDArray[np.uint8], source: int, target: int, num_bytes: int) -> int:
    """Have the disk read what was mapped now, and not in the first step."""
    np.bitwise_or.reduce(view[target : target + num_bytes : ALIGN])
    return num_bytes


def _read(fd: int, view: NDArray[np.uint8], source: int, target: int, num_bytes: int) -> int:
    done = 0
    while done < num_bytes:
        got = os.preadv(fd, [view[target + done : target + num_bytes].data], source + done)
        if got == 0:
            raise Corrupt(f"the weights file ends at byte {source + done}; it was truncated while it was read")
        done += got
    return num_bytes
