"""The tolerance of heads that grow by numbers of their own: float32 is within, and what grows otherwise is not."""

from __future__ import annotations

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.graph.ops import RopeSpec
from albireo.verify.bounds import evaluate
from backends.cpu.harness import normal
from step_batches import Work, make_step

TOKENS, HEADS, DIM = 9, 3, 8
STEP = make_step([Work(list(range(TOKENS)), 0, [1])], 16)


def test_heads_that_grow() -> None:
    spec, b = RopeSpec((1.0, 0.3, 0.1, 0.0)), GraphBuilder()
    given = {"x": normal(TOKENS, HEADS * DIM), "positions": np.arange(TOKENS, dtype=np.int32)}
    given |= {role: normal(1, HEADS, seed=seed)[0] for seed, role in enumerate(("slope", "start"), 1)}
    types = {"x": ("T", HEADS * DIM), "positions": ("T",), "slope": (HEADS,), "start": (HEADS,)}
    inputs = {n: Value(n, TensorType("int32" if n == "positions" else "float32", dims)) for n, dims in types.items()}
    (out,) = b._node("rope", inputs, num_heads=HEADS, head_dim=DIM, rope=spec, ahead=1)
    node = Node("fused", inputs, {}, (out,), body=Graph(inputs, {}, b.graph.nodes, {"out": out}), family="rope")
    (found,) = evaluate(node, given, STEP)
    angles = (given["positions"][:, None].astype(np.float32) * np.asarray(spec.inv_freq, np.float32))[:, None]
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    first, second = given["x"].reshape(TOKENS, HEADS, 2, DIM // 2).transpose(2, 0, 1, 3)
    turned = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    far = np.log1p(given["positions"].astype(np.float32))[:, None]
    by = (given["slope"] * far + given["start"])[:, :, None]

    def is_within(result: np.ndarray) -> bool:
        return bool((np.abs(result.reshape(found.value.shape) - found.value) <= found.error).all())

    assert is_within(turned * by) and np.linalg.norm(found.error) < 1e-5 * np.linalg.norm(found.value)
    assert not is_within(turned * by * np.float32(1 + 2e-6))
    assert not is_within(turned * (given["slope"] * far)[:, :, None]), "without a start"
    assert not is_within(turned * by[:, ::-1]), "by numbers of another head"
