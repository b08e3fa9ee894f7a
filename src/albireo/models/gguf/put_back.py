"""What converters to GGUF did to tensors, undone: which rows and columns of what lies in a file make a tensor of a
graph.

Named by the tables, read by tensors.py. Source: conversion/*.py of llama.cpp. Does not know how
numbers are encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch, short
from albireo.json_file import Fields
from albireo.models.gguf.stored import MAX, Stored, numbers_by_layer, one_of_layers, width_of_head
from albireo.models.settings.layer_kinds import MAX_LAYERS

Order = NDArray[np.intp]
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of a graph, of one or more of a file.

    Fields:
        sources: tensors of the file, one below the other.
        rows, columns: of what they make, in the order of the graph; None: as they lie.
        numbers: what is made of numbers; None: nothing.
        numbers_since: why it becomes numbers where it lies in blocks; "": it stays in them where it can.
        made: all of it, of settings; None: it is made of sources.
    """

    sources: tuple[str, ...] = ()
    rows: Order | None = None
    columns: Order | None = None
    numbers: Callable[[F32], F32] | None = None
    numbers_since: str = ""
    made: F32 | None = None


#: Parts by the name that a graph reads. Raises: WeightMismatch for tensors that are not what settings say.
PutBack = Callable[[Stored, Fields], Iterator[tuple[str, Part]]]


