"""attention, with build_work_list, against the reference; and the same bits however it is cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from albireo.backends.cuda.attention_plan import AttentionShape, work_list, workspace_size
from albireo.backends.cuda.chip import Chip
from albireo.backends.cuda.kernels import attention as attention_module
from albireo.backends.cuda.kernels.attention import attention
from albireo.backends.cuda.kernels.build_work_list import build_work_list
from albireo.backends.cuda.kernels.parts.by_distance import ByDistance
from albireo.backends.cuda.kv import TORCH_DTYPES, DeviceKV
from albireo.backends.cuda.step import DeviceStep
from albireo.backends.reference.attention import one_sequence
from albireo.backends.reference.rounding import round_kv, round_to, scaled_codes
from albireo.dtypes import FP8_TOKEN, KV_CODES, TOKEN
from albireo.errors import InvariantError
from albireo.graph.kv_layout import KVLayout
from albireo.quantization.rounding import round_float_tokens, round_tokens
from backends.cuda.tensors import e4m3_parts, room, token_parts

pytestmark = pytest.mark.usefixtures("ordered_dot")

SPLIT = 64
#: Half the distance between neighbours, relative to the number.
UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


@dataclass(frozen=True)
class Shape:
    """One layer's attention: what the launchers are told of it."""

    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 16
    block_size: int = 16
    dtype: str = "bfloat16"
    kv: str = "bfloat16"
    out: str = "float32"
    window: int = 0
    softcap: float = 0.0
    has_sinks: bool = False
    value_dim: int = 0
    both_ways: bool = False
    first_key: int = 0
    num_keys: int = 0
    falls: bool = False
    in_chunks: bool = False
    result_dim: int = 0

    @property
    def slopes(self) -> torch.Tensor | None:
        """From next to nothing to what leaves a few positions."""
        return 2.0 ** -torch.linspace(0.5, 8, self.num_heads) if self.falls else None

    @property
    def width(self) -> int:
        return self.value_dim or self.result_dim or self.head_dim

    @property
    def sinks(self) -> torch.Tensor | None:
        """Around the scores, and one far above them."""
        spread = torch.linspace(-2.0, 3.0, self.num_heads - 1)
        return torch.cat((spread, torch.tensor([9.0]))) if self.has_sinks else None

    @property
    def scale(self) -> float:
        return self.head_dim**-0.5

    @property
    def keys(self) -> dict[str, int]:
        """Of those that rows see, what is said of layers beside sounds, or that see chunks."""
        return {
            name: getattr(self, name)
            for name in ("first_key", "num_keys", "in_chunks", "result_dim")
            if getattr(self, name)
        }


