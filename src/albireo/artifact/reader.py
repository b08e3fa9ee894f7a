"""An engine directory, read and validated: nothing of it is used before it was checked.

Called by api/. Hashes of every file but the weights are always checked, those of the weights when asked. Does not
compile and does not read weights into place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albireo.artifact import layout
from albireo.artifact.graph_json import graph_from_json
from albireo.artifact.manifest import FileEntry, Manifest, manifest_from_json
from albireo.artifact.program_json import StoredConstant, program_from_json
from albireo.artifact.record import Record
from albireo.encodings import encoding, is_encoding
from albireo.errors import Corrupt, EngineFileError, ModelError, TargetMismatch, UnsupportedModel, VersionMismatch
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.json_file import parse_json, require_regular_file
from albireo.system import will_read_once

_CHUNK = 8 << 20
#: A graph of a thousand layers has about 20 MB; a tokenizer.json of 260,000 tokens 35 MB.
MAX_FILE_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class RankFiles:
    """The weights of one rank. stored: where each constant lies in the file; within it, and no two overlap."""

    weights: Path
    stored: dict[str, StoredConstant]


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """A validated engine directory.

    Fields:
        program: of the build, of rank 0; for showing and for comparing, see program_json.py.
        ranks: one at least.
        identity: device and number of the directory, which a build that replaces it changes.
    """

    directory: Path
    manifest: Manifest
    graph: Graph
    program: Program
    ranks: tuple[RankFiles, ...]
    identity: tuple[int, int]

    @property
    def stored(self) -> dict[str, StoredConstant]:
        """The constants of rank 0."""
        return self.ranks[0].stored

    @property
    def config(self) -> Path:
        """Directory of config.json and generation_config.json."""
        return self.directory / layout.CONFIG

    @property
    def vision(self) -> Path | None:
        """Directory of the tensors of what reads images; None where there are none."""
        return (self.directory / layout.VISION).parent if layout.VISION in self.manifest.files else None

    def check_unchanged(self) -> None:
        """Raises: Corrupt when another build took the place of this one since it was opened."""
        if _identity(self.directory) != self.identity:
            raise Corrupt(f"{self.directory}: was replaced by another build while it was read; start again")

    def verify_weights(self) -> None:
        """Hash the weights. Raises: Corrupt naming the first damaged constant. Cost: about 1 s a GB."""
        with hinting(self.directory):
            for rank in self.ranks:
                _verify(rank, self.manifest.files[rank.weights.name].sha256)
            if self.vision is not None:
                path = self.vision / Path(layout.VISION).name
                if _file_sha256(path) != self.manifest.files[layout.VISION].sha256:
                    raise Corrupt(f"{path}: the hash is not the manifest's; the file was altered")


def is_engine_directory(directory: Path) -> bool:
    """Whether a directory is an engine directory rather than a checkpoint; it may still be damaged."""
    return (directory / layout.MANIFEST).exists() and not (directory / "config.json").exists()


def tokenizer_directory(directory: Path) -> Path:
    """Where the tokenizer of a model directory of either kind lies."""
    return directory / layout.TOKENIZER if is_engine_directory(directory) else directory


@contextmanager
def hinting(directory: Path) -> Iterator[None]:
    """Add to each refusal what to do. A file that cannot be read is a damaged directory too."""
    hint = layout.rebuild_hint(directory)
    try:
        yield
    except (EngineFileError, UnsupportedModel) as error:
        if layout.BUILD_COMMAND in str(error):
            raise
        raise type(error)(f"{error}; {hint}") from error
    except ModelError as error:
        raise Corrupt(f"{error}; {hint}") from error
    except OSError as error:
        said = str(error) if error.filename is None else f"{error.filename}: cannot be read: {error.strerror}"
        # built again by who may not read it, it would be as it is
        hint = "let this user read it" if isinstance(error, PermissionError) else hint
        raise Corrupt(f"{said}; {hint}") from error


def open_engine(directory: Path) -> EngineFiles:
    """Read everything but the weights.

    Raises: Corrupt, VersionMismatch, TargetMismatch, each with the reason and the command that mends it.
    Cost: about 40 ms for 24 layers and a tokenizer of 150,000 tokens.
    """
    with hinting(directory):
        path, identity = directory / layout.MANIFEST, _identity(directory)
        manifest = manifest_from_json(_json(path, _read(path)), str(path))
        files = {name: _checked(directory, name, entry) for name, entry in manifest.files.items()}
        _check_target(_document(directory, files, layout.TARGET))
        graph = graph_from_json(*_document(directory, files, layout.GRAPH))
        _check_rows(files[layout.PROGRAM], manifest.minor, directory)
        program, stored = program_from_json(*_document(directory, files, layout.PROGRAM))
        if len(stored) != manifest.options.tensor_parallel_size:
            raise Corrupt(
                f"{directory / layout.PROGRAM}: has constants of {len(stored)} ranks, manifest.json says "
                f"{manifest.options.tensor_parallel_size}"
            )
        ranks = tuple(RankFiles(directory / layout.weights_name(i), each) for i, each in enumerate(stored))
        for rank in ranks:
            _check_places(rank.stored, manifest.files[rank.weights.name].size, str(rank.weights))
            _check_codes(rank.stored, manifest.minor, directory)
        return EngineFiles(directory, manifest, graph, program, ranks, identity)


def _identity(directory: Path) -> tuple[int, int]:
    status = directory.stat()
    return status.st_dev, status.st_ino


def _document(directory: Path, files: dict[str, bytes], name: str) -> tuple[Any, str]:
    where = str(directory / name)
    return _json(directory / name, files[name]), where


def _json(path: Path, data: bytes) -> Any:
    return parse_json(data, str(path))


def _read(path: Path) -> bytes:
    require_regular_file(path)
    with open(path, "rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise Corrupt(f"{path}: is larger than any such file, {MAX_FILE_BYTES} bytes")
    return data


def _checked(directory: Path, name: str, entry: FileEntry) -> bytes:
    """A file's bytes after comparing them with the manifest; of the weights the size only, and no bytes."""
    path = directory / name
    require_regular_file(path)
    size = path.stat().st_size
    if size != entry.size:
        kind = "truncated" if size < entry.size else "longer than it was"
        raise Corrupt(f"{path}: has {size} bytes, the manifest says {entry.size}: it is {kind}")
    if layout.is_weights(name):
        return b""
    data = _read(path)
    if layout.sha256(data) != entry.sha256:
        raise Corrupt(f"{path}: the hash is not the manifest's; the file was altered")
    return data


