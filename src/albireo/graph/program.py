"""Program: the flat list of calls that runs. Kernels are chosen, memory is planned, weights have a layout.

Emitted by compiler/, bound to addresses and run by a backend, printed by show.py. Plain data: does not know
models, pointers or arrays.

Call families and their roles (a backend implements these):

    embed        ids, table -> out                          out[T, E] float32; ids: token_ids or positions
    given        -> out                                     out[T, width] float32, which comes with the step
    add_given    x -> out                                   x, and rows that come with the step where there are any
    add_given_norm  x, gain -> out, scaled, squares         an add_given, and what linear_norm gives beside out
    norm         x [, weight] [, bias] [, rows] -> out      rows gathers first; out in its buffer's dtype;
                                                            attr centered: of x minus its mean
    two_norms    x, residual [, weight] [, by]              a norm with its residual, times the number by, and the norm
                 [, next_weight] -> out, normed             of that
    gather       x, rows -> out                             rows of x, copied
    linear       x, weight [, bias] [, residual] -> out     attrs act: none | silu_mul | gelu_tanh_mul |
                                                            clamped_swiglu (gate and up rows interleaved by
                                                            GATE_UP_INTERLEAVE) | gelu | gelu_tanh | relu (of
                                                            each output); residual may be out; chunks as in
                                                            graph.ops, absent: one chain
        [, squares]                                         attr norm_eps: each row of the product is divided by
                                                            the root of its mean square, from sums over SQUARES
                                                            columns; the bias comes then
    linear_norm  x, weight, gain [, residual] [, bias]      a linear, and out * gain, rounded, and sums of out's squares
                 -> out, scaled, squares
        [, row_squares] [, low]                             row_squares: a linear's squares; attr modules: see graph.ops
    linear_parts x, weight [, squares] [, low]              a linear whose columns are several values, which lie side
                 -> out, out2, ...                          by side: each is a part of its rows
    adapter      x -> out                                   attrs modules, max_rank: what adapters of low rank have
                                                            between their two matrices; becomes a linear's low
    all_reduce   x [, bias] [, residual] -> out             the sum of every rank's x as a binary tree; ranks meet
                                                            before it and behind it
    all_reduce_norm  x, residual, gain [, bias]             an all_reduce, and what linear_norm gives beside out
                 -> out, scaled, squares
    qkv_rope_kv  x, weight [, bias] [, q_norm, k_norm], rope -> q     writes k and v of this step to the KV cache;
        [, squares] [, low]                                 as in linear
        [, v_weight [, v_bias]]                             v's own, where weight has the rows of q and k alone; attr
                                                            norms_v: heads of v are divided by their root mean square
    choose_keys  q [, weights] -> ids                       rows of T: the positions that attention is to see
    attention    q [, rows] [, sinks] [, distances]         rows: out has these only; attrs, and chosen: see graph.ops
        [, chosen] [, from_rows [, from_keys]] -> out       the last two: what rows of q, and of T, add by distance
    head_top     x, weight -> ids, values                   best logits per row, of equals the lowest id first
    route        x [, bias] [, gate] -> ids, weights        the top_k best experts of each row of logits; see graph.ops
    expert_linear  x, ids, weight [, bias] -> out           rows P, each of an expert: a linear with its rows of weight,
                                                            num_experts blocks of whole panels; x has T or P rows
        [, squares]                                         as in linear; of T rows
    combine      x, weights [, residual] -> out             rows T: each token's P rows, weighed and added in order
    combine_norm x, weights, residual, gain                 a combine, and what linear_norm gives beside out
                 -> out, scaled, squares
    gate_rows    x, gate [, residual] -> out                rows of x, or parts of them, times the sigmoid of one
                                                            number each; attr kind, see graph.ops
    output_gate  x, gate [, weight] -> out                  rows times silus or sigmoids (attr kind) of others; weight,
                                                            eps, num_heads: of a norm of heads of x, before that;
                                                            attr is_behind: of out, behind it
    causal_conv  x, weight [, bias] -> out                  rows of T, which each sequence's state goes on with; see
                                                            graph.ops. attrs activation, gated; state: a place
                                                            in Program.states
    depthwise_conv  x, weight [, bias] -> out               rows of T, which are one sequence; attr activation
    gated_delta_rule  x, gates, [dt], a_log, dt_bias -> out  rows of T, likewise
    selective_state  x [, dt, a_log, dt_bias, skip] -> out  rows of T, likewise
    selective_scan  x, dt, bc, a_log, dt_bias, skip -> out  rows of T, likewise
    pool_rows    x [, gates, places] -> out                 rows of T, likewise: of every so many of a sequence one
    head_linear  x, weight -> out                           a linear of each of num_heads equal parts of a row, with its
                                                            rows of weight, num_heads blocks of whole panels; n and k
                                                            are of one head
    join_heads   x, y -> out                                num_heads parts of x and of y in turn
    head_rows    x, weight, tail [, rope] -> out            a head_linear of x, rounded, and tail, rotated, joined
    add_parts    x, y [, coefs] -> out                      num_parts parts of a row, each with a sum of those of y; see
                                                            graph.ops
    balance      x -> out                                   matrices whose rows and columns add up to one
    join_sums    x, y, sinks -> out                         an attention of two that give sums
    row_map      x [, y] -> out                             attr kind: program_spec.ROW_KINDS, number: what of it

Families of single ops, for what no pass took into one of these (compiler/passes/single_ops.py). They read float32:

    elementwise  x [, y] -> out                             attrs kind: program_spec.KINDS
    head_norm    x [, weight] -> out                        norm of each of num_heads parts of a row; weight: of each
                                                            part, or of all
    rope         x, rope -> out                             rows of T
    kv_write     k [, v]                                    rows of T, to the KV cache
    slice        x -> out                                   columns of x from start on, copied
    top          x -> ids, values                           head_top of logits that are in memory
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from albireo.dtypes import itemsize, natural_stride
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import ConstantDef, Dim
from albireo.graph.ops import RopeSpec
from albireo.graph.tuning import Tuning

#: Output columns of one weight panel; N is padded to it with zeros.
PANEL = 64
#: silu_mul weights: this many gate rows, then this many up rows, in turn; half a panel each.
GATE_UP_INTERLEAVE = 32


def is_gated(act: str) -> bool:
    """Whether an output of a linear is made of two, a gate and an up."""
    return act.endswith("_mul") or act == "clamped_swiglu"


def weight_rows(n: int, act: str) -> int:
    """Rows of panels that n outputs are made of: whole panels, in which gate and up alternate where there is a gate."""
    return -(-n // GATE_UP_INTERLEAVE) * PANEL if is_gated(act) else -(-n // PANEL) * PANEL


#: Rows a multiple of this many bytes apart share the sets of a first-level cache, and throw each other out of it.
CACHE_ALIAS_BYTES = 4096
CACHE_LINE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Buffer:
    """An activation in the arena: [rows, cols] of dtype at a byte offset planned for the largest rows.

    within: columns of the rows that its own are a part of; 0: they are none.
    """

    name: str
    dtype: str
    rows: Dim
    cols: int
    offset: int
    within: int = 0

    @property
    def stride(self) -> int:
        """Elements from one row to the next; see row_stride()."""
        return row_stride(self.dtype, self.within or self.cols)


def row_stride(dtype: str, cols: int) -> int:
    """Elements from one row of an activation to the next, or a cache line more where rows would alias."""
    size, cols = itemsize(dtype), natural_stride(dtype, cols)
    return cols + (CACHE_LINE_BYTES // size if cols * size % CACHE_ALIAS_BYTES == 0 else 0)


@dataclass(frozen=True, slots=True)
class PackedConstant:
    """A constant as a kernel wants it.

    packing: "p64.<float32|float16|bfloat16|an encoding>" panels of 64 output columns; "row.<dtype>" plain rows,
        or of an encoding rows of codes and arrays of scales;
        "rope" cos and sin tables [max_positions, D/2, 2] float32 of the RopeSpec.
    rows, cols: logical shape (N and K of a linear; 1 and n of a vector).
    num_bytes: what it takes in memory.
    """

    name: str
    packing: str
    rows: int
    cols: int
    num_bytes: int
    definition: ConstantDef | None = None
    rope: RopeSpec | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One kernel call.

    Fields:
        family: see the module docstring.
        kernel: identity of the chosen variant, such as linear.bfloat16.avx512bf16.m6n64.
        args: role -> name of a buffer, a constant or a step array (program_spec.STEP_ARRAYS).
        attrs: numbers and strings of the family.
        rows: the symbol that counts the rows it computes: T, R, G, S or P; a call with zero rows is skipped,
            its barrier too.
        split: how threads share it: panels, rows, heads or one.
        barrier: all threads meet after it.
        tuning: one for each of graph.tuning.BUCKETS, or none: the defaults. Changes no bit.
    """

    family: str
    kernel: str
    args: dict[str, str]
    attrs: dict[str, Any]
    rows: str
    split: str
    barrier: bool
    origin: str = ""
    tuning: tuple[Tuning, ...] = ()