@dataclass
class Sequence:
    """Numbers of one sequence: q of its last n tokens, k and v of all of its context."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    blocks: list[int]
    #: [n] behind the last position that each row sees, where it is behind its own; None: of none is it.
    ends: np.ndarray | None = None

    @property
    def context(self) -> int:
        return len(self.k)


class World:
    """A cache with sequences in blocks that are scattered over it; everything else in it is not a number."""

    def __init__(self, shape: Shape, contexts: list[int], rows: list[int], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.shape = shape
        dim, heads = shape.head_dim, shape.num_kv_heads
        needed = [-(-context // shape.block_size) for context in contexts]
        free = list(1 + rng.permutation(sum(needed)))
        layout = KVLayout(1, heads, dim, shape.kv, shape.block_size, not shape.value_dim)
        self.kv = DeviceKV(layout, sum(needed) + 1, torch.device("cpu"))
        (self.layer,) = self.kv.layers
        poison = torch.tensor(float("nan"))
        for tensor in (
            (self.layer.k_scale, self.layer.v_scale) if self.layer.k_scale is not None else self.layer_numbers
        ):
            tensor.fill_(poison)
        self.sequences = []
        for context, n, count in zip(contexts, rows, needed, strict=True):
            q = round_to(rng.standard_normal((n, shape.num_heads, dim)) * 2, shape.dtype)
            k, v = (rng.standard_normal((context, heads, dim)).astype(np.float32) for _ in range(2))
            blocks = [int(free.pop()) for _ in range(count)]
            self._write(blocks, k, k if shape.value_dim else v)
            v = round_kv(k if shape.value_dim else v, shape.kv)[..., : shape.width]
            self.sequences.append(Sequence(q, round_kv(k, shape.kv), v, blocks))

    @property
    def layer_numbers(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layer.k, self.layer.v

    def _write(self, blocks: list[int], k: np.ndarray, v: np.ndarray) -> None:
        at = np.arange(len(k))
        block, offset = torch.tensor(blocks)[at // self.shape.block_size], torch.from_numpy(at % self.shape.block_size)
        for values, numbers, scales in ((k, self.layer.k, self.layer.k_scale), (v, self.layer.v, self.layer.v_scale)):
            padded = np.zeros((*values.shape[:2], numbers.shape[3]), np.float32)
            padded[..., : values.shape[2]] = values
            if self.shape.kv in KV_CODES:
                padded, scale = scaled_codes(padded, self.shape.kv)
                assert scales is not None
                scales[block, :, offset] = torch.from_numpy(scale[..., 0])
            numbers[block, :, offset] = torch.from_numpy(padded).to(numbers.dtype)

    def step(self, order: list[int], padding: tuple[int, int] = (0, 0)) -> DeviceStep:
        """Sequences in this order, then padding tokens and padding sequences."""
        chosen = [self.sequences[i] for i in order]
        rows = [len(each.q) for each in chosen] + [0] * padding[1]
        width = max(len(each.blocks) for each in chosen)
        table = np.full((len(rows), width), 2**31 - 1, np.int32)
        for i, each in enumerate(chosen):
            table[i, : len(each.blocks)] = each.blocks
        starts = np.concatenate([[0], np.cumsum(rows)]).astype(np.int32)
        contexts = np.array([each.context for each in chosen] + [0] * padding[1], np.int32)
        none = torch.zeros(0, dtype=torch.int32)
        sizes = {"T": int(starts[-1]) + padding[0], "B": len(rows)}
        return DeviceStep(
            none,
            none,
            (none,),
            torch.from_numpy(starts),
            torch.from_numpy(contexts),
            torch.from_numpy(table.reshape(-1)),
            (torch.arange(len(table), dtype=torch.int32) * table.shape[1],),
            {},
            none,
            *[none] * 3,
            sizes,
        )

    def row_ends(self, order: list[int], num_tokens: int) -> torch.Tensor | None:
        """[num_tokens], zeros where a row sees up to itself."""
        if all(self.sequences[i].ends is None for i in order):
            return None
        found, at = np.zeros(num_tokens, np.int32), 0
        for each in (self.sequences[i] for i in order):
            if each.ends is not None:
                found[at : at + len(each.q)] = each.ends
            at += len(each.q)
        return torch.from_numpy(found)

    def added(self, order: list[int], num_tokens: int) -> ByDistance | None:
        """What scores have added by distance; see test_attention_by_distance.py."""
        return None

    def told_of(self, each: Sequence) -> tuple[dict[str, Any], float]:
        """The same for the reference, and how much it is at most."""
        return {}, 0.0

    def run(
        self,
        order: list[int],
        padding: tuple[int, int] = (0, 0),
        window: int | None = None,
        multiprocessors: int = 8,
        coded: str = "",
        **shape_args: Any,
    ) -> torch.Tensor:
        """out [T, H * D], whatever was in it and in the workspaces before. window: told instead of the right one."""
        shape, step = self.shape, self.step(order, padding)
        tokens = step.sizes["T"]
        if shape.num_keys:
            step = replace(step, heard=self.row_ends(order, tokens))
        attention_shape = self.attention_shape = AttentionShape(
            shape.num_heads,
            shape.num_kv_heads,
            shape.head_dim,
            int(step.context_len.max()),
            shape.window,
            shape.dtype,
            shape.kv,
            Chip(multiprocessors),
            **({"split": SPLIT, "value_dim": shape.value_dim} | shape.keys | shape_args),
        )
        work = work_list(attention_shape, tokens + 5, step.sizes["B"] + 3, torch.device("cpu"))
        for memory in (work.items, work.count):
            memory.fill_(-7)
        workspace = torch.full((workspace_size(attention_shape, tokens + 5),), float("nan"))
        q = torch.zeros((tokens, shape.num_heads * shape.head_dim + 8), dtype=TORCH_DTYPES[shape.dtype])[:, :-8]
        filled = np.concatenate([self.sequences[i].q for i in order])
        q[: len(filled)] = torch.from_numpy(filled.reshape(len(filled), -1)).to(q.dtype)
        columns = shape.num_heads * shape.width
        out = torch.full((tokens, columns + 8), float("nan"), dtype=TORCH_DTYPES[shape.out])[:, :-8]
        build_work_list(step, work)
        told = shape.window if window is None else window
        numbers = (shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.scale, told, shape.softcap)
        rows = torch.full((tokens * columns,), float("nan"), dtype=q.dtype)
        if coded:
            out = room(tokens, columns, coded)
        more = {"rows": rows if coded else None, "sinks": shape.sinks, "value_dim": shape.value_dim}
        more |= {"both_ways": shape.both_ways, "slopes": shape.slopes, "row_ends": self.row_ends(order, tokens)}
        more |= {"added": self.added(order, tokens)}
        attention(q, self.layer, out, step, work, workspace, *numbers, **more)
        assert work.count[1] == work.count[0] * shape.num_kv_heads
        assert not work.arrived.any() and not work.finished.any()
        return out

    def check(self, order: list[int], out: torch.Tensor) -> None:
        """Within the bound that the roundings of this shape's types allow of the reference."""
        at = 0
        for i in order:
            each = self.sequences[i]
            wanted, bound = self._reference(each)
            found = out[at : at + len(each.q)].double().numpy().reshape(wanted.shape)
            assert (np.abs(found - wanted) <= bound).all(), (i, np.max(np.abs(found - wanted) / bound))
            at += len(each.q)
        assert not out[at:].any()

    def _reference(self, each: Sequence) -> tuple[np.ndarray, np.ndarray]:
        shape = self.shape
        n, dim = len(each.q), shape.head_dim
        positions = np.arange(each.context - n, each.context, dtype=np.int32)
        attrs = {"num_heads": shape.num_heads, "scale": shape.scale}
        attrs |= {"window": shape.window or None, "softcap": shape.softcap or None}
        attrs |= {"num_kv_heads": shape.num_kv_heads, "head_dim": shape.head_dim, "both_ways": shape.both_ways}
        attrs |= shape.keys | ({"value_dim": shape.value_dim} if shape.value_dim else {})
        attrs |= {} if shape.slopes is None else {"slopes": tuple(shape.slopes.tolist())}
        sinks = None if shape.sinks is None else shape.sinks.numpy()
        told, most = self.told_of(each)
        told |= {"sinks": sinks, "ends": each.ends}
        wanted = one_sequence(each.q, each.k, each.v, positions, attrs, **told)
        mean = one_sequence(each.q, each.k, np.abs(each.v), positions, attrs, **told).astype(np.float64)
        group = shape.num_heads // shape.num_kv_heads
        keys = np.abs(each.k).repeat(group, axis=1)
        size = np.einsum("nhd,chd->nhc", np.abs(each.q), keys).max(axis=-1)[..., None] * shape.scale
        # a score: a sum of dim exact products, then five roundings; tanh is a quotient of sums near 1
        size = size + most
        if shape.slopes is not None:
            size = size + shape.slopes.numpy()[None, :, None] * each.context
        score = (dim + 8) * UNIT[torch.float32] * size + 16 * UNIT[torch.float32] * (shape.softcap + 1)
        # weights and their sum are off by that much each, and by the rounding of weights and of float32 sums
        weight = UNIT[TORCH_DTYPES[self.attention_shape.compute_types[1]]]
        relative = 2 * score + 2 * weight + (each.context + 32) * UNIT[torch.float32]
        return wanted, mean * relative + np.abs(wanted) * UNIT[TORCH_DTYPES[shape.out]] + 1e-30


