"""choose_blocks, and attention of which each KV head has a list of its own: against their definitions, and bit by bit
against each head alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from albireo.backends.cuda.attention_plan import AttentionShape, work_list, workspace_size
from albireo.backends.cuda.chip import Chip
from albireo.backends.cuda.kernels.attention import attention
from albireo.backends.cuda.kernels.build_work_list import build_work_list
from albireo.backends.cuda.kernels.choose_blocks import choose_blocks, scores_of
from albireo.backends.cuda.kv import TORCH_DTYPES
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from backends.cpu.test_chosen_blocks import best_blocks
from backends.cuda.test_attention import Sequence, Shape, World
from backends.cuda.test_chosen_keys import step_of
from backends.cuda.test_model import NUM_BLOCKS, graph_of, model_of, weights_of
from step_batches import Work, make_step

pytestmark = pytest.mark.usefixtures("ordered_dot")

CONTEXTS, ROWS = [150, 24, 9, 70, 1], [3, 1, 9, 70, 1]


def scorer(heads: int, dtype: str, block_size: int = 16) -> Shape:
    """Of keys alone, of one head."""
    return Shape(heads, 1, 12, block_size, dtype, dtype, value_dim=12)


def of_whole_numbers(world: World) -> World:
    """Of which every product is exact, so that many scores are equal, and nobody's order of sums decides."""
    rng = np.random.default_rng(0)
    for each in world.sequences:
        each.q, each.k = (rng.integers(-2, 3, a.shape).astype(np.float32) for a in (each.q, each.k))
        world._write(each.blocks, each.k, each.k)
    return world


def chosen(world: World, order: list[int], block: int, taken: int, nearest: int, turns: int = 64) -> list[np.ndarray]:
    """[rows, heads, block * taken] of each sequence. turns: rows that are scored at once."""
    shape, step, count = world.shape, step_of(world, order, (3, 2)), block * taken
    heads, tokens = shape.num_heads, step.sizes["T"]
    q = torch.zeros((tokens, heads * shape.head_dim + 8), dtype=TORCH_DTYPES[shape.dtype])[:, :-8]
    filled = np.concatenate([world.sequences[i].q for i in order])
    q[: len(filled)] = torch.from_numpy(filled.reshape(len(filled), -1)).to(q.dtype)
    whole = torch.full((tokens, heads * count + 4), -7, dtype=torch.int32)
    room = scores_of(heads, block, int(step.context_len.max()) + 5)
    scores = torch.full((turns, room), float("nan"))
    choose_blocks(q, world.layer, whole[:, :-4], step, 0, scores, heads, shape.head_dim, block, nearest)
    assert (whole[:, -4:] == -7).all(), "written past the ends"
    lists = whole[: len(filled), :-4].numpy().reshape(len(filled), heads, count)
    return np.split(lists, np.cumsum([len(world.sequences[i].q) for i in order])[:-1])


@pytest.mark.parametrize(
    ("heads", "dtype", "block", "taken", "nearest"),
    [(2, "bfloat16", 8, 3, 1), (3, "float32", 1, 5, 2), (1, "float16", 20, 2, 2), (4, "bfloat16", 100, 1, 1)],
)
def test_the_best_blocks_are_chosen(heads: int, dtype: str, block: int, taken: int, nearest: int) -> None:
    """Of equals the first."""
    world = of_whole_numbers(World(scorer(heads, dtype, 8 if block == 8 else 16), CONTEXTS, ROWS))
    for i, lists in enumerate(chosen(world, [*range(5)], block, taken, nearest, turns=7)):
        each = world.sequences[i]
        scores = np.einsum("thd,sd->ths", each.q.astype(np.float64), each.k[:, 0].astype(np.float64))
        for row, found in enumerate(lists):
            seen = each.context - len(lists) + row + 1
            for head in range(heads):
                right = best_blocks(scores[row, head, :seen], block, taken, nearest)
                assert found[head, : len(right)].tolist() == right, (i, row, head)
                assert (found[head, len(right) :] == -1).all()


def test_choices_depend_on_the_sequence_alone() -> None:
    world = World(scorer(3, "bfloat16"), CONTEXTS, ROWS)
    whole = chosen(world, [*range(5)], 8, 3, 1)
    assert len(np.unique(whole[0][0], axis=0)) == 3, "heads choose alike, which shows nothing"
    for order, turns in (([3, 0], 5), ([0], 1), ([4, 2, 1, 0, 3], 80)):
        for i, found in zip(order, chosen(world, order, 8, 3, 1, turns), strict=True):
            assert np.array_equal(found, whole[i])


#: Splits of lists, and positions of a block: lists of three splits, of which the last is not whole.
SPLIT, UNIT, LONG = 64, 15, 150


