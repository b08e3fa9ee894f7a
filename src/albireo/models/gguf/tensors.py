"""GgufFile: a mapped GGUF file, or all parts of one, whose tensors have the names that graphs read, and their rows in
the order of graphs.

Called by models.weights and models/__init__.py. Does not know graphs, nor which models there are beyond their names
of tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.encodings import encoding as named
from albireo.encodings import plain_encoding
from albireo.errors import ModelError, WeightMismatch, short
from albireo.models.checkpoint.safetensors_file import RawTensor
from albireo.models.gguf.files import part_paths
from albireo.models.gguf.header import Entry
from albireo.models.gguf.names import renamed
from albireo.models.gguf.put_back import Order, Part
from albireo.models.gguf.split import open_parts
from albireo.models.gguf.stored import FACTORS, MAX
from albireo.quantization.blocks import Blocks
from albireo.quantization.encoded import Encoded
from albireo.quantization.formats.gguf_blocks import BLOCKS, SCALED, TYPE_NUMBERS, read_blocks
from albireo.quantization.formats.matrix import Matrix, Plan
from albireo.quantization.nested import plain

#: Numbers that float32 holds as far as there are experts.
_WHOLE = "I32"
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
#: Of an Encoded.
_ARRAYS = ("codes", "scale", "zero", "gamma", "offset")
#: Last parts of names of tensors beside a matrix of SCALED.
_BESIDE = (".scale", ".input_scale")
#: Why numbers of a block type are not kept in it.
_DECODED = "made of tensors, or read in an order, that no encoding of ours has: numbers of the compute type"


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a file: key -> number, bool, string, list of strings, or numpy array. Raises: as GgufFile."""
    with contextlib.closing(GgufFile(path)) as file:
        return file.settings


