"""Entries of several positions, at every level: written, seen, chosen from, and what becomes of two attentions; and
what else is DeepSeek V4's. Against the definitions, and bit by bit against themselves. pool_rows: test_recurrent.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.reference import attention, experts, rope, streams
from albireo.backends.reference.call import OpCall
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.rope_table import rope_table
from albireo.backends.step_inputs import StepInputs
from albireo.graph.attention_op import NOTHING_SEEN
from albireo.graph.ops import RopeSpec
from albireo.verify.attention_bound import attention_error
from albireo.verify.choices import keys_chosen
from backends.cpu.harness import F32, Call, Guarded, assert_same_bits, normal, rows_step, run, variants
from step_batches import Work, make_step

HEADS, DIM, COUNT = 5, 40, 7
#: Positions of an entry, and of a block: several entries in a block, one, and several blocks to an entry.
SIZES = [(4, 16), (2, 64), (16, 16), (32, 8), (8, 8)]
#: Bytes between blocks, by their positions: some are as where layers that differ share a block.
GAPS = {16: 128, 8: 64}
#: Of sequences: tokens before the step, and of it.
SPANS = ((0, 70), (33, 1), (95, 40), (0, 3), (150, 6))


def step_of(block_size: int, spans: tuple[tuple[int, int], ...] = SPANS, seed: int = 0) -> StepInputs:
    """Blocks lie in any order."""
    counts = [-(-(before + new) // block_size) for before, new in spans]
    tables = np.split(np.random.default_rng(seed).permutation(sum(counts)) + 1, np.cumsum(counts))[:-1]
    return make_step(
        [Work([0] * new, before, table.tolist()) for (before, new), table in zip(spans, tables, strict=True)],
        block_size,
        "none",
    )


def before(step: StepInputs, block_size: int, spans: tuple[tuple[int, int], ...] = SPANS) -> StepInputs:
    """A step of all tokens of the sequences, in the blocks of that one."""
    works = [
        Work([0] * (old + new), 0, step.block_table[i, : -(-(old + new) // block_size)].tolist())
        for i, (old, new) in enumerate(spans)
    ]
    return make_step(works, block_size, "none")


class Entries:
    """A cache of entries, written natively and in the reference, of keys of all tokens of the sequences."""

    def __init__(self, level: str, dtype: str, every: int, block_size: int, step: StepInputs, dim: int = DIM) -> None:
        self.args = {"kv_dtype": dtype, "num_kv_heads": 1, "head_dim": dim, "block_size": block_size}
        self.args |= {"has_values": False, "every": every}
        num_blocks = int(step.block_table.max()) + 2
        size = _native.block_bytes(dtype, 1, dim, block_size, False, every) + GAPS.get(block_size, 0)
        self.args["kv_stride"] = size if block_size in GAPS else 0
        self.memory = Guarded.poisoned((num_blocks, size // (4 if dtype == "float32" else 2)), dtype)
        self.kv = ReferenceKV(num_blocks, block_size, dtype)
        whole = before(step, block_size)
        k = normal(whole.num_tokens, dim, seed=every)
        attrs = {"layer": 0, "num_kv_heads": 1, "head_dim": dim, "every": every}
        attention.kv_write(OpCall({"k": k, "kv": self.kv}, attrs, whole))
        call = Call("kv_write", level, "float32", {"x": Guarded(k), "kv": self.memory, **self.args})
        run([call], whole, 2)


def test_blocks_that_overlap_are_refused() -> None:
    step, k = step_of(16), Guarded(normal(177, 16))
    args = {"kv_dtype": "float32", "num_kv_heads": 1, "head_dim": 16, "block_size": 16, "every": 4, "has_values": False}
    call = Call("kv_write", "scalar", "float32", {"x": k, "kv": k, "kv_stride": 240, **args})
    with pytest.raises(ValueError, match="does not end before the next one of its layer"):
        run([call], step)


def level_of(family: str) -> list[tuple[str, str]]:
    """(type of queries and cache, level)."""
    return [(dtype, level) for dtype, level in variants(family) if dtype != "float16" or level != "scalar"]


def written_levels(level: str) -> str:
    return {"amx": "avx512", "avx512bf16": "avx512", "neonmm": "neon"}.get(level, level)


@pytest.mark.parametrize(("dtype", "level"), level_of("attention"))
@pytest.mark.parametrize(("every", "block_size"), SIZES)
@pytest.mark.parametrize("is_chosen", [False, True])
def test_attention_to_entries(dtype: str, level: str, every: int, block_size: int, is_chosen: bool) -> None:
    """Sums, as join_sums reads them; rows that see nothing; lists of entries, among them all there are."""
    step = step_of(block_size)
    entries = Entries(written_levels(level), dtype, every, block_size, step)
    q, scale = normal(step.num_tokens, HEADS * DIM, seed=1, dtype=dtype), float(np.float32(1.5 / DIM**0.5))
    attrs: dict[str, Any] = {"layer": 0, "num_heads": HEADS, "num_kv_heads": 1, "head_dim": DIM, "scale": scale}
    attrs |= {"window": None, "softcap": None, "value_dim": DIM, "every": every, "sums": True}
    roles: dict[str, Any] = {"q": q, "kv": entries.kv}
    args = entries.args | {"x": Guarded(q, dtype), "x_dtype": dtype, "kv": entries.memory, "num_heads": HEADS}
    args |= {"scale": scale, "value_dim": DIM, "sums": 1}
    if is_chosen:
        lists = np.full((step.num_tokens, COUNT), -1, np.int32)
        for row, position in enumerate(step.positions):
            seen = (position + 1) // every
            some = np.random.default_rng(row).permutation(seen)[:COUNT]
            lists[row, : len(some)] = np.sort(some)
        roles["chosen"] = lists
        args |= {"ids": lists.ctypes.data, "n": COUNT, "y_stride": COUNT}
    call = OpCall(roles, attrs, step)
    (wanted,), allowed = attention.attention(call), attention_error(call)
    outs = []
    for threads in (1, 3):
        outs.append(Guarded.poisoned(wanted.shape))
        run([Call("attention", level, dtype, args | {"out": outs[-1]})], step, threads)
    assert_same_bits(outs[0].values, outs[1].values, "by three threads")
    # numbers of a head are from the largest exponent on, which a kernel may have a little otherwise
    assert (np.abs(outs[0].values.astype(np.float64) - wanted) <= allowed + 1e-30).all()
    assert np.linalg.norm(allowed) < 2e-2 * np.linalg.norm(np.maximum(wanted, -1e3))
    nothing = (step.positions + 1) // every == 0
    assert nothing.any() and (outs[0].values[nothing].reshape(-1, DIM + 2)[:, DIM] == np.float32(NOTHING_SEEN)).all()


@pytest.mark.parametrize(("dtype", "level"), level_of("choose_keys"))
@pytest.mark.parametrize(("every", "block_size"), SIZES)
@pytest.mark.parametrize(("weighs", "as_positions"), [(True, False), (False, True)])
def test_entries_are_chosen(
    dtype: str, level: str, every: int, block_size: int, weighs: bool, as_positions: bool
) -> None:
    """Of keys and queries of small whole numbers, whose sums are exact, so that many scores are equal; entries, or
    positions of three of them and those behind the last."""
    step, rng = step_of(block_size), np.random.default_rng(3)
    entries = Entries(written_levels(level), dtype, every, block_size, step, 12)
    q = rng.integers(-2, 3, (step.num_tokens, HEADS * 12)).astype(np.float32)
    weights = rng.integers(-1, 3, (step.num_tokens, HEADS)).astype(np.float32)
    whole = before(step, block_size)
    k = rng.integers(-2, 3, (whole.num_tokens, 12)).astype(np.float32)
    attrs = {"layer": 0, "num_kv_heads": 1, "head_dim": 12, "every": every}
    attention.kv_write(OpCall({"k": k, "kv": entries.kv}, attrs, whole))
    written = {"x": Guarded(k), "kv": entries.memory, **entries.args}
    run([Call("kv_write", written_levels(level), "float32", written)], whole)
    count = 4 * every - 1 if as_positions else COUNT
    attrs: dict[str, Any] = {"layer": 0, "num_heads": HEADS, "head_dim": 12, "count": count, "every": every}
    attrs |= {"as_positions": True} if as_positions else {}
    roles = {"q": q, "kv": entries.kv} | ({"weights": weights} if weighs else {})
    (wanted,) = attention.choose_keys(OpCall(roles, attrs, step))
    found = np.full((step.num_tokens, count), 99, np.int32)
    args = {"x": Guarded(q, dtype), "x_dtype": dtype, "ids": found.ctypes.data, "k": every if as_positions else 0}
    args |= {"num_heads": HEADS, "n": count, "y_stride": count, "num_keys": 200, "kv": entries.memory}
    args |= {"gates": Guarded(weights)} if weighs else {}
    run([Call("choose_keys", level, dtype, args | entries.args)], step, 2)
    np.testing.assert_array_equal(found, wanted)
    low, high, allowed = keys_chosen(OpCall(roles, attrs, step), found)
    assert (low >= high - allowed).all()
    low, _, _ = keys_chosen(OpCall(roles, attrs, step), np.where(found == found.max(axis=1, keepdims=True), -1, found))
    assert np.isnan(low[(step.positions + 1) // every > 0]).all(), "a list that lacks a position is none"
    if not as_positions:
        return
    for row, position in zip(found, step.positions, strict=True):
        seen = row[row >= 0]
        # all of the windows that are named, and what has no entry yet
        entry, behind = np.unique(seen // every, return_counts=True), int(position + 1) % every
        assert seen[-1] == position if behind else (entry[1] == every).all()
        assert len(seen) == min(3, (int(position) + 1) // every) * every + behind


@pytest.mark.parametrize("level", [level for dtype, level in variants("kv_write") if dtype == "float32"])
@pytest.mark.parametrize(("every", "block_size"), SIZES)
def test_an_entry_is_written_with_its_last_position(level: str, every: int, block_size: int) -> None:
    """And nothing else: as many numbers as there are whole windows, whatever the step begins with."""
    step = step_of(block_size)
    size = _native.block_bytes("float32", 1, 16, block_size, False, every)
    gap = GAPS.get(block_size, 0)
    memory = Guarded.poisoned((int(step.block_table.max()) + 2, (size + gap) // 4))
    k = normal(step.num_tokens, 16)
    args = {"kv_dtype": "float32", "num_kv_heads": 1, "head_dim": 16, "block_size": block_size, "every": every}
    args["kv_stride"] = size + gap if gap else 0
    run([Call("kv_write", level, "float32", args | {"has_values": False, "x": Guarded(k), "kv": memory})], step)
    ends = (step.positions + 1) % every == 0
    written = memory.values[~np.isnan(memory.values)]
    np.testing.assert_array_equal(np.sort(written), np.sort(k[ends].reshape(-1)))
    assert np.isnan(memory.values[:, size // 4 :]).all()


@pytest.mark.parametrize("level", [level for dtype, level in variants("join_sums") if dtype == "float32"])
def test_one_attention_of_two(level: str) -> None:
    """Of what two halves of the positions gave: the attention to all of them, and to a score more."""
    rng, rows, width = np.random.default_rng(5), 9, 37
    scores, values = 6 * rng.standard_normal((rows, HEADS, 20)), rng.standard_normal((rows, HEADS, 20, width))
    sinks = np.linspace(-8, 8, HEADS, dtype=np.float32)
    scores[2, 1] += 300  # and far from others
    parts = []
    for half in (slice(0, 13), slice(13, None)):
        powers = scores[..., half] * np.log2(np.e)
        if half.start:
            powers[4] = NOTHING_SEEN  # a row that sees nothing there
        most = powers.max(axis=-1, keepdims=True)
        p = np.exp2(powers - most) * (powers > NOTHING_SEEN / 2)
        sums = np.einsum("rhc,rhcw->rhw", p, values[..., half, :])
        parts.append(np.concatenate([sums, most, p.sum(-1, keepdims=True)], -1).reshape(rows, -1).astype(np.float32))
    scores[4, :, 13:] = -np.inf
    both = np.concatenate([scores, np.broadcast_to(sinks[:, None], (rows, HEADS, 1))], axis=-1)
    p = np.exp(both - both.max(-1, keepdims=True))
    wanted = np.einsum("rhc,rhcw->rhw", (p / p.sum(-1, keepdims=True))[..., :-1], values).reshape(rows, -1)
    roles = {"x": parts[0], "y": parts[1], "sinks": sinks}
    (defined,) = attention.join_sums(OpCall(roles, {"num_heads": HEADS}, rows_step(rows)))
    outs = [Guarded.poisoned(wanted.shape) for _ in range(2)]
    for threads, out in enumerate(outs, 1):
        args = {name: Guarded(array) for name, array in roles.items()} | {"k": width, "num_heads": HEADS, "out": out}
        run([Call("join_sums", level, "float32", args)], rows_step(rows), threads)
    assert_same_bits(outs[0].values, outs[1].values, "by two threads")
    for found in (defined, outs[0].values):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(values).max())


@pytest.mark.parametrize("level", [level for dtype, level in variants("balance") if dtype == "float32"])
@pytest.mark.parametrize(("count", "rounds"), [(2, 1), (3, 5), (4, 20), (16, 20)])
def test_rows_and_columns_add_up_to_one(level: str, count: int, rounds: int) -> None:
    x = 3 * normal(11, count * count, seed=count)
    x[3] *= 10
    (wanted,) = streams.balance(OpCall({"x": x}, {"rounds": rounds, "eps": 1e-6}, rows_step(11)))
    outs = [Guarded.poisoned(x.shape) for _ in range(2)]
    for threads, out in enumerate(outs, 1):
        args = {"x": Guarded(x), "out": out, "k": count, "num_heads": rounds, "eps": 1e-6}
        run([Call("balance", level, "float32", args)], rows_step(11), threads)
    assert_same_bits(outs[0].values, outs[1].values, "by two threads")
    np.testing.assert_allclose(outs[0].values, wanted, rtol=3e-5, atol=1e-7)
    matrices = outs[0].values.reshape(-1, count, count)
    np.testing.assert_allclose(matrices.sum(axis=2), 1, atol=1e-4)
    if rounds > 5:
        np.testing.assert_allclose(np.delete(matrices, 3, axis=0).sum(axis=1), 1, atol=0.05)


@pytest.mark.parametrize("level", [level for dtype, level in variants("rope") if dtype == "float32"])
@pytest.mark.parametrize("behind", [0, 3])
def test_pairs_side_by_side(level: str, behind: int) -> None:
    """Rotated as complex numbers; as rows so many positions before; and back again."""
    spec = RopeSpec((0.0, 0.0, 1.0, 0.3, 0.01), behind=behind)
    x, rows = normal(8, 3 * 10), rows_step(8)
    angles = np.maximum(np.arange(8) - behind, 0)[:, None] * np.array(spec.inv_freq)
    turned = x.reshape(8, 3, 5, 2) @ [1, 1j] * np.exp(1j * angles)[:, None]
    wanted = np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)
    attrs = {"num_heads": 3, "head_dim": 10, "rope": spec, "side_by_side": True}
    (defined,) = rope.rope(OpCall({"x": x, "positions": rows.positions}, attrs, rows))

    def turn(of: F32, rotation: RopeSpec) -> F32:
        out, table = Guarded.poisoned(x.shape), rope_table(rotation, np.arange(8, dtype=np.int32)).transpose(0, 2, 1)
        args = {"x": Guarded(of), "rope": Guarded(table), "out": out, "k": 10, "num_heads": 3, "side_by_side": 1}
        run([Call("rope", level, "float32", args)], rows, 2)
        return out.values

    for found in (defined, turn(x, spec)):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(turn(turn(x, spec), spec.back), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("level", [level for dtype, level in variants("route") if dtype == "float32"])
def test_roots_of_a_softplus_and_experts_by_token(level: str) -> None:
    torch = pytest.importorskip("torch")
    x, rng = 8 * normal(13, 21, seed=2), np.random.default_rng(4)
    x[1] -= 60  # of which softplus is nearly nothing
    scores = torch.nn.functional.softplus(torch.tensor(x).double()).sqrt().numpy()
    given: NDArray[Any] = np.stack([rng.permutation(21)[:4] for _ in x])
    given[2] = (0, 20, 3, 3)
    bias = normal(21, seed=3)
    best = np.argsort(-(scores + bias), axis=1)[:, :4]
    for ids, roles in ((given, {"chosen": given.astype(np.float32)}), (best, {"bias": bias})):
        wanted = np.take_along_axis(scores, ids, axis=1)
        wanted = 1.5 * wanted / wanted.sum(axis=1, keepdims=True)
        attrs = {"top_k": 4, "renormalize": True, "scores": "root_softplus", "factor": 1.5}
        defined_ids, defined = experts.route(OpCall({"x": x, **roles}, attrs, rows_step(13)))
        found_ids, found = np.full((13, 4), -7, np.int32), np.full((13, 4), np.nan, np.float32)
        args = {"gates" if name == "chosen" else name: Guarded(array) for name, array in roles.items()}
        args |= {"x": Guarded(x), "k": 21, "top_k": 4, "renormalize": 1, "sigmoid": 2, "scale": 1.5}
        args |= {"ids": found_ids.ctypes.data, "weights": found.ctypes.data}
        run([Call("route", level, "float32", args)], rows_step(13))
        for each_ids, each in ((defined_ids, defined), (found_ids, found)):
            np.testing.assert_array_equal(each_ids, ids)
            np.testing.assert_allclose(each, wanted, rtol=2e-5, atol=1e-8)


def test_numbers_of_no_expert_read_nothing_else() -> None:
    """A table is looked at when it is loaded; whatever comes of it later is an expert."""
    chosen = np.array([[np.nan, -1.0, 5.0, 1e9]], np.float32)
    found_ids, found = np.full((1, 4), -7, np.int32), np.full((1, 4), np.nan, np.float32)
    args = {"x": Guarded(normal(1, 5)), "k": 5, "top_k": 4, "renormalize": 1, "sigmoid": 2, "gates": Guarded(chosen)}
    args |= {"ids": found_ids.ctypes.data, "weights": found.ctypes.data}
    run([Call("route", variants("route")[0][1], "float32", args)], rows_step(1))
    assert found_ids.tolist() == [[0, 0, 0, 0]]
    assert experts.given_ids(chosen, 5).tolist() == [[0, 0, 0, 0]]


def test_what_entries_cannot_be() -> None:
    k = Guarded(normal(1, 16))
    for more, message in (
        ({"every": 3, "has_values": False}, "entries are of 1, 2, 4"),
        ({"every": 4, "has_values": True, "y": k}, "keys alone"),
    ):
        with pytest.raises(ValueError, match=message):
            run([Call("kv_write", "scalar", "float32", {"x": k, "kv": k, "head_dim": 16, **more})], rows_step(1))
    attend = {"x": k, "out": k, "kv": k, "num_kv_heads": 1, "head_dim": 16, "num_heads": 1, "has_values": False}
    for more, message in (
        ({"every": 4, "window": 9, "value_dim": 16}, "no position that a row is told by"),
        ({"sums": 1}, "sums are of values that are channels of keys"),
        ({"sums": 1, "value_dim": 16, "sinks": k}, "without sinks"),
    ):
        with pytest.raises(ValueError, match=message):
            run([Call("attention", "scalar", "float32", attend | more)], rows_step(1))
