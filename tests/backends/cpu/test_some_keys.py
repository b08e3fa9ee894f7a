"""A decoder that reads what an encoder left: one program writes keys and values of rows that it is given, another
attends to them and to its own text. Both on one cache, against the interpreter, and bit by bit against themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import LEVELS, isa_levels
from albireo.backends.cpu.model import CpuModel
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import round_to
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.pipeline import compile_graph
from albireo.dtypes import COMPUTE_DTYPES
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from backends.cpu.harness import F32, assert_same_bits, pool
from backends.cpu.test_pack import Stored, Weights
from step_batches import Work, make_step

LAYERS, WIDTH, HEADS, DIM, SOUNDS, BLOCKS = 2, 32, 2, 16, 20, 12
MAXIMA = {"T": 48, "R": 48, "G": 6}


def _linear(b: GraphBuilder, x: Value, name: str, dtype: str) -> Value:
    return b.linear(x, b.weight(name, (WIDTH, WIDTH), dtype))


def reader(dtype: str) -> Graph:
    """Of a layer: attention to the text, then to the rows before it."""
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (50, WIDTH), dtype))
    heads = dict(num_heads=HEADS, num_kv_heads=HEADS, head_dim=DIM, scale=0.5, window=None, softcap=None)
    for i in range(LAYERS):
        h = b.cast(b.rms_norm(x, b.weight(f"{i}.n", (WIDTH,), "float32"), 1e-5), dtype)
        q, k, v = (_linear(b, h, f"{i}.{name}", dtype) for name in "qkv")
        b.kv_write(k, v, i, HEADS, DIM)
        own = b.attention(b.cast(q, dtype), layer=i, first_key=SOUNDS, **heads)
        x = b.add(x, _linear(b, b.cast(own, dtype), f"{i}.o", dtype))
        h = b.cast(b.rms_norm(x, b.weight(f"{i}.m", (WIDTH,), "float32"), 1e-5), dtype)
        far = b.attention(b.cast(_linear(b, h, f"{i}.r", dtype), dtype), layer=i, num_keys=SOUNDS, **heads)
        x = b.add(x, _linear(b, b.cast(far, dtype), f"{i}.p", dtype))
    return b.finish(hidden=b.gather_rows(x, b.logit_rows))


def writer(dtype: str) -> Graph:
    b = GraphBuilder()
    x = b.given(WIDTH, 0)
    rows = b.cast(x, dtype)
    for i in range(LAYERS):
        k = _linear(b, rows, f"{i}.far_k", dtype)
        v = b.linear(rows, b.weight(f"{i}.far_v", (WIDTH, WIDTH), dtype), b.weight(f"{i}.far_b", (WIDTH,), "float32"))
        b.kv_write(k, v, i, HEADS, DIM)
    return b.finish(hidden=b.gather_rows(x, b.logit_rows))


def weights_of(graph: Graph, dtype: str) -> dict[str, F32]:
    rng, found = np.random.default_rng(5), {}
    for name, value in sorted(graph.constants.items()):
        dims = tuple(int(n) for n in value.type.dims)
        drawn = rng.standard_normal(dims).astype(np.float32) * (2 / WIDTH**0.5 if len(dims) == 2 else 1)
        found[name] = round_to(drawn, dtype)
    return found


def models(dtype: str, level: str, kv_dtype: str | None = None, threads: int = 1) -> tuple[CpuModel, CpuModel]:
    """The writer, which has the reader's cache, and the reader."""
    catalog, read, write = CpuCatalog(LEVELS[LEVELS.index(level) :]), reader(dtype), writer(dtype)
    sizes = dict(maxima=MAXIMA, block_size=8, max_positions=64)
    first = compile_graph(read, catalog, kv_dtype=kv_dtype, **sizes)
    second = compile_graph(write, catalog, cache=first.kv, **sizes)

    def stored(graph: Graph) -> Weights:
        return Weights({key: Stored(value, dtype) for key, value in weights_of(graph, dtype).items()})

    model = CpuModel(first, stored(read), pool(threads), BLOCKS)
    return CpuModel(second, stored(write), pool(threads), BLOCKS, lender=model, reads_cache=True), model