def _verify(rank: RankFiles, sha256: str) -> None:
    """Raises: Corrupt naming the first damaged constant."""
    if _file_sha256(rank.weights) == sha256:
        return
    with open(rank.weights, "rb") as file:
        for name, item in rank.stored.items():
            file.seek(item.offset)
            if layout.sha256(file.read(item.constant.num_bytes)) != item.sha256:
                raise Corrupt(f"{rank.weights}: the hash of {name} (at byte {item.offset}) is another one")
    raise Corrupt(f"{rank.weights}: the hash is another one; the bytes between constants were altered")


def _check_target(document: tuple[Any, str]) -> None:
    record = Record(*document)
    order = record.text("byte_order")
    levels = record.items("isa_levels")
    record.text("machine")
    record.done()
    if not all(isinstance(level, str) for level in levels):
        record.fail("isa_levels", levels, "must be a list of strings")
    if order != "little":
        raise TargetMismatch(f"{record.where}: weights are stored {order}-endian, this machine reads little-endian")


def _check_places(stored: dict[str, StoredConstant], file_bytes: int, where: str) -> None:
    """Raises: Corrupt when a constant leaves the file or lies in another."""
    end, last = 0, "the beginning"
    for name, item in sorted(stored.items(), key=lambda pair: pair[1].offset):
        if item.offset < end:
            raise Corrupt(f"{where}: {name} at byte {item.offset} overlaps {last}")
        end, last = item.offset + item.constant.num_bytes, name
        if end > file_bytes:
            raise Corrupt(f"{where}: {name} ends at byte {end}, the file at {file_bytes}")


def _check_codes(stored: dict[str, StoredConstant], minor: int, directory: Path) -> None:
    """Raises: VersionMismatch when codes lie in an order of before; in size they may be alike."""
    for name, item in stored.items():
        kind, _, dtype = item.constant.packing.partition(".")
        if minor < layout.NESTS_SINCE and is_encoding(dtype) and encoding(dtype).is_nested:
            raise VersionMismatch(
                f"{directory}: {name} is stored as {item.constant.packing} in format {layout.MAJOR}.{minor}; since "
                f"{layout.MAJOR}.{layout.NESTS_SINCE} the scales of such codes lie beside them, the only order this "
                f"albireo reads; {layout.rebuild_hint(directory)}"
            )
        if minor >= layout.CODES_SINCE or kind != "row" or not is_encoding(dtype):
            continue
        if encoding(dtype).bits == 4 or encoding(dtype).kind == "float":
            raise VersionMismatch(
                f"{directory}: {name} is stored as {item.constant.packing} in format {layout.MAJOR}.{minor}; since "
                f"{layout.MAJOR}.{layout.CODES_SINCE} such codes lie in another order (words of planes), which is the "
                f"only one this albireo reads; {layout.rebuild_hint(directory)} --target cuda"
            )


def _check_rows(program: bytes, minor: int, directory: Path) -> None:
    """Raises: VersionMismatch for a program of before, with rows of activations that no kernel reads any more."""
    if minor < layout.ROWS_SINCE and f'"{layout.OLD_ROWS}"'.encode() in program:
        raise VersionMismatch(
            f"{directory}: its program of format {layout.MAJOR}.{minor} has rows of {layout.OLD_ROWS}, one scale a "
            f"token; since {layout.MAJOR}.{layout.ROWS_SINCE} rows of e4m3 have a scale for each 128 numbers"
        )


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        will_read_once(file.fileno())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