class GgufFile:
    """Tensors by the names of graphs: a StoredTensors. Of a model in several files, any of them stands for all.

    Raises: ModelError for a file that cannot be read; WeightMismatch for one that is damaged; UnsupportedModel for a
        type of tensor that is not read.
    """

    def __init__(self, path: Path) -> None:
        self._files, header = open_parts(path)
        self.path = path if len(self._files) == 1 else part_paths(path)[0]
        try:
            name = header.settings.get("general.architecture")
            of_heads = partial(_heads_of, header.settings, name)
            found = renamed(header.entries, name, str(path), partial(_is_unread, header.settings, name), of_heads)
        except ModelError:
            self.close()
            raise
        #: What matrices are multiplied with, by their names; what activations were is not needed.
        beside = {each for each in found if each.endswith(_BESIDE) and _scaled(found, each)}
        self._factors = {f"{each.rpartition('.')[0]}.weight": found[each] for each in beside if each.endswith(".scale")}
        self._entries = {each: entry for each, entry in found.items() if each not in beside}
        self.settings = header.settings

    @property
    def names(self) -> Iterable[str]:
        return tuple(name for name in self._entries if name not in FACTORS)

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
        return self._files[entry.file].part(entry.start, entry.stop)

    def tensor(self, name: str) -> RawTensor:
        """A view of a tensor of numbers. Raises: WeightMismatch for one of blocks."""
        entry, dtype = self._entry(name), self.dtype(name)
        if dtype is None:
            raise WeightMismatch(f"{self.path}: tensor {short(name)} of {entry.kind} must be F32, F16 or BF16")
        return RawTensor(name, dtype, entry.shape, self.buffer(name), self._files[entry.file].address + entry.start)

    def release(self, name: str) -> None:
        """Let the pages of a tensor go; they are read from the file again when touched."""
        entry = self._entry(name)
        self._files[entry.file].release(entry.start, entry.stop)

    def close(self) -> None:
        """Give the mappings up; they go when their last RawTensor does."""
        for file in self._files:
            file.close()

    def plan(self, parts: Mapping[str, Part]) -> Plan:
        """The matrices that are blocks, and what is made of tensors by parts, by name."""
        plan = Plan()
        used = {source for part in parts.values() for source in part.sources}
        whole = {name: Part((name,)) for name in self.names if name not in used}
        for name, part in {**whole, **parts}.items():
            if part.made is not None:
                plan.add(Matrix(name, part.made.shape, None, (), partial(np.array, part.made)))
                continue
            kinds = {self.type_name(source) for source in part.sources}
            shape, encoding = self._shape(name, part), self._encoding(part, kinds)
            if encoding is not None:
                note = "; ".join(sorted({BLOCKS[kind].note for kind in kinds} - {""}))
                read, lies = partial(self._encoded, part), self._whole_blocks(part, kinds)
                plan.add(Matrix(name, shape, encoding, part.sources, read, note, blocks=lies))
            elif name in parts:
                dtype = _DTYPES.get(min(kinds), "float32") if len(kinds) == 1 and part.numbers is None else "float32"
                note = (part.numbers_since or _DECODED) if kinds - {*_DTYPES, _WHOLE} else ""
                plan.add(Matrix(name, shape, None, part.sources, partial(self._numbers, part, dtype), note, dtype))
        return plan

    def _encoding(self, part: Part, kinds: set[str]) -> str | None:
        """In which a part can be given; None: as numbers."""
        for source in part.sources:
            kind, shape = self.type_name(source), self.shape(source)
            if kind not in _DTYPES and len(shape) != 2:
                raise WeightMismatch(f"tensor {short(source)} of {kind} is {list(shape)}; it must be a matrix")
        names = {BLOCKS[kind].encoding for kind in kinds}
        name = names.pop() if len(names) == 1 else None
        if name is None or part.numbers is not None or part.numbers_since:
            return None
        if part.columns is None:
            return name
        # heads that move may be parts of nests, where they are no parts of groups
        whole = (
            e.name for e in (named(name), plain_encoding(named(name))) if _groups_of(part.columns, e.unit) is not None
        )
        return next(whole, None)

    def _shape(self, name: str, part: Part) -> tuple[int, ...]:
        shapes = [self.shape(source) for source in part.sources]
        if len({shape[1:] for shape in shapes}) > 1:
            raise WeightMismatch(f"{short(name)} is made of tensors of {' and '.join(str(list(s)) for s in shapes)}")
        rows = sum(shape[0] for shape in shapes) if part.rows is None else len(part.rows)
        return (rows, *shapes[0][1:])

    def _encoded(self, part: Part) -> Encoded:
        matrix = _joined([self._blocks(source) for source in part.sources])
        if part.columns is not None and _groups_of(part.columns, matrix.encoding.unit) is None:
            matrix = plain(matrix)
        return _rearranged(matrix, part.rows, part.columns)

    def _whole_blocks(self, part: Part, kinds: set[str]) -> Callable[[], Blocks] | None:
        """A part that is blocks of the file in another order, if at all."""
        if kinds & set(SCALED):
            return None
        sizes = {BLOCKS[kind].size for kind in kinds}
        if part.columns is not None and (len(sizes) > 1 or _groups_of(part.columns, max(sizes)) is None):
            return None
        return partial(self._lying, part)

    def _lying(self, part: Part) -> Blocks:
        buffers: list[NDArray[np.uint8]] = []
        for source in part.sources:
            entry = self._entry(source)
            data, block = np.frombuffer(self.buffer(source), np.uint8).reshape(entry.shape[0], -1), BLOCKS[entry.kind]
            if part.columns is not None:
                blocks = data.reshape(len(data), -1, block.num_bytes)
                data = blocks[:, _groups_of(part.columns, block.size)].reshape(len(data), -1)
            buffers.append(data)
        numbers = [TYPE_NUMBERS[self.type_name(source)] for source in part.sources]
        rows = np.concatenate([_addresses(data) for data in buffers])
        types = np.repeat(np.array(numbers, np.uint8), [len(data) for data in buffers])
        if part.rows is not None:
            rows, types = rows[part.rows], types[part.rows]
        encoding = str(BLOCKS[self.type_name(part.sources[0])].encoding)
        return Blocks(encoding, (len(rows), self.shape(part.sources[0])[1]), types, rows, tuple(buffers))

    def _numbers(self, part: Part, dtype: str) -> NDArray[np.generic]:
        """Of dtype, bfloat16 as words."""
        width = {"float32": None, "float16": "<f2", "bfloat16": "<u2"}[dtype]
        arrays: list[NDArray[Any]] = []
        for source in part.sources:
            if width is not None:
                arrays.append(np.frombuffer(self.buffer(source), width).reshape(self.shape(source)))
            elif self.dtype(source) is not None:
                arrays.append(self.tensor(source).to_float32())
            elif self.type_name(source) == _WHOLE:
                whole = np.frombuffer(self.buffer(source), "<i4").reshape(self.shape(source))
                arrays.append(whole.astype(np.float32))
            else:
                arrays.append(self._blocks(source).decode())
        array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        array = array if part.rows is None else array[part.rows]
        array = array if part.columns is None else array[:, part.columns]
        return array if part.numbers is None else part.numbers(array)

    def _blocks(self, name: str) -> Encoded:
        n, k = self.shape(name)
        factor = None
        if (entry := self._factors.get(name)) is not None:
            if entry.kind != "F32" or entry.shape not in ((), (1,)):
                what = f"{entry.kind} {list(entry.shape)}"
                raise WeightMismatch(f"the scale of tensor {short(name)} is {what}; it must be one F32")
            factor = np.frombuffer(self._files[entry.file].part(entry.start, entry.stop), "<f4")
        return read_blocks(self.type_name(name), np.frombuffer(self.buffer(name), np.uint8), (n, k), name, factor)

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise WeightMismatch(f"{self.path}: there is no tensor {short(name)}")
        return entry


