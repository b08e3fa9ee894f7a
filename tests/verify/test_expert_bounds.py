"""Rules of tolerance of mixtures of experts: float32 is within, and what a wrong kernel would give is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.verify.bounds import Bounded, evaluate
from albireo.verify.ops import check_call
from albireo.verify.walk import Seen
from backends.cpu.harness import normal
from step_batches import Work, make_step

TOKENS, EXPERTS, TOP_K, WIDTH = 9, 5, 2, 200
STEP = make_step([Work(list(range(TOKENS)), 0, [1])], 16)
IDS = np.ascontiguousarray(np.argsort(normal(TOKENS, EXPERTS, seed=4), axis=1)[:, :TOP_K], np.int32)

Build = Callable[[GraphBuilder, dict[str, Value]], tuple[Value, ...]]


def run(build: Build, family: str, **roles: tuple[np.ndarray, str]) -> tuple[Node, list[Bounded]]:
    """A node of roles, each an array and the symbol of its rows ("": it is a weight), and its results."""
    b = GraphBuilder()
    inputs = {}
    for name, (array, rows) in roles.items():
        kind = "int32" if array.dtype == np.int32 else "float32"
        inputs[name] = Value(name, TensorType(kind, (rows, *array.shape[1:]) if rows else array.shape))
    outputs = build(b, inputs)
    body = Graph(inputs, {}, b.graph.nodes, {v.name: v for v in outputs})
    attrs = b.graph.nodes[-1].attrs if family == "route" else {}
    node = Node("fused", inputs, attrs, outputs, body=body, family=family)
    return node, evaluate(node, {name: array for name, (array, _) in roles.items()}, STEP)


def is_right(node: Node, found: list[Bounded], *results: np.ndarray) -> bool:
    call: Any = type("Call", (), {"origin": "", "family": node.family, "kernel": ""})()
    return check_call(Seen(0, 0, STEP, call, node, {}, results), found).is_right


def test_route() -> None:
    x = normal(TOKENS, EXPERTS) * 3
    node, found = run(lambda b, v: b.route(v["x"], TOP_K, True), "route", x=(x, "T"))
    ids, weights = (each.value for each in found)
    powers = np.exp(np.take_along_axis(x, ids, axis=1) - x.max(axis=1, keepdims=True))
    assert is_right(node, found, ids, powers / powers.sum(axis=1, keepdims=True))
    assert not is_right(node, found, ids[:, ::-1], weights), "in another order"
    assert not is_right(node, found, ids, weights * np.float32(1 + 1e-4))
    whole = np.exp(x - x.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)
    assert not is_right(node, found, ids, (powers / whole).astype(np.float32)), "not renormalized"


def test_a_softmax_over_what_is_near() -> None:
    x = normal(TOKENS, EXPERTS)
    node, found = run(lambda b, v: b.route(v["x"], TOP_K, False, margin=0.5), "route", x=(x, "T"))
    ids, weights = (each.value for each in found)
    assert is_right(node, found, ids, weights * np.float32(1 + 2**-22))
    assert not is_right(node, found, ids, weights * np.float32(1 + 1e-4))
    _, all_of_it = run(lambda b, v: b.route(v["x"], TOP_K, False), "route", x=(x, "T"))
    assert not is_right(node, found, ids, all_of_it[1].value), "of a softmax over all"


def test_choices_by_logits_and_a_bias() -> None:
    x, bias = 3 * normal(TOKENS, 6, seed=3), 2 * normal(1, 6, seed=4)[0]
    rules = {"scores": "sigmoid", "by_logits": True}
    node, found = run(lambda b, v: b.route(v["x"], 2, True, v["bias"], **rules), "route", x=(x, "T"), bias=(bias, ""))
    ids = np.argsort(-(x + bias), axis=1)[:, :2]
    weights = 1 / (1 + np.exp(-np.take_along_axis(x, ids, axis=1)))
    np.testing.assert_array_equal(found[0].value, ids)
    call: Any = type("Call", (), {"origin": "", "family": "route", "kernel": ""})()
    results = (ids.astype(np.int32), (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))
    assert check_call(Seen(0, 0, STEP, call, node, {"x": x, "bias": bias}, results), found).is_right
    assert (np.argsort(-(1 / (1 + np.exp(-x)) + bias), axis=1)[:, :2] != ids).any(), "nothing would show the difference"


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_choices_that_are_nearly_equal_are_both_right(scores: str) -> None:
    """With a bias what is compared is rounded: experts 3 and 4 differ by less than that, the others by more; so do
    groups 1 and 2, of which one alone is open."""
    x, bias = normal(TOKENS, 6, seed=3), np.zeros(6, np.float32)
    x[:, 2:4], x[:, 4:], x[:, :2] = [0.5, 1.0], [0.5, 1.0], [-3, -4]
    bias[4:] = [1e-8, 0]
    rules = {"scores": scores, "num_groups": 3, "kept_groups": 1, "group_best": 2}
    roles = {"x": (x, "T"), "bias": (bias, "")}
    node, found = run(lambda b, v: b.route(v["x"], 2, False, v["bias"], **rules), "route", **roles)
    ids, weights = (each.value for each in found)
    given = {name: array for name, (array, _) in roles.items()}

    def right(chosen: Any, counted: np.ndarray) -> bool:
        call: Any = type("Call", (), {"origin": "", "family": "route", "kernel": ""})()
        results = (np.tile(np.asarray(chosen, np.int32), (TOKENS, 1)), counted)
        return check_call(Seen(0, 0, STEP, call, node, given, results), found).is_right

    assert right(ids[0], weights) and right([3, 2], weights) and right([5, 4], weights)
    assert not right([5, 2], weights), "of two groups"
    assert not right([2, 3], weights[:, ::-1].copy()), "the worse one first"
    assert not right([0, 1], weights), "a group that is worse by far"
    assert not right([3, 3], weights) and not right([3, 6], weights)
    assert not right([5, 4], weights * np.float32(1 + 1e-4))


def test_expert_linear() -> None:
    x, weight = normal(TOKENS, WIDTH), normal(EXPERTS * 16, WIDTH, seed=1)

    def products(ids: np.ndarray) -> np.ndarray:
        return np.stack([x[p // TOP_K] @ weight[e * 16 : e * 16 + 16].T for p, e in enumerate(ids.reshape(-1))])

    node, found = run(
        lambda b, v: (b.expert_linear(v["x"], v["ids"], v["weight"], EXPERTS, "ffn"),),
        "expert_linear",
        x=(x, "T"),
        ids=(IDS, "T"),
        weight=(weight, ""),
    )
    assert is_right(node, found, products(IDS))
    assert np.linalg.norm(found[0].error) < 1e-4 * np.linalg.norm(found[0].value)
    other = IDS.copy()
    other[3, 1] = (other[3, 1] + 1) % EXPERTS
    assert not is_right(node, found, products(other)), "one pair by another expert"
    assert not is_right(node, found, np.roll(products(IDS), 1, axis=0)), "another pair's row"


def test_biases_of_experts() -> None:
    x, weight, bias = normal(TOKENS, WIDTH), normal(EXPERTS * 16, WIDTH, seed=1), normal(1, EXPERTS * 16, seed=2)[0]
    of_pairs = IDS.reshape(-1)
    products = np.stack([x[p // TOP_K] @ weight[e * 16 : e * 16 + 16].T for p, e in enumerate(of_pairs)])
    node, found = run(
        lambda b, v: (b.expert_linear(v["x"], v["ids"], v["weight"], EXPERTS, "ffn", v["bias"]),),
        "expert_linear",
        x=(x, "T"),
        ids=(IDS, "T"),
        weight=(weight, ""),
        bias=(bias, ""),
    )
    blocks = bias.reshape(EXPERTS, 16)
    assert is_right(node, found, products + blocks[of_pairs])
    assert not is_right(node, found, products), "no bias"
    assert not is_right(node, found, products + blocks[(of_pairs + 1) % EXPERTS]), "another expert's"


def test_clamped_swiglu() -> None:
    gate, up = normal(TOKENS, 40) * 5, normal(TOKENS, 40, seed=1) * 5
    node, found = run(
        lambda b, v: (b.clamped_swiglu(v["gate"], v["up"]),), "elementwise", gate=(gate, "T"), up=(up, "T")
    )
    g, u, one = np.minimum(gate, np.float32(7)), np.clip(up, -7, 7), np.float32(1)
    assert is_right(node, found, (u + one) * (g / (one + np.exp(np.float32(-1.702) * g))))
    assert not is_right(node, found, (u + one) * (g / (one + np.exp(np.float32(-1.7) * g)))), "another slope"
    assert not is_right(node, found, u * (g / (one + np.exp(np.float32(-1.702) * g)))), "no one"
    assert not is_right(node, found, (up + one) * (g / (one + np.exp(np.float32(-1.702) * g)))), "no limit"


def test_combine_and_gate_rows() -> None:
    x, weights = normal(TOKENS * TOP_K, 40), np.abs(normal(TOKENS, TOP_K, seed=2))
    node, found = run(lambda b, v: (b.combine(v["x"], v["weights"]),), "combine", x=(x, "P"), weights=(weights, "T"))
    pairs = x.reshape(TOKENS, TOP_K, 40)
    assert is_right(node, found, (weights[:, ::-1, None] * pairs[:, ::-1]).sum(axis=1))
    assert not is_right(node, found, (weights[:, ::-1, None] * pairs).sum(axis=1)), "weights of the other expert"
    gate, rows = normal(TOKENS, 1, seed=3), normal(TOKENS, 40, seed=4)
    node, found = run(lambda b, v: (b.gate_rows(v["x"], v["gate"]),), "gate_rows", x=(rows, "T"), gate=(gate, "T"))
    assert is_right(node, found, rows / (1 + np.exp(-gate)))
    assert not is_right(node, found, rows / (1 + np.exp(gate)))


@pytest.mark.parametrize("kind", ["sigmoid", "softplus"])
def test_gates_of_heads(kind: str) -> None:
    gate, rows = normal(TOKENS, 5, seed=3), normal(TOKENS, 40, seed=4)
    node, found = run(
        lambda b, v: (b.gate_rows(v["x"], v["gate"], kind),), "gate_rows", x=(rows, "T"), gate=(gate, "T")
    )
    by = 1 / (1 + np.exp(-gate)) if kind == "sigmoid" else np.log1p(np.exp(gate))
    assert is_right(node, found, rows * np.repeat(by, 8, axis=1))
    assert not is_right(node, found, rows * np.tile(by, 8)), "gates of other heads"


def test_what_is_given_back() -> None:
    x, weights = normal(TOKENS, WIDTH, seed=5), np.abs(normal(TOKENS, TOP_K, seed=6))

    def build(b: GraphBuilder, v: dict[str, Value]) -> tuple[Value, ...]:
        return (b.given_back(v["x"], v["weights"], v["ids"], 2),)

    node, found = run(build, "combine", x=(x, "T"), weights=(weights, "T"), ids=(IDS, "T"))
    whole = np.where(IDS >= 2, weights, 0).sum(axis=1, dtype=np.float32)[:, None]
    assert is_right(node, found, whole * x)
    assert not is_right(node, found, whole * x * np.float32(1 + 1e-5))
    assert not is_right(node, found, np.where(IDS > 2, weights, 0).sum(axis=1, dtype=np.float32)[:, None] * x)


def test_experts_without_a_matrix() -> None:
    """Zeros to the bit, and no more than rounding of the others."""
    x, weight = normal(TOKENS, 24, seed=7), normal(3 * 16, 24, seed=8)

    def build(b: GraphBuilder, v: dict[str, Value]) -> tuple[Value, ...]:
        return (b.expert_linear(v["x"], v["ids"], v["weight"], 3, None),)

    node, found = run(build, "expert_linear", x=(x, "T"), weight=(weight, ""), ids=(IDS, "T"))
    blocks = np.concatenate([weight.reshape(3, 16, 24), np.zeros((2, 16, 24), np.float32)])
    right = np.einsum("pnk,pk->pn", blocks[IDS.reshape(-1)], np.repeat(x, TOP_K, axis=0))
    assert is_right(node, found, right)
    given = right.copy()
    given[np.flatnonzero(IDS.reshape(-1) >= 3)[0], 5] = 1e-20
    assert not is_right(node, found, given)
