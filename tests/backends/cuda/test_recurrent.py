"""causal_conv, gated_delta_rule, selective_state, selective_scan and pool_rows: against the reference, and the same
bits however tokens are cut, whatever slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.causal_conv import causal_conv
from albireo.backends.cuda.kernels.gated_delta_rule import gated_delta_rule
from albireo.backends.cuda.kernels.pool_rows import pool_rows
from albireo.backends.cuda.kernels.selective_scan import selective_scan
from albireo.backends.cuda.kernels.selective_state import selective_state
from albireo.backends.cuda.step import StateSlots
from albireo.backends.reference.call import OpCall
from albireo.backends.reference.interpret import OPS
from albireo.backends.step_inputs import StepInputs
from backends.convolutions import GATED, PLAIN, SILU, Conv
from backends.cpu.harness import F32, assert_same_bits, normal
from backends.cuda.tensors import FILL, ids, numbers, room, tensor
from step_batches import Work, make_step

SLOTS = 5
#: Values of four heads of 20 share keys of two of 12: neither fills a tile.
SHAPE = {"num_k_heads": 2, "num_v_heads": 4, "k_dim": 12, "v_dim": 20}
#: A tile and two warps' of it.
WIDE = {"num_k_heads": 1, "num_v_heads": 1, "k_dim": 256, "v_dim": 16}
#: Rates of channels of keys, in place of those of heads.
CHANNELS = {"num_k_heads": 3, "num_v_heads": 3, "k_dim": 12, "v_dim": 20}
#: The same above a bound.
BOUNDED = {"num_k_heads": 4, "num_v_heads": 4, "k_dim": 20, "v_dim": 12}
#: States that heads leave at a rate of their own alone.
FADING = {"num_k_heads": 4, "num_v_heads": 4, "k_dim": 20, "v_dim": 20}
#: Channels of one series, and of two, of which each so many positions make an entry.
ONE_SERIES = {"num_k_heads": 1, "num_v_heads": 1, "k_dim": 8, "v_dim": 70}
TWO_SERIES = {"num_k_heads": 2, "num_v_heads": 1, "k_dim": 4, "v_dim": 20}
#: Of one series, whose positions count alike.
ALIKE = {"num_k_heads": 1, "num_v_heads": 1, "k_dim": 4, "v_dim": 30}
#: Tokens of the sequences, each in its slot.
LENGTHS = {3: 19, 0: 5, 4: 1}


class Layer:
    """One op, its weights, and rows for every sequence."""

    def __init__(
        self,
        family: str,
        shape: dict[str, int] = SHAPE,
        width: int = 4,
        lengths: Mapping[int, int] = LENGTHS,
        conv: Conv = SILU,
    ) -> None:
        self.family, heads = family, shape["num_v_heads"]
        self.columns = 2 * shape["num_k_heads"] * shape["k_dim"] + heads * shape["v_dim"]
        self.rows = {"x": {slot: normal(n, conv.parts * self.columns, seed=slot) for slot, n in lengths.items()}}
        self.attrs: dict[str, Any] = {}
        if family == "causal_conv":
            self.size, self.out = (width - 1) * self.columns, self.columns
            self.weights, self.attrs = conv.weights(self.columns, width), conv.attrs
        elif family == "selective_scan":
            self.out, k_dim = heads * shape["v_dim"], shape["k_dim"]
            self.size = k_dim * self.out
            # states that last for a token, and for hundreds, in each channel
            a_log = np.linspace(-5, 2, self.size, dtype=np.float32).reshape(k_dim, self.out).T
            self.weights = {"a_log": np.ascontiguousarray(a_log), "dt_bias": normal(self.out, seed=8)}
            self.weights["skip"] = normal(self.out, seed=7)
            for seed, (name, width) in enumerate((("x", self.out), ("dt", self.out), ("bc", 2 * k_dim))):
                self.rows[name] = {slot: normal(n, width, seed=50 * seed + slot) for slot, n in lengths.items()}
        elif family == "pool_rows":
            series, self.out = shape["num_k_heads"], shape["v_dim"]
            self.size, width = (9 if series == 2 else 3) * self.out, series * self.out
            self.attrs = {"every": shape["k_dim"], "series": series}
            self.weights = {"places": normal(shape["k_dim"], width, seed=8)}
            kinds = [("x", 1), ("gates", 20)]  # gates that are far from each other, too
            if shape == ALIKE:
                self.weights, kinds = {}, kinds[:1]
            for seed, (name, size) in enumerate(kinds):
                self.rows[name] = {slot: size * normal(n, width, seed=50 * seed + slot) for slot, n in lengths.items()}
        else:
            self.size, self.out = heads * shape["k_dim"] * shape["v_dim"], heads * shape["v_dim"]
            # states that last for a token, and for hundreds
            self.weights = {"a_log": np.linspace(-5, 2, heads, dtype=np.float32), "dt_bias": normal(heads, seed=8)}
            self.attrs, name, per_head = shape | ({"learns_twice": True} if shape == WIDE else {}), "gates", 2
            if family == "selective_state":
                self.weights["skip"], name, per_head = normal(heads, seed=7), "dt", 1
                self.attrs = shape | ({"dt_least": 0.5, "dt_most": 1.5} if shape == SHAPE else {})
            if shape == FADING:
                self.weights, self.attrs = {}, shape | {"slopes": (0.5, 2.0**-3, 2.0**-6, 1e-5)}
            if shape in (CHANNELS, BOUNDED):
                self.attrs = shape | ({"most_decay": 3.5} if shape == BOUNDED else {})
                rates, per_head = heads * shape["k_dim"], 1
                self.weights["dt_bias"] = normal(rates, seed=8)
                self.rows["dt"] = {slot: 2 * normal(n, rates, seed=slot + 90) for slot, n in lengths.items()}
            if shape != FADING:
                self.rows[name] = {slot: 2 * normal(n, per_head * heads, seed=slot + 50) for slot, n in lengths.items()}
        self.state = tensor(np.full((SLOTS, self.size), FILL, np.float32), pad=16)
        self.states: dict[tuple[int, int], Any] = {}
        #: By slot of a sequence in the next step: where a snapshot goes, and behind how many rows.
        self.snapshots: dict[int, tuple[int, int]] = {}

    def step(self, parts: Sequence[tuple[int, int, int]]) -> StepInputs:
        """Args: parts: (slot, first token, end) of each sequence."""
        return make_step([Work([0] * (end - start), start, [slot] * 9, slot) for slot, start, end in parts], 8, "none")

    def roles(self, parts: Sequence[tuple[int, int, int]]) -> dict[str, F32]:
        return {
            name: np.concatenate([a[slot][first:end] for slot, first, end in parts]) for name, a in self.rows.items()
        }

    def run(
        self,
        parts: Sequence[tuple[int, int, int]],
        padding: tuple[int, int] = (0, 0),
        slots: dict[int, int] | None = None,
    ) -> F32:
        """Args: padding: rows and sequences that are not there. slots: where those of parts are, if elsewhere."""
        step = self.step(parts)
        rows, sequences = padding
        count = step.num_tokens
        x = {name: tensor(np.pad(array, ((0, rows), (0, 0))), pad=16) for name, array in self.roles(parts).items()}
        out = room(count + rows, self.out)
        places = [slot if slots is None else slots[slot] for slot, _, _ in parts]
        # of those without one, and of padding, the slot is somebody's
        orders = [*(self.snapshots.get(slot, (slot, 0)) for slot, _, _ in parts), *[(3, 0)] * sequences]
        where = StateSlots(
            state_slots=ids([*places, *[3] * sequences]),
            query_start=ids([*step.query_start.tolist(), *[count] * sequences]),
            context_len=ids([*step.context_len.tolist(), *[0] * sequences]),
            snapshot_slots=ids([slot for slot, _ in orders]),
            snapshot_rows=ids([rows for _, rows in orders]),
        )
        weights = {name: torch.from_numpy(array) for name, array in self.weights.items()}
        given: dict[str, Any] = {**x, **weights, "slots": where, "states": self.state, "out": out}
        if "slopes" in self.attrs:
            given |= dict.fromkeys(("dt", "a_log", "dt_bias", "skip"))
            given["slopes"] = torch.tensor(self.attrs["slopes"])
        if self.family == "gated_delta_rule" and "dt" in given:
            given["times"] = given.pop("dt")
        if self.family == "causal_conv":
            causal_conv(**given, **self.attrs)
        else:
            launches = {"gated_delta_rule": gated_delta_rule, "selective_state": selective_state}
            launch = (launches | {"pool_rows": pool_rows}).get(self.family, selective_scan)
            given = (dict.fromkeys(("gates", "places")) if self.family == "pool_rows" else {}) | given
            attrs = {name: n for name, n in self.attrs.items() if name not in ("num_v_heads", "slopes")}
            launch(**given, **attrs)
        assert (out[count:] == FILL).all(), "rows of padding are not written"
        return numbers(out)[:count]

    def reference(self, parts: Sequence[tuple[int, int, int]]) -> F32:
        step, given = self.step(parts), {**self.roles(parts), **self.weights}
        (out,) = OPS[self.family](OpCall(given, {**self.attrs, "state": 0}, step, states=self.states))
        return np.asarray(out)


CASES: list[tuple[str, dict[str, int], int, Conv]] = [
    ("causal_conv", SHAPE, 4, SILU),
    ("causal_conv", SHAPE, 2, SILU),
    ("causal_conv", SHAPE, 4, PLAIN),
    ("causal_conv", SHAPE, 3, GATED),
    ("gated_delta_rule", SHAPE, 4, SILU),
    ("gated_delta_rule", WIDE, 4, SILU),
    ("gated_delta_rule", CHANNELS, 4, SILU),
    ("gated_delta_rule", BOUNDED, 4, SILU),
    ("selective_state", SHAPE, 4, SILU),
    ("selective_state", WIDE, 4, SILU),
    ("selective_state", FADING, 4, SILU),
    ("selective_scan", SHAPE, 4, SILU),
    ("selective_scan", WIDE, 4, SILU),
    ("pool_rows", ONE_SERIES, 4, SILU),
    ("pool_rows", TWO_SERIES, 4, SILU),
    ("pool_rows", ALIKE, 4, SILU),
]
#: Two prompts; a token of each beside one that begins; one goes on alone; a slot is taken anew.
PLANS = [
    [(3, 0, 17), (0, 0, 4)],
    [(0, 4, 5), (3, 17, 18), (4, 0, 1)],
    [(3, 18, 19)],
    [(0, 0, 2)],
]


@pytest.mark.parametrize(("family", "shape", "width", "conv"), CASES)
def test_a_kernel_computes_what_the_reference_does(family: str, shape: dict[str, int], width: int, conv: Conv) -> None:
    layer = Layer(family, shape, width, conv=conv)
    for parts in PLANS:
        got, want = layer.run(parts, padding=(2, 1)), layer.reference(parts)
        # rows that end no window are zeros
        assert np.abs(want).max() > 1e-3 or (family == "pool_rows" and parts != PLANS[0])
        assert np.linalg.norm(got - want) <= 1e-6 * np.linalg.norm(want)
        kept = numbers(layer.state)
        for slot, _, _ in parts:
            # the largest gate of no rows is far below others
            found, expected = (np.maximum(each, -1e3) for each in (kept[slot], layer.states[0, slot].reshape(-1)))
            assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
    assert (kept[[1, 2]] == FILL).all(), "a slot of nobody was written"


@pytest.mark.parametrize(
    ("family", "shape", "conv"),
    [
        ("causal_conv", SHAPE, SILU),
        ("causal_conv", SHAPE, GATED),
        ("gated_delta_rule", SHAPE, SILU),
        ("gated_delta_rule", CHANNELS, SILU),
        ("selective_scan", SHAPE, SILU),
        ("pool_rows", ONE_SERIES, SILU),
        ("pool_rows", TWO_SERIES, SILU),
    ],
)
def test_bits_do_not_depend_on_the_step(family: str, shape: dict[str, int], conv: Conv) -> None:
    """Whole, token by token, in chunks beside others and padding, in another slot: the same results and states."""
    alone = Layer(family, shape, conv=conv)
    whole = alone.run([(3, 0, 19)])
    state = numbers(alone.state)[3]
    for cut in ([*range(20)], [0, 1, 16, 18, 19]):
        layer, rows, is_apart = Layer(family, shape, conv=conv), [], len(cut) < 20
        slots = {3: 2, 0: 0, 4: 4} if is_apart else None
        for start, end in pairwise(cut):
            beside = [(0, 0, 5), (4, 0, 1)] if is_apart and start % 2 == 0 else []
            found = layer.run([*beside, (3, start, end)], (3, 2) if is_apart else (0, 0), slots)
            rows.append(found[len(found) - (end - start) :])
        assert_same_bits(np.concatenate(rows), whole, "rows")
        assert_same_bits(numbers(layer.state)[2 if is_apart else 3], state, "state")


@pytest.mark.parametrize(("family", "shape", "width", "conv"), CASES)
def test_a_snapshot_is_what_a_sequence_keeps_that_ends_there(
    family: str, shape: dict[str, int], width: int, conv: Conv
) -> None:
    """Behind the first row, one in the middle, the last; beside sequences that leave none; and nothing else changes."""
    plain = Layer(family, shape, width, conv=conv)
    rows = [plain.run([(0, 0, 4), (3, 0, 9)]), plain.run([(0, 4, 5), (3, 9, 19)])]
    for rows_before in (1, 2, 9, 10):
        layer, shorter = (Layer(family, shape, width, conv=conv) for _ in range(2))
        layer.run([(0, 0, 4), (3, 0, 9)])
        layer.snapshots = {3: (1, rows_before)}
        assert_same_bits(layer.run([(0, 4, 5), (3, 9, 19)], padding=(2, 1)), rows[1], "rows")
        for slot in (0, 3):
            assert_same_bits(numbers(layer.state)[slot], numbers(plain.state)[slot], "state")
        shorter.run([(3, 0, 9 + rows_before)])
        assert_same_bits(numbers(layer.state)[1], numbers(shorter.state)[3], "snapshot")
        assert (numbers(layer.state)[[2, 4]] == FILL).all(), "a slot of nobody was written"


@pytest.mark.parametrize("family", ["causal_conv", "gated_delta_rule", "selective_state", "selective_scan"])
def test_snapshots_of_several_in_one_step(family: str) -> None:
    """Prompts that begin, of which a convolution leaves zeros for rows before the first; then a token of each."""
    layer, shorter = (Layer(family, lengths={3: 19, 0: 5}) for _ in range(2))
    layer.snapshots = {3: (1, 2), 0: (4, 1)}
    layer.run([(0, 0, 4), (3, 0, 18)])
    shorter.run([(0, 0, 1), (3, 0, 2)])
    assert_same_bits(numbers(layer.state)[[4, 1]], numbers(shorter.state)[[0, 3]], "snapshots behind rows of prompts")
    layer.snapshots = {3: (4, 1), 0: (2, 1)}
    layer.run([(0, 4, 5), (3, 18, 19)], padding=(0, 2))
    kept = numbers(layer.state)
    assert_same_bits(kept[[2, 4]], kept[[0, 3]], "snapshots behind all there is")
    assert_same_bits(kept[1], numbers(shorter.state)[3], "the snapshot before")


def test_a_convolution_of_more_rows_than_a_tile() -> None:
    layer, pieces = Layer("causal_conv", lengths={3: 70}), Layer("causal_conv", lengths={3: 70})
    whole, want = layer.run([(3, 0, 70)]), layer.reference([(3, 0, 70)])
    assert np.linalg.norm(whole - want) <= 1e-6 * np.linalg.norm(want)
    parts = [pieces.run([(3, 0, 33)]), pieces.run([(3, 33, 70)])]
    assert_same_bits(np.concatenate(parts), whole, "rows")
    assert_same_bits(numbers(pieces.state)[3], numbers(layer.state)[3], "state")


@pytest.mark.parametrize("shape", [ONE_SERIES, TWO_SERIES, ALIKE])
def test_windows_of_a_long_prompt(shape: dict[str, int]) -> None:
    """Each by a program of its own: rows as the reference has them, states and snapshots as of prompts that end there,
    in the last window, the one before and others, whatever was before the step."""
    lengths = {3: 70}
    for begin in (0, 6):
        whole = Layer("pool_rows", shape, lengths=lengths)
        parts = [(3, 0, begin)] * (begin > 0) + [(3, begin, 70)]
        want = [whole.reference([part]) for part in parts][-1]
        got = [whole.run([part]) for part in parts][-1]
        assert np.linalg.norm(got - want) <= 1e-6 * np.linalg.norm(want)
        for end in (begin + 3, 61, 67, 70):
            layer, shorter = (Layer("pool_rows", shape, lengths=lengths) for _ in range(2))
            for part in parts[:-1]:
                layer.run([part])
            layer.snapshots = {3: (1, end - begin)}
            assert_same_bits(layer.run(parts[-1:]), got, "rows")
            for row in range(0, end, 5):
                shorter.run([(3, row, min(row + 5, end))])
            assert_same_bits(numbers(layer.state)[1], numbers(shorter.state)[3], f"snapshot behind {end}")
            assert_same_bits(numbers(layer.state)[3], numbers(whole.state)[3], "state")