def _scaled(found: Mapping[str, Entry], name: str) -> bool:
    """Whether a tensor goes with a matrix of a type that has a factor beside it."""
    matrix = found.get(f"{name.rpartition('.')[0]}.weight")
    return matrix is not None and matrix.kind in SCALED


def _is_unread(settings: Mapping[str, Any], name: object, layer: int, part: str) -> bool:
    """Whether a tensor is of a layer behind the others that guesses further tokens, or makes keys or values of one that
    reads another's. Args: name: of the architecture."""
    keys = ("block_count", "nextn_predict_layers", "attention.shared_kv_layers")
    layers, guessing, sharing = (settings.get(f"{name}.{key}", 0) for key in keys)
    if not (type(layers) is int and type(guessing) is int and type(sharing) is int):
        return False  # which is refused with the other settings
    makes = part.startswith(("attn_k.", "attn_v.", "attn_k_norm."))
    return layer >= layers - guessing > 0 if guessing else bool(sharing) and makes and layer >= layers - sharing


def _heads_of(settings: Mapping[str, Any], name: object, layer: int) -> tuple[int, int]:
    """Of queries, and of keys, in a layer; 0 where settings do not say it. Args: name: of the architecture."""

    def count(key: str, default: int) -> int:
        value = settings.get(f"{name}.attention.{key}", default)
        value = value[layer].item() if isinstance(value, np.ndarray) and layer < len(value) else value
        return value if type(value) is int and 0 < value <= MAX else 0

    heads = count("head_count", 0)
    return heads, count("head_count_kv", heads)


def _addresses(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Of each row."""
    return np.arange(len(rows), dtype=np.uint64) * np.uint64(rows.strides[0]) + np.uint64(rows.ctypes.data)


def _joined(matrices: list[Encoded]) -> Encoded:
    """One below the other; all of one encoding."""
    first = matrices[0]
    if len(matrices) == 1:
        return first
    parts: dict[str, Any] = {
        name: None if getattr(first, name) is None else np.concatenate([getattr(each, name) for each in matrices])
        for name in _ARRAYS
    }
    return Encoded(first.encoding, **parts)


def _rearranged(matrix: Encoded, rows: Order | None, columns: Order | None) -> Encoded:
    """Rows and columns of a matrix; groups of columns stay together."""
    parts: dict[str, Any] = {name: getattr(matrix, name) for name in _ARRAYS}
    if columns is not None:
        e, k = matrix.encoding, matrix.shape[1]
        orders = {k: columns, e.num_groups(k): _groups_of(columns, e.group)}
        if e.is_nested:
            orders |= {e.num_nests(k): _groups_of(columns, e.unit)}
        for name, array in parts.items():
            order = None if array is None else columns if name == "codes" else orders.get(array.shape[1])
            if array is not None and order is not None and array.shape[1] > 1:
                parts[name] = array[:, order]
    if rows is not None:
        parts = {name: None if array is None else array[rows] for name, array in parts.items()}
    return Encoded(matrix.encoding, **parts)


def _groups_of(columns: Order, group: int | None) -> Order | None:
    """The order of groups that an order of columns amounts to; None where it parts some."""
    if group is None or len(columns) % group:
        return None
    by_group = columns.reshape(-1, group)
    firsts = by_group[:, 0]
    return None if (firsts % group).any() or (by_group != firsts[:, None] + np.arange(group)).any() else firsts // group