@dataclass(frozen=True, slots=True)
class StateLayout:
    """What a sequence keeps from step to step beside the KV cache: float32 arrays of these shapes.

    A slot holds those of one sequence. The recurrent call with attribute state = i reads and writes shapes[i].
    """

    shapes: tuple[tuple[int, ...], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.shapes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each in one slot."""
        return tuple(math.prod(shape) * itemsize("float32") for shape in self.shapes)

    @property
    def slot_bytes(self) -> int:
        """Bytes of one sequence."""
        return sum(self.sizes)


@dataclass(frozen=True, slots=True)
class Program:
    """Everything a backend needs to run steps, weights' contents aside."""

    calls: tuple[Call, ...]
    buffers: dict[str, Buffer]
    constants: dict[str, PackedConstant]
    kv: KVLayout
    maxima: dict[str, int]
    arena_bytes: int
    #: logits -> buffer name, top_ids, top_values likewise
    outputs: dict[str, str]
    #: one record a pass: what fired, what it saves, what did not and why
    report: tuple[Any, ...] = field(default=(), repr=False)
    #: of each sequence; empty where layers keep none
    states: StateLayout = StateLayout()

    @property
    def top_k(self) -> int:
        """Experts of a token; 0 where nothing is routed."""
        return self.maxima["P"] // self.maxima["T"] if "P" in self.maxima else 0

    def sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """What every step symbol stands for, P too, from those of StepInputs.sizes."""
        return {**sizes, "P": self.top_k * sizes["T"]}

    @property
    def weight_bytes(self) -> int:
        return sum(c.num_bytes for c in self.constants.values())
