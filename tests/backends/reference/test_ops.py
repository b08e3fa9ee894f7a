"""Each reference op against torch or numpy, on inputs with the shapes that break things."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from albireo.backends.reference.call import OpCall
from albireo.backends.reference.interpret import OPS
from albireo.backends.reference.kv import ReferenceKV
from albireo.errors import InvariantError
from albireo.graph import op_numbers, ops
from albireo.graph.ops import RopeSpec
from step_batches import Work, make_step

torch = pytest.importorskip("torch")

STEP = make_step([Work([0, 1, 2], 0, [0])], 8)


def run(op: str, inputs: dict[str, Any], **attrs: Any) -> Any:
    results = OPS[op](OpCall(inputs, attrs, STEP))
    return results[0] if len(results) == 1 else results


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def double(x: np.ndarray) -> Any:
    return torch.from_numpy(np.asarray(x, np.float64))


def assert_nearest(ours: np.ndarray, exact: Any) -> None:
    """Within one float32 step of the float64 result: rounded once."""
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, np.asarray(exact), rtol=2.0**-23, atol=1e-30)


def test_every_base_op_has_a_definition() -> None:
    assert list(OPS) == list(ops.OPS)


@pytest.mark.parametrize("kind", op_numbers.UNARY_KINDS)
def test_unary(kind: str) -> None:
    x = np.float32([-200, -88, -20, -1.5, -1e-6, -0.0, 0, 1e-6, 0.7, 3, 20, 100, 1e4])
    t, f = double(x), torch.nn.functional
    exact = {
        "silu": f.silu,
        "gelu": f.gelu,
        "gelu_tanh": lambda t: f.gelu(t, approximate="tanh"),
        "relu": f.relu,
        "relu2": lambda t: f.relu(t) ** 2,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
    }[kind](t)
    ours = run("unary", {"x": x}, kind=kind)
    np.testing.assert_allclose(ours, exact.numpy().astype(np.float32), rtol=2e-7, atol=1e-37)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 172, 7), (0, 8, 5), (5, 1, 65)])
def test_linear(shape: tuple[int, int, int], has_bias: bool) -> None:
    m, k, n = shape
    x, w, bias = normal(m, k), normal(n, k, seed=1), normal(n, seed=2)
    inputs = {"x": x, "weight": w} | ({"bias": bias} if has_bias else {})
    exact = torch.nn.functional.linear(double(x), double(w), double(bias) if has_bias else None)
    assert_nearest(run("linear", inputs), exact)


@pytest.mark.parametrize("num_heads", [1, 3])
def test_rms_norm(num_heads: int) -> None:
    x, weight = normal(4, 12) * 5, normal(12 // num_heads, seed=1)
    parts = double(x).reshape(4, num_heads, -1)
    exact = torch.nn.functional.rms_norm(parts, (12 // num_heads,), double(weight), eps=1e-3).reshape(4, 12)
    assert_nearest(run("rms_norm", {"x": x, "weight": weight}, eps=1e-3, num_heads=num_heads), exact)


@pytest.mark.parametrize("has", [(), ("weight",), ("weight", "bias")])
def test_layer_norm(has: tuple[str, ...]) -> None:
    """Far from zero, where a mean of squares alone would say nothing of deviations."""
    x = normal(4, 12) * 5 + np.float32(1000)
    vectors = {role: normal(12, seed=i) for i, role in enumerate(has)}
    weight, bias = (double(vectors[role]) if role in vectors else None for role in ("weight", "bias"))
    exact = torch.nn.functional.layer_norm(double(x), (12,), weight, bias, eps=1e-3)
    assert_nearest(run("rms_norm", {"x": x, **vectors}, eps=1e-3, num_heads=1, centered=True), exact)


def test_rms_norm_of_zeros_is_zero() -> None:
    assert not run("rms_norm", {"x": np.zeros((2, 4), np.float32), "weight": normal(4)}, eps=1e-6, num_heads=1).any()


def test_rope_turns_each_pair_as_a_complex_number() -> None:
    spec = RopeSpec((1.0, 0.25, 0.01), 1.5)
    x, positions = normal(3, 2 * 6), np.int32([0, 7, 100])
    ours = run("rope", {"x": x, "positions": positions}, num_heads=2, head_dim=6, rope=spec)
    heads = x.astype(np.float64).reshape(3, 2, 2, 3)
    turned = (heads[:, :, 0] + 1j * heads[:, :, 1]) * 1.5
    turned = turned * np.exp(1j * positions[:, None, None] * np.array(spec.inv_freq))
    exact = np.stack([turned.real, turned.imag], axis=2).reshape(3, 12)
    np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_attention_over_a_scattered_cache(window: int | None, softcap: float | None, num_kv_heads: int) -> None:
    """Two sequences, one in the middle of its text, against torch's masked attention in float64."""
    dim, work = 6, [Work([0] * 4, 7, [5, 2, 7]), Work([0] * 5, 0, [1, 6])]
    step = make_step(work, 4)
    q, kv = normal(9, 4 * dim), ReferenceKV(8, 4)
    keys, values = [], []
    for i, w in enumerate(work):
        length = w.num_computed_tokens + len(w.token_ids)
        slots = np.array([w.blocks[p // 4] * 4 + p % 4 for p in range(length)], np.int32)
        keys.append(normal(length, num_kv_heads, dim, seed=10 + i))
        values.append(normal(length, num_kv_heads, dim, seed=20 + i))
        kv.write(0, slots, keys[-1], values[-1])
    attrs = dict(layer=0, num_heads=4, num_kv_heads=num_kv_heads, head_dim=dim, scale=0.4, window=window)
    (ours,) = OPS["attention"](OpCall({"q": q, "kv": kv}, attrs | {"softcap": softcap}, step))
    for i, rows in enumerate((slice(0, 4), slice(4, 9))):
        k = double(keys[i]).repeat_interleave(4 // num_kv_heads, 1).permute(1, 0, 2)
        v = double(values[i]).repeat_interleave(4 // num_kv_heads, 1).permute(1, 0, 2)
        scores = double(q[rows]).reshape(-1, 4, dim).permute(1, 0, 2) @ k.transpose(1, 2) * 0.4
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        at, now = torch.arange(k.shape[1])[None, :], torch.from_numpy(step.positions[rows])[:, None]
        hidden = (at > now) | (at <= now - (window or 1000))
        exact = (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v).permute(1, 0, 2).reshape(-1, 4 * dim)
        np.testing.assert_allclose(ours[rows], exact.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ({"first_key": 5}, [range(5, 8), range(5, 9), range(5, 10)]),
        ({"first_key": 5, "window": 3}, [range(5, 8), range(6, 9), range(7, 10)]),
        ({"num_keys": 4}, [range(4)] * 3),
        ({"num_keys": 10}, [range(10)] * 3),
        ({"num_keys": 9, "ends": (6, 10, 0)}, [range(6), range(9), range(9)]),
    ],
    ids=str,
)
def test_attention_of_some_keys(said: dict[str, Any], seen: list[range]) -> None:
    """The last three of ten positions; rows are told to see further, which those of num_keys do not, or less far."""
    ends = said.get("ends", (10,) * 3)
    said = {key: value for key, value in said.items() if key != "ends"}
    step = replace(make_step([Work([0] * 3, 7, [2, 0, 1])], 4), row_ends=np.zeros(3, np.int32))
    q, k, v, kv = normal(3, 12), normal(10, 1, 6, seed=1), normal(10, 1, 6, seed=2), ReferenceKV(4, 4)
    kv.write(0, np.int32([8, 9, 10, 11, 0, 1, 2, 3, 4, 5]), k, v)
    attrs = dict(layer=0, num_heads=2, num_kv_heads=1, head_dim=6, scale=0.4, window=None, softcap=None) | said
    if "num_keys" in said:
        step = replace(step, row_ends=np.array(ends, np.int32))
    (ours,) = OPS["attention"](OpCall({"q": q, "kv": kv}, attrs, step))
    for row, keys in enumerate(seen):
        scores = double(q[row]).reshape(2, 6) @ double(k[list(keys), 0]).T * 0.4
        exact = scores.softmax(-1) @ double(v[list(keys), 0])
        np.testing.assert_allclose(ours[row], exact.reshape(12).numpy(), rtol=1e-6, atol=1e-7)


def test_kv_write_rounds_to_the_dtype_of_the_cache() -> None:
    kv = ReferenceKV(2, 8, "bfloat16")
    k, v = normal(3, 8), normal(3, 8, seed=1)
    attrs = dict(layer=4, num_kv_heads=2, head_dim=4)
    OPS["kv_write"](OpCall({"k": k, "v": v, "kv": kv}, attrs, make_step([Work([0] * 3, 0, [1])], 8)))
    keys, values = kv.read(4, np.int32([1]), 3)
    expected = torch.from_numpy(k.copy()).bfloat16().float().numpy().reshape(3, 2, 4)
    np.testing.assert_array_equal(keys, expected)
    assert not np.array_equal(values, v.reshape(3, 2, 4))


@pytest.mark.parametrize("slot", [-1, 16])
def test_a_slot_outside_the_cache_is_refused(slot: int) -> None:
    with pytest.raises(InvariantError, match="leave the cache of 16"):
        ReferenceKV(2, 8).write(0, np.int32([slot]), normal(1, 1, 4), normal(1, 1, 4))


def top_logits(logits: np.ndarray, counts: list[int]) -> Any:
    rows = np.zeros(len(counts), np.int32)
    step = replace(STEP, top_rows=rows, top_counts=np.array(counts, np.int32))
    return OPS["top_logits"](OpCall({"logits": logits}, {}, step))


def test_top_logits_takes_the_lowest_of_equals() -> None:
    ids, values = top_logits(np.float32([[1, 3, 3, 2], [-1, -1, -2, -1], [-np.inf, 0, 5, 5]]), [1, 3, 65])
    assert ids.shape == values.shape == (3, 65) and ids.dtype == np.int32
    assert [row[:5].tolist() for row in ids] == [[1, -1, -1, -1, -1], [0, 1, 3, -1, -1], [2, 3, 1, 0, -1]]
    assert [row[:3].tolist() for row in values] == [[3, -np.inf, -np.inf], [-1, -1, -1], [5, 5, 0]]
    ids, _ = top_logits(np.float32([[1, np.nan, 3, np.nan]]), [3])
    assert ids[0, :3].tolist() == [1, 3, 2]


def test_top_logits_of_no_rows() -> None:
    ids, values = top_logits(np.zeros((0, 7), np.float32), [])
    assert ids.shape == values.shape == (0, 65)


def test_rows_and_columns() -> None:
    x = normal(4, 6)
    np.testing.assert_array_equal(run("gather_rows", {"x": x, "rows": np.int32([3, 0, 3])}), x[[3, 0, 3]])
    parts = run("split", {"x": x}, sizes=(1, 3, 2))
    assert [p.shape for p in parts] == [(4, 1), (4, 3), (4, 2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), x)
    np.testing.assert_array_equal(run("embed", {"ids": np.int32([2, 2, 0]), "table": x}), x[[2, 2, 0]])


def test_arithmetic_is_one_float32_operation() -> None:
    x, y = normal(50), normal(50, seed=1)
    np.testing.assert_array_equal(run("add", {"x": x, "y": y}), x + y)
    np.testing.assert_array_equal(run("mul", {"x": x, "y": y}), x * y)
    scaled = run("scale", {"x": x}, factor=0.1)
    np.testing.assert_array_equal(scaled, x * np.float32(0.1))
    assert scaled.dtype == np.float32
