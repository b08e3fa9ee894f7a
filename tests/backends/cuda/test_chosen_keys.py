"""choose_keys, and attention to what it chose: against their definitions, and the same bits however a step is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from albireo.backends.cuda.attention_plan import AttentionShape, most_parts, work_list, workspace_size
from albireo.backends.cuda.chip import Chip
from albireo.backends.cuda.kernels.attention import attention
from albireo.backends.cuda.kernels.build_work_list import build_work_list
from albireo.backends.cuda.kernels.choose_keys import choose_keys
from albireo.backends.cuda.kv import TORCH_DTYPES
from albireo.backends.cuda.step import DeviceStep
from albireo.backends.cuda.tokens import numbers_of
from albireo.backends.reference.attention import one_sequence
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.dtypes import FP8_TOKEN, TOKEN
from backends.cuda.tensors import room
from backends.cuda.test_attention import Shape, World
from backends.cuda.test_model import NUM_BLOCKS, graph_of, model_of, weights_of
from step_batches import Work, make_step

pytestmark = pytest.mark.usefixtures("ordered_dot")

COUNT = 20
CONTEXTS, ROWS = [150, 21, 20, 70, 1], [3, 1, 5, 70, 1]


def scorer(heads: int, dim: int, dtype: str, block_size: int = 16) -> Shape:
    """Of keys alone, of one head."""
    return Shape(heads, 1, dim, block_size, dtype, dtype, value_dim=dim)


def drawn_weights(world: World, i: int) -> np.ndarray:
    """[rows, heads] of a sequence."""
    shape = len(world.sequences[i].q), world.shape.num_heads
    return np.random.default_rng(i).standard_normal(shape, np.float32)


def step_of(world: World, order: list[int], padding: tuple[int, int]) -> DeviceStep:
    parts = [world.sequences[i] for i in order]
    of_rows = [np.arange(each.context - len(each.q), each.context) for each in parts]
    positions = np.concatenate([*of_rows, [0] * padding[0]]).astype(np.int32)
    return replace(world.step(order, padding), positions=torch.from_numpy(positions))


def chosen(world: World, order: list[int], *, turns: int = 64, padding: tuple[int, int] = (0, 0)) -> list[np.ndarray]:
    """[rows, COUNT] of each sequence. turns: rows that are scored at once."""
    shape, step = world.shape, step_of(world, order, padding)
    parts, tokens = [world.sequences[i] for i in order], step.sizes["T"]
    q = torch.zeros((tokens, shape.num_heads * shape.head_dim + 8), dtype=TORCH_DTYPES[shape.dtype])[:, :-8]
    weights = torch.zeros((tokens, shape.num_heads + 3))[:, :-3]
    filled = np.concatenate([each.q for each in parts])
    q[: len(filled)] = torch.from_numpy(filled.reshape(len(filled), -1)).to(q.dtype)
    weights[: len(filled)] = torch.from_numpy(np.concatenate([drawn_weights(world, i) for i in order]))
    whole = torch.full((tokens, COUNT + 4), -7, dtype=torch.int32)
    scores = torch.full((turns, int(step.context_len.max()) + 5), float("nan"))
    choose_keys(q, weights, world.layer, whole[:, :COUNT], step, 0, scores, shape.num_heads, shape.head_dim)
    assert (whole[:, COUNT:] == -7).all(), "written past the ends"
    return np.split(whole[: len(filled), :COUNT].numpy(), np.cumsum([len(each.q) for each in parts])[:-1])


@pytest.mark.parametrize(
    "shape",
    [scorer(3, 8, "bfloat16", 8), scorer(20, 40, "float32"), scorer(64, 128, "bfloat16"), scorer(5, 16, "float16", 32)],
    ids=str,
)
def test_the_best_are_chosen(shape: Shape) -> None:
    world = World(shape, CONTEXTS, ROWS)
    for i, lists in enumerate(chosen(world, [*range(5)], turns=7, padding=(3, 2))):
        each = world.sequences[i]
        q, keys, weights = each.q.astype(np.float64), each.k[:, 0].astype(np.float64), drawn_weights(world, i)
        scores = np.einsum("th,ths->ts", weights, np.maximum(np.einsum("thd,sd->ths", q, keys), 0))
        sizes = np.einsum("th,ths->ts", np.abs(weights), np.einsum("thd,sd->ths", np.abs(q), np.abs(keys)))
        for row, (found, score) in enumerate(zip(lists, scores, strict=True)):
            seen = each.context - len(lists) + row + 1
            places, behind = found[: min(seen, COUNT)], found[seen:]
            assert (np.diff(places) > 0).all() and places[0] >= 0 and places[-1] < seen and (behind == -1).all()
            rest = np.setdiff1d(np.arange(seen), places)
            error = 1e-5 * sizes[row].max()
            assert not rest.size or score[places].min() >= score[rest].max() - error


def test_of_equals_the_first() -> None:
    """Whole numbers, of which every product is exact, so that many scores are equal."""
    world = World(scorer(4, 8, "float32"), [150, 40], [4, 40])
    rng = np.random.default_rng(0)
    for each in world.sequences:
        each.q = rng.integers(-2, 3, each.q.shape).astype(np.float32)
        each.k = np.sign(each.k)
        world._write(each.blocks, each.k, each.k)
    weights = [np.float32([[1, -1, 2, 0]] * 4), np.float32([[-1, -1, 0, 1]] * 40)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "drawn_weights", lambda _, i: weights[i])
        lists = chosen(world, [0, 1])
    for each, weight, found in zip(world.sequences, weights, lists, strict=True):
        scores = np.einsum("th,ths->ts", weight, np.maximum(np.einsum("thd,sd->ths", each.q, each.k[:, 0]), 0))
        for row in range(len(found)):
            seen = each.context - len(found) + row + 1
            right = np.sort(np.argsort(-scores[row, :seen], kind="stable")[:COUNT])
            assert found[row, : len(right)].tolist() == right.tolist()


def test_choices_depend_on_the_sequence_alone() -> None:
    world = World(scorer(20, 40, "bfloat16"), CONTEXTS, ROWS)
    whole = chosen(world, [*range(5)])
    for order, turns in (([3, 0], 5), ([0], 1), ([4, 2, 1, 0, 3], 80)):
        for i, found in zip(order, chosen(world, order, turns=turns), strict=True):
            assert np.array_equal(found, whole[i])


LATENT = Shape(40, 1, 40, 16, "bfloat16", "bfloat16", "bfloat16", value_dim=32)
SHAPES = [
    LATENT,
    replace(LATENT, dtype="float32", kv="float32", out="float32", has_sinks=True, num_heads=5, block_size=8),
    Shape(6, 2, 16, 32, "float16", "float16", "float16"),
]
#: Splits of lists of these tests, and places in them: three splits, of which the last is not whole.
SPLIT, LONG = 64, 150


def lists_of(world: World, i: int) -> np.ndarray:
    """[rows, LONG] of a sequence: all positions where there are no more; else any."""
    each = world.sequences[i]
    rng, found = np.random.default_rng(i), np.full((len(each.q), LONG), -1, np.int32)
    for row in range(len(found)):
        seen = each.context - len(found) + row + 1
        places = np.sort(rng.permutation(seen)[:LONG])
        found[row, : len(places)] = places
    return found


def attended(
    world: World, order: list[int], multiprocessors: int, padding: tuple[int, int] = (0, 0), coded: str = ""
) -> torch.Tensor:
    """[T, H * D]. multiprocessors: with more of them, lists are cut into splits."""
    shape, step = world.shape, step_of(world, order, padding)
    tokens, columns = step.sizes["T"], shape.num_heads * shape.width
    heads = shape.num_heads, shape.num_kv_heads, shape.head_dim
    chip, most = Chip(multiprocessors), int(step.context_len.max())
    kind = AttentionShape(
        *heads, most, 0, shape.dtype, shape.kv, chip, split=SPLIT, value_dim=shape.value_dim, chosen=LONG
    )
    work = work_list(kind, tokens + 5, step.sizes["B"] + 3, torch.device("cpu"))
    for memory in (work.items, work.count):
        memory.fill_(-7)
    workspace = torch.full((workspace_size(kind, tokens + 5),), float("nan"))
    assert most_parts(kind, tokens, 1) >= work.plan(step).max_parts
    q = torch.zeros((tokens, shape.num_heads * shape.head_dim), dtype=TORCH_DTYPES[shape.dtype])
    filled = np.concatenate([world.sequences[i].q for i in order])
    q[: len(filled)] = torch.from_numpy(filled.reshape(len(filled), -1)).to(q.dtype)
    lists = torch.full((tokens, LONG + 10), -1, dtype=torch.int32)[:, :LONG]
    lists[: len(filled)] = torch.from_numpy(np.concatenate([lists_of(world, i) for i in order]))
    out = torch.full((tokens, columns), float("nan"), dtype=TORCH_DTYPES[shape.out])
    rows = torch.full((tokens * columns,), float("nan"), dtype=q.dtype)
    if coded:
        out = room(tokens, columns, coded)
    build_work_list(step, work)
    more = {"rows": rows if coded else None, "sinks": shape.sinks, "value_dim": shape.value_dim, "chosen": lists}
    attention(q, world.layer, out, step, work, workspace, *heads, shape.scale, 0, 0.0, **more)
    assert work.count[1] == work.count[0] * shape.num_kv_heads
    assert not work.arrived.any() and not work.finished.any()
    return out


@pytest.mark.parametrize("multiprocessors", [1, 200])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_sees_what_was_chosen(shape: Shape, multiprocessors: int) -> None:
    world = World(shape, [300, 40, 150, 1], [3, 40, 1, 1])
    order = [2, 0, 3, 1]
    found, at = attended(world, order, multiprocessors, (2, 1)).float().numpy(), 0
    for i in order:
        each, lists = world.sequences[i], lists_of(world, i)
        positions = np.arange(each.context - len(each.q), each.context, dtype=np.int32)
        attrs = {"num_heads": shape.num_heads, "num_kv_heads": shape.num_kv_heads, "scale": shape.scale}
        attrs |= {"head_dim": shape.head_dim, "window": None, "softcap": None}
        attrs |= {"value_dim": shape.value_dim} if shape.value_dim else {}
        sinks = None if shape.sinks is None else shape.sinks.numpy()
        wanted = one_sequence(each.q, each.k, each.v, positions, attrs, sinks, chosen=lists)
        mean = one_sequence(each.q, each.k, np.abs(each.v), positions, attrs, sinks, chosen=lists)
        unit = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2}[shape.dtype]
        got = found[at : at + len(each.q)].reshape(wanted.shape)
        assert (np.abs(got - wanted) <= unit * (mean + np.abs(wanted))).all()
        at += len(each.q)
    assert not found[at:].any(), "rows of no sequence"


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_bits_depend_on_the_sequence_alone(shape: Shape) -> None:
    """Lists whole and in splits, beside others; and as if all were seen, where all are."""
    world = World(shape, [300, 140, 150, 1], [3, 30, 1, 1])
    whole = attended(world, [0, 1, 2, 3], 1)
    parts = torch.split(whole, [3, 30, 1, 1])
    for order, multiprocessors in (([0], 200), ([1, 0], 1), ([2, 3, 0], 200), ([3], 200)):
        got = attended(world, order, multiprocessors)
        assert torch.equal(got, torch.cat([parts[i] for i in order])), (order, multiprocessors)
    assert torch.equal(world.run([1, 3], tile_rows=16), torch.cat([parts[1], parts[3]]))


@pytest.mark.parametrize("coded", [TOKEN, FP8_TOKEN])
def test_results_as_codes(coded: str) -> None:
    world = World(LATENT, [300, 40], [2, 3])
    numbers = attended(world, [0, 1], 1).float()
    for multiprocessors in (1, 200):
        codes = attended(world, [0, 1], multiprocessors, coded=coded)
        found = numbers_of(codes, numbers.shape[1]).float()
        step = numbers.abs().amax(dim=1, keepdim=True) * (2**-4 if coded == FP8_TOKEN else 1 / 127)
        assert ((found - numbers).abs() <= step).all()


@pytest.mark.parametrize("name", ["glm_moe_dsa", "axk2", "dots3_note_text"])
def test_a_model_computes_what_its_graph_says(name: str) -> None:
    """Two prompts in pieces, then a token of each; layers that choose, and one that sees what another has chosen, or
    has latents of another size and a window."""
    model, weights = model_of(name, "float32"), weights_of(name, "float32")
    graph, kv = graph_of(name, "float32"), ReferenceKV(NUM_BLOCKS, 8)
    tokens = [int(t) for t in np.random.default_rng(1).integers(3, 90, 48)]
    first, second = [7, 2, 9, 5], [4, 1, 3]
    plans = [
        [Work(tokens[:16], 0, first)],
        [Work(tokens[16:24], 16, first), Work(tokens[24:32], 0, second)],
        [Work(tokens[32:46], 8, second)],
        [Work(tokens[46:47], 22, second), Work(tokens[47:], 24, first)],
    ]
    for plan in plans:
        step = make_step(plan, 8)
        got, wanted = model.run(step).logits, interpret(graph, step, weights, kv)["logits"]
        assert np.linalg.norm(got - wanted) <= 3e-6 * np.linalg.norm(wanted)