@pytest.mark.parametrize(
    "shape",
    [
        Shape(),
        Shape(out="bfloat16", head_dim=8, block_size=8),
        Shape(dtype="float32", kv="float32", head_dim=80, num_heads=3, num_kv_heads=1),
        Shape(dtype="float16", kv="float16", out="float16", head_dim=96, block_size=32),
        Shape(kv="int8", window=70, softcap=5.0),
        Shape(kv="fp8", dtype="float16", num_heads=2),
        Shape(dtype="float32", kv="bfloat16", window=3),
        Shape(window=64, softcap=2.0, block_size=8),
        Shape(window=20, has_sinks=True),
        Shape(window=50, in_chunks=True),
        Shape(head_dim=24, result_dim=16, has_sinks=True, window=33),
        Shape(head_dim=40, result_dim=32, out="bfloat16", kv="int8", num_kv_heads=1),
        Shape(window=64, in_chunks=True, kv="int8", num_kv_heads=1, has_sinks=True, softcap=5.0),
        Shape(kv="int8", has_sinks=True, num_kv_heads=1),
        Shape(head_dim=40, value_dim=32, num_kv_heads=1, num_heads=5),
        Shape(head_dim=56, value_dim=48, num_kv_heads=1, num_heads=5, out="bfloat16"),
        Shape(dtype="float32", kv="float32", head_dim=24, value_dim=16, num_kv_heads=1, window=30, has_sinks=True),
        Shape(num_kv_heads=4, falls=True),
        Shape(kv="int8", window=70, has_sinks=True, falls=True),
        Shape(kv="fp8", dtype="float16", num_heads=6, falls=True),
        Shape(dtype="float32", kv="float32", head_dim=80, num_heads=3, num_kv_heads=1, falls=True),
    ],
    ids=str,
)
def test_mixed_steps_against_the_reference(shape: Shape) -> None:
    """A decode of three splits, a chunk of prefill across two, a prompt, a sequence of one token; and padding."""
    world = World(shape, [150, 90, 21, 1, 64], [1, 40, 21, 1, 1])
    order = [0, 1, 2, 3, 4]
    world.check(order, world.run(order, (3, 2)))


