"""Calls of a GPU's program whose norms are inside linears: right ones pass, and a fault is found where it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from albireo.backends.cuda import call_args
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.kernels.parts.row_squares import RowSquares
from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.open import open_model
from albireo.backends.cuda.step import DeviceStep
from albireo.compiler.passes import choose_precision
from albireo.compiler.pipeline import compile_graph, passes_of
from albireo.graph.node import Graph
from albireo.models import load_architecture, open_checkpoint
from albireo.verify.numerics import Numerics, layers_stage, ops_stage, run_numerics
from albireo.verify.steps import NUM_BLOCKS, walk_steps
from tiny_models import make_checkpoint
from verify.models import graph_of

#: Two sums of squares a row; an eps that a factor cannot do without.
CONFIG = {
    **load_architecture("llama").tiny,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "rms_norm_eps": 0.05,
    "vocab_size": 70,
}
OUTPUT, DOWN, QKV, GATE_UP = "layers.0.attn.o", "layers.0.mlp.down", "layers.1.attn", "layers.0.mlp"
Opened = tuple[CudaModel, Graph, Path]


def opened(path: Path, encoding: str | None, dtype: str = "bfloat16", capability: int | None = None) -> Opened:
    checkpoint = make_checkpoint(path, CONFIG, seed=4, dtype=dtype)
    graph = graph_of(checkpoint, dtype)
    if encoding:
        choose_precision.run(graph, lambda name, role: encoding)
    catalog, maxima = CudaCatalog(capability), {"T": 16, "R": 8, "G": 8}
    program = compile_graph(graph, catalog, maxima=maxima, block_size=8, max_positions=64)
    with open_checkpoint(checkpoint, graph) as weights:
        model = open_model(program, weights, num_blocks=NUM_BLOCKS, max_positions=64, device=torch.device("cpu"))
    return model, graph, checkpoint


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return opened(tmp_path_factory.mktemp("plain"), None)


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return opened(tmp_path_factory.mktemp("coded"), "int4.g32")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """e4m3 on both sides: what norms are made of, and what gate and up give, are rows of codes."""
    return opened(tmp_path_factory.mktemp("narrow"), "fp8", capability=90)


def looked_at(model: CudaModel, graph: Graph, checkpoint: Path) -> Numerics:
    steps = walk_steps(np.random.default_rng(3).integers(0, 70, 90).tolist(), 8, 8)
    with open_checkpoint(checkpoint, graph) as weights:
        return run_numerics(model, graph, weights, steps, lambda _: None, passes_of(model.program))


def index_of(model: CudaModel, family: str, origin: str) -> int:
    return next(i for i, call in enumerate(model.program.calls) if (call.family, call.origin) == (family, origin))


def found_at(given: Opened, family: str, origin: str) -> str:
    """Looks at a model, which is wrong in one call. Returns: the name of the value."""
    found = looked_at(*given)
    assert found.wrong is not None
    assert (found.wrong.family, found.wrong.origin, found.wrong.step_idx) == (family, origin, 0)
    assert found.wrong.index == index_of(given[0], family, origin)
    stage = ops_stage(found, [])
    assert stage.verdict == "failed" and "values are out of tolerance" in stage.finding
    assert f"{origin} ({family}, {family}." in stage.finding and " wanted " in stage.finding
    assert found.wrong.worst is not None
    return found.wrong.worst.result


@pytest.mark.parametrize("which", ["plain", "coded", "narrow"])
def test_what_is_right_passes_call_by_call(which: str, request: pytest.FixtureRequest) -> None:
    given: Opened = request.getfixturevalue(which)
    found = looked_at(*given)
    assert found.wrong is None, ops_stage(found, []).finding
    calls = given[0].program.calls
    assert {check.index for check in found.checks} == set(range(len(calls)))
    assert {"linear_norm", "norm", "head_top"} <= {check.family for check in found.checks}
    assert sum("squares" in call.args for call in calls if call.family != "linear_norm") == 3
    assert all(check.num_values for check in found.checks)
    assert layers_stage(found.layers).verdict == "passed"


def test_attention_that_ends_in_codes_passes(tmp_path: Path) -> None:
    """Of float16, which a GPU multiplies as it is: its scale follows the row's largest number, codes follow both."""
    given = opened(tmp_path, "int8", "float16")
    found = looked_at(*given)
    assert found.wrong is None, ops_stage(found, []).finding
    assert layers_stage(found.layers).verdict == "passed"


def test_another_weight_of_a_norm(plain: Opened) -> None:
    """One number of the vector that the linear before multiplies its rows by, an ulp of bfloat16 off."""
    model = plain[0]
    gain = model._vectors[model.program.calls[index_of(model, "linear_norm", OUTPUT)].args["gain"]]
    with replaced(gain, 71, gain.view(-1)[71] * (1 + 2**-7)):
        assert found_at(plain, "linear_norm", OUTPUT).endswith("g")


