"""Adapters of low rank (LoRA) in GGUF files, as llama.cpp's convert_lora_to_gguf.py writes them.

Called by api/adapters.py. Names of tensors are those of the model's architecture with the side behind; rows that
converters move in a model are moved in a B, too, and put back. Does not know slots or requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from albireo.errors import UnsupportedModel, WeightMismatch, short
from albireo.json_file import Fields
from albireo.models.checkpoint.mapped_file import MappedFile
from albireo.models.checkpoint.peft import MAX_ALPHA, MAX_RANK, PeftAdapter
from albireo.models.checkpoint.safetensors_file import RawTensor, raw_tensor
from albireo.models.gguf import put_back
from albireo.models.gguf.architecture import GgufArchitecture
from albireo.models.gguf.architectures import ARCHITECTURES
from albireo.models.gguf.header import Entry
from albireo.models.gguf.names import renamed
from albireo.models.gguf.split import open_parts
from albireo.quantization.formats.gguf_blocks import BLOCKS, read_blocks

F32 = NDArray[np.float32]
_SIDES = (".lora_a", ".lora_b")
#: Words of types that are no blocks.
_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
#: What converters do to tensors that no adapter has; and to rows, which is undone here.
_ELSEWHERE, _PAIRS = (put_back.decays, put_back.slopes), put_back.pairs


@dataclass(frozen=True, slots=True)
class _Rows:
    """Tensors as put_back.pairs() sees them."""

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]


def read_gguf_adapter(path: Path, shapes: Mapping[str, tuple[int, int]], max_rank: int, head_dim: int) -> PeftAdapter:
    """Read and check one.

    Args: shapes: module -> outputs, inputs of those that may have an adapter. head_dim: of the model.
    Raises: ModelError, UnsupportedModel, WeightMismatch naming what is wrong, and what is possible.
    """
    files, header = open_parts(path)
    try:
        fields = Fields(header.settings, str(path))
        known, alpha = _architecture(fields), fields.number("adapter.lora.alpha", 0.0, MAX_ALPHA, 0.0)
        matrices: dict[str, tuple[RawTensor, RawTensor, float]] = {}
        a, b = (_side(header.entries, side, fields, known) for side in _SIDES)
        if a.keys() != b.keys() or not a:
            alone = sorted(a.keys() ^ b.keys())[:1]
            raise WeightMismatch(f"{path}: {alone[0]} has one half alone" if alone else f"{path}: holds no tensors")
        orders = _orders(known, {name: entry.shape for name, entry in b.items()}, head_dim, str(path))
        for name in a:
            module = name.removesuffix(".weight")
            rank = _rank(a[name], b[name], module, shapes, max_rank, str(path))
            first, second = (_numbers(files, entry, name, str(path)) for entry in (a[name], b[name]))
            second = second[orders[name]] if name in orders else second
            pair = tuple(raw_tensor(name, "float32", numbers) for numbers in (first, second))
            matrices[module] = (pair[0], pair[1], alpha / rank if alpha else 1.0)
        digest = sha256(b"".join(file.view for file in files)).hexdigest()
    finally:
        for file in files:
            file.close()
    rank = max(each.shape[0] for each, _, _ in matrices.values())
    num_bytes = sum(one.num_bytes + other.num_bytes for one, other, _ in matrices.values())
    return PeftAdapter(rank, num_bytes, digest, matrices)


def gguf_adapter_rank(path: Path) -> int:
    """Rank that a slot needs for an adapter. Raises: ModelError, UnsupportedModel."""
    files, header = open_parts(path)
    for file in files:
        file.close()
    _architecture(Fields(header.settings, str(path)))
    return max((e.shape[0] for name, e in header.entries.items() if name.endswith(".lora_a")), default=1)


def _architecture(fields: Fields) -> GgufArchitecture:
    """Raises: UnsupportedModel for a file that is no such adapter, or one of a model whose rows lie otherwise."""
    for key, wanted in (("general.type", "adapter"), ("adapter.type", "lora")):
        said = fields.raw(key)
        if not isinstance(said, str) or said != wanted:
            fields.unsupported(key, said, f"supported: {wanted}")
    if (tokens := fields.raw("adapter.alora.invocation_tokens")) is not None:
        fields.unsupported("adapter.alora.invocation_tokens", tokens, "an adapter holds from the first token on")
    name = fields.text("general.architecture")
    known = ARCHITECTURES.get(name)
    if known is None or not {*known.put_back} <= {*_ELSEWHERE, _PAIRS}:
        fields.unsupported("general.architecture", name, "adapters of it are read as PEFT saves them, from a directory")
    assert known is not None
    return known


def _side(entries: Mapping[str, Entry], side: str, fields: Fields, known: GgufArchitecture) -> dict[str, Entry]:
    """By the names of graphs. Raises: UnsupportedModel for a tensor that is no half of a pair."""
    other = next((name for name in entries if not name.endswith(_SIDES)), None)
    if other is not None:
        raise UnsupportedModel(
            f"{fields.where}: tensor {short(other)} is not half of a low-rank pair of a linear (lora_a, lora_b)"
        )
    found = {name.removesuffix(side): entry for name, entry in entries.items() if name.endswith(side)}
    return renamed(found, fields.raw("general.architecture"), fields.where)


def _orders(
    known: GgufArchitecture, shapes: Mapping[str, tuple[int, ...]], head_dim: int, where: str
) -> dict[str, NDArray[np.intp]]:
    """Of rows that are put back, in heads of one width: layers may differ in how many they have."""
    if _PAIRS not in known.put_back:
        return {}
    said = {"attention.head_count": [], "attention.key_length": head_dim}
    parts = put_back.pairs(_Rows(shapes), Fields(said, where))  # type: ignore[arg-type]  # names and shapes are read
    return {name: part.rows for name, part in parts if part.rows is not None}


def _rank(a: Entry, b: Entry, module: str, shapes: Mapping[str, tuple[int, int]], max_rank: int, where: str) -> int:
    if module not in shapes:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in shapes}))
        raise UnsupportedModel(f"{where}: has an adapter of {short(module)}; of this model these can have one: {known}")
    outputs, inputs = shapes[module]
    rank = a.shape[0] if a.shape else 0
    if not 1 <= rank <= MAX_RANK or a.shape != (rank, inputs) or b.shape != (outputs, rank):
        raise WeightMismatch(
            f"{where}: lora_a and lora_b of {module} are {list(a.shape)} and {list(b.shape)}; the model's {outputs} x "
            f"{inputs} means [rank, {inputs}] and [{outputs}, rank]"
        )
    if rank > max_rank:
        raise UnsupportedModel(
            f"{where}: has rank {rank}, max_lora_rank={max_rank} is what slots have room for; start with "
            f"--max-lora-rank {rank}"
        )
    return rank


def _numbers(files: list[MappedFile], entry: Entry, name: str, where: str) -> F32:
    """Raises: UnsupportedModel for whole numbers; WeightMismatch for such as are not finite."""
    if BLOCKS[entry.kind].encoding is None and entry.kind not in _DTYPES:
        supported = ", ".join(kind for kind in BLOCKS if BLOCKS[kind].encoding is not None or kind in _DTYPES)
        raise UnsupportedModel(f"{where}: tensor {short(name)} has type {entry.kind}; supported: {supported}")
    data = np.frombuffer(files[entry.file].part(entry.start, entry.stop), np.uint8)
    if BLOCKS[entry.kind].encoding is not None:
        numbers = read_blocks(entry.kind, data, (entry.shape[0], prod(entry.shape[1:])), name).decode()
    elif entry.kind == "BF16":
        numbers = (data.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(entry.shape)
    else:
        numbers = data.view(_DTYPES[entry.kind]).astype(np.float32).reshape(entry.shape)
    if not np.isfinite(numbers).all():
        raise WeightMismatch(f"{where}: tensor {short(name)} holds numbers that are not finite")
    return numbers