def sound(seed: int) -> F32:
    return np.random.default_rng(seed).standard_normal((SOUNDS, WIDTH), np.float32)


def writing(seeds: Sequence[int], tables: Sequence[list[int]]) -> StepInputs:
    step = make_step([Work([0] * SOUNDS, 0, table) for table in tables], 8, "last", "none")
    return replace(step, given=(np.concatenate([sound(seed) for seed in seeds]),))


TOKENS = ([3, 9, 4, 17, 30, 2, 8], [7, 7, 1])
TABLES = ([7, 2, 9, 5], [4, 1, 0])


def reading(heard: tuple[int, int] | None = None) -> list[StepInputs]:
    """Both texts at once, but for the last tokens of the first, which come one by one. Args: heard: how many rows each
    sees of what was written; None: all."""
    first = [Work(TOKENS[0][:4], SOUNDS, TABLES[0]), Work(TOKENS[1], SOUNDS, TABLES[1])]
    later = [[Work([TOKENS[0][i]], SOUNDS + i, TABLES[0])] for i in range(4, 7)]
    steps = [make_step(work, 8, "all", "none") for work in (first, *later)]
    if heard is None:
        return steps
    ends = [np.repeat(heard, (4, len(TOKENS[1]))), *(np.array([heard[0]]) for _ in later)]
    return [replace(step, row_ends=each.astype(np.int32)) for step, each in zip(steps, ends, strict=True)]


def expected(dtype: str, kind: str, heard: tuple[int, int] | None = None) -> F32:
    graphs, kv = (writer(kind), reader(kind)), ReferenceKV(BLOCKS, 8, kind)
    weights = [weights_of(graph, dtype) for graph in (writer(dtype), reader(dtype))]
    interpret(graphs[0], writing((1, 2), TABLES), weights[0], kv)
    return np.concatenate([interpret(graphs[1], step, weights[1], kv).outputs["hidden"] for step in reading(heard)])


@pytest.mark.parametrize("heard", [None, (17, 5)])
@pytest.mark.parametrize("level", isa_levels())
@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
def test_what_one_program_wrote_another_reads(dtype: str, level: str, heard: tuple[int, int] | None) -> None:
    write, read = models(dtype, level)
    write.run(writing((1, 2), TABLES))
    ours = np.concatenate([read.run(step).hidden.copy() for step in reading(heard)])
    want, best = expected(dtype, dtype, heard), expected(dtype, "float32", heard)
    rounding = float(np.linalg.norm(want - best))
    assert np.linalg.norm(ours - want) <= max(2e-6 * np.linalg.norm(want), 1.5 * rounding)
    assert np.isfinite(ours).all() and rounding <= 2e-2 * np.linalg.norm(want)


@pytest.mark.parametrize("kv_dtype", [None, "int8", "fp8"])
def test_bits_depend_on_the_sequence_alone(kv_dtype: str | None) -> None:
    """Whole beside another; alone, token by token, in other blocks, by two threads."""
    level = isa_levels()[0]
    write, read = models("bfloat16", level, kv_dtype)
    write.run(writing((1, 2), TABLES))
    (step, *later) = reading()
    whole = np.concatenate([read.run(step).hidden[:4].copy(), *(read.run(each).hidden.copy() for each in later)])
    write, read = models("bfloat16", level, kv_dtype, threads=2)
    table = [11, 3, 10, 6]
    write.run(writing((1,), [table]))
    alone = [
        read.run(make_step([Work([token], SOUNDS + i, table)], 8, "all", "none")).hidden.copy()
        for i, token in enumerate(TOKENS[0])
    ]
    assert_same_bits(np.concatenate(alone), whole, "alone, token by token")