def pairs(file: Stored, fields: Fields) -> Iterator[tuple[str, Part]]:
    """Rows of q and k: the two of each rotary pair lie side by side there, half a head apart here."""
    said = [fields.raw(f"attention.{key}") for key in ("head_count", "head_count_kv")]
    counts, width = dict[str, int](), 0
    if any(isinstance(each, list) and len({*each} - {0}) > 1 for each in said) or isinstance(said[0], list):
        width = width_of_head(fields)  # layers with heads of their own, all as wide as each other
    else:
        heads = fields.integer("attention.head_count", 1, MAX)
        counts = {"q_proj": heads, "k_proj": one_of_layers(fields, "attention.head_count_kv", heads)}
    for name in file.names:
        part = name.rpartition(".")[0].rpartition(".")[2]
        if part in ("q_proj", "k_proj"):
            rows = file.shape(name)[0]
            count = counts.get(part) or max(1, rows // width)
            if rows % (2 * count):
                raise WeightMismatch(f"tensor {short(name)} has {rows} rows, which are not pairs of {count} heads")
            order = np.arange(rows).reshape(count, rows // count // 2, 2).swapaxes(1, 2).reshape(-1)
            yield name, Part((name,), order)


def decays(file: Stored, fields: Fields) -> Iterator[tuple[str, Part]]:
    """-exp(A_log) lies there."""
    for name in file.names:
        if name.endswith(".A_log"):
            yield name, Part((name,), numbers=partial(_log_of_negative, name))


def slopes(file: Stored, fields: Fields) -> Iterator[tuple[str, Part]]:
    """Of xIELU, which are settings there."""
    layers, of_all = fields.integer("block_count", 1, MAX_LAYERS), Fields(file.settings, fields.where)
    for part in ("alpha_p", "alpha_n"):
        for i, number in enumerate(numbers_by_layer(of_all, f"xielu.{part}", layers)):
            yield f"model.layers.{i}.mlp.act_fn.{part}", Part(made=np.array([number], np.float32))


def experts_of_tokens(file: Stored, fields: Fields) -> Iterator[tuple[str, Part]]:
    """Which experts a token has: whole numbers there."""
    count = fields.integer("expert_count", 1, MAX)
    for name in file.names:
        if name.endswith(".gate.tid2eid"):
            yield name, Part((name,), numbers=partial(_below, name, count))


def stacks(file: Stored, fields: Fields) -> Iterator[tuple[str, Part]]:
    """Layers of two stacks, which are counted through there, the fast one first."""
    size = fields.integer("hrm.layers_per_stack", 1, MAX_LAYERS)
    for name in file.names:
        number, _, part = name.removeprefix("model.layers.").partition(".")
        if name.startswith("model.layers.") and number.isdecimal():
            stack, layer = divmod(int(number), size)
            yield f"model.{'LH'[stack] if stack < 2 else stack}_module.layers.{layer}.{part}", Part((name,))


def value_heads(file: Stored, fields: Fields) -> Iterator[tuple[str, Part]]:
    """Of the gated delta rule: head of values 0 of every head of keys, then head 1 of every one, and so on, lie there;
    those of a head of keys one behind the other here. And -exp(A_log)."""
    keys = fields.integer("ssm.group_count", 1, MAX)
    heads, dims = fields.integer("ssm.time_step_rank", 1, MAX), fields.integer("ssm.state_size", 1, MAX)
    if heads % keys:
        fields.fail("ssm.time_step_rank", heads, f"must be a multiple of ssm.group_count={keys}")
    width = fields.integer("ssm.inner_size", 1, MAX) // heads
    # part -> its dimension that is of heads of values, channels of one, and channels before the first
    places = dict.fromkeys(("in_proj_a.weight", "in_proj_b.weight", "A_log", "dt_bias"), (0, 1, 0))
    places |= {"in_proj_z.weight": (0, width, 0), "out_proj.weight": (1, width, 0)}
    places |= dict.fromkeys(("in_proj_qkv.weight", "conv1d.weight"), (0, width, 2 * keys * dims))
    for name in file.names:
        _, _, part = name.partition(".linear_attn.")
        if part not in places:
            continue
        dim, each, before = places[part]
        shape, count = file.shape(name), before + heads * each
        if len(shape) <= dim or shape[dim] != count:
            raise WeightMismatch(f"tensor {short(name)} is {list(shape)}; settings imply {count} channels of heads")
        order = np.arange(heads).reshape(heads // keys, keys).T.reshape(-1, 1) * each + np.arange(each)
        order = np.concatenate([np.arange(before), before + order.reshape(-1)])
        if dim:
            yield name, Part((name,), columns=order)
        else:
            yield name, Part((name,), order, numbers=partial(_log_of_negative, name) if part == "A_log" else None)


def gates_by_head(file: Stored, fields: Fields) -> Iterator[tuple[str, Part]]:
    """b and a of Qwen 3 Next lie head of keys by head of keys; they are read apart where queries and gates are."""
    keys, heads = fields.integer("ssm.group_count", 1, MAX), fields.integer("ssm.time_step_rank", 1, MAX)
    each = heads // keys
    for name in file.names:
        stem, _, kind = name.rpartition(".in_proj_ba.")
        if not stem or f"{stem}.in_proj_qkv.weight" not in file:
            continue
        if heads % keys or file.shape(name)[0] != 2 * heads:
            raise WeightMismatch(f"tensor {short(name)} is {list(file.shape(name))}; settings imply {2 * heads} rows")
        order = np.arange(2 * heads).reshape(keys, 2, each).swapaxes(0, 1).reshape(2, -1)
        yield f"{stem}.in_proj_b.{kind}", Part((name,), order[0])
        yield f"{stem}.in_proj_a.{kind}", Part((name,), order[1])


def shared_ffn(file: Stored, fields: Fields) -> Iterator[tuple[str, Part]]:
    """Gate and up of Granite's FFN are one tensor of a graph."""
    for name in file.names:
        stem, _, kind = name.rpartition(".shared_mlp.gate_proj.")
        if stem:
            yield f"{stem}.shared_mlp.input_linear.{kind}", Part((name, f"{stem}.shared_mlp.up_proj.{kind}"))


def latent_projections(file: Stored, fields: Fields) -> Iterator[tuple[str, Part]]:
    """Of keys and of values: they are kept as numbers, whatever they lie in."""
    for name in file.names:
        if name.endswith((".k_up_proj.weight", ".v_up_proj.weight")):
            yield (
                name,
                Part(
                    (name,), numbers_since="a matrix of each head, which is multiplied as numbers of the compute type"
                ),
            )


def heads_by_group(file: Stored, fields: Fields) -> Iterator[tuple[str, Part]]:
    """Queries of all heads, keys of all, values of all lie there; of each group its queries, key and value here."""
    heads = fields.integer("attention.head_count", 1, MAX)
    groups = fields.integer("attention.head_count_kv", 1, MAX, default=heads)
    if heads % groups:
        fields.fail("attention.head_count", heads, f"must be a multiple of attention.head_count_kv={groups}")
    for name in file.names:
        if name.rpartition(".")[0].endswith(".query_key_value"):
            width = _width_of_head(file, name, heads + 2 * groups)
            queries, others = np.arange(heads).reshape(groups, -1), heads + np.arange(2 * groups).reshape(2, groups).T
            order = np.concatenate([queries, others], axis=1).reshape(-1, 1)
            yield name, Part((name,), (order * width + np.arange(width)).reshape(-1))


def apart(file: Stored, fields: Fields) -> Iterator[tuple[str, Part]]:
    """q, k and v that lie in one tensor, for graphs that read three."""
    heads = fields.integer("attention.head_count", 1, MAX)
    groups = fields.integer("attention.head_count_kv", 1, MAX, default=heads)
    for name in file.names:
        stem, _, kind = name.rpartition(".qkv_proj.")
        if not stem:
            continue
        width, first = _width_of_head(file, name, heads + 2 * groups), 0
        for part, count in (("q", heads), ("k", groups), ("v", groups)):
            yield f"{stem}.{part}_proj.{kind}", Part((name,), np.arange(first, first + count * width))
            first += count * width


def _width_of_head(file: Stored, name: str, heads: int) -> int:
    """Channels of one of so many heads of a tensor."""
    rows = file.shape(name)[0]
    if rows % heads:
        raise WeightMismatch(f"tensor {short(name)} has {rows} rows, which are not {heads} heads")
    return rows // heads


def _below(name: str, count: int, numbers: F32) -> F32:
    """Raises: WeightMismatch for a number that is no expert's."""
    if not ((numbers >= 0) & (numbers < count)).all():
        raise WeightMismatch(f"tensor {short(name)} names an expert that is none of {count}")
    return numbers


def _log_of_negative(name: str, numbers: F32) -> F32:
    """Raises: WeightMismatch for a number that is no -exp(x)."""
    if not (np.isfinite(numbers) & (numbers < 0)).all():
        raise WeightMismatch(f"tensor {short(name)} holds a number that is not below 0, by which no state decays")
    return np.log(-numbers.astype(np.float64)).astype(np.float32)