#: Prompts of three splits, of a part of one, of whole tiles of keys, of one token.
WHOLE = [150, 21, 64, 1, 90]


BOTH_WAYS = [
    Shape(both_ways=True, num_kv_heads=4),
    Shape(both_ways=True, num_kv_heads=1, window=1, out="bfloat16", head_dim=8, block_size=8),
    Shape(both_ways=True, window=65, kv="int8", softcap=5.0),
    Shape(both_ways=True, window=20, dtype="float32", kv="float32", head_dim=24, num_heads=3, num_kv_heads=1),
    Shape(both_ways=True, kv="fp8", dtype="float16", num_heads=2, has_sinks=True),
    Shape(both_ways=True, window=64, head_dim=40, value_dim=32, num_kv_heads=1, num_heads=2),
]
#: Rows of a tile: no bit depends on them, as tests of bits show. So a few shapes are enough for many tiles.
FEW, MANY = None, 16


@pytest.mark.parametrize(
    ("shape", "tile_rows"), [*((shape, FEW) for shape in BOTH_WAYS), *((BOTH_WAYS[i], MANY) for i in (1, 3))], ids=str
)
def test_rows_that_see_both_ways_against_the_reference(shape: Shape, tile_rows: int | None) -> None:
    """In a few tiles of rows, and in many, of which windows leave most nothing to see of most splits."""
    world = World(shape, WHOLE, WHOLE)
    order = [3, 0, 4, 2, 1] if tile_rows is None else [4, 1]
    world.check(order, world.run(order, (3, 2), tile_rows=tile_rows, multiprocessors=64))


@pytest.mark.parametrize(("length", "window"), [(63, 33), (65, 0), (65, 33), (127, 0), (128, 33), (129, 0), (129, 33)])
def test_ends_of_tiles_and_splits_both_ways(length: int, window: int) -> None:
    world = World(Shape(num_heads=1, num_kv_heads=1, both_ways=True, window=window), [length], [length])
    world.check([0], world.run([0], multiprocessors=64))


