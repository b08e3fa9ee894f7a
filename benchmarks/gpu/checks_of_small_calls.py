"""Launches that are several calls in one (catalog.SMALL_CALLS), and what ranks and heads that draft move: against torch
in float64, or bit by bit against the launches that they replace."""

from __future__ import annotations

from typing import Any

import torch
from checks_of_rows import Found, equal, off, rotated, rotation
from inputs import empty_rows
from setup import Setup

#: Rows of a step, with a tail behind the tile of eight or sixteen.
ROWS = (70, 3)


def turned(x: torch.Tensor, table: torch.Tensor, positions: torch.Tensor, side_by_side: bool) -> torch.Tensor:
    """x: [T, H, D] float64, neighbours or halves of a head turned against each other."""
    if not side_by_side:
        return rotated(x, table, positions)
    halves = torch.cat((x[..., 0::2], x[..., 1::2]), dim=-1)
    return torch.stack(rotated(halves, table, positions).chunk(2, dim=-1), dim=-1).flatten(2)


def head_rows(setup: Setup) -> Found:
    """Numbers, and the bits of a cast, a matrix of each head, a rotation and a join."""
    from albireo.backends.cuda.kernels.head_linear import head_linear
    from albireo.backends.cuda.kernels.head_rows import HeadTails, head_rows
    from albireo.backends.cuda.kernels.join_heads import join_heads
    from albireo.backends.cuda.kernels.rope import rope

    heads, n, k, width = setup.pick((128, 512, 128, 64), (3, 64, 24, 8))
    weight = setup.random(heads * n, k, seed=1, dtype=torch.bfloat16)
    for tokens, pairs in ((setup.pick(1, 2), True), (setup.pick(300, 17), False)):
        x, tail = setup.random(tokens, heads * k), setup.random(tokens, heads * width, seed=2)
        table, positions = rotation(setup, tokens, width)
        out = torch.empty((tokens, heads * (n + width)), dtype=torch.bfloat16, device=setup.device)
        head_rows(x, weight, HeadTails(tail, table, positions, pairs), out, heads, n)
        rounded = x.to(torch.bfloat16)
        wide = rounded.double().view(tokens, heads, k)
        met = torch.einsum("thk,hnk->thn", wide, weight.double().view(heads, n, k))
        behind = turned(tail.double().view(tokens, heads, width), table, positions, pairs)
        yield f"head_rows, {tokens} tokens", off(out, torch.cat((met, behind), dim=2).flatten(1))
        first, last = torch.empty((tokens, heads * n), device=setup.device), torch.empty_like(tail)
        joined = torch.empty_like(out)
        head_linear(rounded, weight, first, heads, n)
        rope(tail, table, positions, last, heads, width, pairs)
        join_heads(first, last, joined, heads)
        # products of the interpreter are a library's, whose order of sums depends on more than a row
        yield f"head_rows, {tokens} tokens, bits of four launches", 0.0 if setup.is_dry else equal(out, joined)


def two_norms(setup: Setup) -> Found:
    """Numbers, and the bits of norm, scale_by and norm, in each type that they are left in."""
    from albireo.backends.cuda.kernels.elementwise import elementwise
    from albireo.backends.cuda.kernels.norm import norm
    from albireo.backends.cuda.kernels.two_norms import Gain, two_norms

    kinds = ("float32", "bfloat16", "float16", "int8.token", "fp8.g128.token")
    for cols, has_by in setup.pick(((5376, True), (2560, False)), ((200, True), (70, False))):
        x, base = 3 * setup.random(setup.pick(*ROWS), cols, seed=1), setup.random(setup.pick(*ROWS), cols, seed=2)
        first, second = (Gain(eps, 1 + 0.1 * setup.random(cols, seed=seed)) for seed, eps in ((3, 1e-5), (4, 1e-6)))
        by = torch.full((1,), 0.7, device=setup.device) if has_by else None
        for kind in kinds:
            if kind == "fp8.g128.token" and setup.chip.capability < 89:
                continue
            out, total = base.clone(), torch.empty_like(base)
            normed, wanted = (empty_rows(setup, len(x), cols, kind) for _ in range(2))
            two_norms(x, first, out, by, second, out, normed)
            norm(x, first.weight, total, first.eps, cols, base=base)
            if by is not None:
                elementwise("scale_by", total, None, total, cols, weight=by)
            norm(total, second.weight, wanted, second.eps, cols)
            yield f"two_norms of {cols}, {kind}, the sum's bits", equal(out, total)
            yield f"two_norms of {cols}, {kind}, bits", equal(normed.view(torch.uint8), wanted.view(torch.uint8))
        wide = _normed(x.double(), first) + base.double()
        wide = wide if by is None else wide * by.double()
        yield f"two_norms of {cols}, the sum", off(out, wide, 64.0)
        two_norms(x, first, base, by, second, out, normed := torch.empty_like(base))
        yield f"two_norms of {cols}", off(normed, _normed(wide, second), 64.0)


