"""elementwise: sums and products bit by bit, silu and gelu_tanh against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.elementwise import elementwise
from albireo.backends.reference.elementwise import _UNARY
from albireo.backends.reference.rounding import round_to
from albireo.dtypes import FP8_TOKEN, TOKEN
from albireo.quantization.rounding import round_float_tokens, round_tokens
from backends.cpu.harness import F32, assert_same_bits, normal
from backends.cuda.tensors import ULP, e4m3_parts, numbers, room, tensor, token_parts


def mapped(kind: str, x: F32, y: F32 | None = None, dtype: str = "float32", x_dtype: str = "float32") -> F32:
    out = room(*x.shape, dtype)
    elementwise(kind, tensor(x, x_dtype), None if y is None else tensor(y, pad=5), out, x.shape[1])
    return numbers(out)


@pytest.mark.parametrize("cols", [1, 70, 1030])
def test_sums_products_and_casts(cols: int) -> None:
    x, y = normal(3, cols, seed=1), normal(3, cols, seed=2)
    for dtype in ("float32", "bfloat16", "float16"):
        assert_same_bits(mapped("add", x, y, dtype), round_to(x + y, dtype), dtype)
        assert_same_bits(mapped("mul", x, y, dtype), round_to(x * y, dtype), dtype)
        assert_same_bits(mapped("cast", x, None, dtype), round_to(x, dtype), dtype)
        assert_same_bits(mapped("cast", round_to(x, dtype), None, "float32", dtype), round_to(x, dtype), dtype)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_tanh", "relu"])
def test_functions(kind: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 2001), [0.0, 1e-30, -1e-30, 90.0, -90.0, 1e4, -1e4, 3e38, -3e38]])
    x = x.astype(np.float32)[None]
    exact = _UNARY[kind](np.clip(x, -1e9, 1e30).astype(np.float64))
    exact = np.where(x > 1e9, x, exact)
    got = mapped(kind, x)
    # an error of the exponent moves the result by as much times the exponent; where exp overflows, 0 is what is left;
    # and 1 + tanh in float64 loses what the kernel's form keeps
    size = np.abs(x) if kind == "silu" else 1.6 * np.abs(x) * (1 + 0.045 * np.minimum(np.abs(x), 1e9) ** 2)
    if kind == "gelu":  # 1 + erf loses what is small beside 1
        size = size + 4 * np.abs(x) / np.maximum(np.abs(exact), 2.0**-60)
    bound = np.abs(exact) * (4 + 6 * np.minimum(size, 1e9)) * ULP + 2.0**-119 + np.abs(x) * 2.0**-53
    assert (np.abs(got - exact) <= bound).all()
    assert_same_bits(mapped(kind, x, None, "bfloat16"), round_to(got, "bfloat16"), "bfloat16")


def test_clamped_swiglu() -> None:
    gate, up = (normal(3, 70, seed=seed) * np.float32(6) for seed in (1, 2))
    gate[0, 0], up[1, 1] = np.nan, np.nan
    g, u = np.minimum(gate.astype(np.float64), 7), np.clip(up.astype(np.float64), -7, 7)
    exact = (u + 1) * g / (1 + np.exp(-1.702 * g))
    got = mapped("clamped_swiglu", gate, up)
    assert (np.isnan(got) == np.isnan(exact)).all() and np.isnan(exact).sum() == 2
    bound = (np.abs(exact) * (8 + 8 * np.abs(g)) + np.abs(g)) * ULP
    assert (np.abs(got - exact) <= bound)[~np.isnan(exact)].all()


@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16", "float16"])
def test_codes_of_a_token(x_dtype: str) -> None:
    x = round_to(normal(3, 200), x_dtype)
    # too small for codes; of bfloat16 just not, as the interpreter widens the smallest of them wrongly
    x[1] *= {"float32": 2.0**-130, "bfloat16": 2.0**-110, "float16": 2.0**-15}[x_dtype]
    x = round_to(x, x_dtype)
    out = room(3, 200, TOKEN)
    elementwise("cast", tensor(x, x_dtype), None, out, 200)
    wanted, scale = round_tokens(x)
    codes, got_scale, sums = token_parts(out, 200)
    assert np.array_equal(codes[:, :200], wanted)
    assert not codes[:, 200:].any()
    assert_same_bits(got_scale, scale, "scales")
    assert np.array_equal(sums[:, -1], wanted.sum(axis=1))
    alone = room(1, 200, TOKEN)
    elementwise("cast", tensor(x[2:], x_dtype), None, alone, 200)
    assert_same_bits(alone.numpy(), out[2:].numpy(), "a row alone")


def test_float8_with_a_scale_a_group() -> None:
    x, y = normal(3, 200, seed=1), normal(3, 200, seed=2)
    x[1, 3] = np.nan
    out = room(3, 200, FP8_TOKEN)
    elementwise("mul", tensor(x), tensor(y), out, 200)
    (found, scale), (codes, wanted) = e4m3_parts(out, 200), round_float_tokens(x * y)
    assert np.isnan(scale[1, :128]).all() and np.isfinite(scale[1, 128:]).all()
    assert_same_bits(found, codes * wanted, "numbers")
    assert_same_bits(scale, wanted, "scales")


def test_out_may_be_an_input() -> None:
    x, y = normal(3, 70, seed=1), normal(3, 70, seed=2)
    target = tensor(x)
    elementwise("add", target, tensor(y), target, 70)
    assert_same_bits(numbers(target), x + y, "in place")


def test_a_kind_that_is_none_is_refused() -> None:
    x = tensor(normal(1, 8))
    with pytest.raises(ValueError, match="'swish' without y"):
        elementwise("swish", x, None, x, 8)
    with pytest.raises(ValueError, match="'add' without y"):
        elementwise("add", x, None, x, 8)
    with pytest.raises(ValueError, match="'silu' with y"):
        elementwise("silu", x, x, x, 8)


def test_kinds_with_a_number() -> None:
    """softcap: to a few roundings of the result however small x is."""
    x = np.concatenate([np.linspace(-200, 200, 4001), np.geomspace(1e-20, 40, 500)]).astype(np.float32)[None]
    for kind, number in (("scale", 0.37), ("scale_by", 0.37), ("softcap", 30.0)):
        out = room(*x.shape, "float32")
        weight = torch.tensor([number]) if kind == "scale_by" else None
        elementwise(kind, tensor(x), None, out, x.shape[1], number, weight)
        if kind != "softcap":
            assert_same_bits(numbers(out), x * np.float32(number), kind)
        else:
            exact = number * np.tanh(x.astype(np.float64) / number)
            assert (np.abs(numbers(out) - exact) <= 10 * ULP * np.abs(exact)).all()


def test_a_limit_above() -> None:
    x = np.concatenate([np.linspace(-3, 3, 45), [np.inf, -np.inf]]).astype(np.float32)[None]
    out = room(*x.shape, "float32")
    elementwise("clip_above", tensor(x), None, out, x.shape[1], 0.75)
    assert_same_bits(numbers(out), np.minimum(x, np.float32(0.75)), "no more than that")


def test_a_limit_on_both_sides() -> None:
    x = np.concatenate([np.linspace(-3, 3, 45), [np.inf, -np.inf]]).astype(np.float32)[None]
    out = room(*x.shape, "float32")
    elementwise("clip", tensor(x), None, out, x.shape[1], 0.75)
    assert_same_bits(numbers(out), np.clip(x, -np.float32(0.75), np.float32(0.75)), "kept between")


def test_a_gate_and_its_up_below_a_limit() -> None:
    """As five launches have it, bit by bit."""
    gate, up, most = 3 * normal(3, 70, seed=1), 3 * normal(3, 70, seed=2), 1.5
    gate[0, 0], up[1, :2] = np.inf, (np.inf, -np.inf)
    parts = [room(*gate.shape) for _ in range(4)]
    elementwise("clip_above", tensor(gate), None, parts[0], 70, most)
    elementwise("clip", tensor(up), None, parts[1], 70, most)
    elementwise("silu", parts[0], None, parts[2], 70)
    elementwise("mul", parts[2], parts[1], parts[3], 70)
    for dtype in ("float32", "bfloat16"):
        apart, together = room(*gate.shape, dtype), room(*gate.shape, dtype)
        elementwise("cast", parts[3], None, apart, 70)
        elementwise("clipped_silu_mul", tensor(gate, pad=3), tensor(up), together, 70, most)
        assert_same_bits(numbers(together), numbers(apart), dtype)


def test_bounds_that_are_stored() -> None:
    x = np.concatenate([np.linspace(-3, 3, 45), [np.inf, -np.inf]]).astype(np.float32)[None]
    for least, most in ((-0.5, 0.75), (-np.inf, 0.25)):
        out = room(*x.shape, "float32")
        elementwise("clamp", tensor(x), None, out, x.shape[1], weight=torch.tensor([least, most]))
        assert_same_bits(numbers(out), np.clip(x, np.float32(least), np.float32(most)), "kept between")


def test_xielu() -> None:
    torch_activations = pytest.importorskip("transformers.activations")
    theirs = torch_activations.XIELUActivation(dtype=torch.float32)
    x = np.linspace(-100, 12, 397).astype(np.float32)[None]
    with torch.no_grad():
        theirs.alpha_p[:], theirs.alpha_n[:] = 0.7, -1.3
        want = theirs.double()(torch.tensor(x, dtype=torch.float64)).numpy()
    out = room(*x.shape, "float32")
    elementwise("xielu", tensor(x), None, out, x.shape[1], weight=torch.tensor([0.7, -1.3]))
    assert (np.abs(numbers(out) - want) <= 4 * ULP * np.abs(want) + 2e-6 + 4 * ULP * np.abs(x)).all()
