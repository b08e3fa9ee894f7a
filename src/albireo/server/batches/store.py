"""What there is on the disk: files with what they are called, and batches with how far they are.

Used by runner.py and the endpoints. Does not run anything.

    DIR/files/file-….data, .json      a file, and its object; the object is written last and removed first
    DIR/batches/batch_….json          a batch
    DIR/batches/batch_….output, .errors   its results, until they are files
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from pathlib import Path
from typing import TypeVar

import msgspec

from albireo.errors import ConfigError
from albireo.server.batches.durable import Lock, sync_directory, write_whole
from albireo.server.errors import HttpError
from albireo.server.protocol.batches import OVER, Batch, FileObject

T = TypeVar("T")

#: Most files, and most batches that are not over.
MAX_FILES, MAX_OPEN = 10_000, 100
FILE_ID = re.compile(r"file-[0-9a-f]{32}")
BATCH_ID = re.compile(r"batch_[0-9a-f]{32}")
_UPLOAD = ".upload"


class Record(msgspec.Struct):
    """A batch, with what its owner is not told.

    Fields:
        output_id, error_id: of the files that its results become.
        is_checked: its input is known to be requests.
        outcome: what it becomes once its results are files; None: they are not all there.
    """

    batch: Batch
    output_id: str
    error_id: str
    is_checked: bool = False
    outcome: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing changes any more."""
        return self.batch.status in OVER


class Store:
    """A directory that one process has. Invariant: what it was told to keep is on the disk when it has returned.

    Attributes: files, records: by id; ids ascend in order of creation, since they begin with the time.
    """

    def __init__(self, directory: Path) -> None:
        """Open it, or make it; blocks. Raises: ConfigError."""
        self.files: dict[str, FileObject] = {}
        self.records: dict[str, Record] = {}
        self._files, self._batches = directory / "files", directory / "batches"
        self._saving = asyncio.Lock()
        self._last_ns = 0
        try:
            for path in (directory, self._files, self._batches):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = Lock(directory / "lock", f"batch_dir={directory}")
            self._load()
        except OSError as error:
            raise ConfigError(
                f"batch_dir={directory} cannot be used ({error.strerror or error}); name a directory to write to"
            ) from None

    def _load(self) -> None:
        for path in sorted(self._batches.glob("batch_*.json")):
            self.records[path.stem] = _read(path, Record)
        for path in sorted(self._files.glob("file-*.json")):
            self.files[path.stem] = _read(path, FileObject)
        to_be = {name for record in self.open_records() for name in (record.output_id, record.error_id)}
        for path in (*self._files.iterdir(), *self._batches.iterdir()):
            # Left by a crash: what was written aside, an upload that did not end, a file without its object.
            is_lost = path.suffix == ".data" and path.stem not in self.files and path.stem not in to_be
            if is_lost or path.suffix in (".tmp", _UPLOAD):
                path.unlink()

    def release(self) -> None:
        """Let another process have it."""
        self._lock.release()

    def new_id(self, prefix: str) -> str:
        """One that is behind all others."""
        self._last_ns = max(self._last_ns + 1, time.time_ns())
        return f"{prefix}{self._last_ns:016x}{secrets.token_hex(8)}"

    # -- files ---------------------------------------------------------------------------------------------------------

    def file(self, file_id: str, param: str | None = None) -> FileObject:
        """Raises: HttpError 404."""
        found = self.files.get(file_id)
        if found is None:
            raise HttpError(404, f"there is no file {file_id!r:.80}", param=param, code="file_not_found")
        return found

    def content(self, file_id: str) -> Path:
        """Where the bytes of a file are."""
        return self._files / f"{file_id}.data"

    def new_upload(self) -> Path:
        """Where the bytes of a file may be gathered. Raises: HttpError when there are too many files."""
        if len(self.files) >= MAX_FILES:
            raise HttpError(
                400,
                f"there are {len(self.files)} files, at most {MAX_FILES} are kept; delete some",
                code="too_many_files",
            )
        return self._files / f"{secrets.token_hex(16)}{_UPLOAD}"

    async def keep_upload(self, upload: Path, filename: str) -> FileObject:
        """Make what was gathered, and synced, a file."""
        made = FileObject(self.new_id("file-"), upload.stat().st_size, int(time.time()), filename, "batch")
        await asyncio.to_thread(self._keep, upload, made)
        return made

    def _keep(self, source: Path, made: FileObject) -> None:
        os.replace(source, self.content(made.id))
        self._write_object(made)

    def _write_object(self, made: FileObject) -> None:
        write_whole(self._files / f"{made.id}.json", msgspec.json.encode(made))
        self.files[made.id] = made

    async def drop_file(self, file_id: str) -> None:
        """There is no such file any more."""
        del self.files[file_id]

        def drop() -> None:
            (self._files / f"{file_id}.json").unlink(missing_ok=True)
            sync_directory(self._files)
            self.content(file_id).unlink(missing_ok=True)

        await asyncio.to_thread(drop)

    # -- batches -------------------------------------------------------------------------------------------------------

    def open_records(self) -> list[Record]:
        """Those that are not over, the oldest first."""
        return [record for record in self.records.values() if not record.is_over]

    def record(self, batch_id: str) -> Record:
        """Raises: HttpError 404."""
        found = self.records.get(batch_id)
        if found is None:
            raise HttpError(404, f"there is no batch {batch_id!r:.80}", code="batch_not_found")
        return found

    async def save(self, record: Record) -> None:
        """Keep a batch as it is now."""
        async with self._saving:  # so that the last to be written is the newest
            path, data = self._batches / f"{record.batch.id}.json", msgspec.json.encode(record)
            await asyncio.to_thread(write_whole, path, data)

    def results(self, record: Record) -> tuple[Path, Path]:
        """Where answers and errors of a batch are gathered."""
        name = record.batch.id
        return self._batches / f"{name}.output", self._batches / f"{name}.errors"

    async def keep_results(self, record: Record) -> None:
        """Make files of what was gathered, but for nothing. May be done again after a crash."""
        batch = record.batch
        ids = (record.output_id, record.error_id)
        kept = []
        for path, file_id, kind in zip(self.results(record), ids, ("output", "error"), strict=True):
            made = FileObject(file_id, 0, int(time.time()), f"{batch.id}_{kind}.jsonl", "batch_output")
            kept.append(file_id if await asyncio.to_thread(self._keep_result, path, made) else None)
        batch.output_file_id, batch.error_file_id = kept

    def _keep_result(self, source: Path, made: FileObject) -> bool:
        if source.exists():
            if not source.stat().st_size:
                source.unlink()
                return False
            os.replace(source, self.content(made.id))
            sync_directory(source.parent)
        if not self.content(made.id).exists():
            return False
        if made.id not in self.files:
            made.bytes = self.content(made.id).stat().st_size
            self._write_object(made)
        return True


def _read(path: Path, kind: type[T]) -> T:
    """Raises: ConfigError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"batch_dir: {path} cannot be read ({error!s:.200}); move it away") from None
