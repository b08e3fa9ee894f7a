"""Rules of tolerance: what a float32 kernel may do is allowed, and little more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from albireo.backends.reference.interpret import OPS
from albireo.backends.reference.rounding import round_kv, round_to
from albireo.dtypes import KV_CODES, TOKEN
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.graph.op_numbers import RECURRENT
from albireo.verify.bounds import _RULES, Bounded, evaluate
from albireo.verify.rounding_bound import rounded, rounded_to_codes
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
    # calls of several ranks are not looked at one by one, nor those of programs with adapters, or that keep a state, or
    # that read what comes with a step
    others = {"linear", "head_linear", "expert_linear", "kv_write", "top_logits", "all_reduce", "adapter", *RECURRENT}
    others |= {"given", "add_given"}
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
    allowed = rounded_to_codes(exact, error, kv)
    off = [np.abs(round_kv(exact + part * error, kv) - round_kv(exact, kv)) for part in (-1, 1, rng.uniform(-1, 1))]
    assert (np.max(off, axis=0) <= allowed).all()
    assert (np.abs(round_kv(exact + 40 * error, kv) - round_kv(exact, kv)) > allowed).any()
    assert not rounded_to_codes(exact, 0.0, kv).any()


def test_a_row_of_codes_may_move_as_far_as_what_it_is_made_of() -> None:
    """The scale with the largest number of the row, and codes past more than one tie where an error is that large."""
    exact, rng = normal(60, 96), np.random.default_rng(1)
    for size in (1e-3, 2e-2):
        error = np.abs(normal(60, 96, seed=2)) * size
        allowed, right = rounded(exact, error, TOKEN), round_to(exact, TOKEN)
        for part in (-1, 1, rng.uniform(-1, 1, exact.shape)):
            assert (np.abs(round_to(exact + part * error, TOKEN) - right) <= allowed).all()
        assert (np.abs(round_to(exact + 40 * error, TOKEN) - right) > allowed).any()
    # 2 to 4 units of float32 where nothing is off: the scale's own roundings
    assert np.median(rounded(exact, 0.0, TOKEN) / np.abs(round_to(exact, TOKEN)).clip(0.1)) < 1e-6


def squares_and_row(wide: np.ndarray, width: int) -> tuple[Bounded, Bounded]:
    """Sums of squares of rows, and 8 products of the rows divided by what they say; eps is 0.01."""
    squares = run(lambda b, v: b._node("squares", {"x": v["x"]})[0], x=(wide, "float32"))
    product = (normal(len(wide), 8, seed=3) * 9, "float32")
    row = run(
        lambda b, v: b._node("row_norm", {"x": v["y"], "squares": v["q"]}, eps=0.01, width=width)[0],
        y=product,
        q=(squares.value, "float32"),
    )
    return squares, row


def test_a_norm_in_three_steps_as_float32_computes_it() -> None:
    """Trees of float32 sums are within; without eps, of other columns, of a row's neighbour they are not."""
    wide = normal(20, 300) * 0.3
    squares, row = squares_and_row(wide, 300)
    parts = np.pad(wide * wide, ((0, 0), (0, 20))).reshape(20, 5, 64)
    sums = parts.copy()
    while sums.shape[2] > 1:
        sums = sums[:, :, ::2] + sums[:, :, 1::2]
    assert sums.dtype == np.float32 and (np.abs(sums[:, :, 0] - squares.value) <= squares.error).all()
    assert (np.abs(np.roll(squares.value, 1, axis=1) - squares.value) > squares.error).mean() > 0.9
    product = normal(20, 8, seed=3) * 9

    def divided(of_rows: np.ndarray, width: int, eps: float) -> np.ndarray:
        total = of_rows[:, :1]
        for i in range(1, of_rows.shape[1]):
            total = total + of_rows[:, i : i + 1]
        factor = np.float32(1) / np.sqrt(total / np.float32(width) + np.float32(eps))
        return np.abs(product * factor - row.value) > row.error

    assert not divided(squares.value, 300, 0.01).any()
    for wrong in (
        (squares.value, 300, 0.0),
        (squares.value, 301, 0.01),
        (np.roll(squares.value, 1, axis=0), 300, 0.01),
    ):
        assert divided(*wrong).mean() > 0.9


def test_a_row_times_a_weight_is_rounded_as_it_is() -> None:
    x, weight = f32(50, 64), f32(64, seed=1)
    found = run(lambda b, v: b.cast(b._node("gain", {"x": v["x"], "weight": v["w"]})[0], "bfloat16"), x=x, w=weight)
    assert np.array_equal(found.value, round_to(x[0] * weight[0], "bfloat16"))
    assert np.mean(found.error < 1e-30) > 0.99


def test_what_follows_from_an_output_may_be_held_to_another_one() -> None:
    """Squares of the row that was written, not of the one that should have been."""
    x, w = f32(4, 64), f32(64, 64, seed=1)
    b = GraphBuilder()
    inputs = {"x": Value("x", TensorType("float32", (4, 64))), "w": Value("w", TensorType("float32", (64, 64)))}
    out = b.linear(inputs["x"], inputs["w"])
    (squares,) = b._node("squares", {"x": out})
    node = Node("fused", inputs, {}, (out, squares), family="any")
    node.body = Graph(inputs, {}, b.graph.nodes, {"out": out, "squares": squares})
    written = np.full((4, 64), 3.0, np.float32)
    seen: list[int] = []

    def settle(i: int, value: np.ndarray) -> np.ndarray:
        seen.append(i)
        return written

    found = evaluate(node, {"x": x[0], "w": w[0]}, STEP, settle=settle)
    own = evaluate(node, {"x": x[0], "w": w[0]}, STEP)
    assert seen == [0] and np.array_equal(found[0].value, own[0].value)
    assert np.array_equal(found[1].value, np.full((4, 1), 9 * 64, np.float32))
    assert (own[1].error > 3 * found[1].error * own[1].value / found[1].value).all()


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
