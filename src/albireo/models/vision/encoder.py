"""Layers of vision towers as graph-building functions: all patches of a tile see each other.

Called by the families beside it. As in models/blocks/layers.py, x is the residual stream in float32, and what a matrix
is multiplied with is rounded to the compute dtype. All layers write one layer of the KV cache: nobody reads the keys of
a layer behind it, so that a tower has room for those of one. Those that see windows alone write another one, whose
sequences are the windows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment, Value
from albireo.graph.ops import RopeSpec
from albireo.models.blocks.feed_forward import activated
from albireo.models.blocks.layers import pooled_states

#: Of norms of queries and keys.
QK_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """Fields: patch_size: pixels on a side. act: see activated(). is_rms: norms are RMS norms without a bias.
    has_bias: linears of layers have one. has_qkv_bias: those of queries, keys and values, too. has_k_bias: of keys;
    else zeros stand for it, so that the three are one linear. turned: of each head only the first so many numbers are
    rotated, number i with number i + turned / 2; 0: all are. turns_neighbours: with its neighbour instead.
    has_out_bias: of what attention gives, where has_bias. has_norm_bias: of norms. norms_heads: norms of queries and
    keys are of each head, with the eps of the others. num_kv_heads: of keys and values, which heads of queries share;
    0: as many."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int
    act: str
    eps: float
    dtype: str
    is_rms: bool = False
    has_bias: bool = True
    has_qkv_bias: bool = True
    has_k_bias: bool = True
    turned: int = 0
    norms_heads: bool = False
    num_kv_heads: int = 0
    turns_neighbours: bool = False
    has_out_bias: bool = True
    has_norm_bias: bool = True

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def patch_width(self) -> int:
        """Numbers of a patch."""
        return 3 * self.patch_size**2


class Names(NamedTuple):
    """What a checkpoint calls the parts of a layer, behind its number.

    gate: None: there is none. joined: the module that has the rows of q, k and v, where one does. q_norm, k_norm: of
    norms of all heads' numbers together, or see EncoderSettings.norms_heads. out_gain, down_gain: of vectors that what
    attention and FFN give is multiplied by, number by number (LayerScale).
    """

    attention_norm: str = "input_layernorm"
    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    out: str = "self_attn.o_proj"
    ffn_norm: str = "post_attention_layernorm"
    up: str = "mlp.fc1"
    down: str = "mlp.fc2"
    gate: str | None = None
    joined: str | None = None
    q_norm: str | None = None
    k_norm: str | None = None
    out_gain: str | None = None
    down_gain: str | None = None


#: Of Qwen 2 VL and its kin.
IN_ONE = Names("norm1", "attn.q", "attn.k", "attn.v", "attn.proj", "norm2", joined="attn.qkv")


def embedded(b: GraphBuilder, c: EncoderSettings, name: str, has_bias: bool = True, width: int | None = None) -> Value:
    """What a linear makes of given patches, and given positions, [T, E] float32. Args: width: of patches; None: c's."""
    with b.part("embed"):
        x = linear(b, c, b.given(width or c.patch_width, 0), name, c.hidden_size, "patches", has_bias)
        with b.part("positions"):
            return b.add(x, b.given(c.hidden_size, 1))


def layer(
    b: GraphBuilder, c: EncoderSettings, x: Value, number: int, prefix: str, names: Names, kv_layer: int = 0
) -> Value:
    """x behind one layer, [T, E] float32. Args: prefix: of layers, behind which their numbers come. kv_layer: of the KV
    cache."""
    name = f"{prefix}.{number}"
    with b.part(f"layers.{number}.attn"):
        h = rounded_norm(b, c, x, f"{name}.{names.attention_norm}")
        a = attended(b, c, h, name, names, kv_layer)
        o = linear(b, c, a, f"{name}.{names.out}", c.hidden_size, "o", c.has_bias and c.has_out_bias)
        with b.part("o"):
            x = b.add(x, _gained(b, o, name, names.out_gain))
    with b.part(f"layers.{number}.mlp"):
        h = rounded_norm(b, c, x, f"{name}.{names.ffn_norm}")
        widths = c.intermediate_size, c.hidden_size
        m = mlp(b, c, h, name, widths, c.act, c.has_bias, (names.up, names.down), names.gate)
        with b.part("down"):
            return b.add(x, _gained(b, m, name, names.down_gain))


