"""ProjectorFile: the tensors of one tower of a projector's file, by the names that its graph reads.

Made by vision/tensors.py where a tower lies in such a file. Numbers of blocks (Q8_0, K types) are given as float32.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from albireo.errors import ModelError, WeightMismatch, short
from albireo.models.checkpoint.safetensors_file import RawTensor, raw_tensor
from albireo.models.gguf.header import Entry
from albireo.models.gguf.projectors.piece import F32, Piece
from albireo.models.gguf.projectors.table import Projector, towers_of
from albireo.models.gguf.split import open_parts
from albireo.quantization.formats.gguf_blocks import read_blocks

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class ProjectorFile:
    """Stands for checkpoint.text_tensors.TextTensors.

    Args: hears: of the tower that does, or of the one that sees; None: of the only one.
    Raises: ModelError for a file that is damaged or has no such tower; UnsupportedModel for a tower that is not read.
    """

    def __init__(self, path: Path, hears: bool | None = None) -> None:
        self.directory = path
        self._files, header = open_parts(path)
        try:
            tower = _chosen(towers_of(header, str(path)), hears, path)
            self._entries: Mapping[str, Entry] = header.entries
            self._pieces = tower.family.tensors(tower.said)
        except ModelError:
            self.close()
            raise
        #: What is made of others, until release(): whoever packs it knows no more than its address.
        self._made: dict[str, RawTensor] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._pieces))

    def __contains__(self, name: object) -> bool:
        return name in self._pieces

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises: WeightMismatch for an unknown name."""
        return self._piece(name).shape

    def dtype(self, name: str) -> str | None:
        """Name in albireo.dtypes."""
        return self._lies(self._piece(name)) or "float32"

    def type_name(self, name: str) -> str:
        """As safetensors call it."""
        return {dtype: kind for kind, dtype in _DTYPES.items()}[self.dtype(name) or "float32"]

    def tensor(self, name: str) -> RawTensor:
        """Raises: WeightMismatch for an unknown name, or tensors of shapes that do not go together."""
        piece = self._piece(name)
        dtype = self._lies(piece)
        if dtype is not None:
            entry = self._entries[piece.sources[0]]
            file = self._files[entry.file]
            return RawTensor(name, dtype, piece.shape, file.part(entry.start, entry.stop), file.address + entry.start)
        if name not in self._made:
            self._made[name] = raw_tensor(name, "float32", np.ascontiguousarray(self._numbers(name, piece), np.float32))
        return self._made[name]

    def buffer(self, name: str) -> memoryview:
        return self.tensor(name).buffer

    def stored(self) -> dict[str, tuple[str, tuple[int, ...], memoryview]]:
        """Each: its name -> type as safetensors call it, shape, bytes. All are in memory then."""
        return {name: (self.type_name(name), self.shape(name), self.buffer(name)) for name in self.names}

    @property
    def settings(self) -> Mapping[str, str]:
        """None, of a safetensors file's."""
        return {}

    def release(self, name: str) -> None:
        self._made.pop(name, None)
        for source in self._piece(name).sources:
            entry = self._entries[source]
            self._files[entry.file].release(entry.start, entry.stop)

    def close(self) -> None:
        """Give the mappings up; tensors still held stay valid."""
        for file in self._files:
            file.close()

    def _piece(self, name: str) -> Piece:
        found = self._pieces.get(name)
        if found is None:
            raise WeightMismatch(f"{self.directory}: there is no tensor {short(name)}")
        return found

    def _lies(self, piece: Piece) -> str | None:
        """The type of one that is read as it lies; None: it is made."""
        return _DTYPES.get(self._entries[piece.sources[0]].kind) if piece.make is None else None

    def _numbers(self, name: str, piece: Piece) -> F32:
        sources = [self._source(source) for source in piece.sources]
        told = f"{self.directory}: {short(name)} is made of {', '.join(piece.sources)}"
        try:
            found = sources[0] if piece.make is None else piece.make(*sources)
        except (ValueError, IndexError) as error:
            raise WeightMismatch(f"{told}, which do not go together: {error}") from None
        if found.size != math.prod(piece.shape):
            raise WeightMismatch(f"{told}: it is {list(found.shape)}; wanted {list(piece.shape)}")
        return found.reshape(piece.shape)

    def _source(self, name: str) -> F32:
        entry = self._entries[name]
        data, dtype = self._files[entry.file].part(entry.start, entry.stop), _DTYPES.get(entry.kind)
        if dtype is not None:
            address = self._files[entry.file].address + entry.start
            return RawTensor(name, dtype, entry.shape, data, address).to_float32()
        # rows of blocks, whatever they are cut into
        matrix = math.prod(entry.shape[:-1]), entry.shape[-1]
        return read_blocks(entry.kind, np.frombuffer(data, np.uint8), matrix, name, None).decode().reshape(entry.shape)


def _chosen(towers: Mapping[bool, Projector], hears: bool | None, path: Path) -> Projector:
    if hears is None and len(towers) == 1:
        return next(iter(towers.values()))
    found = towers.get(bool(hears))
    if found is None:
        raise ModelError(f"{path}: holds nothing that {'hears' if hears else 'sees'}")
    return found


def tower_kinds(path: Path) -> dict[bool, str]:
    """Of each tower of a file, whether it hears: the type of its projector. Raises: as ProjectorFile."""
    files, header = open_parts(path)
    with contextlib.ExitStack() as stack:
        for file in files:
            stack.callback(file.close)
        return {hears: tower.name for hears, tower in towers_of(header, str(path)).items()}
