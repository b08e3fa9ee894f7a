"""causal_conv, gated_delta_rule, selective_state, selective_scan and pool_rows at every level: against the reference,
and the same bits however tokens are cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from albireo.backends.reference.call import OpCall
from albireo.backends.reference.interpret import OPS
from albireo.backends.step_inputs import StepInputs
from albireo.graph.op_numbers import CONV_ACTIVATIONS, RECURRENT
from backends.convolutions import GATED, PLAIN, SILU, Conv
from backends.cpu.harness import F32, Call, Guarded, assert_same_bits, normal, run, variants
from step_batches import Work, make_step

SLOTS = 5
#: Queries and keys of two heads of 12, values of four of 40: neither fills a vector, nor the columns of an item.
SHAPE = {"num_k_heads": 2, "num_v_heads": 4, "k_dim": 12, "v_dim": 40}
WIDE = {"num_k_heads": 1, "num_v_heads": 3, "k_dim": 128, "v_dim": 64}
#: Rates of channels of keys, in place of those of heads; and the same above a bound.
CHANNELS = {"num_k_heads": 3, "num_v_heads": 3, "k_dim": 20, "v_dim": 20}
BOUNDED = {"num_k_heads": 4, "num_v_heads": 4, "k_dim": 12, "v_dim": 20}
#: States that heads leave at a rate of their own alone.
FADING = {"num_k_heads": 4, "num_v_heads": 4, "k_dim": 20, "v_dim": 20}
#: Channels of values by themselves: the same of selective_scan.
SCANNED = {"num_k_heads": 1, "num_v_heads": 1, "k_dim": 11, "v_dim": 70}
#: Channels of one series, and of two, of which each so many positions make an entry.
ONE_SERIES = {"num_k_heads": 1, "num_v_heads": 1, "k_dim": 8, "v_dim": 70}
TWO_SERIES = {"num_k_heads": 2, "num_v_heads": 1, "k_dim": 4, "v_dim": 40}
#: Of rows that count alike.
PLAIN_MEAN = {"num_k_heads": 1, "num_v_heads": 1, "k_dim": 4, "v_dim": 40}
#: Tokens of the sequences, each in its slot.
LENGTHS = {3: 37, 0: 5, 4: 1}


def channels(shape: dict[str, int]) -> int:
    return 2 * shape["num_k_heads"] * shape["k_dim"] + shape["num_v_heads"] * shape["v_dim"]


class Layer:
    """One op, its weights, and rows for every sequence; run on the native core and in the reference."""

    def __init__(self, family: str, level: str, shape: dict[str, int], width: int = 4, conv: Conv = SILU) -> None:
        self.family, self.level = family, level
        heads, self.columns = shape["num_v_heads"], channels(shape)
        self.rows = {"x": {slot: normal(n, conv.parts * self.columns, seed=slot) for slot, n in LENGTHS.items()}}
        if family == "causal_conv":
            self.size, self.out = (width - 1) * self.columns, self.columns
            self.weights, self.attrs = conv.weights(self.columns, width), conv.attrs
            self.numbers = {"n": self.columns, "k": width, "gated": int(conv.gated)}
            self.numbers["act"] = CONV_ACTIVATIONS.index(conv.activation)
        elif family == "selective_scan":
            self.out, k_dim = heads * shape["v_dim"], shape["k_dim"]
            self.size, self.attrs = k_dim * self.out, {}
            # states that last for a token, and for hundreds, in each channel
            a_log = np.linspace(-5, 2, self.size, dtype=np.float32).reshape(k_dim, self.out).T
            self.weights = {"a_log": np.ascontiguousarray(a_log), "dt_bias": normal(self.out, seed=8)}
            self.weights["skip"] = normal(self.out, seed=7)
            for seed, (name, width) in enumerate((("x", self.out), ("dt", self.out), ("bc", 2 * k_dim))):
                self.rows[name] = {slot: normal(n, width, seed=50 * seed + slot) for slot, n in LENGTHS.items()}
            self.numbers = {"num_heads": 1, "k_dim": k_dim, "v_dim": self.out}
        elif family == "pool_rows":
            series, self.out = shape["num_k_heads"], shape["v_dim"]
            self.size, width = (9 if series == 2 else 3) * self.out, series * shape["v_dim"]
            self.attrs = {"every": shape["k_dim"], "series": series}
            is_plain = shape == PLAIN_MEAN
            self.weights = {} if is_plain else {"places": normal(shape["k_dim"], width, seed=8)}
            of_rows = (("x", 1),) if is_plain else (("x", 1), ("gates", 20))  # gates that are far from each other, too
            for seed, (name, size) in enumerate(of_rows):
                self.rows[name] = {slot: size * normal(n, width, seed=50 * seed + slot) for slot, n in LENGTHS.items()}
            self.numbers = {"num_heads": 1, "num_k_heads": series, "k": shape["k_dim"], "v_dim": self.out}
        else:
            self.size, self.out = heads * shape["k_dim"] * shape["v_dim"], heads * shape["v_dim"]
            # states that last for a token, and for hundreds
            self.weights = {"a_log": np.linspace(-5, 2, heads, dtype=np.float32), "dt_bias": normal(heads, seed=8)}
            name, width, self.attrs = "gates", 2 * heads, shape | ({"learns_twice": True} if shape == WIDE else {})
            if family == "selective_state":
                name, width, self.weights["skip"] = "dt", heads, normal(heads, seed=7)
                self.attrs = shape | ({"dt_least": 0.5, "dt_most": 1.5} if shape == SHAPE else {})
            if shape == FADING:
                self.weights, self.attrs = {}, shape | {"slopes": (0.5, 2.0**-3, 2.0**-6, 1e-5)}
            if shape in (CHANNELS, BOUNDED):
                self.attrs = shape | ({"most_decay": 3.5} if shape == BOUNDED else {})
                rates, width = heads * shape["k_dim"], heads
                self.weights["dt_bias"] = normal(rates, seed=8)
                self.rows["dt"] = {slot: 2 * normal(n, rates, seed=slot + 90) for slot, n in LENGTHS.items()}
            if shape != FADING:
                self.rows[name] = {slot: 2 * normal(n, width, seed=slot + 50) for slot, n in LENGTHS.items()}
            self.numbers = {key: n for key, n in self.attrs.items() if key in (*shape, "dt_least", "dt_most")}
            self.numbers |= {"num_heads": heads, "act": int(self.attrs.get("learns_twice", False))}
            self.numbers |= {"scale": self.attrs["most_decay"]} if "most_decay" in self.attrs else {}
            del self.numbers["num_v_heads"]
        self.state = Guarded.poisoned((SLOTS, self.size))
        self.states: dict[tuple[int, int], Any] = {}
        #: By slot of a sequence in the next step: where a snapshot goes, and behind how many rows.
        self.snapshots: dict[int, tuple[int, int]] = {}

    def step(self, parts: Sequence[tuple[int, int, int]]) -> StepInputs:
        """Args: parts: (slot, first token, end) of each sequence."""
        works = [
            Work([0] * (end - start), start, [slot] * 5, slot, self.snapshots.get(slot, (-1, 0)))
            for slot, start, end in parts
        ]
        return make_step(works, 8, "none")

    def roles(self, parts: Sequence[tuple[int, int, int]]) -> dict[str, F32]:
        return {
            name: np.concatenate([a[slot][start:end] for slot, start, end in parts]) for name, a in self.rows.items()
        }

    def native(self, parts: Sequence[tuple[int, int, int]], threads: int = 1) -> F32:
        names = {"dt": "y", "bc": "gates"} if self.family == "selective_scan" else {}
        names = {"dt": "y"} if self.family == "gated_delta_rule" else names
        names = {"gates": "y", "places": "a_log"} if self.family == "pool_rows" else names
        rows = {names.get(name, name): Guarded(array) for name, array in self.roles(parts).items()}
        out = Guarded.poisoned((sum(end - start for _, start, end in parts), self.out))
        of_states = {"state": self.state, "state_size": self.size, "state_slots": SLOTS}
        weights = {names.get(name, name): Guarded(array) for name, array in self.weights.items()}
        args = {**rows, **weights, **of_states, **self.numbers, "out": out}
        if "slopes" in self.attrs:
            args["slopes"] = Guarded(np.array(self.attrs["slopes"], np.float32))
        run([Call(self.family, self.level, "float32", args)], self.step(parts), threads)
        return out.values

    def reference(self, parts: Sequence[tuple[int, int, int]]) -> F32:
        step, given = self.step(parts), {**self.roles(parts), **self.weights}
        (out,) = OPS[self.family](OpCall(given, {**self.attrs, "state": 0}, step, states=self.states))
        return np.asarray(out)


WIDTHS = [(2, SILU), (2, PLAIN), (3, SILU), (3, PLAIN), (3, GATED), (4, SILU), (4, PLAIN), (4, GATED), (8, SILU)]
CASES = [
    *(("causal_conv", level, SHAPE, *each) for _, level in variants("causal_conv") for each in WIDTHS),
    *(
        (family, level, shape, 4, SILU)
        for family in ("gated_delta_rule", "selective_state")
        for _, level in variants(family)
        for shape in (SHAPE, WIDE, *([CHANNELS, BOUNDED] if family == "gated_delta_rule" else [FADING]))
    ),
    *(
        ("selective_scan", level, shape, 4, SILU)
        for _, level in variants("selective_scan")
        for shape in (SCANNED, SHAPE)
    ),
    *(
        ("pool_rows", level, shape, 4, SILU)
        for _, level in variants("pool_rows")
        for shape in (ONE_SERIES, TWO_SERIES, PLAIN_MEAN)
    ),
]
#: Two prompts; one goes on beside one that ends and one that begins; one goes on alone; a slot is taken anew.
PLANS = [
    [(3, 0, 17), (0, 0, 4)],
    [(0, 4, 5), (3, 17, 18), (4, 0, 1)],
    [(3, 18, 37)],
    [(0, 0, 5)],
]


@pytest.mark.parametrize(("family", "level", "shape", "width", "conv"), CASES)
def test_a_kernel_computes_what_the_reference_does(
    family: str, level: str, shape: dict[str, int], width: int, conv: Conv
) -> None:
    layer = Layer(family, level, shape, width, conv)
    for parts in PLANS:
        got, want = layer.native(parts), layer.reference(parts)
        # of a pool rows are zeros but where a window ends
        assert np.abs(want).max() > 0.01 or (family == "pool_rows" and len(want) < 8)
        # sums of some ten to a hundred products, in states that are off by what the steps before were off by
        assert np.linalg.norm(got - want) <= 1e-6 * np.linalg.norm(want)
        for slot, _, _ in parts:
            # of no rows the largest gate is one that all others are beside nothing
            numbers = layer.states[0, slot].reshape(-1), layer.state.values[slot]
            kept, found = (np.maximum(each, -1e6) for each in numbers)
            is_there = ~np.isnan(found)
            assert np.linalg.norm((found - kept)[is_there]) <= 1e-6 * np.linalg.norm(kept)
            assert is_there.all() or family == "pool_rows"
    assert np.isnan(layer.state.stored[[1, 2]]).all(), "a slot of nobody was written"


@pytest.mark.parametrize(("family", "level", "shape", "width", "conv"), CASES)
def test_bits_do_not_depend_on_the_step(family: str, level: str, shape: dict[str, int], width: int, conv: Conv) -> None:
    """Whole, token by token, in chunks beside others, on more threads: the same results, and the same state."""
    alone = Layer(family, level, shape, width, conv)
    whole = alone.native([(3, 0, 37)])
    state = alone.state.stored[3]
    cuts = [[*range(20), 37], [0, 16, 32, 37], [0, 1, 9, 30, 37]]
    for threads, cut in enumerate(cuts, 1):
        layer = Layer(family, level, shape, width, conv)
        others = [(0, 0, 5), (4, 0, 1)]
        parts = []
        for start, end in pairwise(cut):
            beside = others if start % 2 else []
            rows = layer.native([*beside, (3, start, end)], threads)
            parts.append(rows[len(rows) - (end - start) :])
        assert_same_bits(np.concatenate(parts), whole, "rows")
        assert_same_bits(layer.state.stored[3], state, "state")


@pytest.mark.parametrize(("family", "level", "shape", "width", "conv"), CASES)
def test_a_snapshot_is_what_a_sequence_keeps_that_ends_there(
    family: str, level: str, shape: dict[str, int], width: int, conv: Conv
) -> None:
    """Behind the first row, one in the middle, the last; beside sequences that leave none; and nothing else changes."""
    plain = Layer(family, level, shape, width, conv)
    rows = [plain.native([(0, 0, 4), (3, 0, 20)]), plain.native([(3, 20, 37)])]
    for rows_before in (1, 2, 16, 17):
        layer, shorter = (Layer(family, level, shape, width, conv) for _ in range(2))
        layer.native([(0, 0, 4), (3, 0, 20)])
        layer.snapshots = {3: (1, rows_before)}
        assert_same_bits(layer.native([(3, 20, 37)]), rows[1], "rows")
        assert_same_bits(layer.state.stored[3], plain.state.stored[3], "state")
        shorter.native([(3, 0, 20 + rows_before)])
        assert_same_bits(layer.state.stored[1], shorter.state.stored[3], "snapshot")
    assert np.isnan(layer.state.stored[2]).all(), "a slot of nobody was written"


@pytest.mark.parametrize("family", RECURRENT)
def test_the_reference_takes_snapshots(family: str) -> None:
    layer, shorter = (Layer(family, "scalar", SHAPE) for _ in range(2))
    layer.snapshots = {3: (1, 9)}
    layer.reference([(0, 0, 4), (3, 0, 20)])
    shorter.reference([(3, 0, 9)])
    assert_same_bits(layer.states[0, 1], shorter.states[0, 3], "snapshot")


@pytest.mark.parametrize(
    ("snapshots", "message"),
    [
        ({0: (0, 1)}, "no such slot of states for a snapshot, or somebody has it"),
        ({0: (1, 1), 3: (1, 2)}, "no such slot of states for a snapshot, or somebody has it"),
        ({0: (5, 1)}, "no such slot of states for a snapshot"),
        ({0: (-1, 1)}, "no such slot of states for a snapshot"),
        ({0: (1, 5)}, "a snapshot behind rows that a sequence does not have"),
    ],
)
def test_a_snapshot_that_cannot_be_is_refused(snapshots: dict[int, tuple[int, int]], message: str) -> None:
    layer = Layer("causal_conv", "scalar", SHAPE)
    layer.snapshots = snapshots
    with pytest.raises(ValueError, match=message):
        layer.native([(0, 0, 4), (3, 0, 2)])


@pytest.mark.parametrize("slots", [[3, 3], [0, 5], [-1, 0]])
def test_slots_that_are_not_there_or_are_two_sequences_are_refused(slots: list[int]) -> None:
    layer = Layer("causal_conv", "scalar", SHAPE)
    layer.rows["x"] |= {slot: normal(4, layer.columns) for slot in slots}
    with pytest.raises(ValueError, match="no such slot of states, or two sequences in one"):
        layer.native([(slot, 0, 2) for slot in slots])


def test_a_step_without_slots_is_refused() -> None:
    layer = Layer("causal_conv", "scalar", SHAPE)
    layer.step = lambda parts: make_step([Work([0, 0], 0, [1])], 8, "none")  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="states need a slot for every sequence"):
        layer.native([(3, 0, 2)])
