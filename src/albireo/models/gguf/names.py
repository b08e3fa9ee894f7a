"""The names that graphs read for the tensors of a GGUF file; a tensor of all experts becomes a matrix for each.

Called by tensors.py. What an architecture calls a tensor is in architectures.py. Does not know what a tensor is for,
nor its contents.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from albireo.errors import WeightMismatch, short
from albireo.models.gguf.architecture import GgufArchitecture
from albireo.models.gguf.architectures import ARCHITECTURES
from albireo.models.gguf.header import Entry

_LAYER_NAME = re.compile(r"blk\.(\d{1,6})\.([a-z0-9_.]+)")
#: Vectors that converters write as a matrix; and matrices of heads, one below the other, that they stack.
_VECTORS = ("ssm_a", "ssm_d", "ssm_norm.weight", "exp_probs_b.bias", "exp_probs_b")
_CONVOLUTIONS = tuple(f"ssm_conv1d_{p}.weight" for p in "qkv")
_OF_HEADS = ("attn_k_b.weight", "attn_v_b.weight")
_MAX_EXPERTS = 2**12


def renamed(
    entries: Mapping[str, Entry],
    architecture: object,
    where: str,
    is_unread: Callable[[int, str], bool] = lambda layer, part: False,
) -> dict[str, Entry]:
    """Entries by the names of graphs; a name that is not known stays, and is then one too many.

    Args:
        architecture: general.architecture of the file.
        is_unread: whether what a layer has under a name is left where it lies.
    Raises: WeightMismatch for two of one name, or experts that are no matrices.
    """
    found: dict[str, Entry] = {}
    known = ARCHITECTURES.get(str(architecture), GgufArchitecture(""))
    names = known.names_in(entries)
    for name, entry in entries.items():
        match = _LAYER_NAME.fullmatch(name)
        if match is not None and is_unread(int(match[1]), match[2]):
            continue
        for new, part in _graph_entries(name, match, entry, known, names):
            if new in found:
                raise WeightMismatch(f"{where}: tensor {short(name)} appears twice, also as {short(new)}")
            found[new] = part
    return found


def _graph_entries(
    name: str, match: re.Match[str] | None, entry: Entry, known: GgufArchitecture, names: Mapping[str, str]
) -> Iterator[tuple[str, Entry]]:
    stem, _, kind = name.rpartition(".")
    if stem in known.all_ends and kind in ("weight", "bias"):
        new = f"{known.all_ends[stem]}.{kind}"
        parts = enumerate(_experts(name, entry, 3)) if "{}" in new else [(0, entry)]
        yield from ((new.format(i), part) for i, part in parts)
        return
    part_of_layer = _of_layer(match[2], names) if match is not None else None
    if match is None or part_of_layer is None:
        yield name, entry
        return
    new = f"{known.layer}.{int(match[1])}.{part_of_layer}"
    entry = _reshaped(match[2], entry)
    if "{}" not in new:
        yield new, entry
        return
    for expert, one in enumerate(_experts(name, entry, 2 if kind == "bias" else 3)):
        yield from _matrices(new.format(expert), one, name)


def _of_layer(part: str, names: Mapping[str, str]) -> str | None:
    """What a graph calls a tensor of a layer, behind its number; None: it is not known."""
    if part in names:
        return names[part]
    stem, _, kind = part.rpartition(".")
    return f"{names[stem]}.{kind}" if stem in names and kind in ("weight", "bias") else None


def _reshaped(part: str, entry: Entry) -> Entry:
    shape = entry.shape
    if part == "ffn_gate_inp_shexp.weight" and len(shape) == 1:  # one row, which the converter squeezes
        shape = (1, *shape)
    elif part in _VECTORS and (
        part != "ssm_a" or shape[-1] == 1
    ):  # of Mamba 1 a channel has a number for each of its state
        shape = (math.prod(shape),)
    elif part in _CONVOLUTIONS and len(shape) == 4:
        shape = (math.prod(shape[:-1]), shape[-1])
    elif part in _OF_HEADS and len(shape) == 3:
        shape = (shape[0] * shape[1], shape[2])
    return replace(entry, shape=shape)


def _matrices(new: str, entry: Entry, name: str) -> Iterator[tuple[str, Entry]]:
    """A matrix of an expert; or its gate, and its up below, where the name says "gate+up"."""
    if "+" not in new:
        yield new, entry
        return
    head, tail = new.split("+")
    stem, _, gate = head.rpartition(".")
    up, _, kind = tail.partition(".")
    if entry.shape[0] % 2:
        raise WeightMismatch(f"tensor {short(name)} has {entry.shape[0]} rows for gate and up of an expert")
    middle = entry.start + (entry.stop - entry.start) // 2
    half = (entry.shape[0] // 2, *entry.shape[1:])
    yield f"{stem}.{gate}.{kind}", replace(entry, shape=half, stop=middle)
    yield f"{stem}.{up}.{kind}", replace(entry, shape=half, start=middle)


def _experts(name: str, entry: Entry, dims: int) -> Iterator[Entry]:
    """Matrices, or biases, lie one behind the other, each of whole blocks."""
    if len(entry.shape) != dims or not 0 < entry.shape[0] <= _MAX_EXPERTS:
        raise WeightMismatch(
            f"tensor {short(name)} is {list(entry.shape)}; it must be a {'matrix' if dims == 3 else 'vector'} for each "
            f"of at most {_MAX_EXPERTS} experts, or streams"
        )
    size = (entry.stop - entry.start) // entry.shape[0]
    for expert in range(entry.shape[0]):
        start = entry.start + expert * size
        yield replace(entry, shape=entry.shape[1:], start=start, stop=start + size)
