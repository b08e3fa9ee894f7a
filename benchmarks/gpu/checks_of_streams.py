"""Kernels of several residual streams, of rows as a whole, and of rows around each, against torch in float64."""

from __future__ import annotations

import torch
from checks_of_rows import Found, off
from setup import Setup


def add_streams(setup: Setup) -> Found:
    """Every stream with a sum of all, and a part of one added to each; one made of all."""
    from albireo.backends.cuda.kernels.add_streams import add_streams

    rows, width = setup.pick((70, 2048), (3, 40))
    for parts, given, plus in ((4, 4, 0.0), (4, 1, 1.0), (1, 4, 1e-6)):
        x, y = setup.random(rows, parts * width), setup.random(rows, given * width, seed=1)
        coefs, out = setup.random(rows, parts * given, seed=2), torch.empty_like(x)
        add_streams(x, y, coefs, out, parts, 0, plus)
        by = coefs.double().view(rows, parts, given) + plus
        wanted = x.double().view(rows, parts, width) + torch.einsum(
            "tji,tie->tje", by, y.double().view(rows, -1, width)
        )
        yield f"add_streams, {given} to {parts}", off(out, wanted.flatten(1))


def row_map(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.row_map import row_map

    for width in setup.pick((2048, 16384), (70,)):
        x, y = setup.random(setup.pick(70, 3), width), 3 * setup.random(setup.pick(70, 3), width, seed=1)
        out = torch.empty_like(x)
        row_map("match_length", x, y, out, 1e-5)
        means = [rows.double().square().mean(1, keepdim=True) for rows in (x, y)]
        yield f"match_length of {width}", off(out, x.double() * (means[1] / means[0].clamp(min=1e-5)).sqrt())
        row_map("cut", x, None, out, 1.645)
        wide = x.double()
        limit = wide.mean(1, keepdim=True) + 1.645 * wide.std(1, keepdim=True, correction=0)
        yield f"cut of {width}", off(out, (wide - limit).clamp(min=0.0))


def depthwise_conv(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.depthwise_conv import depthwise_conv

    rows, channels = setup.pick((700, 1024), (19, 40))
    for width in (9, 31):
        x, weight = setup.random(rows, channels), setup.random(channels, width, seed=1)
        bias, out = setup.random(channels, seed=2), torch.empty_like(x)
        depthwise_conv(x, weight, out, bias)
        padded = torch.nn.functional.pad(x.double(), (0, 0, width // 2, width // 2))
        sums = torch.einsum("tcj,cj->tc", padded.unfold(0, width, 1), weight.double()) + bias.double()
        # sums of so many products, and of their sizes
        size = float(torch.einsum("tcj,cj->tc", padded.unfold(0, width, 1).abs(), weight.double().abs()).max())
        wanted = torch.nn.functional.silu(sums)
        allowed = (width + 8) * 2.0**-24 * size
        yield f"depthwise_conv of {width}", float((out.double() - wanted).abs().max() / allowed)


def streams_at_once(setup: Setup) -> Found:
    """What a block reads of four streams, and how they are written: by sums of linears, balanced; and mixed by it."""
    from albireo.backends.cuda.kernels.mix_streams import mix_streams
    from albireo.backends.cuda.kernels.read_streams import Reading, Shifts, read_streams

    rows, width, count = setup.pick((70, 7168, 4), (3, 40, 3))
    x, y = setup.random(rows, count * width), 20 * setup.random(rows, (2 + count) * count, seed=1)
    sizes = (count, count, count * count)
    shifts = [Shifts(setup.random(1, seed=2 + i), setup.random(size, seed=5 + i)) for i, size in enumerate(sizes)]
    gain = 1 + 0.1 * setup.random(width, seed=9)
    out = torch.empty((rows, width), dtype=torch.bfloat16, device=setup.device)
    written, matrix = (torch.empty((rows, size), device=setup.device) for size in sizes[1:])
    read_streams(
        x, y, (shifts[0], shifts[1], shifts[2]), gain, out, written, matrix, Reading(1e-5, 1e-3, 20, 1e-6, 1e-6)
    )
    wide = x.double().view(rows, count, width)
    by = y.double() / (x.double().square().mean(1, keepdim=True) + 1e-5).sqrt()
    read, to_write, mixed = (
        part * shift.scale.double() + shift.bias.double()
        for part, shift in zip(by.split(sizes, dim=1), shifts, strict=True)
    )
    total = torch.einsum("tj,tje->te", read.sigmoid() + 1e-3, wide)
    total = total / (total.square().mean(1, keepdim=True) + 1e-6).sqrt() * gain.double()
    m = mixed.view(rows, count, count).softmax(1) + 1e-6
    m = m / (m.sum(2, keepdim=True) + 1e-6)
    for _ in range(19):
        m = m / (m.sum(1, keepdim=True) + 1e-6)
        m = m / (m.sum(2, keepdim=True) + 1e-6)
    # sums of some tens go through exp
    yield "read_streams, what is read", off(out, total, 512.0)
    yield "read_streams, what is written by", off(written, to_write.sigmoid(), 512.0)
    yield "read_streams, the matrix", off(matrix, m.flatten(1), 2048.0)
    made, after = setup.random(rows, width, seed=3), torch.empty_like(x)
    coefs, of_rows = setup.random(rows, count, seed=4), setup.random(rows, count * count, seed=8)
    for is_mixed in (True, False):
        mix_streams(x, made, coefs, of_rows if is_mixed else None, after, 2.5, 1e-3)
        whole = torch.einsum("tji,tie->tje", of_rows.double().view(rows, count, count), wide) if is_mixed else wide
        whole = whole + (coefs.double() * 2.5 + 1e-3)[:, :, None] * made.double()[:, None]
        yield f"mix_streams{'' if is_mixed else ', apart'}", off(after, whole.flatten(1))


CHECKS = {
    "add_streams": add_streams,
    "row_map": row_map,
    "depthwise_conv": depthwise_conv,
    "streams at once": streams_at_once,
}
