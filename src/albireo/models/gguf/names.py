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
#: As files had it before experts of a layer lay in one tensor.
_ONE_EXPERT = re.compile(r"ffn_(gate|up|down)\.(\d{1,4})\.weight")
#: Vectors that converters write as a matrix; and matrices of heads, one below the other, that they stack.
_VECTORS = ("ssm_a", "ssm_d", "ssm_norm.weight", "exp_probs_b.bias", "exp_probs_b")
#: Last parts of names: of linears, and of what lies beside a matrix of a type that is scaled by it.
_KINDS = ("weight", "bias", "scale", "input_scale")
_CONVOLUTIONS = tuple(f"ssm_conv1d_{p}.weight" for p in "qkv")
_OF_HEADS = ("attn_k_b.weight", "attn_v_b.weight")
_MAX_EXPERTS = 2**12


def renamed(
    entries: Mapping[str, Entry],
    architecture: object,
    where: str,
    is_unread: Callable[[int, str], bool] = lambda layer, part: False,
    heads: Callable[[int], tuple[int, int]] = lambda layer: (0, 0),
) -> dict[str, Entry]:
    """Entries by the names of graphs; a name that is not known stays, and is then one too many.

    Args:
        architecture: general.architecture of the file.
        is_unread: whether what a layer has under a name is left where it lies.
        heads: of queries, and of keys, in a layer; 0 where nobody says.
    Raises: WeightMismatch for two of one name, or experts that are no matrices.
    """
    found: dict[str, Entry] = {}
    known = ARCHITECTURES.get(str(architecture), GgufArchitecture(""))
    names = known.names_in(entries)
    for name, entry in entries.items():
        match = _LAYER_NAME.fullmatch(name)
        if match is not None and is_unread(int(match[1]), match[2]):
            continue
        lying = [(name, entry)]
        if match is not None and match[2].startswith("attn_qkv.") and "attn_qkv" not in names:
            lying = _apart(name, entry, *heads(int(match[1])))
        for new, part in (part for each in lying for part in _graph_entries(*each, known, names)):
            if new in found:
                raise WeightMismatch(f"{where}: tensor {short(name)} appears twice, also as {short(new)}")
            found[new] = part
    return found


def _apart(name: str, entry: Entry, heads: int, groups: int) -> list[tuple[str, Entry]]:
    """Queries, keys and values that a converter joined: heads, as wide as each other, one below the other."""
    count = heads + 2 * groups
    if not count or not entry.shape or entry.shape[0] % count:
        return [(name, entry)]
    found, width, start = [], entry.shape[0] // count, entry.start
    for part, each in (("attn_q.", heads), ("attn_k.", groups), ("attn_v.", groups)):
        stop = start + (entry.stop - entry.start) // count * each
        part_of = replace(entry, shape=(each * width, *entry.shape[1:]), start=start, stop=stop)
        found.append((name.replace("attn_qkv.", part), part_of))
        start = stop
    return found


def _graph_entries(
    name: str, entry: Entry, known: GgufArchitecture, names: Mapping[str, str]
) -> Iterator[tuple[str, Entry]]:
    match = _LAYER_NAME.fullmatch(name)
    stem, _, kind = name.rpartition(".")
    if name in known.all_ends:  # one that is called by a name alone
        yield known.all_ends[name], entry
        return
    if stem in known.all_ends and kind in _KINDS:
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
    dims = {"weight": 3, "bias": 2}.get(kind, 1)
    for expert, one in enumerate(_experts(name, entry, dims)):
        yield from _matrices(new.format(expert), one, name)


def _of_layer(part: str, names: Mapping[str, str]) -> str | None:
    """What a graph calls a tensor of a layer, behind its number; None: it is not known."""
    if part in names:
        return names[part]
    if (one := _ONE_EXPERT.fullmatch(part)) is not None and f"ffn_{one[1]}_exps" in names:
        return f"{names[f'ffn_{one[1]}_exps'].format(int(one[2]))}.weight"
    stem, _, kind = part.rpartition(".")
    return f"{names[stem]}.{kind}" if stem in names and kind in _KINDS else None


def _reshaped(part: str, entry: Entry) -> Entry:
    shape = entry.shape
    if part == "ffn_gate_inp_shexp.weight" and len(shape) == 1:  # one row, which the converter squeezes
        shape = (1, *shape)
    elif part in _VECTORS and (part != "ssm_a" or shape[-1] == 1):  # of Mamba 1 it is a matrix
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
    if not entry.shape:  # a factor, of both
        yield f"{stem}.{gate}.{kind}", entry
        yield f"{stem}.{up}.{kind}", entry
        return
    if entry.shape[0] % 2:
        raise WeightMismatch(f"tensor {short(name)} has {entry.shape[0]} rows for gate and up of an expert")
    middle = entry.start + (entry.stop - entry.start) // 2
    half = (entry.shape[0] // 2, *entry.shape[1:])
    yield f"{stem}.{gate}.{kind}", replace(entry, shape=half, stop=middle)
    yield f"{stem}.{up}.{kind}", replace(entry, shape=half, start=middle)


def _experts(name: str, entry: Entry, dims: int) -> Iterator[Entry]:
    """Matrices, or biases, lie one behind the other, each of whole blocks."""
    if len(entry.shape) != dims or not 0 < entry.shape[0] <= _MAX_EXPERTS:
        what = ("number", "vector", "matrix")[dims - 1]
        raise WeightMismatch(
            f"tensor {short(name)} is {list(entry.shape)}; it must be a {what} for each of at most {_MAX_EXPERTS} "
            "experts, or streams"
        )
    size = (entry.stop - entry.start) // entry.shape[0]
    for expert in range(entry.shape[0]):
        start = entry.start + expert * size
        yield replace(entry, shape=entry.shape[1:], start=start, stop=start + size)