def layers(b: GraphBuilder, c: EncoderSettings, x: Value, prefix: str, names: Names, count: int | None = None) -> Value:
    """x behind the first count layers; None: behind all of them. Others: see layer()."""
    for number in range(c.num_layers if count is None else count):
        x = layer(b, c, x, number, prefix, names)
    return x


def mlp(
    b: GraphBuilder,
    c: EncoderSettings,
    x: Value,
    name: str,
    widths: tuple[int, int],
    act: str,
    has_bias: bool = True,
    parts: tuple[str, str] = ("linear_1", "linear_2"),
    gate: str | None = None,
) -> Value:
    """Of x a linear, what it gives activated, and of that a linear, [T, widths[1]] float32. Args: parts: the linears of
    the module of that name. gate: another, which is activated and multiplied with the first; None: there is none."""
    m = linear(b, c, x, f"{name}.{parts[0]}", widths[0], "up", has_bias)
    gated = None if gate is None else linear(b, c, x, f"{name}.{gate}", widths[0], "gate", has_bias)
    with b.part("act"):
        m = b.cast(activated(b, m, act) if gated is None else b.mul(activated(b, gated, act), m), c.dtype)
    return linear(b, c, m, f"{name}.{parts[1]}", widths[1], "down", has_bias)


def attended(b: GraphBuilder, c: EncoderSettings, h: Value, name: str, names: Names, kv_layer: int) -> Value:
    """What attention gives of h, rounded. Args: name: of the module that the names are in. Others: see layer()."""
    return _attention(b, c, {p: _of_heads(b, c, h, place, p, name, names) for place, p in enumerate("qkv")}, kv_layer)


def _gained(b: GraphBuilder, x: Value, name: str, gain: str | None) -> Value:
    """x times a vector, in float32, where there is one: a table of one row, which is that of every token of a tile."""
    if gain is None:
        return x
    weight = b.weight(f"{name}.{gain}", (1, int(x.type.dims[-1])), "float32")
    return b.mul(x, b.embed(b.token_ids, weight))


def convolution(c: EncoderSettings, given: int, name: str, channels: int, act: str) -> Graph:
    """Of one before layers, given rows of so many numbers, which it sees at once -> its channels, activated."""
    b = GraphBuilder()
    with b.part("embed"):
        x = linear(b, c, b.given(given, 0), name, channels, "frames")
        with b.part("act"):
            x = activated(b, x, act)
    return pooled_states(b, x)


