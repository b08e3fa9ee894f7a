"""One safetensors file, mapped: a strictly checked header, and tensors that are views of the mapping.

Called by safetensors_files.py; api/sources/pooled_head.py writes small ones. Does not know models, sharding or what a
tensor is for.

    8 bytes  n, little endian      n bytes  JSON header      the rest  tensor bytes, end to end, no holes
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import ModelError, WeightMismatch, short
from albireo.json_file import parse_json, require_few_values
from albireo.models.checkpoint.mapped_file import MappedFile

#: The format's own limit.
MAX_HEADER_BYTES = 100_000_000
#: More than any weight has; keeps the product of a hostile shape from taking long.
MAX_DIMS = 8

#: Every element size of the format in bits, so that a file may hold tensors we do not read.
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
#: The types whose contents are read, by their name in albireo.dtypes.
_READABLE = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor where it lies in a mapped file.

    Fields:
        dtype: name in albireo.dtypes: float32, float16 or bfloat16.
        buffer: its bytes, read-only; keeps the mapping alive.
        address: of the first byte; valid as long as buffer is held. Not necessarily aligned to the element.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    buffer: memoryview
    address: int

    @property
    def num_bytes(self) -> int:
        return self.buffer.nbytes

    def to_float32(self) -> NDArray[np.float32]:
        """A copy as a float32 array of shape; exact for every dtype."""
        if self.dtype == "bfloat16":
            bits = np.frombuffer(self.buffer, np.dtype("<u2")).astype(np.uint32) << 16
            values = bits.view(np.float32)
        else:
            values = np.frombuffer(self.buffer, np.dtype("<f4" if self.dtype == "float32" else "<f2"))
        return values.astype(np.float32).reshape(self.shape)


def raw_tensor(name: str, dtype: str, numbers: NDArray[np.generic]) -> RawTensor:
    """An array in memory of its own as such a tensor; bfloat16 as words of 16 bits."""
    flat = np.ascontiguousarray(numbers).reshape(-1).view(np.uint8)
    flat.flags.writeable = False
    return RawTensor(name, dtype, numbers.shape, flat.data, int(flat.ctypes.data))


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a tensor lies: its type name in the file, shape, and byte range in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """A mapped safetensors file.

    Fields: metadata: what the header says beside its tensors, strings by key.
    Invariants: 1. the whole header was checked before any tensor is handed out; 2. entries tile the data part.

    Raises: ModelError for a file that cannot be read; WeightMismatch for one that is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path, 8, "the header length")
        try:
            self._entries, self.metadata = _read_header(self._file.view, str(path))
        except ModelError:
            self.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """In order of the header."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def dtype(self, name: str) -> str | None:
        """Name in albireo.dtypes, or None for a type that is not read."""
        return _READABLE.get(self._entries[name].dtype)

    def type_name(self, name: str) -> str:
        """The element type as the format names it."""
        return self._entries[name].dtype

    def buffer(self, name: str) -> memoryview:
        """The bytes of a tensor of any type. Raises: WeightMismatch where the file has become shorter."""
        entry = self._entries[name]
        return self._file.part(entry.start, entry.stop)

    def tensor(self, name: str) -> RawTensor:
        """A view of one tensor. Raises: WeightMismatch for an element type that is not read."""
        entry = self._entries[name]
        dtype = _READABLE.get(entry.dtype)
        if dtype is None:
            raise WeightMismatch(
                f"{self.path}: tensor {short(name)} has type {entry.dtype}; weights must be {', '.join(_READABLE)}"
            )
        return RawTensor(name, dtype, entry.shape, self.buffer(name), self._file.address + entry.start)

    def release(self, name: str) -> None:
        """Let the pages of a tensor go; they are read from the file again when touched."""
        entry = self._entries[name]
        self._file.release(entry.start, entry.stop)

    def close(self) -> None:
        """Give the mapping up; it goes when the last RawTensor does."""
        self._file.close()


def _read_header(view: memoryview, where: str) -> tuple[dict[str, _Entry], dict[str, str]]:
    """Raises: WeightMismatch naming the tensor and the numbers that do not fit."""
    length = int.from_bytes(view[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise WeightMismatch(f"{where}: header of {length} bytes; the format allows {MAX_HEADER_BYTES}")
    if 8 + length > len(view):
        raise WeightMismatch(f"{where}: header of {length} bytes in a file of {len(view)}; it is truncated")
    if length == 0 or view[8] != ord("{"):
        raise WeightMismatch(f"{where}: the header is not a JSON object; it is not a safetensors file")
    head = bytes(view[8 : 8 + length])
    try:
        require_few_values(head, f"{where}: header")
        header = parse_json(head, f"{where}: header")
    except ModelError as error:
        raise WeightMismatch(str(error)) from None
    said = header.pop("__metadata__", None)
    metadata = {key: text for key, text in said.items() if isinstance(text, str)} if isinstance(said, dict) else {}
    entries = {name: _entry(where, name, item, 8 + length) for name, item in header.items()}
    _check_tiling(entries, where, 8 + length, len(view))
    return entries, metadata


def _entry(where: str, name: str, item: Any, data_start: int) -> _Entry:
    def fail(what: str) -> WeightMismatch:
        return WeightMismatch(f"{where}: tensor {short(name)}: {what}")

    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise fail(f"its entry is {short(item)}, not dtype, shape and data_offsets")
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise fail(f"unknown type {short(dtype)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(_is_count(n) for n in shape):
        raise fail(f"shape {short(shape)} is not a list of at most {MAX_DIMS} whole numbers")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(n) for n in offsets):
        raise fail(f"data_offsets {short(offsets)} are not two whole numbers")
    bits = math.prod(shape) * _BITS[dtype]
    if bits != (offsets[1] - offsets[0]) * 8:
        raise fail(f"shape {short(shape)} of {dtype} takes {bits / 8:.15g} bytes, data_offsets {short(offsets)} differ")
    return _Entry(dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _check_tiling(entries: dict[str, _Entry], where: str, data_start: int, size: int) -> None:
    """Tensors lie end to end from data_start to size: no hole, no overlap, nothing after."""
    position = data_start
    for name, entry in sorted(entries.items(), key=lambda pair: (pair[1].start, pair[1].stop)):
        if entry.stop > size:
            raise WeightMismatch(
                f"{where}: tensor {short(name)} ends at byte {entry.stop} of a file of {size}; it is truncated"
            )
        if entry.start != position:
            kind = "overlaps the tensor before it" if entry.start < position else "leaves a hole before it"
            raise WeightMismatch(f"{where}: tensor {short(name)} starts at byte {entry.start}, not {position}: {kind}")
        position = entry.stop
    if position != size:
        raise WeightMismatch(f"{where}: {size - position} bytes follow the last tensor; the file is damaged")


def safetensors_bytes(tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """A file of a few tensors, all float32."""
    return bytes(stored_bytes({name: ("F32", each.shape, each.tobytes()) for name, each in tensors.items()}))


def stored_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...], bytes | memoryview]]) -> bytearray:
    """A file of tensors. Args: tensors: name -> type as the format names it, shape, and bytes of each."""
    header: dict[str, Any] = {}
    start = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + len(data)]}
        start += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    found = bytearray(len(text).to_bytes(8, "little") + text)
    for _, _, data in tensors.values():
        found += data
    return found