BESIDE_A_SOUND = [
    Shape(first_key=50),
    Shape(first_key=64, kv="int8", out="bfloat16", num_kv_heads=4),
    Shape(first_key=65, window=30, dtype="float32", kv="float32", head_dim=24, num_heads=3, num_kv_heads=1),
    Shape(first_key=1, has_sinks=True, block_size=8),
    Shape(num_keys=50),
    Shape(num_keys=64, kv="fp8", dtype="float16", num_heads=2),
    Shape(num_keys=100, dtype="float32", kv="float32", head_dim=24, num_kv_heads=1, has_sinks=True),
    Shape(num_keys=1, out="bfloat16", block_size=8, softcap=5.0),
]


@pytest.mark.parametrize(
    ("shape", "tile_rows"),
    [*((shape, FEW) for shape in BESIDE_A_SOUND), *((BESIDE_A_SOUND[i], MANY) for i in (2, 5))],
    ids=str,
)
def test_rows_beside_a_sound_against_the_reference(shape: Shape, tile_rows: int | None) -> None:
    """Rows of text that see what stands behind a sound, or the sound: decoded, in chunks, all of the text at once."""
    world = World(shape, [190, 130, 101, 260, 128], [1, 30, 1, 130, 28])
    order = [3, 0, 4, 2, 1] if tile_rows is None else [4, 3]
    world.check(order, world.run(order, (3, 2), tile_rows=tile_rows, multiprocessors=64))


@pytest.mark.parametrize("shape", [Shape(first_key=70), Shape(num_keys=70)], ids=str)
def test_keys_that_rows_beside_a_sound_do_not_see_are_not_read_into_them(shape: Shape) -> None:
    world = World(shape, [190, 130], [40, 1])
    before = world.run([0, 1])
    hidden = slice(0, 70) if shape.first_key else slice(70, None)
    for each in world.sequences:
        k, v = each.k.copy(), each.v.copy()
        k[hidden], v[hidden] = 1e4, -1e4
        world._write(each.blocks, k, v)
    assert torch.equal(world.run([0, 1]), before)


@pytest.mark.parametrize("shape", [Shape(first_key=70), Shape(num_keys=130)], ids=str)
def test_bits_beside_a_sound_are_the_same_in_any_company(shape: Shape) -> None:
    world = World(shape, [190, 260, 150], [33, 1, 5])
    together = world.run([0, 1, 2], (2, 1), multiprocessors=64)
    assert torch.equal(world.run([0, 1, 2], tile_rows=16, multiprocessors=64), together[:39])
    for order, rows in (([0], slice(0, 33)), ([1], slice(33, 34)), ([2], slice(34, 39))):
        assert torch.equal(world.run(order, multiprocessors=1), together[rows])


@pytest.mark.parametrize("shape", [Shape(num_keys=140), Shape(num_keys=100, kv="int8", num_kv_heads=1)], ids=str)
def test_rows_hear_as_much_of_a_sound_as_there_is(shape: Shape) -> None:
    """A part of a split, all, all there may be, one position, splits and a part; the same bits alone."""
    world, heard = World(shape, [190, 150, 160, 145, 260], [1, 30, 5, 1, 130]), [20, 0, shape.num_keys, 1, 99]
    for each, count in zip(world.sequences, heard, strict=True):
        each.ends = np.full(len(each.q), count, np.int32)
    order = [3, 0, 4, 2, 1]
    out = world.run(order, (3, 2), multiprocessors=64)
    world.check(order, out)
    assert torch.equal(world.run([4], tile_rows=16, multiprocessors=1), out[2:132])


def with_images(world: World, images: list[list[tuple[int, int]]]) -> World:
    """Positions from first to end of each pair see all of these. A sequence without any has no ends."""
    for each, spans in zip(world.sequences, images, strict=True):
        first, ends = each.context - len(each.q), np.zeros(len(each.q), np.int32)
        for start, end in spans:
            ends[start - first : end - first] = end
        each.ends = ends if spans else None
    return world


#: Of 150 positions two images, one across the ends of two splits; one to the end of a context; one of a chunk's first
#: rows; none; one that is all there is.
IMAGES: list[list[tuple[int, int]]] = [[(3, 20), (50, 133)], [(70, 90)], [(60, 70)], [], [(0, 21)]]