def _of_heads(b: GraphBuilder, c: EncoderSettings, h: Value, place: int, part: str, name: str, names: Names) -> Value:
    """Queries, keys or values of all heads."""
    of_keys = c.kv_heads * c.head_dim
    width, first = (c.hidden_size, 0) if part == "q" else (of_keys, c.hidden_size + (place - 1) * of_keys)
    module = f"{name}.{names[1 + place]}"
    rows = None if names.joined is None else (f"{name}.{names.joined}", first)
    lacks_bias, order = part == "k" and not c.has_k_bias, _order(c) if c.turned and part != "v" else ()
    has_bias = c.has_bias and c.has_qkv_bias
    x = linear(b, c, h, module, width, part, has_bias, rows, lacks_bias=lacks_bias, order=order)
    of_norm = {"q": names.q_norm, "k": names.k_norm}.get(part)
    if of_norm is None:
        return x
    if c.norms_heads:
        with b.part(f"{part}_norm"):
            weight = b.weight(f"{name}.{of_norm}.weight", (c.head_dim,), "float32")
            return b.rms_norm(x, weight, c.eps, num_heads=width // c.head_dim)
    return norm(b, replace(c, is_rms=True), x, f"{name}.{of_norm}", QK_EPS)


def _order(c: EncoderSettings) -> tuple[tuple[int, int], ...]:
    """Runs of rows of queries or keys, so that what is turned with each other lies half a head apart, as in all others;
    what is not turned fills both halves."""
    half, rest = c.turned // 2, (c.head_dim - c.turned) // 2
    heads = range(0, c.hidden_size, c.head_dim)
    if c.turns_neighbours:
        still = c.turned, c.turned + rest, c.head_dim
        halves = ((*((at, at + 1) for at in range(part, c.turned, 2)), still[part : part + 2]) for part in (0, 1))
        runs = tuple(run for half in halves for run in half)
        return tuple((head + first, head + last) for head in heads for first, last in runs if first < last)
    runs = (0, half), (c.turned, c.turned + rest), (half, c.turned), (c.turned + rest, c.head_dim)
    return tuple((head + first, head + last) for head in heads for first, last in runs)


def _attention(b: GraphBuilder, c: EncoderSettings, parts: dict[str, Value], kv_layer: int) -> Value:
    """Rotated by the step's rope_rows where it has them, else not at all: no frequency is told."""
    still = RopeSpec((0.0,) * (c.head_dim // 2))
    with b.part("rope"):
        q, k = (b.rope(parts[p], still, count, c.head_dim) for p, count in (("q", c.num_heads), ("k", c.kv_heads)))
    return seen(b, c, q, k, parts["v"], kv_layer)


def seen(
    b: GraphBuilder, c: EncoderSettings, q: Value, k: Value, v: Value, kv_layer: int = 0, **by_distance: Any
) -> Value:
    """What rows see of each other, rounded. Args: by_distance: what scores have added; see ops. kv_layer: see
    layer()."""
    with b.part("kv"):
        b.kv_write(k, v, kv_layer, c.kv_heads, c.head_dim)
    with b.part("attention"):
        return seen_by(b, c, q, kv_layer, both_ways=True, **by_distance)


def seen_by(b: GraphBuilder, c: EncoderSettings, q: Value, kv_layer: int, **positions: Any) -> Value:
    """What q sees in a layer of the KV cache, rounded. Args: positions: which of them; see ops."""
    return b.cast(summed(b, c, q, kv_layer, **positions), c.dtype)


def summed(b: GraphBuilder, c: EncoderSettings, q: Value, kv_layer: int = 0, **positions: Any) -> Value:
    """As seen_by(), float32."""
    return b.attention(
        b.cast(q, c.dtype),
        layer=kv_layer,
        num_heads=c.num_heads,
        num_kv_heads=c.kv_heads,
        head_dim=c.head_dim,
        scale=c.head_dim**-0.5,
        window=None,
        softcap=None,
        **positions,
    )


def linear(
    b: GraphBuilder,
    c: EncoderSettings,
    x: Value,
    name: str,
    width: int,
    part: str,
    has_bias: bool = True,
    rows: tuple[str, int] | None = None,
    *,
    lacks_bias: bool = False,
    order: tuple[tuple[int, int], ...] = (),
) -> Value:
    """[T, width] float32 of x, rounded. Args: name: of its module. rows: the module that has its rows, and the first
    of them, where they are a part of another's. lacks_bias: zeros stand for it. order: runs of its rows, where they
    are to lie in another."""
    with b.part(part):
        x = b.cast(x, c.dtype)
        module, first = rows or (name, 0)
        runs = order or ((0, width),)
        segments = {
            kind: tuple(RowSegment(f"{module}.{kind}", first + begin, first + end) for begin, end in runs)
            for kind in ("weight", "bias")
        }
        dims = width, int(x.type.dims[-1])
        weight = b.weight(f"{name}.weight", dims, c.dtype, segments=segments["weight"])
        if lacks_bias:
            segments["bias"] = (RowSegment(None, 0, width),)
        bias = b.weight(f"{name}.bias", (width,), "float32", segments=segments["bias"]) if has_bias else None
        return b.linear(x, weight, bias)


def norm(b: GraphBuilder, c: EncoderSettings, x: Value, name: str, eps: float | None = None) -> Value:
    """norm(x), float32. Args: name: of its module. eps: where it is not that of layers."""
    width, eps = int(x.type.dims[-1]), c.eps if eps is None else eps
    with b.part("norm"):
        weight = b.weight(f"{name}.weight", (width,), "float32")
        if c.is_rms:
            return b.rms_norm(x, weight, eps)
        bias = b.weight(f"{name}.bias", (width,), "float32") if c.has_norm_bias else None
        return b.layer_norm(x, weight, bias, eps)


def rounded_norm(b: GraphBuilder, c: EncoderSettings, x: Value, name: str) -> Value:
    """norm(x), as a matrix reads it."""
    with b.part("norm"):
        return b.cast(norm(b, c, x, name), c.dtype)
