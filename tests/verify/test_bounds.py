"""Rules of tolerance: what a float32 kernel may do is allowed, and little more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from albireo.backends.reference.interpret import OPS
from albireo.backends.reference.rounding import round_kv, round_to
from albireo.dtypes import KV_CODES
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.verify.bounds import _RULES, Bounded, _rounded_to_codes, evaluate
from backends.cpu.harness import normal
from step_batches import Work, make_step

STEP = make_step([Work([1, 2, 3, 4], 0, [1])], 16)


def run(build: Callable[[GraphBuilder, dict[str, Value]], Value], **roles: Any) -> Bounded:
    """The result of a body made by build from its roles."""
    b = GraphBuilder()
    inputs = {name: Value(name, TensorType(dtype, array.shape)) for name, (array, dtype) in roles.items()}
    out = build(b, inputs)
    body = Graph(inputs, {}, b.graph.nodes, {"out": out})
    node = Node("fused", inputs, {}, (out,), body=body, family="any")
    (found,) = evaluate(node, {name: array for name, (array, _) in roles.items()}, STEP)
    return found


def f32(*shape: int, seed: int = 0) -> tuple[np.ndarray, str]:
    return normal(*shape, seed=seed), "float32"


def test_every_op_of_the_reference_has_a_rule() -> None:
    # calls of several ranks are not looked at one by one, nor are those of a GPU: a norm inside linears
    others = {"linear", "kv_write", "top_logits", "all_reduce", "gain", "squares", "row_norm"}
    assert set(OPS) == {*_RULES, *others}


def test_a_sum_in_another_order_is_within_and_a_wrong_product_is_not() -> None:
    x, w = f32(4, 300), f32(70, 300, seed=1)
    found = run(lambda b, v: b.linear(v["x"], v["w"]), x=x, w=w)
    backwards = sum((x[0][:, k, None] * w[0][None, :, k] for k in reversed(range(300))), np.zeros((4, 70), np.float32))
    assert (np.abs(backwards - found.value) <= found.error).all()
    assert np.linalg.norm(found.error) < 1e-4 * np.linalg.norm(found.value)
    w[0][5, 7] *= np.float32(1.01)
    assert (np.abs(x[0] @ w[0].T - found.value) > found.error)[:, 5].any()


@pytest.mark.parametrize("kv", KV_CODES)
def test_codes_of_a_cache_may_move_as_far_as_what_they_are_made_of(kv: str) -> None:
    """Keys and values that are off by their errors are rounded within tolerance; by more, not all of them are."""
    exact, rng = normal(200, 2, 24), np.random.default_rng(1)
    error = np.abs(normal(200, 2, 24, seed=2)) * 1e-3
    allowed = _rounded_to_codes(exact, error, kv)
    off = [np.abs(round_kv(exact + part * error, kv) - round_kv(exact, kv)) for part in (-1, 1, rng.uniform(-1, 1))]
    assert (np.max(off, axis=0) <= allowed).all()
    assert (np.abs(round_kv(exact + 40 * error, kv) - round_kv(exact, kv)) > allowed).any()
    assert not _rounded_to_codes(exact, 0.0, kv).any()


def test_chunks_of_a_weight_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, bias = f32(4, 30), f32(200, 30, seed=1), f32(200, seed=2)
    whole = run(lambda b, v: b.linear(v["x"], v["w"], v["bias"]), x=x, w=w, bias=bias)
    monkeypatch.setattr("albireo.verify.bounds._CHUNK", 1)
    cut = run(lambda b, v: b.linear(v["x"], v["w"], v["bias"]), x=x, w=w, bias=bias)
    np.testing.assert_allclose(cut.value, whole.value, rtol=2e-7)
    np.testing.assert_allclose(cut.error, whole.error, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_is_exact_but_beside_a_tie(dtype: str) -> None:
    """A result of another rounding is allowed only where the value before it may lie on the other side."""
    x, weight = f32(50, 64), f32(64, seed=1)
    found = run(lambda b, v: b.cast(b.rms_norm(v["x"], v["w"], 1e-5), dtype), x=x, w=weight)
    plain = run(lambda b, v: b.rms_norm(v["x"], v["w"], 1e-5), x=x, w=weight)
    assert np.mean(found.error < 1e-30) > 0.95
    ends = [round_to((plain.value + sign * plain.error).astype(np.float32), dtype) for sign in (-1, 1)]
    for end in ends:
        assert (np.abs(end - found.value) <= found.error).all()
    moved = found.error > 1e-30
    assert moved.any()
    ulp = np.abs(found.value) * {"float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    assert (found.error[moved] <= ulp[moved] + 2.0**-126).all()


@pytest.mark.parametrize("kind", ["silu", "gelu_tanh", "sigmoid", "tanh", "relu2"])
def test_activations_allow_what_their_argument_is_off_by(kind: str) -> None:
    x, w = f32(4, 40), f32(64, 40, seed=1)
    before = run(lambda b, v: b.linear(v["x"], v["w"]), x=x, w=w)
    found = run(lambda b, v: b.unary(b.linear(v["x"], v["w"]), kind), x=x, w=w)
    for sign in (-1, 1):
        shifted = (before.value + sign * before.error).astype(np.float32)
        moved = run(lambda b, v: b.unary(v["x"], kind), x=(shifted, "float32")).value
        assert (np.abs(moved - found.value) <= found.error).all()
    assert np.linalg.norm(found.error) < 1e-4 * np.linalg.norm(found.value)


def test_products_and_sums_carry_errors() -> None:
    x, w = f32(4, 40), f32(64, 40, seed=1)
    one = run(lambda b, v: b.linear(v["x"], v["w"]), x=x, w=w)
    twice = run(lambda b, v: b.add(b.linear(v["x"], v["w"]), b.linear(v["x"], v["w"])), x=x, w=w)
    assert (twice.error >= 2 * one.error).all()
    square = run(lambda b, v: b.mul(b.linear(v["x"], v["w"]), b.linear(v["x"], v["w"])), x=x, w=w)
    shifted = (one.value + one.error).astype(np.float64)
    assert (np.abs(shifted**2 - square.value) <= square.error).all()
    scaled = run(lambda b, v: b.scale(b.linear(v["x"], v["w"]), -3.0), x=x, w=w)
    assert (scaled.error >= 3 * one.error).all()


def test_copies_are_exact() -> None:
    assert run(lambda b, v: b.split(v["x"], (3, 5))[1], x=f32(4, 8)).error.max() == 0
    rows = (np.array([3, 0], np.int32), "int32")
    assert not np.any(run(lambda b, v: b.gather_rows(v["x"], v["rows"]), x=f32(4, 8), rows=rows).error)