def lists_of(world: World, i: int) -> np.ndarray:
    """[rows, KV heads, LONG] of a sequence: blocks that are drawn for each, and the last one."""
    each, heads = world.sequences[i], world.shape.num_kv_heads
    rng, found = np.random.default_rng(i), np.full((len(each.q), heads, LONG), -1, np.int32)
    for row in range(len(found)):
        seen = each.context - len(found) + row + 1
        last = (seen - 1) // UNIT
        for head in range(heads):
            blocks = np.sort(np.append(rng.permutation(last)[: LONG // UNIT - 1], last))
            places = (blocks[:, None] * UNIT + np.arange(UNIT)).reshape(-1)
            places = places[places < seen]
            found[row, head, : len(places)] = places
    return found


def attended(world: World, lists: list[np.ndarray], multiprocessors: int) -> torch.Tensor:
    """[T, H, D]. multiprocessors: with more of them, lists are cut into splits."""
    shape, order = world.shape, [*range(len(world.sequences))]
    step = step_of(world, order, (2, 1))
    heads = shape.num_heads, shape.num_kv_heads, shape.head_dim
    tokens, most = step.sizes["T"], int(step.context_len.max())
    kind = AttentionShape(
        *heads, most, 0, shape.dtype, shape.kv, Chip(multiprocessors), split=SPLIT, chosen=LONG, chosen_unit=UNIT
    )
    work = work_list(kind, tokens, step.sizes["B"], torch.device("cpu"))
    workspace = torch.full((workspace_size(kind, tokens),), float("nan"))
    q = torch.zeros((tokens, heads[0] * heads[2]), dtype=TORCH_DTYPES[shape.dtype])
    filled = np.concatenate([each.q for each in world.sequences])
    q[: len(filled)] = torch.from_numpy(filled.reshape(len(filled), -1)).to(q.dtype)
    ids = torch.full((tokens, heads[1] * LONG + 10), -1, dtype=torch.int32)[:, : heads[1] * LONG]
    ids[: len(filled)] = torch.from_numpy(np.concatenate(lists).reshape(len(filled), -1))
    out = torch.full((tokens, heads[0] * heads[2]), float("nan"), dtype=q.dtype)
    build_work_list(step, work)
    attention(q, world.layer, out, step, work, workspace, *heads, shape.scale, 0, 0.0, chosen=ids)
    assert not out[len(filled) :].any(), "rows of no sequence"
    return out[: len(filled)].view(len(filled), heads[0], heads[2])


@pytest.mark.parametrize("multiprocessors", [1, 200])
def test_each_head_sees_its_own_list(multiprocessors: int) -> None:
    """Bit by bit what it gives alone, with a cache of its own; what that is, is for test_chosen_keys.py."""
    shape = Shape(6, 2, 16, 16, "bfloat16", "bfloat16")
    world = World(shape, [300, 40, 151, 1], [3, 40, 1, 1])
    lists = [lists_of(world, i) for i in range(4)]
    ours = attended(world, lists, multiprocessors)
    for head in range(2):
        rows, alone = slice(3 * head, 3 * head + 3), World(replace(shape, num_heads=3, num_kv_heads=1), [1], [1])
        alone.sequences = [
            Sequence(each.q[:, rows], each.k[:, [head]], each.v[:, [head]], each.blocks) for each in world.sequences
        ]
        alone.layer = replace(world.layer, k=world.layer.k[:, [head]], v=world.layer.v[:, [head]])
        one = attended(alone, [each[:, [head]] for each in lists], multiprocessors)
        assert torch.equal(ours[:, rows].contiguous(), one.contiguous()), f"KV head {head}"


def test_a_model_computes_what_its_graph_says() -> None:
    """Two prompts in pieces, then a token of each."""
    name, dtype = "minimax_m3_vl_text", "float32"
    model, weights = model_of(name, dtype), weights_of(name, dtype)
    graph, kv = graph_of(name, dtype), ReferenceKV(NUM_BLOCKS, 8)
    (taken,) = {call.attrs["count"] for call in model.program.calls if call.family == "choose_keys"}
    tokens = [int(t) for t in np.random.default_rng(1).integers(3, 90, 58)]
    first, second = [7, 2, 9, 5, 10], [4, 1, 3, 6]
    plans = [
        [Work(tokens[:16], 0, first)],
        [Work(tokens[16:24], 16, first), Work(tokens[40:48], 0, second)],
        [Work(tokens[24:39], 24, first)],
        [Work(tokens[39:40], 39, first), Work(tokens[48:58], 8, second)],
        [Work(tokens[:10], 18, second)],
    ]
    assert taken < 28, "rows see all there is"
    for plan in plans:
        step = make_step(plan, 8)
        got, wanted = model.run(step).logits, interpret(graph, step, weights, kv)["logits"]
        assert np.linalg.norm(got - wanted) <= 3e-6 * np.linalg.norm(wanted)