#: In turn over shapes: no bit depends on them, as a test of bits shows.
IN_PARTS: dict[str, Any] = {}
IN_ONE: dict[str, Any] = {"tile_rows": 16, "max_parts": 0}


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        (Shape(), IN_PARTS),
        (Shape(window=40, head_dim=8, block_size=8, out="bfloat16"), IN_ONE),
        (Shape(window=70, kv="int8", softcap=5.0, num_kv_heads=1), IN_PARTS),
        (Shape(dtype="float32", kv="float32", head_dim=24, num_heads=3, num_kv_heads=1, has_sinks=True), IN_ONE),
        (Shape(kv="fp8", dtype="float16", num_heads=2, window=90), IN_PARTS),
    ],
    ids=str,
)
def test_rows_of_images_against_the_reference(shape: Shape, options: dict[str, Any]) -> None:
    """Prompts, chunks behind a context, and a token that decodes; every row of an image sees to its end."""
    world = with_images(World(shape, [150, 90, 70, 64, 21], [150, 30, 10, 1, 21]), IMAGES)
    order = [1, 0, 3, 4, 2]
    world.check(order, world.run(order, multiprocessors=64, **options))


@pytest.mark.parametrize("length", [63, 64, 65, 129])
def test_images_at_ends_of_tiles_and_splits(length: int) -> None:
    shape = Shape(num_heads=2, num_kv_heads=1, window=33)
    world = with_images(World(shape, [length], [length]), [[(1, 32), (length - 31, length)]])
    world.check([0], world.run([0], multiprocessors=64))


@pytest.mark.parametrize("window", [0, 40])
def test_bits_of_images_are_the_same_in_any_company(window: int) -> None:
    """And those of rows that see up to themselves are what they are without images in the step."""
    shape = Shape(num_heads=2, num_kv_heads=1, window=window)
    world = with_images(World(shape, [150, 90, 70, 64, 21], [150, 30, 10, 1, 21]), IMAGES)
    alone = [world.run([i]) for i in range(5)]
    order = [2, 0, 3, 4, 1]
    together = torch.cat([alone[i] for i in order])
    for options in ({"tile_rows": 16, "max_parts": 0}, {"tile_rows": 64, "multiprocessors": 64}, {"tile_rows": 128}):
        assert torch.equal(world.run(order, **options), together), options
    (first,) = [each for each in world.sequences if each.context == 150]
    ends, first.ends = first.ends, None
    plain = world.run([0])
    assert ends is not None
    assert torch.equal(plain[ends == 0], alone[0][ends == 0]) and not torch.equal(plain[3:10], alone[0][3:10])


@pytest.mark.parametrize(
    ("head_dim", "kv", "largest"), [(256, "bfloat16", 64), (256, "int8", 32), (512, "bfloat16", 16), (512, "int8", 16)]
)
def test_wide_heads(head_dim: int, kv: str, largest: int) -> None:
    world = World(Shape(head_dim=head_dim, num_heads=2, num_kv_heads=1, kv=kv), [70], [2])
    world.check([0], world.run([0], tile_rows=largest))
    assert world.attention_shape.largest_tile == largest


@pytest.mark.parametrize(
    "shape",
    [
        Shape(window=40),
        Shape(window=70, in_chunks=True),
        Shape(kv="int8", softcap=4.0, num_heads=6),
        Shape(head_dim=48, value_dim=32, num_kv_heads=1),
    ],
    ids=str,
)
def test_a_row_is_the_same_bits_in_any_company(shape: Shape) -> None:
    world = World(shape, [150, 90, 21, 131], [1, 40, 21, 3])
    alone = [world.run([i]) for i in range(4)]
    order = [2, 0, 3, 1]
    together = torch.cat([alone[i] for i in order])
    # every sequence whole; in parts; some of them in parts, for want of room
    for options in ({"tile_rows": 16, "max_parts": 0}, {"tile_rows": 64}, {"tile_rows": 128, "max_parts": 4}):
        assert torch.equal(world.run(order, (1, 1), **options)[:-1], together), options


