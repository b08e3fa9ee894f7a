"""Writing an engine directory such that a half-written one can never be taken for a whole one.

Called by api/build.py. Everything goes to a sibling directory, its manifest last; it is synced and then renamed. Does
not know what is in the files.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from albireo.artifact import layout
from albireo.artifact.manifest import FileEntry
from albireo.artifact.reader import is_engine_directory
from albireo.errors import ConfigError, ResourceError
from albireo.system import swap_directories, to_disk

_CHUNK = 8 << 20
#: What swap_directories() fails with where a file system cannot do that.
_CANNOT_SWAP = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


class EngineWriter:
    """Files of one build, in a directory nobody looks at until commit().

    Invariants: 1. the target is whole, old or absent at every moment; 2. no two writers share a target.
    """

    def __init__(self, target: Path, staging: Path, lock: int, force: bool) -> None:
        self._target = target
        self._staging = staging
        self._force = force
        self._locks = [lock]
        self.files: dict[str, FileEntry] = {}

    def write(self, name: str, data: bytes) -> None:
        """A small file."""
        path = self._path(name)
        with open(path, "wb") as file:
            file.write(data)
            _sync(file.fileno())
        self.files[name] = FileEntry(len(data), layout.sha256(data))

    def write_beside(self, name: str, data: bytes) -> None:
        """A small file that is no part of the build: the manifest does not list it."""
        self.write(name, data)
        del self.files[name]

    def write_large(self, name: str, data: memoryview, progress: Callable[[int], None]) -> None:
        """A large file; it is hashed while it is written. progress is called with the bytes just written."""
        with ThreadPoolExecutor(1, "albireo-hash") as beside, open(self._path(name), "wb", buffering=0) as file:
            digest = beside.submit(layout.sha256, data)
            for start in range(0, len(data), _CHUNK):
                part = data[start : start + _CHUNK]
                _write_all(file.fileno(), part)
                progress(len(part))
            _sync(file.fileno())
            self.files[name] = FileEntry(len(data), digest.result())

    def commit(self, manifest: bytes) -> None:
        """Write the manifest, and put the directory where it belongs in one step."""
        self.write(layout.MANIFEST, manifest)
        for folder in {self._staging, *(self._path(name).parent for name in self.files)}:
            _sync_directory(folder)
        check_target(self._target, self._force)
        if not self._target.exists():
            os.rename(self._staging, self._target)
        else:
            # Held, so that no other build takes the old directory for one to write in before it is removed.
            self._locks.append(_locked(self._target))
            _exchange(self._staging, self._target)
        _sync_directory(self._target.parent)

    def close(self) -> None:
        """Remove what is left: a build that failed, or after an exchange the old directory."""
        try:
            if any(os.path.samestat(os.fstat(lock), os.stat(self._staging)) for lock in self._locks):
                shutil.rmtree(self._staging, ignore_errors=True)
        except FileNotFoundError:
            pass  # renamed: nothing is left
        for lock in self._locks:
            os.close(lock)

    def _path(self, name: str) -> Path:
        path = self._staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@contextmanager
def engine_writer(target: Path, force: bool) -> Iterator[EngineWriter]:
    """A writer for target; whatever is left of the build when the block ends is removed.

    Raises: ConfigError when the target may not be replaced or another build writes it; ResourceError when the disk
    is full or refuses; the target is as it was then.
    """
    target = Path(os.path.abspath(target))
    check_target(target, force)
    staging = target.with_name(f".{target.name}.building")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = EngineWriter(target, staging, _lock(staging, target), force)
        try:
            _clear(staging)
            yield writer
        finally:
            writer.close()
    except OSError as error:
        raise ResourceError(
            f"{target}: cannot be written: {error.strerror or error}; nothing was changed. "
            "Make room or choose another place with -o"
        ) from error


def check_target(target: Path, force: bool) -> None:
    """Raises: ConfigError unless target is free, empty, or an engine directory that may be replaced."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ConfigError(f"{target} is no directory; choose another place with -o")
    if not target.exists() or not any(target.iterdir()):
        return
    if not is_engine_directory(target):
        raise ConfigError(f"{target} is not empty and no engine directory; it is not replaced, choose another with -o")
    if not force:
        raise ConfigError(f"{target} is there already; --force replaces it")


def file_entry(path: Path) -> FileEntry:
    """Size and hash of a file anywhere."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(size, digest.hexdigest())


def _lock(staging: Path, target: Path) -> int:
    """Make the staging directory and lock it; a lock dies with its process, so what a killed build left is no obstacle.

    Raises: ConfigError when another build holds it.
    """
    busy = f"another build is writing {target}; wait for it, or choose another place with -o"
    staging.mkdir(exist_ok=True)
    try:
        fd = _locked(staging)
    except (BlockingIOError, FileNotFoundError):
        raise ConfigError(busy) from None
    try:
        # The one who held it may have renamed or removed the directory in between.
        is_same = os.path.samestat(os.fstat(fd), os.stat(staging))
    except FileNotFoundError:
        is_same = False
    if not is_same:
        os.close(fd)
        raise ConfigError(busy)
    return fd


def _locked(folder: Path) -> int:
    """A locked descriptor. Raises: BlockingIOError when another holds it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise
    return fd


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _write_all(fd: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(fd, data) :]


def _sync(fd: int) -> None:
    to_disk(fd)


def _sync_directory(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        to_disk(fd)
    finally:
        os.close(fd)


def _exchange(new: Path, old: Path) -> None:
    """Swap two directories in one step, so that the name is never without a whole one."""
    try:
        swap_directories(new, old)
        return
    except OSError as error:
        if error.errno not in _CANNOT_SWAP:
            raise
    # A file system without exchange: the old one steps aside for an instant.
    aside = old.with_name(f".{old.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(old, aside)
    os.rename(new, old)
    shutil.rmtree(aside, ignore_errors=True)