def _normed(x: torch.Tensor, gain: Any) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + gain.eps).sqrt() * gain.weight.double()


def kv_row(setup: Setup) -> Found:
    """Latents with rotated channels behind them; keys that are centered, with a bias; entries of four positions."""
    from albireo.backends.cuda.kernels.kv_row import RowNorm, RowTurns, kv_row
    from albireo.backends.cuda.kv import DeviceKV
    from albireo.graph.kv_layout import KVLayout

    tokens, size = setup.pick(70, 11), setup.pick(16, 8)
    latent, dim, behind = setup.pick((512, 128, 64), (32, 16, 8))
    ints = torch.arange(tokens, dtype=torch.int32, device=setup.device)
    for what, width, tail_width, every in (("latents", latent, behind, 1), ("keys", dim, 0, 1), ("entries", dim, 0, 4)):
        is_centered, pairs = what == "keys", what != "keys"
        x, tail = setup.random(tokens, width), setup.random(tokens, tail_width or 2, seed=1)
        weight, bias = 1 + 0.1 * setup.random(width, seed=2), 0.1 * setup.random(width, seed=3)
        table, rows = rotation(setup, tokens, tail_width or width)
        more = {"every": (every,)} if every > 1 else {}
        layout = KVLayout(1, 1, width + tail_width, "bfloat16", size, False, **more)
        layer = DeviceKV(layout, 2 + -(-tokens // size), setup.device).layers[0]
        norm = RowNorm(1e-5, weight, bias if is_centered else None, is_centered)
        kv_row(x, tail if tail_width else None, norm, RowTurns(table, rows, pairs), ints, size + ints, layer)
        wide = x.double() - (x.double().mean(1, keepdim=True) if is_centered else 0.0)
        wide = wide / (wide.square().mean(1, keepdim=True) + 1e-5).sqrt() * weight.double()
        wide = wide + (bias.double() if is_centered else 0.0)
        turn = turned((tail.double() if tail_width else wide)[:, None], table, rows, pairs)[:, 0]
        wide = torch.cat((wide, turn), dim=1) if tail_width else turn
        found = layer.k[1:].transpose(1, 2).flatten(0, 1)[: tokens // every, 0, : wide.shape[1]]
        yield f"kv_row, {what}", off(found, wide[every - 1 :: every], 64.0)


def entries(setup: Setup) -> Found:
    """kv_write of a cache that has one for every four positions: what comes last of each."""
    from albireo.backends.cuda.kernels.kv_write import kv_write
    from albireo.backends.cuda.kv import DeviceKV
    from albireo.graph.kv_layout import KVLayout

    (tokens, size, dim), every = setup.pick((70, 16, 512), (11, 8, 16)), 4
    layer = DeviceKV(KVLayout(1, 1, dim, "bfloat16", size, False, every=(every,)), 3 + tokens // size, setup.device)
    k, ints = setup.random(tokens, dim), torch.arange(tokens, dtype=torch.int32, device=setup.device)
    kv_write(k, None, size + ints, layer.layers[0], 1, dim, ints)
    found = layer.layers[0].k[1:].transpose(1, 2).flatten(0, 1)[: tokens // every, 0, :dim]
    yield "kv_write of entries", off(found, k[every - 1 :: every].double())


def gates(setup: Setup) -> Found:
    """Parts of rows times gates of their own; a norm behind a gate, of groups and of all of a row."""
    from albireo.backends.cuda.kernels.gate_rows import gate_rows
    from albireo.backends.cuda.kernels.output_gate import output_gate

    rows, cols = setup.pick((70, 4096), (3, 96))
    x, residual = setup.random(rows, cols), setup.random(rows, cols, seed=1)
    for parts, is_softplus in ((1, False), (setup.pick(32, 3), True)):
        gate, out = setup.random(rows, parts, seed=2), residual.clone()
        gate_rows(x, gate, out, out, is_softplus)
        by = torch.nn.functional.softplus(gate.double()) if is_softplus else gate.double().sigmoid()
        wanted = (x.double().view(rows, parts, -1) * by[:, :, None]).flatten(1) + residual.double()
        yield f"gate_rows of {parts}", off(out, wanted, 32.0)
    gate, weight = setup.random(rows, cols, seed=3), 1 + 0.1 * setup.random(cols, seed=4)
    for count in setup.pick((8, 1), (3, 1)):
        out = torch.empty((rows, cols), dtype=torch.bfloat16, device=setup.device)
        output_gate("silu", x, gate, weight, out, count, 1e-5, is_behind=True)
        let = (x.double() * torch.nn.functional.silu(gate.double())).view(rows, count, -1)
        normed = let / (let.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        yield f"output_gate, a norm behind, {count} groups", off(out, normed.flatten(1) * weight.double(), 64.0)


def rotations(setup: Setup) -> Found:
    """Of neighbours; of heads that are normed, with a weight and without; of heads that grow with their position."""
    from albireo.backends.cuda.kernels.rope import Growing, rope

    heads, dim = setup.pick((32, 128), (3, 16))
    x, weight = setup.random(setup.pick(*ROWS), heads * dim), 1 + 0.1 * setup.random(dim, seed=1)
    table, positions = rotation(setup, len(x), dim)
    out, wide = torch.empty_like(x), x.double().view(-1, heads, dim)
    normed = wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    for pairs in (False, True):
        what = "neighbours" if pairs else "halves"
        rope(x, table, positions, out, heads, dim, pairs)
        yield f"rope of {what}", off(out, turned(wide, table, positions, pairs).flatten(1))
        rope(x, table, positions, out, heads, dim, pairs, weight=weight, eps=1e-6)
        yield (
            f"rope of {what}, normed",
            off(out, turned(normed * weight.double(), table, positions, pairs).flatten(1), 64.0),
        )
    rope(x, table, positions, out, heads, dim, eps=1e-6)
    yield "rope, normed by no weight", off(out, turned(normed, table, positions, False).flatten(1), 64.0)
    slope, start = setup.random(heads, seed=2), setup.random(heads, seed=3)
    far = 1000 * torch.arange(len(x), dtype=torch.int32, device=setup.device)
    rope(x, table, positions, out, heads, dim, growing=Growing(slope, start, far, 1))
    by = (far.double() + 1).log()[:, None] * slope.double() + start.double()
    yield (
        "rope of heads that grow",
        off(out, (turned(wide, table, positions, False) * by[..., None]).flatten(1), 1024.0),
    )


def normed_values(setup: Setup) -> Found:
    """Values normed by the kernel that writes them, by no weight; queries and keys stay what they are."""
    from albireo.backends.cuda.kernels.qk_norm_rope_kv_write import qk_norm_rope_kv_write
    from albireo.backends.cuda.kv import DeviceKV
    from albireo.graph.kv_layout import KVLayout

    heads, kv_heads, dim, size = setup.pick((16, 4, 512, 16), (4, 2, 16, 8))
    tokens = setup.pick(*ROWS)
    qkv = setup.random(tokens, (heads + 2 * kv_heads) * dim)
    table, positions = rotation(setup, tokens, dim)
    slots = torch.arange(size, size + tokens, dtype=torch.int32, device=setup.device)
    ones, found = torch.ones(dim, device=setup.device), []
    for norms_v in (False, True):
        kv = DeviceKV(KVLayout(1, kv_heads, dim, "bfloat16", size), 1 + -(-tokens // size), setup.device)
        q = torch.empty((tokens, heads * dim), dtype=torch.bfloat16, device=setup.device)
        given = (table, positions, slots, q, kv.layers[0], heads, kv_heads, dim, 1e-6)
        qk_norm_rope_kv_write(qkv, None, ones, ones, *given, norms_v=norms_v)
        found.append((q, kv.layers[0].k, kv.layers[0].v))
    (q, k, _), (q_beside, k_beside, v) = found
    yield "normed values, queries and keys", equal(q_beside, q) + equal(k_beside, k)
    wide = qkv.double().view(tokens, -1, dim)[:, heads + kv_heads :]
    normed = wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    yield "normed values", off(v.transpose(1, 2).flatten(0, 1)[size : size + tokens], normed, 64.0)


def ranks(setup: Setup) -> Found:
    """Parts of sums as a tree; columns, and the best few, of each rank."""
    from albireo.backends.cuda.kernels.add_parts import add_parts
    from albireo.backends.cuda.kernels.join_columns import join_columns, joined_ids

    rows, cols = setup.pick((70, 4096), (3, 96))
    bias, residual = setup.random(cols, seed=1), setup.random(rows, cols, seed=2)
    for count in (2, 4, 8):
        parts = setup.random(count, rows, cols, seed=3)
        out, tree = torch.empty_like(residual), list(parts)
        while len(tree) > 1:
            tree = [a + b for a, b in zip(tree[::2], tree[1::2], strict=True)]
        add_parts(parts, out, bias, residual)
        yield f"add_parts of {count}, bits", equal(out, residual + (tree[0] + bias))
    width, places = setup.pick((32064, 64), (11, 4))
    vocab = 4 * width - 2  # two ranks have one less
    parts = setup.random(4, rows, width)
    bounds = [part * vocab // 4 for part in range(5)]
    whole = torch.cat([parts[i, :, : bounds[i + 1] - bounds[i]] for i in range(4)], dim=1)
    out = torch.empty((rows, vocab), device=setup.device)
    join_columns(parts, out)
    yield "join_columns", equal(out, whole)
    # the best of each part, then the best of these
    least = torch.full_like(parts, float("-inf"))
    for i in range(4):
        least[i, :, : bounds[i + 1] - bounds[i]] = parts[i, :, : bounds[i + 1] - bounds[i]]
    best, ids = least.topk(places, dim=2)
    # of equal numbers either
    found = best.transpose(0, 1).flatten(1).topk(places, dim=1).indices.to(torch.int32)
    joined_ids(found, ids.to(torch.int32).contiguous(), vocab)
    yield "joined_ids", equal(whole.gather(1, found.long()), whole.topk(places, dim=1).values)


def moved_rows(setup: Setup) -> Found:
    """Rows put into blocks that lie apart, rounded, and taken from there."""
    from albireo.backends.cuda.kernels.move_rows import move_rows

    rows, cols, size, span = setup.pick((70, 4096, 16, 48), (5, 40, 2, 6))
    x, kept = setup.random(rows, cols), torch.zeros((2 * rows + 2 * size, cols), dtype=torch.bfloat16)
    kept, ints = kept.to(setup.device), torch.arange(rows, dtype=torch.int32, device=setup.device)
    slots = (1 + ints // size) * span + ints % size
    move_rows(x, kept, put=slots, size=size, span=span)
    yield "move_rows, put", equal(kept[size : size + rows], x.to(torch.bfloat16))
    yield "move_rows, the others", equal(kept[:size], torch.zeros_like(kept[:size]))
    out = torch.empty((rows, cols), device=setup.device)
    move_rows(kept, out, taken=(size + ints).flip(0))
    yield "move_rows, taken", equal(out, x.to(torch.bfloat16).float().flip(0))


CHECKS = {
    "head_rows": head_rows,
    "two_norms": two_norms,
    "kv_row": kv_row,
    "entries": entries,
    "gates": gates,
    "rotations": rotations,
    "normed_values": normed_values,
    "ranks": ranks,
    "moved_rows": moved_rows,
}
