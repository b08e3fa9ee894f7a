"""Entries of several positions: written, seen, chosen from, and what becomes of two attentions; balance, and rotations
of pairs side by side. Against the definitions, and the same bits however a step is cut. pool_rows: test_recurrent.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from albireo import SamplingParams
from albireo.api import load
from albireo.backends.cuda.attention_plan import AttentionShape, work_list, workspace_size
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.chip import Chip
from albireo.backends.cuda.kernels.attention import attention
from albireo.backends.cuda.kernels.balance import balance
from albireo.backends.cuda.kernels.build_work_list import build_work_list
from albireo.backends.cuda.kernels.choose_keys import choose_keys
from albireo.backends.cuda.kernels.join_sums import join_sums
from albireo.backends.cuda.kernels.kv_write import kv_write
from albireo.backends.cuda.kv import TORCH_DTYPES, DeviceKV, LayerKV
from albireo.backends.cuda.open import open_model
from albireo.backends.cuda.step import DeviceStep
from albireo.backends.reference import attention as reference
from albireo.backends.reference import streams
from albireo.backends.reference.call import OpCall
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import round_to
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.passes import choose_precision, narrow_activations, widen_activations
from albireo.compiler.pipeline import compile_graph, run_passes
from albireo.errors import InvariantError
from albireo.graph.attention_op import NOTHING_SEEN
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import Graph
from albireo.verify.attention_bound import UNITS_OF_BFLOAT16, UNITS_OF_FLOAT16, attention_error
from backends.cpu.harness import F32, assert_same_bits, normal, rows_step
from backends.cpu.test_pack import Stored
from backends.cpu.test_pooled import before, step_of
from backends.cuda.tensors import ids, numbers, room, tensor
from backends.cuda.test_end_to_end import MODELS, StandIn, llm
from backends.cuda.test_end_to_end import tokens as tokens_of
from backends.cuda.test_model import NUM_BLOCKS, Numbers, graph_of, model_of, steps, weights_of
from step_batches import Work, make_step
from tiny_models import make_checkpoint
from variants import tiny_of

pytestmark = pytest.mark.usefixtures("ordered_dot")

HEADS, DIM, COUNT, SPLIT = 5, 40, 7, 64
#: Positions of an entry, and of a block: several entries in a block, one, and several blocks to an entry.
SIZES = [(4, 16), (2, 8), (16, 16), (32, 8)]
#: Rows of sequences that follow one another in steps that are cut otherwise.
SPANS = ((0, 70), (33, 1), (95, 40), (0, 3), (150, 6))


def on_device(step: StepInputs, block_size: int, padding: int = 0) -> DeviceStep:
    """Padding tokens behind the others, at position 0 of the null block."""
    none = ids([])
    table = step.block_table
    starts = torch.arange(len(table), dtype=torch.int32) * table.shape[1]
    return DeviceStep(
        none,
        ids([*step.positions.tolist(), *[0] * padding]),
        (ids([*step.slots.tolist(), *[0] * padding]),),
        torch.from_numpy(step.query_start),
        torch.from_numpy(step.context_len),
        torch.from_numpy(table.reshape(-1)),
        (starts,),
        {},
        none,
        *[none] * 3,
        {"T": step.num_tokens + padding, "B": step.num_sequences},
    )


class Cache(ReferenceKV):
    """Fields: products: see verify.attention_bound."""

    def __init__(self, num_blocks: int, block_size: int, dtype: str) -> None:
        super().__init__(num_blocks, block_size, dtype)
        units = {"bfloat16": UNITS_OF_BFLOAT16, "float16": UNITS_OF_FLOAT16}
        self.products = units.get(dtype, dtype)


class Entries:
    """A cache of entries whose blocks lie apart, and the reference's, of keys of all tokens of the sequences."""

    def __init__(
        self, dtype: str, every: int, block_size: int, step: StepInputs, dim: int, k: F32 | None = None
    ) -> None:
        blocks, per_block, padded = int(step.block_table.max()) + 2, max(1, block_size // every), -(-dim // 16) * 16
        apart = per_block * padded + 24
        self.memory = torch.full((blocks, apart), float("nan"), dtype=TORCH_DTYPES[dtype])
        shape, strides = (blocks, 1, per_block, padded), (apart, per_block * padded, padded, 1)
        cache = self.memory.as_strided(shape, strides)
        cache[..., dim:] = 0
        self.layer = LayerKV(cache, cache, every=every, block_size=block_size)
        self.kv = Cache(blocks, block_size, dtype)
        whole = before(step, block_size)
        k = normal(whole.num_tokens, dim, seed=every) if k is None else k[: whole.num_tokens]
        attrs = {"layer": 0, "num_kv_heads": 1, "head_dim": dim, "every": every}
        reference.kv_write(OpCall({"k": k, "kv": self.kv}, attrs, whole))
        told = on_device(whole, block_size)
        kv_write(tensor(k), None, told.slots[0], self.layer, 1, dim, told.positions)


@pytest.mark.parametrize(("every", "block_size"), SIZES)
def test_an_entry_is_written_with_its_last_position(every: int, block_size: int) -> None:
    """And nothing else, whatever the step begins with; padding tokens, which are at position 0, write none."""
    step = step_of(block_size)
    entries = Entries("float32", every, block_size, step, 16)
    entries.memory.fill_(float("nan"))
    told, k = on_device(step, block_size, 3), normal(step.num_tokens + 3, 16)
    kv_write(tensor(k), None, told.slots[0], entries.layer, 1, 16, told.positions)
    ends = np.flatnonzero((step.positions + 1) % every == 0)
    written = entries.memory[~entries.memory.isnan()].numpy()
    np.testing.assert_array_equal(np.sort(written), np.sort(k[ends].reshape(-1)))
    kv = ReferenceKV(len(entries.memory), block_size, "float32")
    attrs = {"layer": 0, "num_kv_heads": 1, "head_dim": 16, "every": every}
    reference.kv_write(OpCall({"k": k[:-3], "kv": kv}, attrs, step))
    for row in ends:
        sequence = int(np.searchsorted(step.query_start, row, side="right")) - 1
        entry = int(step.positions[row]) // every
        block = step.block_table[sequence, (entry * every + every - 1) // block_size]
        place = entry % entries.layer.k.shape[2]
        assert_same_bits(entries.layer.k[int(block), 0, place].numpy(), k[row], f"entry {entry}")


def lists_of(step: StepInputs, every: int) -> np.ndarray:
    """[T, COUNT] some entries that each row may see, or all where there are no more."""
    lists = np.full((step.num_tokens, COUNT), -1, np.int32)
    for row, position in enumerate(step.positions):
        some = np.random.default_rng(int(position)).permutation((position + 1) // every)[:COUNT]
        lists[row, : len(some)] = np.sort(some)
    return lists


def seen(entries: Entries, q: F32, dtype: str, step: StepInputs, multiprocessors: int, lists: np.ndarray | None) -> F32:
    """[T, HEADS * (DIM + 2)]. multiprocessors: with more of them contexts are cut into splits."""
    layer, padding = entries.layer, 2
    told = on_device(step, layer.block_size, padding)
    most, tokens = int(step.context_len.max()), step.num_tokens + padding
    shape = AttentionShape(
        HEADS, 1, DIM, most, 0, dtype, dtype, Chip(multiprocessors), split=SPLIT, value_dim=DIM, every=layer.every,
        chosen=0 if lists is None else COUNT,
    )  # fmt: skip
    work = work_list(shape, tokens, step.num_sequences, torch.device("cpu"))
    workspace = torch.full((workspace_size(shape, tokens),), float("nan"))
    out = room(tokens, HEADS * (DIM + 2))
    chosen = None if lists is None else torch.from_numpy(np.pad(lists, ((0, padding), (0, 0)), constant_values=-1))
    build_work_list(told, work)
    attention(
        tensor(np.pad(q, ((0, padding), (0, 0))), dtype, 8), layer, out, told, work, workspace, HEADS, 1, DIM,
        DIM**-0.5, 0, 0.0, value_dim=DIM, chosen=chosen, sums=True,
    )  # fmt: skip
    assert not work.arrived.any()
    found = numbers(out)
    assert (found[step.num_tokens :].reshape(-1, DIM + 2)[:, DIM] == np.float32(NOTHING_SEEN)).all(), "padding"
    return found[: step.num_tokens]


@pytest.mark.parametrize(
    ("dtype", "every", "block_size", "is_chosen"),
    [
        ("bfloat16", 4, 16, True),
        ("float32", 2, 8, False),
        ("float16", 16, 16, False),
        ("bfloat16", 32, 8, False),
    ],
)
def test_attention_to_entries(dtype: str, every: int, block_size: int, is_chosen: bool) -> None:
    """Sums, as join_sums reads them; rows that see nothing; the same bits whole, in splits, and one by one."""
    step = step_of(block_size, SPANS)
    entries = Entries(dtype, every, block_size, step, DIM)
    q = normal(step.num_tokens, HEADS * DIM, seed=1, dtype=dtype)
    lists = lists_of(step, every) if is_chosen else None
    attrs: dict[str, Any] = {"layer": 0, "num_heads": HEADS, "num_kv_heads": 1, "head_dim": DIM, "scale": DIM**-0.5}
    attrs |= {"window": None, "softcap": None, "value_dim": DIM, "every": every, "sums": True}
    call = OpCall({"q": q, "kv": entries.kv} | ({} if lists is None else {"chosen": lists}), attrs, step)
    (wanted,), allowed = reference.attention(call), attention_error(call)
    found = seen(entries, q, dtype, step, 1, lists)
    assert (np.abs(found.astype(np.float64) - wanted) <= allowed + 1e-30).all()
    nothing = (step.positions + 1) // every == 0
    assert nothing.any() and (found[nothing].reshape(-1, DIM + 2)[:, DIM] == np.float32(NOTHING_SEEN)).all()
    assert_same_bits(seen(entries, q, dtype, step, 200, lists), found, "in splits")
    # of the third sequence the first rows, and the fourth
    rows = [*range(71, 88), *range(111, 114)]
    works = [Work([0] * 17, 95, step.block_table[2].tolist()), Work([0] * 3, 0, step.block_table[3].tolist())]
    some, some_lists = make_step(works, block_size, "none"), None if lists is None else lists[rows]
    few = seen(entries, q[rows], dtype, some, 1, some_lists)
    assert_same_bits(few, found[rows], "beside others")


@pytest.mark.parametrize(("every", "block_size"), [(4, 16), (32, 8)])
@pytest.mark.parametrize(("weighs", "as_positions"), [(True, False), (False, True)])
def test_entries_are_chosen(every: int, block_size: int, weighs: bool, as_positions: bool) -> None:
    """Of keys and queries of small whole numbers, whose sums are exact, so that many scores are equal; entries, or
    positions of three of them and those behind the last."""
    step, rng = step_of(block_size), np.random.default_rng(3)
    keys = rng.integers(-2, 3, (600, 12)).astype(np.float32)
    entries = Entries("float32", every, block_size, step, 12, keys)
    q = rng.integers(-2, 3, (step.num_tokens, HEADS * 12)).astype(np.float32)
    weights = rng.integers(-1, 3, (step.num_tokens, HEADS)).astype(np.float32)
    count = 4 * every - 1 if as_positions else COUNT
    attrs = {"layer": 0, "num_heads": HEADS, "head_dim": 12, "count": count, "every": every}
    attrs |= {"as_positions": True} if as_positions else {}
    roles = {"q": q, "kv": entries.kv} | ({"weights": weights} if weighs else {})
    (wanted,) = reference.choose_keys(OpCall(roles, attrs, step))
    whole = torch.full((step.num_tokens, count + 3), 99, dtype=torch.int32)
    found = whole[:, :count]
    scores = torch.full((50, -(-int(step.context_len.max()) // every)), float("nan"))
    told = on_device(step, block_size)
    given = tensor(weights) if weighs else None
    choose_keys(tensor(q), given, entries.layer, found, told, 0, scores, HEADS, 12, as_positions)
    np.testing.assert_array_equal(found.numpy(), wanted)
    assert (whole[:, count:] == 99).all(), "written past the ends"


def test_one_attention_of_two() -> None:
    """Rows of which one attention, or neither, has seen anything; exponents that are far apart."""
    width, rows = 37, 6
    x, y = (normal(rows, HEADS * (width + 2), seed=seed).reshape(rows, HEADS, -1) for seed in (1, 2))
    for part in (x, y):
        part[..., -1] = 1 + np.abs(part[..., -1])
        part[..., -2] *= 20
    x[2], y[3] = 0, 0
    x[2, :, -2], y[3, :, -2] = NOTHING_SEEN, NOTHING_SEEN
    x[4], y[4] = x[2], y[3]
    sinks = np.linspace(-8, 8, HEADS, dtype=np.float32)
    roles = {"x": x.reshape(rows, -1), "y": y.reshape(rows, -1), "sinks": sinks}
    (wanted,) = reference.join_sums(OpCall(roles, {"num_heads": HEADS}, rows_step(rows)))
    out, rounded, alone = room(*wanted.shape), room(*wanted.shape, "bfloat16"), room(1, wanted.shape[1])
    given = tensor(roles["x"]), tensor(roles["y"], pad=5), torch.from_numpy(sinks)
    join_sums(*given, out)
    np.testing.assert_allclose(numbers(out), wanted, rtol=3e-6, atol=1e-6)
    assert not numbers(out)[4].any()
    join_sums(*given, rounded)
    assert_same_bits(numbers(rounded), round_to(numbers(out), "bfloat16"), "bfloat16")
    join_sums(given[0][1:2], given[1][1:2], given[2], alone)
    assert_same_bits(numbers(alone), numbers(out)[1:2], "a row alone")


@pytest.mark.parametrize(("count", "rounds"), [(2, 1), (3, 5), (4, 20), (16, 20)])
def test_rows_and_columns_add_up_to_one(count: int, rounds: int) -> None:
    x = 3 * normal(11, count * count, seed=count)
    x[3] *= 10
    (wanted,) = streams.balance(OpCall({"x": x}, {"rounds": rounds, "eps": 1e-6}, rows_step(11)))
    out, alone = room(*x.shape), room(1, x.shape[1])
    balance(tensor(x), out, rounds, 1e-6)
    np.testing.assert_allclose(numbers(out), wanted, rtol=3e-5, atol=1e-7)
    balance(tensor(x[9:10]), alone, rounds, 1e-6)
    assert_same_bits(numbers(alone), numbers(out)[9:10], "a row alone")


def test_layers_that_differ_share_a_block() -> None:
    """Entries of two widths, and layers whose blocks are filled by others like them; what one writes no other sees."""
    shapes, groups = ((1, 20), (1, 20), (1, 20), (1, 12)), ((2, 3), (0,), (1,))
    layout = KVLayout(4, 1, 20, "float32", 8, False, shapes, groups, (None, 9, 9), every=(1, 1, 4, 4))
    layout.check()
    kv = DeviceKV(layout, 6, torch.device("cpu"))
    assert kv.numbers[0].shape == (1, 1, 6, layout.block_bytes // 4)
    blocks = [int(layout.block_of(layer, 1)) for layer in range(4)]
    for layer, block in enumerate(blocks):
        view = kv.layers[layer]
        assert (view.every, view.block_size, view.k.shape[2]) == (layout.every[layer], 8, layout.entries(layer))
        view.k[block] = layer + 1.0
    for layer, block in enumerate(blocks):
        assert (kv.layers[layer].k[block] == layer + 1.0).all()
    assert int((kv.numbers[0] != 0).sum()) == sum(layer.k[0].numel() for layer in kv.layers)
    layout = KVLayout(4, 1, 20, "float32", 8, False, shapes, groups, (None, 9, 9), every=(1, 1, 1, 4))
    layout.check()
    with pytest.raises(InvariantError, match="layer 2 has an entry of each position in a block of layers that differ"):
        DeviceKV(layout, 6, torch.device("cpu"))


def test_what_entries_cannot_be() -> None:
    step = step_of(16)
    entries, none = Entries("float32", 4, 16, step, 16), torch.zeros(0)
    with pytest.raises(InvariantError, match="entries of 4 positions have keys alone"):
        kv_write(tensor(normal(2, 16)), None, ids([0, 1]), entries.layer, 1, 16)
    shape = AttentionShape(1, 1, 16, 64, 0, "float32", "float32", Chip(1), value_dim=16)
    work = work_list(shape, 8, 8, torch.device("cpu"))
    few = on_device(make_step([Work([0] * 4, 0, [1])], 16, "none"), 16)
    given = tensor(normal(4, 16)), entries.layer, room(4, 16), few, work, none, 1, 1, 16, 1.0, 0, 0.0
    with pytest.raises(InvariantError, match="attention to entries of 4 positions"):
        attention(*given, value_dim=16)


#: Two prompts, one in pieces; then a token of each.
FIRST, SECOND = [7, 2, 9, 5], [4, 1, 3]
PIECES = [[(16, 0, FIRST, 1)], [(8, 16, FIRST, 1), (8, 0, SECOND, 2)], [(1, 24, FIRST, 1), (1, 8, SECOND, 2)]]


@pytest.mark.parametrize(
    "name",
    ["deepseek_v4", "glm5_next_text", "qwen4_exp_text", "longcat_flash", "mistral_large4_text", "zaya", "hrm_text"],
)
def test_a_model_computes_what_its_graph_says(name: str) -> None:
    """Entries that end in a step and between steps, and choices among them; of others what else they alone have."""
    model, weights = model_of(name, "float32"), weights_of(name, "float32")
    graph, kv = graph_of(name, "float32"), ReferenceKV(NUM_BLOCKS, 8)
    rng = np.random.default_rng(1)
    for pieces in PIECES:
        works = [Work(rng.integers(3, 90, n).tolist(), before, blocks, slot) for n, before, blocks, slot in pieces]
        step = make_step(works, 8)
        got, wanted = model.run(step).logits, interpret(graph, step, weights, kv)["logits"]
        assert np.linalg.norm(got - wanted) <= 3e-6 * np.linalg.norm(wanted)


def test_matrices_as_published() -> None:
    """Linears of 8 bits in blocks, experts of 4; rows that a rounding turns choose another expert, and are others."""

    def graph_in_few_bits() -> Graph:
        graph = graph_of("deepseek_v4", "bfloat16")
        choose_precision.run(graph, lambda name, role: "fp4.g32" if ".mlp.experts." in name else "fp8.g128")
        return graph

    maxima = {"T": 16, "R": 16, "G": 4}
    program = compile_graph(graph_in_few_bits(), CudaCatalog(90), maxima=maxima, block_size=8, max_positions=64)
    packings = {constant.packing for constant in program.constants.values()} - {"row.float32", "rope"}
    assert packings == {"row.fp8.g128", "row.fp4.g32", "row.bfloat16"}
    weights = weights_of("deepseek_v4", "bfloat16")
    stored = Numbers({name: Stored(value, "bfloat16") for name, value in weights.items()})
    sizes = {"num_blocks": NUM_BLOCKS, "max_positions": 64, "num_state_slots": 4}
    model = open_model(program, stored, device=torch.device("cpu"), **sizes)
    graph, _ = run_passes(graph_in_few_bits(), [widen_activations.run, narrow_activations.run])
    kv, errors = ReferenceKV(NUM_BLOCKS, 8, "bfloat16"), []
    for step in steps()[:2]:
        got, wanted = model.run(step).logits, interpret(graph, step, weights, kv)["logits"]
        errors += (np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).tolist()
    assert np.quantile(errors, 0.75) <= 0.05


@pytest.mark.parametrize(
    ("name", "more"), [("deepseek_v4", {"sliding_window": 5}), ("glm5_next_text", {}), ("qwen4_exp_text", {})]
)
def test_tokens_are_those_of_the_cpu(
    name: str, more: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows have blocks of their own, which are let go; two continuations of one; requests that wait."""
    directory = make_checkpoint(tmp_path, tiny_of(name) | more, seed=5)
    prompts = [[5, 9, 30, 7, 11, 2, 8, 40, 3, 12, 17, 4, 9], [6, 31, 2, 7, 9, 1, 3], [5, 9, 30, 7, 11, 2, 8, 40, 8]]
    greedy = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    params = [greedy, greedy.clone(temperature=0.8, top_p=0.9, seed=3, n=2), greedy]
    wanted = tokens_of(llm(directory, device="cpu"), prompts, params)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    engine = llm(directory, device="cuda", num_gpu_blocks_override=4)
    assert tokens_of(engine, prompts, params) == wanted
    assert engine.stats().num_failed_steps == 0
    assert (MODELS[-1].program.kv.num_groups > 1) == ("sliding_window" in more)
