"""A convolution of the rows around each, channel by channel: against torch in float64, the interpreter, and bit by bit
against itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import LEVELS, isa_levels
from albireo.backends.cpu.model import CpuModel
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.pipeline import compile_graph
from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from backends.cpu.harness import F32, assert_same_bits, pool
from backends.cpu.test_pack import Stored, Weights
from step_batches import Work, make_step

#: More channels than vectors have, and more than an item.
MOST, WIDTH, KERNEL, BLOCKS = 200, 76, 9, 30


def graph(activation: str = "silu") -> Graph:
    b = GraphBuilder()
    x = b.given(WIDTH, 0)
    weight, bias = b.weight("w", (WIDTH, KERNEL), "float32"), b.weight("b", (WIDTH,), "float32")
    x = b.depthwise_conv(x, weight, bias, activation)
    return b.finish(hidden=b.gather_rows(x, b.logit_rows))


def weights() -> dict[str, F32]:
    rng = np.random.default_rng(5)
    return {"w": rng.standard_normal((WIDTH, KERNEL), np.float32), "b": rng.standard_normal(WIDTH, np.float32)}


def rows(count: int) -> F32:
    return np.random.default_rng(count).standard_normal((count, WIDTH), np.float32)


def step(count: int) -> StepInputs:
    made = make_step([Work([0] * count, 0, list(range(-(-count // 8))))], 8, "all", "none")
    return replace(made, given=(rows(count),))


def exactly(count: int, activation: str) -> np.ndarray:
    x = torch.tensor(rows(count)).double()
    of = {key: torch.tensor(value).double() for key, value in weights().items()}
    c = torch.nn.functional.conv1d(x.T[None], of["w"][:, None], of["b"], padding=KERNEL // 2, groups=WIDTH)[0].T
    return (torch.nn.functional.silu(c) if activation == "silu" else c).numpy()


def model(level: str, activation: str, threads: int = 1) -> CpuModel:
    catalog = CpuCatalog(LEVELS[LEVELS.index(level) :])
    maxima = {"T": MOST, "R": MOST, "G": 1}
    program = compile_graph(graph(activation), catalog, maxima=maxima, block_size=8, max_positions=MOST)
    stored = Weights({key: Stored(value, "float32") for key, value in weights().items()})
    return CpuModel(program, stored, pool(threads), BLOCKS)


@pytest.mark.parametrize("activation", ["silu", "none"])
@pytest.mark.parametrize("level", isa_levels())
def test_as_torch_has_it(level: str, activation: str) -> None:
    """Of one row, of few, of more than an item has, and of as many as there may be."""
    ours = model(level, activation)
    for count in (1, 3, 77, 129, MOST):
        wanted = exactly(count, activation)
        found = ours.run(step(count)).hidden.copy()
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)
        told = interpret(graph(activation), step(count), weights(), ReferenceKV(BLOCKS, 8)).outputs["hidden"]
        np.testing.assert_allclose(told, wanted, rtol=2e-6, atol=2e-6)


def test_bits_do_not_depend_on_threads_nor_on_what_ran_before() -> None:
    level = isa_levels()[0]
    alone = model(level, "silu").run(step(77)).hidden.copy()
    other = model(level, "silu", 2)
    other.run(step(MOST))
    assert_same_bits(other.run(step(77)).hidden.copy(), alone, "two threads, behind another")


def test_what_does_not_fit_is_refused() -> None:
    b = GraphBuilder()
    x = b.given(WIDTH, 0)
    for width in (4, 65):
        with pytest.raises(InvariantError, match="an odd number of up to 63"):
            b.depthwise_conv(x, b.weight(f"w{width}", (WIDTH, width), "float32"))
    with pytest.raises(InvariantError, match="depthwise_conv bias"):
        b.depthwise_conv(x, b.weight("w", (WIDTH, 3), "float32"), b.weight("b", (WIDTH + 1,), "float32"))