@pytest.mark.parametrize("window", [0, 40])
def test_bits_both_ways_are_the_same_in_any_company_and_blocks(window: int) -> None:
    shape, lengths = Shape(num_heads=2, num_kv_heads=1, both_ways=True, window=window), [150, 21, 90]
    world = World(shape, lengths, lengths)
    alone = [world.run([i]) for i in range(3)]
    order = [1, 0, 2]
    together = torch.cat([alone[i] for i in order])
    for options in ({"tile_rows": 16, "max_parts": 0}, {"tile_rows": 64, "multiprocessors": 64}, {"max_parts": 320}):
        assert torch.equal(world.run(order, (1, 1), **options)[:-1], together), options
    for sequence in world.sequences:
        rng, held = np.random.default_rng(5), sequence.blocks
        blocks = rng.permutation(held).tolist()
        for numbers in world.layer_numbers:
            numbers[blocks] = numbers[held].clone()
        sequence.blocks = blocks
    assert torch.equal(world.run(order), together)


def test_a_row_is_the_same_bits_in_any_chunk() -> None:
    world = World(Shape(), [100], [100])
    whole = world.run([0])
    (sequence,) = world.sequences
    pieces = []
    for start, end in ((0, 30), (30, 31), (31, 100)):
        part = World(Shape(), [100], [100])
        blocks = sequence.blocks[: -(-end // 16)]
        part.sequences = [Sequence(sequence.q[start:end], sequence.k[:end], sequence.v[:end], blocks)]
        pieces.append(part.run([0]))
    assert torch.equal(torch.cat(pieces), whole)


def test_fp8_is_the_same_where_it_is_taken_apart_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on GPUs before 8.9, which have no such type."""
    world = World(Shape(kv="fp8"), [70], [2])
    wanted = world.run([0])
    monkeypatch.setattr(attention_module, "_readable", lambda numbers: numbers.view(torch.uint8))
    assert torch.equal(world.run([0]), wanted)


@pytest.mark.parametrize(
    "shape",
    [
        Shape(out="bfloat16"),
        Shape(num_heads=3, num_kv_heads=1, out="bfloat16", window=70),
        Shape(num_heads=3, num_kv_heads=1, head_dim=128, out="bfloat16"),
    ],
)
def test_rows_of_codes_are_those_of_the_rounded_rows(shape: Shape) -> None:
    """Heads of a token come from several programs and tiles, its context from several parts."""
    world, order = World(shape, [130, 70, 17], [1, 20, 17]), [2, 0, 1]
    numbers = world.run(order, (3, 1)).float().numpy()
    cols = shape.num_heads * shape.head_dim
    for options in ({}, {"tile_rows": 64, "max_parts": 4}):
        codes, scale, sums = token_parts(world.run(order, (3, 1), coded=TOKEN, **options), cols)
        wanted, wanted_scale = round_tokens(numbers)
        assert np.array_equal(codes[:, :cols], wanted) and np.array_equal(scale, wanted_scale)
        assert np.array_equal(sums[:, -1], wanted.sum(axis=1))
    wanted, wanted_scale = round_float_tokens(numbers)
    found, scale = e4m3_parts(world.run(order, (3, 1), coded=FP8_TOKEN), cols)
    assert np.array_equal(found, wanted * wanted_scale) and np.array_equal(scale, wanted_scale)


def test_codes_need_room_for_numbers() -> None:
    world = World(Shape(), [20], [1])
    with pytest.raises(InvariantError, match="needs rows of 1 x 64"):
        attention(
            torch.zeros(1, 64, dtype=torch.bfloat16),
            world.layer,
            room(1, 64, TOKEN),
            world.step([0]),
            work_list(AttentionShape(4, 2, 16, 20, 0, "bfloat16", "bfloat16", Chip(8)), 1, 1, torch.device("cpu")),
            torch.zeros(0),
            *(4, 2, 16, 0.25, 0, 0.0),
        )


def test_a_work_list_of_other_layers() -> None:
    world = World(Shape(), [20], [1])
    with pytest.raises(InvariantError, match="got work of"):
        world.run([0], window=8)


def test_shared_blocks() -> None:
    world = World(Shape(), [100, 100], [2, 2])
    first = world.sequences[0]
    world.sequences[1] = replace(world.sequences[1], k=first.k, v=first.v, blocks=first.blocks)
    world.check([0, 1], world.run([0, 1]))
