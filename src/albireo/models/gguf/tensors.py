"""GgufFile: a mapped GGUF file whose tensors have the names that graphs read, and their rows in the order of graphs.

Called by models.weights and models/__init__.py. Does not know graphs, nor which models there are beyond their names
of tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import ModelError, UnsupportedModel, WeightMismatch, short
from albireo.models.gguf.header import Entry, read_header
from albireo.models.gguf.names import renamed
from albireo.models.mapped_file import MappedFile
from albireo.models.safetensors_file import RawTensor
from albireo.quantization.encoded import Encoded
from albireo.quantization.formats.gguf_blocks import BLOCKS, read_blocks
from albireo.quantization.formats.matrix import Matrix, Plan

SUFFIX = ".gguf"
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
#: Divisors of rotary frequencies: a setting in the form of a tensor; config.py reads it.
ROPE_FACTORS = "rope_freqs.weight"
SHORT_FACTORS, LONG_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"


def is_gguf(path: Path) -> bool:
    """Whether a model is a GGUF file, by its name."""
    return path.suffix.lower() == SUFFIX


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a file: key -> number, bool, string, list of strings, or numpy array. Raises: as GgufFile."""
    with contextlib.closing(GgufFile(path)) as file:
        return file.settings


class GgufFile:
    """Tensors by the names of graphs: a StoredTensors.

    Raises: ModelError for a file that cannot be read; WeightMismatch for one that is damaged; UnsupportedModel for a
        type of tensor that is not read, or one part of several.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path, 24, "a GGUF head")
        try:
            header = read_header(self._file.view, str(path))
            parts = header.settings.get("split.count", 1)
            if parts != 1:
                raise UnsupportedModel(
                    f"{path}: split.count={short(parts)}: it is one part of several; llama-gguf-split --merge joins"
                )
            self._entries = renamed(header.entries, header.settings.get("general.architecture"), str(path))
        except ModelError:
            self.close()
            raise
        self.settings = header.settings

    @property
    def names(self) -> Iterable[str]:
        return tuple(name for name in self._entries if name not in (ROPE_FACTORS, SHORT_FACTORS, LONG_FACTORS))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises: WeightMismatch for an unknown name."""
        return self._entry(name).shape

    def type_name(self, name: str) -> str:
        return self._entry(name).kind

    def dtype(self, name: str) -> str | None:
        """Name in albireo.dtypes, or None for blocks."""
        return _DTYPES.get(self._entry(name).kind)

    def buffer(self, name: str) -> memoryview:
        entry = self._entry(name)
        return self._file.view[entry.start : entry.stop]

    def tensor(self, name: str) -> RawTensor:
        """A view of a tensor of numbers. Raises: WeightMismatch for one of blocks."""
        entry, dtype = self._entry(name), self.dtype(name)
        if dtype is None:
            raise WeightMismatch(f"{self.path}: tensor {short(name)} of {entry.kind} must be F32, F16 or BF16")
        return RawTensor(name, dtype, entry.shape, self.buffer(name), self._file.address + entry.start)

    def release(self, name: str) -> None:
        """Let the pages of a tensor go; they are read from the file again when touched."""
        entry = self._entry(name)
        self._file.release(entry.start, entry.stop)

    def close(self) -> None:
        """Give the mapping up; it goes when the last RawTensor does."""
        self._file.close()

    def plan(self, rotary_heads: dict[str, int]) -> Plan:
        """The matrices that are blocks, and those whose rows lie in another order than graphs read.

        Args: rotary_heads: q_proj, k_proj -> heads, where the two numbers of each rotary pair lie side by side.
        """
        plan = Plan()
        for name in self.names:
            shape, kind = self.shape(name), self.type_name(name)
            module = name.rpartition(".")[0].rpartition(".")[2]
            order = _row_order(rotary_heads.get(module), shape[0], name)
            if BLOCKS[kind].encoding is not None:
                if len(shape) != 2:
                    raise WeightMismatch(f"tensor {short(name)} of {kind} is {list(shape)}; it must be a matrix")
                read: Callable[[], Encoded | NDArray[np.generic]] = partial(self._blocks, name, order)
                plan.add(Matrix(name, shape, BLOCKS[kind].encoding, (name,), read, BLOCKS[kind].note))
            elif order is not None:
                dense = partial(self._numbers, name, order)
                plan.add(Matrix(name, shape, None, (name,), dense, dtype=_DTYPES[kind]))
        return plan

    def _blocks(self, name: str, order: NDArray[np.intp] | None) -> Encoded:
        n, k = self.shape(name)
        matrix = read_blocks(self.type_name(name), np.frombuffer(self.buffer(name), np.uint8), (n, k), name)
        return matrix if order is None else _reordered(matrix, order)

    def _numbers(self, name: str, order: NDArray[np.intp]) -> NDArray[np.generic]:
        width = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[self.type_name(name)]
        numbers: NDArray[np.generic] = np.frombuffer(self.buffer(name), width).reshape(self.shape(name))[order]
        return numbers

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise WeightMismatch(f"{self.path}: there is no tensor {short(name)}")
        return entry


def _reordered(matrix: Encoded, order: NDArray[np.intp]) -> Encoded:
    """The rows of a matrix of a block type in another order."""
    zero = None if matrix.zero is None else matrix.zero[order]
    gamma = None if matrix.gamma is None else matrix.gamma[order]
    offset = None if matrix.offset is None else matrix.offset[order]
    return Encoded(matrix.encoding, matrix.codes[order], matrix.scale[order], zero, gamma, offset)


def _row_order(num_heads: int | None, rows: int, name: str) -> NDArray[np.intp] | None:
    """Row of the file for each row of a graph: the pairs of a head lie side by side there, half a head apart here."""
    if num_heads is None:
        return None
    if rows % (2 * num_heads):
        raise WeightMismatch(f"tensor {short(name)} has {rows} rows, which are not pairs of {num_heads} heads")
    return np.arange(rows).reshape(num_heads, rows // num_heads // 2, 2).swapaxes(1, 2).reshape(-1)
