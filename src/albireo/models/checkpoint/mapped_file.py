"""A file of weights in memory, mapped: its bytes are read from disk when they are touched.

Used by safetensors_file.py and gguf/split.py. Does not know formats or tensors.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

import numpy as np

from albireo.errors import ModelError, WeightMismatch
from albireo.json_file import require_regular_file


class MappedFile:
    """Attributes:
        view: all bytes, read-only; parts of it keep the mapping alive.
        address: of the first byte, valid as long as a part of view is held.
        identity: what tells it, as it was when it was opened, from other files.

    Raises: ModelError for a file that cannot be mapped; WeightMismatch for one smaller than its head.
    """

    def __init__(self, path: Path, head_bytes: int, head: str) -> None:
        """Args: head_bytes: that every such file begins with; head: what they are, in words."""
        require_regular_file(path)
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                size = found.st_size
                if size < head_bytes:
                    raise WeightMismatch(f"{path}: has {size} bytes, less than {head}; it is truncated")
                self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ModelError(f"{path}: cannot be mapped: {error.strerror}") from error
        self._path, self._size = path, size
        self.identity = found.st_dev, found.st_ino, found.st_mtime_ns, size
        self.view = memoryview(self._map)
        self.address = int(np.frombuffer(self._map, np.uint8).ctypes.data)

    def part(self, start: int, stop: int) -> memoryview:
        """Bytes of it.

        Raises: WeightMismatch where the file has become shorter since: what is touched behind its end would end the
            process (SIGBUS); or was written to, which may be in the middle of these bytes. One that another took the
            place of, or that was removed, stays what it was.
        """
        now = self._map.size()
        if now < self._size:
            raise self._written(f"has {now} bytes now, {self._size} when it was opened")
        with contextlib.suppress(OSError):  # it is not there any more
            found = os.stat(self._path)
            identity = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
            if identity[:2] == self.identity[:2] and identity != self.identity:
                raise self._written("was written to since it was opened")
        return self.view[start:stop]

    def _written(self, what: str) -> WeightMismatch:
        return WeightMismatch(
            f"{self._path}: {what}; something writes to it: wait until that is done, and load again (a file that is "
            "written beside it and renamed to its name disturbs nobody)"
        )

    def release(self, start: int, stop: int) -> None:
        """Let the pages of these bytes go; they are read from the file again when touched."""
        if stop > start:
            page = start - start % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, page, stop - page)

    def close(self) -> None:
        """Give the mapping up; it goes when the last view of it does."""
        self.view.release()
        # BufferError: somebody still holds a tensor; the mapping is freed with its last view
        with contextlib.suppress(BufferError):
            self._map.close()
