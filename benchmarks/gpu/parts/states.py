"""Kernels that keep a state of each sequence, in the shape of Qwen3.5-27B: bytes of states a second, time of a token
of a prompt, and how many columns of V a program is to have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from report import Row, verdict
from setup import Setup, attempt

K_HEADS, HEADS, DIM, WIDTH = 16, 48, 128, 4
COLUMNS = (8, 16, 32)


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.kernels.gated_delta_rule  # noqa: F401 - where it is missing the part is skipped

    steps = setup.pick(((1, 1), (8, 1), (64, 1), (256, 1), (1, 2048), (8, 1024)), ((2, 1), (1, 3)))
    for sequences, tokens in steps:
        what = f"{sequences} x {tokens}"
        yield from attempt(what, lambda s=sequences, t=tokens, what=what: _step(setup, s, t, what))


def _step(setup: Setup, sequences: int, tokens: int, what: str) -> Iterator[Row]:
    from albireo.backends.cuda.kernels import gated_delta_rule as rule
    from albireo.backends.cuda.kernels.causal_conv import causal_conv
    from albireo.backends.cuda.step import StateSlots

    k_heads, heads, dim = setup.pick((K_HEADS, HEADS, DIM), (1, 2, 16))
    channels, rows = (2 * k_heads + heads) * dim, sequences * tokens

    def ints(values: torch.Tensor) -> torch.Tensor:
        return values.to(torch.int32).to(setup.device)

    # all go on: states are read, too
    step = StateSlots(
        ints(torch.arange(sequences)),
        ints(torch.arange(sequences + 1) * tokens),
        ints(torch.arange(sequences) + 9999),
        *(ints(torch.zeros(sequences)) for _ in range(2)),  # no snapshots
    )
    x, gates = setup.random(rows, channels), setup.random(rows, 2 * heads)
    of_heads = torch.zeros(heads, device=setup.device), torch.zeros(heads, device=setup.device)
    sizes = (WIDTH - 1) * channels, heads * dim * dim
    conv, states = (0.1 * setup.random(sequences, size) for size in sizes)
    weight, mixed = setup.random(channels, WIDTH), torch.empty_like(x)
    out = torch.empty((rows, heads * dim), device=setup.device)

    def launch(columns: int) -> Callable[[], None]:
        def recurrence() -> None:
            kept, rule._COLUMNS = rule._COLUMNS, columns
            rule.gated_delta_rule(x, gates, *of_heads, states, out, step, k_heads, dim, dim)
            rule._COLUMNS = kept

        return recurrence

    def row(name: str, seconds: float, size: int) -> Row:
        rate = 2 * 4 * sequences * size / seconds
        note = f"states at {rate / 1e9:.0f} GB/s, {rate / setup.bandwidth:.2f} of the bandwidth"
        if tokens > 1:
            note = f"{seconds / tokens * 1e9:.0f} ns a token of each sequence"
        data: dict[str, Any] = {"seconds": seconds, "bytes": 8 * sequences * size}
        return Row(f"{name}, {what}", seconds * 1e6, "us", note, data=data)

    now, choices = rule._COLUMNS, setup.pick(COLUMNS, (rule._COLUMNS,))
    launches = {str(columns): launch(columns) for columns in choices}
    for each in launches.values():  # each sets what the others read: not at once
        each()
    yield row("causal_conv", setup.seconds(lambda: causal_conv(x, weight, conv, mixed, step)), sizes[0])
    found = {name: setup.seconds(each) for name, each in launches.items()}
    yield row("gated_delta_rule", found[str(now)], sizes[1])
    yield verdict(f"columns of gated_delta_rule, {what}", "kernels/gated_delta_rule._COLUMNS", str(now), found)
