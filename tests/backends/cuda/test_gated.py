"""gated: gate and up taken apart, whatever their width, and codes of their product."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.cuda.kernels.elementwise import elementwise
from albireo.backends.cuda.kernels.gated import gated
from albireo.backends.reference.elementwise import _UNARY
from albireo.backends.reference.rounding import round_to
from albireo.dtypes import FP8_TOKEN, TOKEN
from albireo.graph.program import GATE_UP_INTERLEAVE
from albireo.quantization.rounding import round_float_tokens, round_tokens
from backends.cpu.harness import F32, assert_same_bits, normal
from backends.cuda.tensors import ULP, e4m3_parts, numbers, room, tensor, token_parts


def interleaved(gate: F32, up: F32) -> F32:
    """Runs of each in turn, the last filled with what must not matter."""
    missing = -gate.shape[1] % GATE_UP_INTERLEAVE
    parts = [np.pad(x, ((0, 0), (0, missing)), constant_values=1e9) for x in (gate, up)]
    runs = [x.reshape(len(x), -1, GATE_UP_INTERLEAVE) for x in parts]
    return np.stack(runs, axis=2).reshape(len(gate), -1)


@pytest.mark.parametrize("act", ["silu_mul", "gelu_tanh_mul"])
@pytest.mark.parametrize("cols", [8, 32, 70, 1050])
def test_gate_times_up(cols: int, act: str) -> None:
    gate, up = normal(3, cols, seed=1), normal(3, cols, seed=2)
    x = tensor(interleaved(gate, up))
    out = room(3, cols)
    gated(x, out, act, cols)
    got = numbers(out)
    exact = _UNARY[act.removesuffix("_mul")](gate.astype(np.float64)) * up
    size = np.abs(gate) * (1 if act == "silu_mul" else 1.6 * (1 + 0.045 * gate**2))
    assert (np.abs(got - exact) <= np.abs(exact) * (5 + 6 * size) * ULP + 2.0**-50).all()
    for dtype in ("bfloat16", "float16"):
        out = room(3, cols, dtype)
        gated(x, out, act, cols)
        assert_same_bits(numbers(out), round_to(got, dtype), dtype)
    activated, product = room(3, cols), room(3, cols)
    elementwise(act.removesuffix("_mul"), tensor(gate), None, activated, cols)
    elementwise("mul", activated, tensor(up), product, cols)
    assert_same_bits(numbers(product), got, "as two steps of elementwise")


@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16"])
def test_codes(x_dtype: str) -> None:
    x = tensor(interleaved(normal(3, 70, seed=1), normal(3, 70, seed=2)), x_dtype)
    plain, tokens = room(3, 70), room(3, 70, TOKEN)
    gated(x, plain, "silu_mul", 70)
    gated(x, tokens, "silu_mul", 70)
    wanted, scale = round_tokens(numbers(plain))
    codes, got_scale, sums = token_parts(tokens, 70)
    assert np.array_equal(codes[:, :70], wanted)
    assert not codes[:, 70:].any()
    assert_same_bits(got_scale, scale, "scales")
    alone = room(1, 70, TOKEN)
    gated(x[1:2], alone, "silu_mul", 70)
    assert_same_bits(alone.numpy(), tokens[1:2].numpy(), "a row alone")
    ends = [0, 16, 32, 48, 64, 70]
    assert np.array_equal(sums, np.stack([wanted[:, :end].sum(axis=1) for end in ends], axis=1))
    out = room(3, 70, FP8_TOKEN)
    gated(x, out, "silu_mul", 70)
    (found, scale8), (codes8, wanted8) = e4m3_parts(out, 70), round_float_tokens(numbers(plain))
    assert_same_bits(found, codes8 * wanted8, "float8 numbers")
    assert_same_bits(scale8, wanted8, "their scales")


def test_another_act_is_refused() -> None:
    with pytest.raises(ValueError, match="'relu'; there are silu_mul, gelu_tanh_mul"):
        gated(room(1, 64), room(1, 32), "relu", 32)
