"""Kernels that work row by row, against torch in float64: embed, norm, rotation, elementwise, the KV cache's rows, and
rows of pictures.

Errors are parts of what rounding allows: of an output in bfloat16 half a unit in its 8 bits, of float32 arithmetic some
units of 2^-24 of the largest number.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from inputs import activations, numbers_of
from model import fill_matrix
from setup import Setup

Found = Iterator[tuple[str, float]]


def off(got: torch.Tensor, wanted: torch.Tensor, units: float = 16.0) -> float:
    """The largest difference, as a part of what rounding to got's type and `units` of float32 allow."""
    bits = {torch.float32: 24, torch.bfloat16: 8, torch.float16: 11}[got.dtype]
    size = wanted.abs().clamp(min=1e-30)
    allowed = size * (2.0**-bits if bits < 24 else 0.0) + units * 2.0**-24 * torch.maximum(size, size.amax(-1, True))
    return float(((got.double() - wanted).abs() / allowed).max())


def equal(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return 0.0 if torch.equal(got, wanted) else float("inf")


def gather(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.gather import gather

    x = setup.random(setup.pick(300, 5), setup.pick(4096, 70), dtype=torch.bfloat16)
    rows = torch.arange(len(x) - 1, -1, -2, dtype=torch.int32, device=setup.device)
    out = torch.empty((len(rows), x.shape[1]), dtype=x.dtype, device=setup.device)
    gather(x, rows, out)
    yield "gather", equal(out, x[rows.long()])


def slice_columns(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.slice_columns import slice_columns

    x = setup.random(setup.pick(65, 3), setup.pick(6144, 90))
    out = torch.empty((len(x), setup.pick(1024, 30)), device=setup.device)
    slice_columns(x, 48, out)
    yield "slice_columns", equal(out, x[:, 48 : 48 + out.shape[1]])


def latents(setup: Setup) -> Found:
    """A matrix of each head, for steps of few and of many tokens; parts of heads side by side."""
    from albireo.backends.cuda.kernels.head_linear import head_linear
    from albireo.backends.cuda.kernels.join_heads import join_heads

    heads, n, k = setup.pick((16, 512, 128), (3, 64, 24))
    weight = setup.random(heads * n, k, seed=1, dtype=torch.bfloat16)
    for tokens in setup.pick((1, 16, 300), (2, 17)):
        x = setup.random(tokens, heads * k, dtype=torch.bfloat16)
        out = torch.empty((tokens, heads * n), device=setup.device)
        head_linear(x, weight, out, heads, n)
        wanted = torch.einsum("thk,hnk->thn", x.double().view(tokens, heads, k), weight.double().view(heads, n, k))
        yield f"head_linear, {tokens} tokens", off(out, wanted.flatten(1))
    x, y = (setup.random(5, heads * width, seed=i) for i, width in enumerate((n, k)))
    out = torch.empty((5, heads * (n + k)), dtype=torch.bfloat16, device=setup.device)
    join_heads(x, y, out, heads)
    parts = [each.view(5, heads, -1) for each in (x, y)]
    yield "join_heads", equal(out, torch.cat(parts, dim=2).flatten(1).to(torch.bfloat16))


def embed(setup: Setup) -> Found:
    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.kernels.embed import embed

    for dtype in ("bfloat16", "int8", "int4.g128", "fp8"):
        table = empty_matrix(dtype, setup.pick(2000, 20), setup.pick(4096, 128), setup.device)
        fill_matrix(table, setup, 1)
        ids = torch.arange(0, table.rows, 3, dtype=torch.int32, device=setup.device)
        out = torch.empty((len(ids), table.cols), device=setup.device)
        embed(ids, table, out)
        yield f"embed {dtype}", off(out, numbers_of(table)[ids.long()])


def norm(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.norm import norm

    x = setup.random(setup.pick(70, 3), setup.pick(4096, 70), seed=1)
    weight = 1 + 0.1 * setup.random(x.shape[1])
    for dtype in (torch.float32, torch.bfloat16):
        out = torch.empty(x.shape, dtype=dtype, device=setup.device)
        norm(x, weight, out, 1e-5, x.shape[1])
        yield f"norm {dtype}", off(out, _normed(x.double(), weight.double()))


def _normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def elementwise(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.elementwise import elementwise

    x, y = (setup.random(setup.pick(70, 3), setup.pick(4096, 64), seed=seed) for seed in (1, 2))
    out = torch.empty(x.shape, dtype=torch.bfloat16, device=setup.device)
    silu, gate = torch.nn.functional.silu, x.double().clamp(max=7.0)
    clamped = (y.double().clamp(-7.0, 7.0) + 1) * gate * torch.sigmoid(1.702 * gate)
    for kind, wanted in (
        ("silu", silu(x.double())),
        ("mul", x.double() * y.double()),
        ("add", x.double() + y.double()),
        ("clamped_swiglu", clamped),
    ):
        elementwise(kind, x, None if kind == "silu" else y, out, x.shape[1])
        yield f"elementwise {kind}", off(out, wanted)


def token_rows(setup: Setup) -> Found:
    """What rows of 8-bit codes stand for is within half a step of the numbers, a step being 1 / 127 of the largest."""
    cols = setup.pick(4096, 70)
    x = setup.random(setup.pick(70, 3), cols, seed=3).double()
    _, numbers = activations(setup, "int8", len(x), cols)
    step = x.abs().amax(-1, True) / 127
    yield "rows of codes", float(((numbers - x).abs() / (0.5 * step)).max()) - 1e-5


def heads(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.head_norm import head_norm
    from albireo.backends.cuda.kernels.output_gate import output_gate
    from albireo.backends.cuda.kernels.rope import rope

    num, dim = setup.pick((32, 128), (3, 16))
    x = setup.random(setup.pick(70, 3), num * dim)
    weight, out = 1 + 0.1 * setup.random(dim), torch.empty_like(x)
    head_norm(x, weight, out, 1e-5, num)
    normed = _normed(x.double().view(-1, num, dim), weight.double()).flatten(1)
    yield "head_norm", off(out, normed)
    gate = setup.random(*x.shape, seed=1)
    output_gate("silu", x, gate, weight, out, num, 1e-5)
    yield "output_gate silu", off(out, normed * torch.nn.functional.silu(gate.double()))
    output_gate("sigmoid", x, gate, None, out, num, 0.0)
    yield "output_gate sigmoid", off(out, x.double() * gate.double().sigmoid())
    table, positions = rotation(setup, len(x), dim)
    rope(x, table, positions, out, num, dim)
    yield "rope", off(out, rotated(x.double().view(-1, num, dim), table, positions).flatten(1))
    own, numbers = torch.empty_like(x), torch.arange(len(x), dtype=torch.int32, device=setup.device)
    rope(x, table[positions.long()].flatten(1), numbers, own, num, dim)
    yield "rope by rows of the step", equal(own, out)


def pictures(setup: Setup) -> Found:
    """Rows that come with a step, in place of an embedding and added to what a layer left; and its norm's parts, which
    are to have the bits that a linear leaves of the same rows."""
    from albireo.backends.cuda.kernels.add_given import add_given
    from albireo.backends.cuda.kernels.given import given
    from albireo.backends.cuda.kernels.parts.row_squares import RowParts
    from albireo.backends.cuda.linear import linear, workspace_size
    from albireo.backends.cuda.matrix import DeviceMatrix

    tokens, cols, k = setup.pick((70, 4096, 1024), (5, 192, 64))
    rows, x = setup.random(tokens, cols), setup.random(tokens, cols, seed=1)
    out = torch.empty_like(x)
    given(rows, out)
    yield "given", equal(out, rows)
    of_token = torch.arange(tokens, dtype=torch.int32, device=setup.device).flip(0)
    of_token[::3] = -1
    is_given = of_token >= 0
    wanted = out.copy_(x).clone()
    wanted[is_given] = rows[of_token[is_given].long()] * 2.5
    given(rows, out, of_token, 2.5)
    yield "given in place of embeddings", equal(out, wanted)
    wanted = x.clone()
    wanted[is_given] += rows[of_token[is_given].long()]

    def parts_of(like: torch.Tensor) -> RowParts:
        squares = torch.empty((tokens, -(-cols // 64)), device=setup.device)
        return RowParts(1 + 0.1 * setup.random(cols, seed=2), torch.empty_like(like, dtype=torch.bfloat16), squares)

    parts = parts_of(x)
    add_given(x, rows, of_token, out, parts)
    yield "add_given", equal(out, wanted)
    yield "add_given, the norm's rows", off(parts.scaled, out.double() * parts.gain.double())
    made, of_linear = torch.empty_like(x), parts_of(x)
    matrix = DeviceMatrix("bfloat16", cols, k, setup.random(cols, k, seed=3, dtype=torch.bfloat16))
    inputs = setup.random(tokens, k, seed=4, dtype=torch.bfloat16)
    space = torch.zeros(workspace_size("bfloat16", cols, k), dtype=torch.uint8, device=setup.device)
    linear(inputs, matrix, made, n=cols, residual=x, workspace=space, parts_out=of_linear)
    add_given(made, rows, torch.full_like(of_token, -1), out, parts)
    yield "add_given, a linear's rows", equal(parts.scaled, of_linear.scaled)
    yield "add_given, a linear's squares", equal(parts.squares, of_linear.squares)


def qk_norm_rope_kv_write(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.kv_write import kv_write
    from albireo.backends.cuda.kernels.qk_norm_rope_kv_write import qk_norm_rope_kv_write
    from albireo.backends.cuda.kv import DeviceKV
    from albireo.graph.kv_layout import KVLayout

    num, kv_num, dim, size = setup.pick((32, 8, 128, 16), (4, 2, 16, 8))
    tokens = setup.pick(70, 3)
    qkv = setup.random(tokens, (num + 2 * kv_num) * dim)
    q_norm, k_norm = (1 + 0.1 * setup.random(dim, seed=seed) for seed in (3, 4))
    table, positions = rotation(setup, tokens, dim)
    kv = DeviceKV(KVLayout(1, kv_num, dim, "bfloat16", size), 1 + -(-tokens // size), setup.device)
    slots = torch.arange(size, size + tokens, dtype=torch.int32, device=setup.device)
    q = torch.empty((tokens, num * dim), dtype=torch.bfloat16, device=setup.device)
    qk_norm_rope_kv_write(qkv, None, q_norm, k_norm, table, positions, slots, q, kv.layers[0], num, kv_num, dim, 1e-5)
    parts = qkv.double().view(tokens, num + 2 * kv_num, dim)
    wanted_q = rotated(_normed(parts[:, :num], q_norm.double()), table, positions)
    yield "qk_norm_rope_kv_write q", off(q, wanted_q.flatten(1))
    wanted_k = rotated(_normed(parts[:, num : num + kv_num], k_norm.double()), table, positions)

    def cached(numbers: torch.Tensor) -> torch.Tensor:
        return numbers.transpose(1, 2).flatten(0, 1)[size : size + tokens]

    yield "qk_norm_rope_kv_write k", off(cached(kv.layers[0].k), wanted_k)
    yield "qk_norm_rope_kv_write v", off(cached(kv.layers[0].v), parts[:, num + kv_num :])
    k, v = (setup.random(tokens, kv_num * dim, seed=seed) for seed in (5, 6))
    kv_write(k, v, slots, kv.layers[0], kv_num, dim)
    yield "kv_write", off(cached(kv.layers[0].k).flatten(1), k.double())


def rotation(setup: Setup, tokens: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Table [positions, 2, D / 2] of angles that grow, and a position for each token."""
    angles = torch.arange(2 * tokens, device=setup.device)[:, None] * 0.1 ** torch.arange(dim // 2, device=setup.device)
    table = torch.stack((angles.cos(), angles.sin()), dim=1).float().contiguous()
    return table, torch.arange(1, 2 * tokens, 2, dtype=torch.int32, device=setup.device)


def rotated(x: torch.Tensor, table: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """x: [T, H, D], halves of a head turned against each other."""
    cos, sin = table.double()[positions.long()][:, None].unbind(2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


CHECKS = {
    "gather": gather,
    "slice_columns": slice_columns,
    "latents": latents,
    "embed": embed,
    "norm": norm,
    "elementwise": elementwise,
    "token_rows": token_rows,
    "heads": heads,
    "pictures": pictures,
    "qk_norm_rope_kv_write": qk_norm_rope_kv_write,
}
