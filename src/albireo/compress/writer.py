"""Writes a checkpoint directory: tensors one by one as they come, then config.json and what is copied, then the name.

Called by run.py. Everything goes to a sibling directory; it is synced and renamed at the end, so that a directory of
this name is whole or absent.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from albireo.compress.compressed_tensors import Stored
from albireo.errors import ConfigError, InvariantError, ResourceError
from albireo.models.checkpoint.safetensors_files import SINGLE_FILE
from albireo.quantization.methods.progressive import METADATA_KEY
from albireo.system import to_disk

#: Files beside the weights that a model directory is not whole without; config.json is written anew.
_COPIED = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.md", "LICENSE*", "NOTICE*")
_NOT_COPIED = ("config.json", "model.safetensors.index.json", "quantization.json", "quantization.html")
#: Bytes of header for one tensor beside its name.
_ENTRY = 160


class CheckpointWriter:
    """One directory that is being written. folder: where, until the end."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        """names: of all tensors that will be written, or more: room for the header is kept by them."""
        self.folder = folder
        self._entries: dict[str, dict[str, Any]] = {}
        #: the header's metadata beside the format's own
        self.metadata: dict[str, str] = {}
        room = 64 + len(METADATA_KEY) + sum(_ENTRY + 2 * len(json.dumps(name)) for name in names)
        self._header = -(-(8 + room) // 64) * 64 - 8
        self._file = (folder / SINGLE_FILE).open("wb")
        self._file.seek(8 + self._header)
        self._position = 0

    @property
    def num_bytes(self) -> int:
        """Of tensors so far."""
        return self._position

    def add(self, name: str, tensor: Stored) -> None:
        """Write a tensor behind those before it."""
        if name in self._entries:
            raise InvariantError(f"tensor {name} is written twice")
        size = memoryview(tensor.data).nbytes
        offsets = [self._position, self._position + size]
        self._entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        self._file.write(tensor.data)
        self._position += size

    def finish(self) -> None:
        """Write the header; spaces fill the room that was kept for it, as the format allows."""
        header = json.dumps(
            {"__metadata__": {"format": "pt", **self.metadata}, **self._entries}, separators=(",", ":")
        ).encode()
        if len(header) > self._header:
            raise InvariantError(f"a header of {len(header)} bytes, room was kept for {self._header}")
        self._file.seek(0)
        self._file.write(self._header.to_bytes(8, "little") + header.ljust(self._header))
        self._file.flush()
        to_disk(self._file.fileno())
        self._file.close()

    def write(self, name: str, data: bytes) -> None:
        """A small file beside the weights."""
        with open(self.folder / name, "wb") as file:
            file.write(data)
            file.flush()
            to_disk(file.fileno())

    def copy_from(self, source: Path) -> None:
        """Tokenizer, generation settings, licence: everything small that is no weight."""
        for path in sorted({path for pattern in _COPIED for path in source.glob(pattern)}):
            if path.name not in _NOT_COPIED and path.is_file():
                self.write(path.name, path.read_bytes())

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def check_target(target: Path) -> None:
    """Raises: ConfigError unless target is free or an empty directory."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ConfigError(f"{target} is no directory; choose another place with -o")
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"{target} is not empty; it is not replaced, choose another place with -o")


@contextmanager
def checkpoint_writer(target: Path, names: list[str]) -> Iterator[CheckpointWriter]:
    """A writer for target. The directory is there when the block ends, and not at all when it is left by an error.

    Raises: ConfigError when the target may not be written; ResourceError when the disk is full or refuses.
    """
    target = Path(os.path.abspath(target))
    check_target(target)
    staging = target.with_name(f".{target.name}.{os.getpid()}.quantizing")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            with CheckpointWriter(staging, names) as writer:
                yield writer
            _sync(staging)
            check_target(target)
            os.rename(staging, target)
            _sync(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise ResourceError(
            f"{target}: cannot be written: {error.strerror or error}; nothing was changed. "
            "Make room or choose another place with -o"
        ) from error


@contextmanager
def passing_directory(target: Path) -> Iterator[Path]:
    """A place beside target for a checkpoint that something else is made of; gone when the block ends.

    Raises: ResourceError when the disk refuses.
    """
    target = Path(os.path.abspath(target))
    folder = target.with_name(f".{target.name}.{os.getpid()}.checkpoint")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be written: {error.strerror or error}; choose another -o") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def config_bytes(original: Mapping[str, Any], quantization: Mapping[str, Any], is_untied: bool) -> bytes:
    """config.json of the new checkpoint."""
    config = {**original, "quantization_config": quantization}
    if is_untied:
        config["tie_word_embeddings"] = False
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        to_disk(fd)
    finally:
        os.close(fd)
