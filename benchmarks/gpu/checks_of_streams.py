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


CHECKS = {"add_streams": add_streams, "row_map": row_map, "depthwise_conv": depthwise_conv}
