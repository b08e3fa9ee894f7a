"""The head of a GGUF file: its settings and where its tensors lie. Everything in it is hostile until checked.

Called by tensors.py. Versions 2 and 3, little endian. Does not know what keys or tensors mean. Time and memory are
bounded by MAX_METADATA_BYTES and MAX_STRINGS, whatever the counts in the file say.

    "GGUF"  u32 version  u64 tensors  u64 settings
    settings:  key  u32 type  value                    strings: u64 length, UTF-8
    tensors:   name  u32 dims  u64 dim ...  u32 type  u64 offset from the start of the data
    the data, aligned to general.alignment
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.errors import UnsupportedModel, WeightMismatch, short
from albireo.quantization.formats.gguf_blocks import BLOCKS, TYPE_NAMES

MAGIC = b"GGUF"
VERSIONS = (2, 3)
#: The largest known heads have 20 MB: 262,144 tokens and 500,000 merges.
MAX_METADATA_BYTES = 512 * 2**20
#: Strings in all arrays together.
MAX_STRINGS = 2 * 2**20
MAX_KEYS = 2**16
MAX_TENSORS = 2**18
MAX_DIMS = 4
MAX_NAME_BYTES = 1024
_STRING, _ARRAY, _BOOL = 8, 9, 7
#: Types of one number: unsigned and signed, of 1, 2 and 4 bytes, float32, bool, and three of 8 bytes.
_NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", _BOOL: "u1"}
_NUMBERS |= {10: "<u8", 11: "<i8", 12: "<f8"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor: name of its type in ggml, shape with the longest stride first, byte range, and in which file of the
    model."""

    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int
    file: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """Fields: settings: key -> number, bool, string, list of strings, or numpy array of numbers."""

    settings: dict[str, Any]
    entries: dict[str, Entry]


