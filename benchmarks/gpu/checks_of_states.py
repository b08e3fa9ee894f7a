"""Kernels that keep a state of each sequence, against torch in float64; and the same bits of rows and states whether a
prompt comes whole or in pieces, and of a snapshot within it as of a piece that ends there.

Errors are parts of 1e-5 of the largest number of a row: states are off by what the tokens before were off by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from checks import Finding, worst
from setup import Setup

from albireo.backends.cuda.step import StateSlots

#: Tokens of a step, by sequence: whole prompts and tokens behind them; the same in pieces.
Steps = tuple[tuple[int, ...], ...]


def causal_conv(setup: Setup) -> Iterator[Finding]:
    from albireo.backends.cuda.kernels.causal_conv import causal_conv

    channels, width = setup.pick((8192, 4), (70, 4))
    weight = setup.random(channels, width, seed=1)

    def launch(rows: torch.Tensor, states: torch.Tensor, out: torch.Tensor, step: StateSlots) -> None:
        causal_conv(rows, weight, states, out, step)

    def wanted(rows: torch.Tensor) -> torch.Tensor:
        padded = torch.cat((rows.new_zeros(width - 1, channels), rows))
        sums = sum(weight[:, j].double() * padded[j : j + len(rows)] for j in range(width))
        return torch.nn.functional.silu(torch.as_tensor(sums))

    yield from _compared(setup, "causal_conv", channels, (width - 1) * channels, channels, launch, wanted)


def short_conv(setup: Setup) -> Iterator[Finding]:
    """Of three rows, with a bias, no silu, and a product before and behind."""
    from albireo.backends.cuda.kernels.causal_conv import causal_conv

    channels, width = setup.pick((2048, 3), (70, 3))
    weight, bias = setup.random(channels, width, seed=1), setup.random(channels, seed=2)

    def launch(rows: torch.Tensor, states: torch.Tensor, out: torch.Tensor, step: StateSlots) -> None:
        causal_conv(rows, weight, states, out, step, bias=bias, activation="none", gated=True)

    def wanted(rows: torch.Tensor) -> torch.Tensor:
        before, behind, x = rows.split(channels, 1)
        padded = torch.cat((rows.new_zeros(width - 1, channels), before * x))
        sums = sum(weight[:, j].double() * padded[j : j + len(rows)] for j in range(width))
        return behind * (torch.as_tensor(sums) + bias.double())

    yield from _compared(setup, "short_conv", 3 * channels, (width - 1) * channels, channels, launch, wanted)


def gated_delta_rule(setup: Setup) -> Iterator[Finding]:
    from albireo.backends.cuda.kernels.gated_delta_rule import gated_delta_rule

    k_heads, heads, k_dim, v_dim = setup.pick((16, 32, 128, 128), (1, 2, 12, 20))
    of_keys, columns = k_heads * k_dim, 2 * k_heads * k_dim + heads * v_dim
    a_log, dt_bias = torch.linspace(-3, 2, heads, device=setup.device), setup.random(heads, seed=2)

    def launch(rows: torch.Tensor, states: torch.Tensor, out: torch.Tensor, step: StateSlots) -> None:
        x, gates = rows[:, :columns], rows[:, columns:]
        gated_delta_rule(x, gates, a_log, dt_bias, states, out, step, k_heads, k_dim, v_dim)

    def wanted(rows: torch.Tensor) -> torch.Tensor:
        q, k = rows[:, :of_keys], rows[:, of_keys : 2 * of_keys]
        q, k = (_unit(each.view(-1, k_heads, k_dim)).repeat_interleave(heads // k_heads, 1) for each in (q, k))
        v, gates = rows[:, 2 * of_keys : columns].view(-1, heads, v_dim), rows[:, columns:]
        time = torch.nn.functional.softplus(gates[:, heads:] + dt_bias.double())
        kept, learned = (-a_log.double().exp() * time).exp(), gates[:, :heads].sigmoid()
        state, found = rows.new_zeros(heads, k_dim, v_dim), []
        for t in range(len(rows)):
            state = kept[t, :, None, None] * state
            delta = learned[t, :, None] * (v[t] - torch.einsum("hk,hkv->hv", k[t], state))
            state = state + k[t, :, :, None] * delta[:, None, :]
            found.append(torch.einsum("hk,hkv->hv", q[t], state).flatten() / k_dim**0.5)
        return torch.stack(found)

    size = heads * k_dim * v_dim
    yield from _compared(setup, "gated_delta_rule", columns + 2 * heads, size, heads * v_dim, launch, wanted)


def selective_state(setup: Setup) -> Iterator[Finding]:
    from albireo.backends.cuda.kernels.selective_state import selective_state

    groups, heads, k_dim, v_dim = setup.pick((8, 64, 128, 64), (1, 2, 12, 20))
    of_keys, of_values = groups * k_dim, heads * v_dim
    columns = of_values + 2 * of_keys
    a_log, dt_bias = torch.linspace(-3, 2, heads, device=setup.device), setup.random(heads, seed=2)
    skip = setup.random(heads, seed=4)

    def launch(rows: torch.Tensor, states: torch.Tensor, out: torch.Tensor, step: StateSlots) -> None:
        x, dt = rows[:, :columns], rows[:, columns:]
        selective_state(x, dt, a_log, dt_bias, skip, states, out, step, groups, k_dim, v_dim)

    def wanted(rows: torch.Tensor) -> torch.Tensor:
        v, b, c, dt = rows.split((of_values, of_keys, of_keys, heads), 1)
        b, c = (each.view(-1, groups, k_dim).repeat_interleave(heads // groups, 1) for each in (b, c))
        v, time = v.view(-1, heads, v_dim), torch.nn.functional.softplus(dt + dt_bias.double())
        kept = (-a_log.double().exp() * time).exp()
        state, found = rows.new_zeros(heads, k_dim, v_dim), []
        for t in range(len(rows)):
            given = b[t, :, :, None] * (time[t, :, None] * v[t])[:, None, :]
            state = kept[t, :, None, None] * state + given
            out = torch.einsum("hk,hkv->hv", c[t], state) + skip.double()[:, None] * v[t]
            found.append(out.flatten())
        return torch.stack(found)

    size = heads * k_dim * v_dim
    yield from _compared(setup, "selective_state", columns + heads, size, of_values, launch, wanted)


def selective_scan(setup: Setup) -> Iterator[Finding]:
    from albireo.backends.cuda.kernels.selective_scan import selective_scan

    v_dim, k_dim = setup.pick((5120, 16), (40, 12))
    sizes = (v_dim, v_dim, 2 * k_dim)
    a_log = torch.linspace(-3, 2, v_dim * k_dim, device=setup.device).view(k_dim, v_dim).T.contiguous()
    dt_bias, skip = setup.random(v_dim, seed=2), setup.random(v_dim, seed=4)

    def launch(rows: torch.Tensor, states: torch.Tensor, out: torch.Tensor, step: StateSlots) -> None:
        selective_scan(*rows.split(sizes, 1), a_log, dt_bias, skip, states, out, step)  # type: ignore[call-arg]

    def wanted(rows: torch.Tensor) -> torch.Tensor:
        v, dt, bc = rows.split(sizes, 1)
        (b, c), time = bc.split(k_dim, 1), torch.nn.functional.softplus(dt + dt_bias.double())
        state, found = rows.new_zeros(v_dim, k_dim), []
        for t in range(len(rows)):
            kept = (-a_log.double().exp() * time[t, :, None]).exp()
            state = kept * state + (time[t] * v[t])[:, None] * b[t]
            found.append(state @ c[t] + skip.double() * v[t])
        return torch.stack(found)

    yield from _compared(setup, "selective_scan", sum(sizes), v_dim * k_dim, v_dim, launch, wanted)


def pool_rows(setup: Setup) -> Iterator[Finding]:
    """Means of windows, alone and with the window before."""
    from albireo.backends.cuda.kernels.pool_rows import pool_rows

    width = setup.pick(512, 20)
    for every, series in setup.pick(((4, 2), (128, 1)), ((4, 2), (2, 1))):
        places = setup.random(every, series * width, seed=6)

        def launch(
            rows: torch.Tensor, states: torch.Tensor, out: torch.Tensor, step: StateSlots,
            places: torch.Tensor = places, series: int = series, every: int = every,
        ) -> None:  # fmt: skip
            pool_rows(*rows.chunk(2, 1), places, states, out, step, every, series)  # type: ignore[call-arg]

        def wanted(
            rows: torch.Tensor, places: torch.Tensor = places, series: int = series, every: int = every
        ) -> torch.Tensor:
            x, gates = (each.view(len(rows), series, width) for each in rows.chunk(2, 1))
            gates = gates + places.double().view(every, series, width)[torch.arange(len(rows)) % every]
            out = rows.new_zeros(len(rows), width)
            for end in range(every, len(rows) + 1, every):
                own, before = slice(end - every, end), slice(max(0, end - 2 * every), end - every)
                some = [(x[own, -1], gates[own, -1])] + ([(x[before, 0], gates[before, 0])] if series == 2 else [])
                numbers, powers = (torch.cat(each) for each in zip(*some, strict=True))
                out[end - 1] = (powers.softmax(0) * numbers).sum(0)
            return out

        size = (9 if series == 2 else 3) * width
        what = f"pool_rows of {every}, {series} series"
        yield from _compared(setup, what, 2 * series * width, size, width, launch, wanted)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def _compared(
    setup: Setup,
    what: str,
    columns: int,
    size: int,
    out_columns: int,
    launch: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, StateSlots], None],
    wanted: Callable[[torch.Tensor], torch.Tensor],
) -> Iterator[Finding]:
    """columns: of a row; size: numbers of a state; wanted: of all rows of a sequence. Slot 0 is for the snapshot."""
    long = setup.pick(200, 9)
    lengths = (long, 3, 1)
    rows = [setup.random(length, columns, seed=10 + i) for i, length in enumerate(lengths)]
    plans: dict[str, Steps] = {
        "whole": (lengths,),
        "in pieces": ((long // 3, 1, 1), (1, 0, 0), (long - long // 3 - 2, 2, 0), (1, 0, 0)),
    }
    found = {}
    for name, steps in plans.items():
        num_before = [long // 3 if name == "whole" else 0, 0, 0]
        states, done = setup.random(len(lengths) + 1, size, seed=3), [0] * len(lengths)
        parts: list[list[torch.Tensor]] = [[] for _ in lengths]
        for step in steps:
            there = [i for i, count in enumerate(step) if count]
            x = torch.cat([rows[i][done[i] : done[i] + step[i]] for i in there])
            done = [before + count for before, count in zip(done, step, strict=True)]
            starts = [0, *torch.tensor([step[i] for i in there]).cumsum(0).tolist()]
            slots, of_snapshots = [i + 1 for i in there], [num_before[i] for i in there]
            arrays = (slots, starts, [done[i] for i in there], [0] * len(there), of_snapshots)
            on_device = StateSlots(*(torch.tensor(each, dtype=torch.int32, device=setup.device) for each in arrays))
            out = torch.empty((len(x), out_columns), device=setup.device)
            launch(x, states, out, on_device)
            if step[0] == done[0] < long:  # the first piece, which ends where the snapshot is
                states[0] = states[1]
            for i, start, end in zip(there, starts, starts[1:], strict=False):
                parts[i].append(out[start:end])
        found[name] = torch.cat([torch.cat(each) for each in parts]), states
    ideal = torch.cat([wanted(each.double()) for each in rows])
    (got, states), (got_of_pieces, states_of_pieces) = found["whole"], found["in pieces"]
    yield worst(what, got, ideal, 1e-5 * ideal.abs().amax(1, keepdim=True).expand_as(ideal))
    is_same = torch.equal(got_of_pieces, got) and torch.equal(states_of_pieces[1:], states[1:])
    yield Finding(f"{what}, bits in pieces", 0.0 if is_same else float("inf"), "rows or states differ")
    is_same = torch.equal(states_of_pieces[0], states[0])
    yield Finding(f"{what}, bits of a snapshot", 0.0 if is_same else float("inf"), "it is not what ended there")


CHECKS = {
    "causal_conv": causal_conv,
    "short_conv": short_conv,
    "gated_delta_rule": gated_delta_rule,
    "selective_state": selective_state,
    "selective_scan": selective_scan,
    "pool_rows": pool_rows,
}