def test_squares_of_another_part_of_the_row(plain: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    behind(plain[0], monkeypatch, index_of(plain[0], "linear_norm", DOWN), "squares", lambda s: s.copy_(s.flip(1)))
    assert found_at(plain, "linear_norm", DOWN).endswith("q")


def test_a_row_that_is_rounded_as_if_it_were_of_another_type(plain: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Toward zero instead of to the nearest: half of the numbers are one step off."""
    model = plain[0]
    index = index_of(model, "linear_norm", OUTPUT)
    args = model.program.calls[index].args
    wide, gain = model.placed.buffers[args["out"]], model._vectors[args["gain"]]

    def cut(scaled: torch.Tensor) -> None:
        exact = wide[: len(scaled)] * gain
        scaled.copy_((exact.contiguous().view(torch.int32) & -65536).view(torch.float32))

    behind(model, monkeypatch, index, "scaled", cut)
    assert found_at(plain, "linear_norm", OUTPUT).endswith("g")


@pytest.mark.parametrize(("family", "origin"), [("linear", GATE_UP), ("qkv_rope_kv", QKV)])
def test_a_factor_without_eps(plain: Opened, monkeypatch: pytest.MonkeyPatch, family: str, origin: str) -> None:
    """Where many tokens have a launch that finds the factors, and where few do not, the same is told to both."""
    read_by(plain[0], monkeypatch, index_of(plain[0], family, origin), lambda squares: replace(squares, eps=0.0))
    assert found_at(plain, family, origin)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda s: replace(s, squares=s.squares[:, :1]), id="of the first part alone"),
        pytest.param(lambda s: replace(s, squares=s.squares.flip(0)), id="of another token"),
        pytest.param(lambda s: replace(s, width=s.width + 1), id="of a wider row"),
    ],
)
def test_a_factor_of_something_else(
    plain: Opened, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[RowSquares], RowSquares]
) -> None:
    read_by(plain[0], monkeypatch, index_of(plain[0], "linear", GATE_UP), wrong)
    assert found_at(plain, "linear", GATE_UP)


@pytest.mark.parametrize(
    ("family", "origin"), [("qkv_rope_kv", QKV), ("linear_norm", OUTPUT), ("linear", GATE_UP), ("linear_norm", DOWN)]
)
def test_one_code_of_a_weight(coded: Opened, family: str, origin: str) -> None:
    """The lowest of its four bits: of row 5, input 64, in the second byte (matrix.py)."""
    model = coded[0]
    codes = model._matrices[model.program.calls[index_of(model, family, origin)].args["weight"]].codes
    with replaced(codes, 5 * codes.shape[1] + 1, codes[5, 1] ^ 1):
        assert found_at(coded, family, origin)


@pytest.mark.parametrize(
    ("family", "origin", "role", "bit"), [("linear_norm", OUTPUT, "scaled", 0), ("linear", GATE_UP, "out", 2)]
)
@pytest.mark.parametrize("at", [9, -64], ids=["a code", "a scale"])
def test_one_bit_of_a_row_of_e4m3(
    narrow: Opened, monkeypatch: pytest.MonkeyPatch, family: str, origin: str, role: str, bit: int, at: int
) -> None:
    """Of a code the last, and of a scale what is 2^-7 of it; where sums of e4m3 products may take a number past a tie,
    that of four steps, or as many times as much."""
    model = narrow[0]
    index = index_of(model, family, origin)

    def wrong(rows: torch.Tensor) -> None:
        if at > 0:
            rows.view(torch.uint8)[0, at] ^= 1 << bit
        else:
            rows.view(torch.int32)[0, at // 4] ^= 1 << (16 + bit)

    behind(model, monkeypatch, index, role, wrong)
    assert found_at(narrow, family, origin)


def test_a_row_behind_which_nothing_is_a_number(plain: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares and scaled rows of it are judged as well, without a warning, and the row itself is named."""
    index = index_of(plain[0], "linear_norm", OUTPUT)
    behind(plain[0], monkeypatch, index, "out", lambda out: out[1].fill_(torch.inf))
    (name,) = (value for value in [found_at(plain, "linear_norm", OUTPUT)] if not value.endswith(("g", "q")))
    assert name


class replaced:
    """A number of a tensor is another one inside."""

    def __init__(self, tensor: torch.Tensor, at: int, value: torch.Tensor) -> None:
        self._numbers, self._at, self._value = tensor.view(-1), at, value.clone()

    def __enter__(self) -> None:
        self._kept = self._numbers[self._at].clone()
        self._numbers[self._at] = self._value

    def __exit__(self, *error: object) -> None:
        self._numbers[self._at] = self._kept


def behind(
    model: CudaModel, monkeypatch: pytest.MonkeyPatch, index: int, role: str, alter: Callable[[torch.Tensor], object]
) -> None:
    """Alters what a call wrote for a role, once it has run."""
    call, launch = model.placed.launches[index]

    def wrong(step: DeviceStep) -> None:
        launch(step)
        alter(model.placed.buffers[call.args[role]][: step.sizes[call.rows]])

    launched(model, monkeypatch, index, wrong)


def read_by(
    model: CudaModel, monkeypatch: pytest.MonkeyPatch, index: int, alter: Callable[[RowSquares], RowSquares]
) -> None:
    """Alters what one call is told of squares."""
    _, launch = model.placed.launches[index]

    def wrong(step: DeviceStep) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(call_args, "RowSquares", lambda *fields: alter(RowSquares(*fields)))
            launch(step)

    launched(model, monkeypatch, index, wrong)


def launched(model: CudaModel, monkeypatch: pytest.MonkeyPatch, index: int, launch: call_args.Launch) -> None:
    """Puts a launch in the place of a call's own."""
    launches = list(model.placed.launches)
    launches[index] = (launches[index][0], launch)
    monkeypatch.setattr(model.placed, "launches", launches)