def read_header(view: memoryview, where: str) -> Header:
    """Raises: WeightMismatch naming what does not fit; UnsupportedModel for another version or type of tensor."""
    cursor = _Cursor(view, where)
    if bytes(view[:4]) != MAGIC:
        raise WeightMismatch(f"{where}: does not begin with GGUF; it is no GGUF file")
    cursor.at = 4
    version = cursor.number("<u4")
    if version not in VERSIONS:
        hint = "; it is big endian" if version % 2**16 == 0 else ""
        raise UnsupportedModel(f"{where}: GGUF version {version} is not supported; supported: 2, 3{hint}")
    num_tensors, num_keys = cursor.number("<u8"), cursor.number("<u8")
    if num_tensors > MAX_TENSORS or num_keys > MAX_KEYS:
        raise WeightMismatch(
            f"{where}: has {num_tensors} tensors, {num_keys} settings; at most {MAX_TENSORS} and {MAX_KEYS} are read"
        )
    settings: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.name()
        if key in settings:
            raise WeightMismatch(f"{where}: key {short(key)} appears twice")
        settings[key] = cursor.value(key)
    alignment = settings.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 2**16 or alignment & (alignment - 1):
        raise WeightMismatch(f"{where}: general.alignment={short(alignment)} must be a power of two from 8 to 65536")
    found = [_entry(cursor) for _ in range(num_tensors)]
    data = -(-cursor.at // alignment) * alignment
    return Header(settings, _placed(found, data, alignment, len(view), where))


class _Cursor:
    """A place in the head. Every step checks that it stays inside."""

    def __init__(self, view: memoryview, where: str) -> None:
        self.view, self.where, self.at = view, where, 0
        self._end = min(len(view), MAX_METADATA_BYTES)
        self._num_strings = 0

    def take(self, num_bytes: int) -> memoryview:
        start, stop = self.at, self.at + num_bytes
        if stop > self._end:
            limit = f"at most {MAX_METADATA_BYTES} are read" if stop <= len(self.view) else "it is truncated"
            raise WeightMismatch(f"{self.where}: {num_bytes} bytes are expected at byte {start}; {limit}")
        self.at = stop
        return self.view[start:stop]

    def number(self, dtype: str) -> Any:
        kind = np.dtype(dtype)
        return np.frombuffer(self.take(kind.itemsize), kind)[0].item()

    def string(self, limit: int = MAX_METADATA_BYTES) -> str:
        start = self.at
        (length,) = struct.unpack("<Q", self.take(8))
        if length > limit:
            raise WeightMismatch(f"{self.where}: a string of {length} bytes at byte {start}; at most {limit} are read")
        try:
            return str(self.take(length), "utf-8")
        except UnicodeDecodeError as error:
            raise WeightMismatch(f"{self.where}: the string at byte {start} is not UTF-8: {error.reason}") from None

    def name(self) -> str:
        return self.string(MAX_NAME_BYTES)

    def value(self, key: str) -> Any:
        kind = self.number("<u4")
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(key)
        return self._scalar(kind, key)

    def _scalar(self, kind: int, key: str) -> Any:
        number = self.number(self._dtype(kind, key))
        return bool(number) if kind == _BOOL else number

    def _array(self, key: str) -> Any:
        kind, count = self.number("<u4"), self.number("<u8")
        if kind == _ARRAY:
            raise WeightMismatch(f"{self.where}: {short(key)} is an array of arrays, which no known setting is")
        if kind != _STRING:
            dtype = np.dtype(self._dtype(kind, key))
            numbers = np.frombuffer(self.take(count * dtype.itemsize), dtype)
            return numbers.astype(bool) if kind == _BOOL else numbers.copy()
        self._num_strings += count
        if self._num_strings > MAX_STRINGS:
            raise WeightMismatch(f"{self.where}: {short(key)} has {count} strings; at most {MAX_STRINGS} are read")
        return self._quick_strings(count) or [self.string() for _ in range(count)]

    def _quick_strings(self, count: int) -> list[str]:
        """So many strings, of which a vocabulary has hundreds of thousands, without a call for each; none, and nothing
        is read, where one is not as it should be: string() says what is wrong with it."""
        view, at, end, length_at = self.view, self.at, self._end, struct.Struct("<Q").unpack_from
        found = []
        try:
            for _ in range(count):
                (length,) = length_at(view, at)
                start, at = at + 8, at + 8 + length
                if at > end:
                    return []
                found.append(str(view[start:at], "utf-8"))
        except (struct.error, UnicodeDecodeError):
            return []
        self.at = at
        return found

    def _dtype(self, kind: int, key: str) -> str:
        if kind not in _NUMBERS:
            raise WeightMismatch(f"{self.where}: {short(key)} has type {kind}, which is not known")
        return _NUMBERS[kind]


#: name, type name, shape, offset, bytes
_Found = tuple[str, str, tuple[int, ...], int, int]


def _entry(cursor: _Cursor) -> _Found:
    name = cursor.name()

    def fail(what: str) -> WeightMismatch:
        return WeightMismatch(f"{cursor.where}: tensor {short(name)}: {what}")

    num_dims = cursor.number("<u4")
    if not 1 <= num_dims <= MAX_DIMS:
        raise fail(f"has {num_dims} dimensions; 1 to {MAX_DIMS} are read")
    dims = tuple(cursor.number("<u8") for _ in range(num_dims))
    number, offset = cursor.number("<u4"), cursor.number("<u8")
    kind = TYPE_NAMES.get(number)
    if kind is None:
        raise fail(f"has type {number}, which is not known")
    block = BLOCKS.get(kind)
    if block is None:
        supported = ", ".join(BLOCKS)
        raise UnsupportedModel(f"{cursor.where}: tensor {short(name)} has type {kind}; supported: {supported}")
    count = 1
    for dim in dims:
        count *= dim
        if not 0 < dim < 2**40 or count >= 2**48:
            raise fail(f"shape {list(dims[::-1])} is not that of a weight")
    if dims[0] % block.size:
        raise fail(f"rows of {dims[0]} are no whole blocks of {block.size}")
    return name, kind, tuple(reversed(dims)), offset, count // block.size * block.num_bytes


def _placed(found: list[_Found], data: int, alignment: int, size: int, where: str) -> dict[str, Entry]:
    """Tensors lie one after another, each aligned: no overlap, no hole, nothing beyond the end."""
    entries: dict[str, Entry] = {}
    position = data
    for name, kind, shape, offset, num_bytes in sorted(found, key=lambda item: item[3]):
        start = data + offset
        if name in entries:
            raise WeightMismatch(f"{where}: tensor {short(name)} appears twice")
        if start != position:
            what = "overlaps the tensor before it" if start < position else "leaves a hole before it"
            raise WeightMismatch(f"{where}: tensor {short(name)} starts at byte {start}, not {position}: {what}")
        if start + num_bytes > size:
            raise WeightMismatch(
                f"{where}: tensor {short(name)} ends at byte {start + num_bytes} of a file of {size}; it is truncated"
            )
        entries[name] = Entry(kind, shape, start, start + num_bytes)
        position = -(-(start + num_bytes) // alignment) * alignment
    return entries
