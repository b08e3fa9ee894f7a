"""elementwise at every level: numpy's arithmetic, rounded to each type, at every width and with gaps between rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from albireo.backends.reference.rounding import round_to
from albireo.graph.program_spec import KINDS
from backends.cpu.harness import (
    Call,
    Guarded,
    assert_close,
    assert_same_bits,
    hard_to_round,
    normal,
    rows_step,
    run,
    variants,
)

VARIANTS = variants("elementwise")
WIDTHS = [1, 15, 16, 17, 48, 101]


def apply(kind: str, level: str, dtype: str, x: np.ndarray, y: np.ndarray | None = None, threads: int = 1) -> Guarded:
    out = Guarded.poisoned(x.shape, dtype)
    args = {"x": Guarded(x), "out": out, "k": x.shape[1], "act": KINDS.index(kind), "out_dtype": dtype}
    if y is not None:
        args["y"] = Guarded(y)
    run([Call("elementwise", level, dtype, args)], rows_step(len(x)), threads)
    return out


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_exact_kinds(dtype: str, level: str, width: int) -> None:
    x, y = normal(5, width), normal(5, width, seed=1)
    for kind, want in (("cast", x), ("add", x + y), ("mul", x * y)):
        got = apply(kind, level, dtype, x, None if kind == "cast" else y, threads=2)
        assert_same_bits(got.values, round_to(want, dtype), kind)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_numbers_of_columns(dtype: str, level: str, width: int) -> None:
    x, weight = normal(5, width), normal(1, width + -width % 16, seed=1)
    for kind, want in (("gain", x * weight[:, :width]), ("shift", x + weight[:, :width])):
        out = Guarded.poisoned(x.shape, dtype)
        args = {"x": Guarded(x), "out": out, "weight": Guarded(weight), "k": width, "act": KINDS.index(kind)}
        run([Call("elementwise", level, dtype, args | {"out_dtype": dtype})], rows_step(len(x)), 2)
        assert_same_bits(out.values, round_to(want, dtype), kind)


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_a_cast_rounds_to_nearest_even(dtype: str, level: str) -> None:
    x = hard_to_round()
    x = x[np.isfinite(x)][None]
    assert_same_bits(apply("cast", level, dtype, x).values, round_to(x, dtype), "cast")


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_activations(dtype: str, level: str) -> None:
    x = normal(4, 45) * np.float32(4)
    wide = x.astype(np.float64)
    exact = {
        "silu": wide / (1 + np.exp(-wide)),
        "gelu": wide * np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)))(wide),
        "relu": np.maximum(wide, 0),
        "gelu_tanh": 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3))),
    }
    for kind, want in exact.items():
        error = 1e-6 * np.abs(wide)
        assert_close(apply(kind, level, dtype, x).values, want, error, dtype)


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_clamped_swiglu(dtype: str, level: str) -> None:
    """Beyond both limits, below them where there is none, and NaN stays what it is."""
    gate, up = normal(4, 45) * np.float32(6), normal(4, 45, seed=1) * np.float32(6)
    gate[0, 0], up[1, 1] = -np.inf, np.inf
    g, u = np.minimum(gate.astype(np.float64), 7), np.clip(up.astype(np.float64), -7, 7)
    want = np.where(np.isinf(g), 0, (u + 1) * np.maximum(g, -300) / (1 + np.exp(-1.702 * np.maximum(g, -300))))
    got = apply("clamped_swiglu", level, dtype, gate, up).values
    finite = np.isfinite(gate)
    assert_close(got[finite], want[finite], 2e-6 * np.abs(u[finite] + 1) * np.abs(g[finite]) + 2e-6, dtype)
    for bad in (np.array([[np.nan, 1.0]], np.float32), np.array([[1.0, np.nan]], np.float32)):
        assert np.isnan(apply("clamped_swiglu", level, dtype, bad, bad[:, ::-1].copy()).values).all()


@pytest.mark.parametrize("level", [level for dtype, level in VARIANTS if dtype == "float32"])
def test_rows_with_gaps(level: str) -> None:
    """x_stride and out_stride are kept to; what lies between rows is neither read nor written."""
    x = normal(3, 24)
    out = Guarded.poisoned((3, 40))
    args = {"x": Guarded(x), "y": Guarded(x), "out": out, "k": 20, "act": KINDS.index("add")}
    run([Call("elementwise", level, "float32", args | {"x_stride": 24, "out_stride": 40})], rows_step(3))
    assert_same_bits(out.values[:, :20].copy(), x[:, :20] * 2, "sums")
    assert np.isnan(out.values[:, 20:]).all()


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_kinds_with_a_number(dtype: str, level: str) -> None:
    """softcap: to a few roundings of the result however small x is, and never beyond the cap; NaN stays NaN."""
    x = np.concatenate([normal(3, 45) * np.float32(40), normal(2, 45) * np.float32(1e-4)])
    x[0, :4] = 0.0, 300.0, -300.0, np.nan
    for kind, number, want in (
        ("scale", 0.37, x * np.float32(0.37)),
        ("clip", 0.37, np.clip(x, -np.float32(0.37), np.float32(0.37))),
        ("clip_above", 0.37, np.minimum(x, np.float32(0.37))),
        ("softcap", 30.0, 30.0 * np.tanh(x.astype(np.float64) / 30.0)),
    ):
        out = Guarded.poisoned(x.shape, dtype)
        args = {"x": Guarded(x), "out": out, "k": 45, "act": KINDS.index(kind), "out_dtype": dtype}
        args["scale" if kind.startswith("clip") else kind] = number
        run([Call("elementwise", level, dtype, args)], rows_step(len(x)), 2)
        got, finite = out.values, np.isfinite(x)
        assert np.isnan(got[~finite]).all()
        if kind != "softcap":
            assert_same_bits(got[finite], round_to(want, dtype)[finite], kind)
        else:
            unit = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
            tiny = 2.0**-24 if dtype == "float16" else 0.0
            assert (np.abs(got - want)[finite] <= ((8 * 2.0**-24 + unit) * np.abs(want) + tiny)[finite]).all()
            assert 29.99 < np.abs(got[finite]).max() <= 30.0


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_bounds_that_are_stored(dtype: str, level: str) -> None:
    """What is no number stays so; bounds may be infinite."""
    x = normal(4, 45)
    x[0, :3] = np.inf, -np.inf, np.nan
    for least, most in ((-0.5, 0.75), (-np.inf, 0.25), (-np.inf, np.inf)):
        weight, out = np.float32([[least, most]]), Guarded.poisoned(x.shape, dtype)
        args = {"x": Guarded(x), "weight": Guarded(weight), "out": out, "k": 45, "out_dtype": dtype}
        run([Call("elementwise", level, dtype, args | {"act": KINDS.index("clamp")})], rows_step(4), 2)
        is_number = ~np.isnan(x)
        assert_same_bits(out.values[is_number], round_to(np.clip(x, least, most), dtype)[is_number], "kept between")
        assert np.isnan(out.values[~is_number]).all()


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_a_factor_that_is_stored(dtype: str, level: str) -> None:
    x, weight, out = normal(3, 45), np.float32([[0.37]]), Guarded.poisoned((3, 45), dtype)
    args = {"x": Guarded(x), "weight": Guarded(weight), "out": out, "k": 45, "out_dtype": dtype}
    run([Call("elementwise", level, dtype, args | {"act": KINDS.index("scale_by")})], rows_step(3), 2)
    assert_same_bits(out.values, round_to(x * weight, dtype), "products")


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_xielu(dtype: str, level: str) -> None:
    """transformers' own, whose two numbers are of a layer; what is nearer to 0 from below than a millionth it takes
    as a millionth."""
    torch = pytest.importorskip("torch")
    activations = pytest.importorskip("transformers.activations")
    theirs = activations.XIELUActivation(dtype=torch.float32)
    weight = np.float32([[0.7, -1.3]])
    with torch.no_grad():
        theirs.alpha_p[:], theirs.alpha_n[:] = 0.7, -1.3
        x = np.concatenate([np.linspace(-100, 12, 397), [0.0, 1e-20, -1e-3, np.inf]]).astype(np.float32)[None]
        want = theirs.double()(torch.tensor(x, dtype=torch.float64)).numpy()
    out = Guarded.poisoned(x.shape, dtype)
    args = {"x": Guarded(x), "weight": Guarded(weight), "out": out, "k": x.shape[1], "out_dtype": dtype}
    run([Call("elementwise", level, dtype, args | {"act": KINDS.index("xielu")})], rows_step(1), 2)
    unit = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
    got, finite = out.values, np.isfinite(want)
    off = np.abs(got[finite] - want[finite])
    assert (off <= (unit + 2.0**-22) * np.abs(want[finite]) + 2e-6 + 2.0**-22 * np.abs(x[finite])).all()
    assert not np.isfinite(got[~finite]).any()
