"""BlockDirectory: contents of KV blocks in files, one each, named after the key of the block.

Given to the engine by api/prefix_files.py, which says for which model a folder is. Reading is done where it is asked
for, since computing again takes far longer; writing in a thread of its own, since nobody waits for it. A file is whole
or it is not there, and says so by a hash: what else lies in the folder is never taken for a block.

Several processes may share a folder. The oldest files go when all of them are larger than the limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from albireo.execution.runner import BlockContents

_LOG = logging.getLogger(__name__)

_BLOCK, _STATE = ".block", ".state"
#: What _path() makes, of a key with or without the number of its group; or a file of a process that writes it.
_NAME = re.compile(r"[0-9a-f]{64}([0-9a-f]{2})?\.(block|state|[0-9]+)")
_HASH_BYTES = 32
#: Bytes that wait for the thread; blocks that come while there are more are not kept.
MAX_WAITING_BYTES = 256 << 20
#: Most bytes that one request reads, which are in memory until its first step is done.
MAX_READ_BYTES = 2 << 30
#: What is left of the limit when files were removed, so that it is not done for each of them.
_LEFT = 0.9


class BlockDirectory:
    """Invariants: 1. what read() returns was written by keep(), to the byte; 2. what the system refuses is as if it
    were not there: a step asks, and most of its requests have nothing to do with it.

    Attributes: root: where all models' folders are, whose files count together.
    """

    def __init__(self, root: Path, model: str, contents: BlockContents, max_bytes: int) -> None:
        """Args: model: name of the model's own folder; contents: of its blocks and slots, which stay of their sizes."""
        self.root, self._folder = root, root / model
        self._contents, self._max_bytes = contents, max_bytes
        self._block_bytes = _size(contents.block_content(0))
        self._thread = ThreadPoolExecutor(1, "albireo-prefixes")
        self._lock = threading.Lock()
        self._waiting: set[Path] = set()
        self._num_waiting_bytes = 0
        self._num_bytes: int | None = None
        self._has_failed = False
        self._num_removals = 0

    # -- for the engine ------------------------------------------------------------------------------------------------

    def has(self, key: bytes) -> bool:
        """Whether there seems to be one."""
        return os.path.exists(self._path(key, _BLOCK))

    def read(self, keys: Sequence[bytes]) -> list[bytes]:
        """Contents of the leading ones that are there and whole; at most MAX_READ_BYTES of them."""
        found = []
        for key in keys[: MAX_READ_BYTES // max(1, self._block_bytes)]:
            content = self._read(self._path(key, _BLOCK), self._block_bytes)
            if content is None:
                break
            found.append(content)
        return found

    def keep(self, blocks: Sequence[tuple[bytes, int]]) -> None:
        """Have those written that are not there yet, in order, as long as the thread keeps up."""
        for key, block in blocks:
            self._keep(self._path(key, _BLOCK), partial(self._contents.block_content, block))

    def has_state(self, key: bytes) -> bool:
        """Whether there seems to be what layers carry on, behind the block of this key."""
        return os.path.exists(self._path(key, _STATE))

    def read_state(self, key: bytes) -> bytes | None:
        """The content of a slot; None where there is none that is whole."""
        return self._read(self._path(key, _STATE), _size(self._contents.state_content(0)))

    def keep_state(self, key: bytes, slot: int) -> None:
        """As keep(), the content of a slot."""
        self._keep(self._path(key, _STATE), partial(self._contents.state_content, slot))

    def remove(self) -> None:
        """Remove all of this model, what waits to be written, too. What cannot be removed is logged, and stays."""
        with self._lock:
            self._num_removals += 1
        self._thread.submit(self._recount).result()
        num_left = 0
        try:
            found = [path for _, _, path in self._files(self._folder)]
        except OSError as error:
            _LOG.warning("files of %s cannot be removed: %s", self._folder, error.strerror)
            return
        for path in found:
            try:
                path.unlink(missing_ok=True)
            except OSError:
                num_left += 1
        if num_left:
            _LOG.warning("%d files of %s cannot be removed", num_left, self._folder)

    def close(self) -> None:
        """Wait until all is written that was taken; nothing more is."""
        self._thread.shutdown()

    # -- files ---------------------------------------------------------------------------------------------------------

    def _path(self, key: bytes, suffix: str) -> Path:
        name = key.hex()
        return self._folder / name[:2] / (name + suffix)

    def _keep(self, path: Path, content: Callable[[], list[memoryview]]) -> None:
        with self._lock:
            is_behind = self._num_waiting_bytes >= MAX_WAITING_BYTES
            if is_behind or self._has_failed or path in self._waiting:
                return
        if os.path.exists(path):
            return
        copied = b"".join(content())
        with self._lock:
            self._waiting.add(path)
            self._num_waiting_bytes += len(copied)
            turn = self._num_removals
        self._thread.submit(self._write, path, copied, turn)

    def _read(self, path: Path, num_bytes: int) -> bytes | None:
        try:
            data = path.read_bytes()
        except OSError:
            return None
        content = data[_HASH_BYTES:]
        if len(content) != num_bytes or hashlib.sha256(content).digest() != data[:_HASH_BYTES]:
            _LOG.warning("%s is no whole block of this model, and is removed; its tokens are computed again", path)
            with contextlib.suppress(OSError):  # it stays where nothing can be changed, and is no block there either
                path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # it is of use: others are older
        return content

    def _write(self, path: Path, content: bytes, turn: int) -> None:
        """Args: turn: of how many removals it comes behind; nothing is written of what one more came behind."""
        try:
            if turn != self._num_removals:
                return
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}")
            with open(unfinished, "wb", opener=_private) as file:
                file.write(hashlib.sha256(content).digest())
                file.write(content)
            unfinished.replace(path)
            self._keep_within(_HASH_BYTES + len(content))
        except OSError as error:
            if not self._has_failed:
                _LOG.warning("prefixes are not kept any more: %s cannot be written (%s)", path.parent, error.strerror)
            self._has_failed = True
        finally:
            with self._lock:
                self._waiting.remove(path)
                self._num_waiting_bytes -= len(content)

    def _keep_within(self, num_new: int) -> None:
        """Note new bytes, and remove the oldest files where there are too many. Others may write meanwhile: it is
        counted again each time that files are removed."""
        if self._num_bytes is None:
            self._num_bytes = sum(size for _, size, _ in self._files())
        else:
            self._num_bytes += num_new
        if self._num_bytes <= self._max_bytes:
            return
        files = sorted(self._files())
        self._num_bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._num_bytes <= self._max_bytes * _LEFT:
                break
            path.unlink(missing_ok=True)
            self._num_bytes -= size

    def _recount(self) -> None:
        """Behind the file that is being written: the bytes there are change by more than what is written."""
        self._num_bytes = None

    def _files(self, folder: Path | None = None) -> Iterator[tuple[int, int, Path]]:
        """(when it was last of use, bytes, path) of each, of all models, or of one's folder; also what a killed process
        left unfinished.

        What else lies in the folder, or in folders like these, is somebody's: it is neither counted nor removed.
        """
        inside = "[0-9a-f][0-9a-f]/*"
        for path in self.root.glob(f"*/{inside}") if folder is None else folder.glob(inside):
            if _NAME.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    found = path.stat()
                    yield found.st_mtime_ns, found.st_size, path


def _size(parts: list[memoryview]) -> int:
    return sum(map(len, parts))


def _private(path: str, flags: int) -> int:
    """For this user alone: a block tells something of the text it was computed of."""
    return os.open(path, flags, 0o600)
