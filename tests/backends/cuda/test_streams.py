"""add_streams, row_map and the gain of elementwise: against the reference; whole models of several residual streams."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.add_streams import add_streams
from albireo.backends.cuda.kernels.elementwise import elementwise
from albireo.backends.cuda.kernels.row_map import row_map
from albireo.backends.reference import streams
from albireo.backends.reference.call import OpCall
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import round_to
from albireo.verify.stream_bound import add_parts_error, cut_error, match_length_error
from backends.cpu.harness import F32, assert_same_bits, normal, rows_step
from backends.cuda.tensors import numbers, room, tensor
from backends.cuda.test_model import NUM_BLOCKS, graph_of, model_of, steps, weights_of

ROWS = 3


def added(x: F32, y: F32, coefs: F32 | None, parts: int, first: int, plus: float) -> F32:
    out = room(*x.shape)
    of_rows = None if coefs is None else tensor(coefs, pad=2)
    add_streams(tensor(x), tensor(y, pad=5), of_rows, out, parts, first, plus)
    return numbers(out)


@pytest.mark.parametrize(
    ("parts", "given", "first", "plus", "has_coefs", "width"),
    [
        (4, 4, 0, 0.0, True, 40),
        (3, 1, 0, 1.0, True, 300),
        (3, 1, 1, 1.0, False, 16),
        (1, 4, 0, 1e-6, True, 1030),
    ],
)
def test_sums_of_streams(parts: int, given: int, first: int, plus: float, has_coefs: bool, width: int) -> None:
    x, y = normal(ROWS, parts * width), normal(ROWS, given * width, seed=1)
    coefs = normal(ROWS, parts * given, seed=2) if has_coefs else None
    roles = {"x": x, "y": y} | ({} if coefs is None else {"coefs": coefs})
    call = OpCall(roles, {"num_parts": parts, "first": first, "plus": plus}, rows_step(ROWS))
    (wanted,) = streams.add_parts(call)
    got = added(x, y, coefs, parts, first, plus)
    assert (np.abs(got - wanted) <= add_parts_error(call, dict.fromkeys(roles, np.zeros(1)))).all()
    assert_same_bits(got[:, : first * width], x[:, : first * width], "parts before the first")
    alone = added(x[1:2], y[1:2], None if coefs is None else coefs[1:2], parts, first, plus)
    assert_same_bits(alone, got[1:2], "a row alone")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of products that are not taken
def test_streams_are_added_where_they_lie_and_infinities_stay_where_they_are() -> None:
    x, y = normal(ROWS, 120), normal(ROWS, 40, seed=1)
    y[0, 3] = np.inf
    wanted = added(x, y, None, 3, 1, 1.0)
    assert np.isinf(wanted).sum() == 2 and not np.isnan(wanted).any()
    rows = tensor(x)
    add_streams(rows, tensor(y), None, rows, 3, 1, 1.0)
    assert_same_bits(numbers(rows), wanted, "in place")


@pytest.mark.parametrize("width", [16, 700])
@pytest.mark.parametrize(
    ("kind", "number", "role", "error"),
    [
        ("match_length", 1e-5, "least", match_length_error),
        ("cut", 1.5, "deviations", cut_error),
        ("cut", -0.3, "deviations", cut_error),
    ],
)
def test_rows_as_a_whole(kind: str, number: float, role: str, error: object, width: int) -> None:
    x, y = normal(4, width), 3 * normal(4, width, seed=1)
    x[0], x[1], y[2] = 0.0, 1e-4 * x[1], 0.0
    roles = {"x": x, "y": y} if kind == "match_length" else {"x": x}
    call = OpCall(roles, {role: number}, rows_step(4))
    (wanted,) = getattr(streams, kind)(call)
    second = tensor(y, pad=5) if kind == "match_length" else None
    out, alone = room(*x.shape), room(1, width)
    row_map(kind, tensor(x), second, out, number)
    got = numbers(out)
    assert callable(error)
    assert (np.abs(got - wanted) <= error(call, dict.fromkeys(roles, np.zeros(1)))).all()
    assert not got[0].any() and (kind == "match_length" or (got[3] == 0).any())
    row_map(kind, tensor(x[3:]), None if second is None else second[3:], alone, number)
    assert_same_bits(numbers(alone), got[3:], "a row alone")


@pytest.mark.parametrize("kind", ["match_length", "cut"])
def test_what_is_no_number_stays_none(kind: str) -> None:
    x, out = normal(2, 20), room(2, 20)
    x[1, 4] = np.nan
    row_map(kind, tensor(x), tensor(normal(2, 20, seed=1)) if kind == "match_length" else None, out, 0.5)
    got = numbers(out)
    assert np.isnan(got[1]).all() and not np.isnan(got[0]).any()


@pytest.mark.parametrize("kind", ["gain", "shift"])
def test_a_number_for_each_column(kind: str) -> None:
    x, weight = normal(3, 45), normal(1, 45, seed=1)[0]
    for dtype in ("float32", "bfloat16"):
        out = room(3, 45, dtype)
        elementwise(kind, tensor(x), None, out, 45, weight=torch.from_numpy(weight))
        assert_same_bits(numbers(out), round_to(x * weight if kind == "gain" else x + weight, dtype), dtype)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of exp in gelu's tanh form, where it gives the limit
@pytest.mark.parametrize("name", ["gemma3n_text", "hy_v4"])
def test_a_model_computes_what_its_graph_says(name: str) -> None:
    model, weights = model_of(name, "float32"), weights_of(name, "float32")
    graph, kv = graph_of(name, "float32"), ReferenceKV(NUM_BLOCKS, 8)
    for step in steps():
        got, wanted = model.run(step).logits, interpret(graph, step, weights, kv)["logits"]
        assert np.linalg.norm(got - wanted) <= 3e-6 * np.linalg.norm(wanted)
