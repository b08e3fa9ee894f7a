"""linear at every level and weight type: against numpy float64, and bit by bit against itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.cpu.harness import (
    F32,
    F64,
    ROUNDOFF,
    Call,
    Guarded,
    assert_close,
    assert_same_bits,
    chain_error,
    hard_to_round,
    interleave,
    normal,
    panels,
    rows_step,
    run,
    variants,
)

torch = pytest.importorskip("torch")

VARIANTS = variants("linear")
#: Every remainder of a row tile and of a chunk of 48 rows, and more than one slab of 480.
ROWS = [*range(1, 14), 47, 48, 49, 97, 481]
COLUMNS = [1, 15, 16, 17, 63, 64, 65, 129]
#: Odd and even, around vectors, and around K blocks of 512 steps of one or two.
INNER = [1, 2, 3, 15, 16, 17, 511, 512, 513, 1023, 1024, 1025]
SHAPES: list[tuple[int, int, int]] = [
    *((m, 80, 37) for m in ROWS),
    *((3, n, 34) for n in COLUMNS),
    *((7, 64, k) for k in INNER),
    (49, 130, 1031),
    (97, 65, 514),
    *(tuple(np.random.default_rng(seed).integers(1, (110, 210, 1300)).tolist()) for seed in range(15)),
]
SLOW_SHAPES = [(1, 1, 1), (3, 65, 17), (5, 63, 513), (49, 64, 1025), (481, 16, 3)]
ACTS: dict[str, tuple[int, Any]] = {
    "silu": (1, torch.nn.functional.silu),
    "gelu_tanh": (2, lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
}


def shapes_of(level: str) -> list[tuple[int, int, int]]:
    return SLOW_SHAPES if level == "scalar" else SHAPES


CASES = [(*variant, shape) for variant in VARIANTS for shape in shapes_of(variant[1])]


def linear(
    x: F32, weight: Guarded, n: int, dtype: str, level: str, *, threads: int = 1, x_dtype: str = "", **args: Any
) -> Guarded:
    """Run one call; out is the residual when it is given in place."""
    given = Guarded(x, x_dtype or dtype)
    out = args.pop("in_place", None) or Guarded.poisoned((len(x), n), args.get("out_dtype", "float32"))
    if args.pop("add_to_out", False):
        args["residual"] = out
    numbers = {"n": n, "k": x.shape[1], "w_dtype": dtype, "x_dtype": given.dtype, "out_dtype": out.dtype}
    call = Call("linear", level, dtype, {"x": given, "weight": weight, "out": out, **numbers, **args})
    run([call], rows_step(len(x)), threads)
    return out


def exact_product(x: F32, w: F32) -> tuple[F64, F64]:
    """x @ w^T, and what a float32 chain of it may be off by."""
    x64, w64 = x.astype(np.float64), w.astype(np.float64)
    return x64 @ w64.T, chain_error(x.shape[1], np.abs(x64) @ np.abs(w64).T)


@pytest.mark.parametrize(("dtype", "level", "shape"), CASES)
def test_product(dtype: str, level: str, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    x, w = normal(m, k, dtype=dtype), normal(n, k, seed=1, dtype=dtype)
    exact, error = exact_product(x, w)
    ours = linear(x, panels(w, dtype), n, dtype, level).values
    assert_close(ours, exact, error, "float32")


@pytest.mark.parametrize("out_dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_bias_and_residual_in_place(dtype: str, level: str, out_dtype: str) -> None:
    """The bias is read to the end of its last vector, which need not hold numbers."""
    m, n, k = 11, 77, 33
    x, w, bias = normal(m, k, dtype=dtype), normal(n, k, seed=1, dtype=dtype), normal(n, seed=2)
    residual = normal(m, n, seed=3)
    exact, error = exact_product(x, w)
    exact, error = exact + bias + residual, error + 4 * ROUNDOFF["float32"] * (np.abs(bias) + np.abs(residual))
    weight, b = panels(w, dtype), Guarded(bias)
    apart = linear(x, weight, n, dtype, level, bias=b, residual=Guarded(residual), out_dtype=out_dtype)
    assert_close(apart.values, exact, error, out_dtype)
    if out_dtype == "float32":
        in_place = Guarded(residual)
        linear(x, weight, n, dtype, level, bias=b, in_place=in_place, add_to_out=True)
        assert_same_bits(in_place.values, apart.values, "in place and apart")


@pytest.mark.parametrize("n", [1, 15, 31, 32, 33, 80])
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_gated(dtype: str, level: str, act: str, n: int) -> None:
    m, k = 5, 29
    x, bias = normal(m, k, dtype=dtype), normal(2 * n, seed=3)
    gate_w, up_w = normal(n, k, seed=1, dtype=dtype), normal(n, k, seed=2, dtype=dtype)
    (gate, gate_error), (up, up_error) = exact_product(x, gate_w), exact_product(x, up_w)
    gate, up = gate + bias[:n], up + bias[n:]
    code, function = ACTS[act]
    acted = function(torch.from_numpy(gate)).numpy()
    exact = acted * up
    # Neither slope exceeds 1.2; 16 roundings, the exponential's argument grows with the gate.
    act_error = 1.2 * gate_error + (16 + 4 * np.abs(gate)) * ROUNDOFF["float32"] * np.abs(gate)
    error = act_error * (np.abs(up) + up_error) + np.abs(acted) * up_error
    weight = panels(interleave(gate_w, up_w), dtype)
    both = Guarded(interleave(bias[:n], bias[n:]))
    ours = linear(x, weight, n, dtype, level, act=code, bias=both, out_dtype=dtype)
    assert_close(ours.values, exact, error, dtype)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("level", [level for dtype, level in VARIANTS if dtype == "float32"])
def test_activations_far_out(level: str, act: str) -> None:
    sizes = np.array([0, 1e-40, 1e-10, 0.5, 5, 15, 80, 90, 200, 1e4, 1e20], np.float32)
    gate = np.concatenate([sizes, -sizes[:-1]])
    code, function = ACTS[act]
    weight = panels(interleave(gate[:, None], np.ones((len(gate), 1), np.float32)), "float32")
    ours = linear(np.ones((1, 1), np.float32), weight, len(gate), "float32", level, act=code).values[0]
    exact = function(torch.from_numpy(gate.astype(np.float64))).numpy()
    # The exponential is held to 2^126, so what should vanish leaves up to |gate| 2^-126.
    error = np.abs(exact) * (16 + 2 * np.minimum(np.abs(gate), 90)) * ROUNDOFF["float32"] + np.abs(gate) * 2.0**-125
    if act == "gelu_tanh":
        error += 8 * ROUNDOFF["float32"] * np.abs(gate)
    assert_close(ours, exact, error, "float32", at_most=1e-3)


@pytest.mark.parametrize("act", ["gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_without_a_gate(dtype: str, level: str, act: str) -> None:
    """The activation of the sums that the same linear gives without one."""
    m, n, k = 5, 130, 33
    f, x, w = torch.nn.functional, normal(m, k, dtype=dtype), normal(n, k, seed=1, dtype=dtype)
    weight, bias = panels(w, dtype), Guarded(np.concatenate([normal(n, seed=2), np.zeros(-n % 64, np.float32)]))
    sums = linear(x, weight, n, dtype, level, bias=bias).values.astype(np.float64)
    function = {"relu": f.relu, "gelu": f.gelu, "gelu_tanh": ACTS["gelu_tanh"][1]}[act]
    exact = function(torch.from_numpy(sums)).numpy()
    code = {"gelu": 3, "gelu_tanh": 4, "relu": 5}[act]
    ours = linear(x, weight, n, dtype, level, act=code, bias=bias, out_dtype=dtype)
    error = (0 if act == "relu" else 16 + 4 * np.abs(sums)) * ROUNDOFF["float32"] * np.abs(sums)
    assert_close(ours.values, exact, error, dtype)


@pytest.mark.parametrize("act", ["none", *ACTS])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_what_is_no_number_stays_in_its_row(dtype: str, level: str, act: str) -> None:
    """A row with NaN or infinity shows it, in every column; its neighbours do not notice."""
    m, n, k = 8, 40, 21
    x = normal(m, k, dtype=dtype)
    w = np.abs(normal(2 * n, k, seed=1, dtype=dtype)) + 1
    code = ACTS[act][0] if act in ACTS else 0
    weight = panels(interleave(w[:n], w[n:]) if code else w[:n], dtype)
    clean = linear(x, weight, n, dtype, level, act=code).values
    x[2, 7], x[5, 0] = np.nan, np.inf
    ours = linear(x, weight, n, dtype, level, act=code).values
    assert np.isnan(ours[2]).all()
    assert not np.isfinite(ours[5]).any()
    rest = [0, 1, 3, 4, 6, 7]
    assert_same_bits(ours[rest], clean[rest], "the other rows")


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_a_row_depends_on_itself_alone(dtype: str, level: str) -> None:
    """Row by row, in batches of every height, and with one, two and three threads."""
    m, n, k = (49, 70, 515) if level == "scalar" else (97, 130, 1029)
    x, weight = normal(m, k, dtype=dtype), panels(normal(n, k, seed=1, dtype=dtype), dtype)
    whole = linear(x, weight, n, dtype, level).values
    for threads in (2, 3):
        assert_same_bits(linear(x, weight, n, dtype, level, threads=threads).values, whole, f"{threads} threads")
    heights = [1, 2, 5, 13] if level == "scalar" else [*range(1, 14), 47, 48, 49]
    for height in heights:
        for start in (0, m - height):
            part = linear(x[start : start + height], weight, n, dtype, level).values
            assert_same_bits(part, whole[start : start + height], f"{height} rows from {start}")
    order = np.random.default_rng(5).permutation(m)
    assert_same_bits(linear(x[order], weight, n, dtype, level).values, whole[order], "rows permuted")


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_gated_rows_over_slabs_and_threads(dtype: str, level: str, threads: int) -> None:
    m, n, k = 483, 45, 10
    x = normal(m, k, dtype=dtype)
    gate, up = normal(n, k, seed=1, dtype=dtype), normal(n, k, seed=2, dtype=dtype)
    weight = panels(interleave(gate, up), dtype)
    whole = linear(x, weight, n, dtype, level, act=1, out_dtype=dtype).stored
    cut = linear(x, weight, n, dtype, level, act=1, out_dtype=dtype, threads=threads).stored
    assert_same_bits(cut, whole, "threads")
    for rows in (slice(0, 1), slice(479, 483), slice(482, 483)):
        assert_same_bits(
            linear(x[rows], weight, n, dtype, level, act=1, out_dtype=dtype).stored, whole[rows], str(rows)
        )


@pytest.mark.parametrize("x_dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_activations_of_another_type(dtype: str, level: str, x_dtype: str) -> None:
    """They are widened exactly, or rounded to bfloat16 where that is what the weights are."""
    m, n, k = 4, 20, 18
    x, w = normal(m, k, dtype=x_dtype), normal(n, k, seed=1, dtype=dtype)
    exact, error = exact_product(x, w)
    if dtype == "bfloat16":
        error += ROUNDOFF["bfloat16"] * (np.abs(x.astype(np.float64)) @ np.abs(w.astype(np.float64)).T)
    ours = linear(x, panels(w, dtype), n, dtype, level, x_dtype=x_dtype).values
    assert_close(ours, exact, error, "float32", at_most=2e-2)


@pytest.mark.parametrize("out_dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("level", [level for dtype, level in VARIANTS if dtype == "float32"])
def test_rounding_to_16_bits_is_torchs(level: str, out_dtype: str) -> None:
    """What is stored is zero plus the residual, rounded."""
    numbers = hard_to_round()
    numbers = np.concatenate([numbers, np.zeros(-len(numbers) % 64, np.float32)]).reshape(-1, 64)
    zeros = np.zeros((len(numbers), 1), np.float32)
    weight = panels(np.zeros((64, 1), np.float32), "float32")
    out = linear(zeros, weight, 64, "float32", level, residual=Guarded(numbers), out_dtype=out_dtype)
    wanted = (
        torch.from_numpy(np.where(numbers == 0, np.float32(0), numbers))
        .to(getattr(torch, out_dtype))
        .view(torch.int16)
        .numpy()
    )
    nan = np.isnan(numbers)
    assert np.isnan(out.values[nan]).all()
    assert_same_bits(out.stored.view(np.int16)[~nan], wanted[~nan], "rounded")
