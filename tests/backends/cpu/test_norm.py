"""norm at every level: against torch float64, gathered and not, rounded to each type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.cpu.harness import (
    F32,
    ROUNDOFF,
    Call,
    Guarded,
    assert_close,
    assert_same_bits,
    normal,
    rows_step,
    run,
    variants,
)

torch = pytest.importorskip("torch")

VARIANTS = variants("norm")
WIDTHS = [1, 2, 15, 16, 17, 31, 48, 100, 1027]


def norm(x: F32, weight: F32, level: str, dtype: str, *, eps: float = 1e-5, threads: int = 1, **args: Any) -> Guarded:
    logit_rows, top_rows = args.pop("logit_rows", ()), args.pop("top_rows", ())
    rows = {"T": len(x), "R": len(logit_rows), "G": len(top_rows)}[args.get("rows", "T")]
    out = Guarded.poisoned((rows, x.shape[1]), dtype)
    fixed = {"x": Guarded(x), "weight": Guarded(weight), "out": out, "k": x.shape[1], "eps": eps, "out_dtype": dtype}
    step = rows_step(len(x), logit_rows=logit_rows, top_rows=top_rows)
    run([Call("norm", level, dtype, fixed | args)], step, threads)
    return out


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_norm(dtype: str, level: str, width: int) -> None:
    """Rows of very different size, and one of zeros."""
    x, weight = (
        normal(9, width) * np.float32(10.0) ** np.arange(-4, 5, dtype=np.float32)[:, None],
        normal(width, seed=1),
    )
    x[4] = 0
    exact = torch.nn.functional.rms_norm(
        torch.from_numpy(x).double(), (width,), torch.from_numpy(weight).double(), eps=float(np.float32(1e-5))
    ).numpy()
    error = (np.sqrt(width) + 8) * ROUNDOFF["float32"] * np.abs(exact)
    ours = norm(x, weight, level, dtype).values
    assert_close(ours, exact, error, dtype)
    assert not ours[4].any()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_centered(dtype: str, level: str, width: int) -> None:
    """Rows far from zero, too: what is off there is the mean, by what a float32 sum of such numbers may be."""
    offsets = np.float32([0, 0, 3, -8, 20, 0, 0, -5, 1])[:, None]
    x, weight, bias = normal(9, width) + offsets, normal(width, seed=1), normal(width, seed=2)
    x[1] = 0
    wide = x.astype(np.float64)
    eps = float(np.float32(1e-5))
    exact = torch.nn.functional.layer_norm(
        torch.from_numpy(wide),
        (width,),
        torch.from_numpy(weight).double(),
        torch.from_numpy(bias).double(),
        eps=eps,
    ).numpy()
    u, apart = ROUNDOFF["float32"], wide - wide.mean(axis=1, keepdims=True)
    factor = 1 / np.sqrt((apart**2).mean(axis=1, keepdims=True) + eps)
    of_mean = factor * (np.sqrt(width) + 4) * u * np.abs(wide).mean(axis=1, keepdims=True)
    of_mean *= width > 1  # of one number the mean is that number
    scaled = np.abs(apart * factor * weight)
    error = 2 * of_mean * (np.abs(weight) + scaled) + (np.sqrt(width) + 8) * u * (scaled + np.abs(bias))
    ours = norm(x, weight, level, dtype, centered=1, bias=Guarded(bias)).values
    assert_close(ours, exact, error, dtype)
    alone = [norm(x[i : i + 1], weight, level, dtype, centered=1, bias=Guarded(bias)).values for i in range(9)]
    assert_same_bits(ours, np.concatenate(alone), "rows alone")


@pytest.mark.parametrize("rows", ["R", "G"])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_gathered_rows_are_the_rows(dtype: str, level: str, rows: str) -> None:
    x, weight = normal(13, 35), normal(35, seed=1)
    wanted = [12, 0, 5, 5, 11]
    whole = norm(x, weight, level, dtype).stored
    given: dict[str, Any] = (
        {"logit_rows": wanted, "top_rows": [3]} if rows == "R" else {"logit_rows": [3], "top_rows": wanted}
    )
    part = norm(x, weight, level, dtype, rows=rows, gather=1, **given)
    assert_same_bits(part.stored, whole[wanted], "gathered")


@pytest.mark.parametrize("level", [level for dtype, level in VARIANTS if dtype == "float32"])
def test_no_rows_is_no_work(level: str) -> None:
    out = norm(normal(3, 20), normal(20), level, "float32", rows="R", gather=1)
    assert out.values.size == 0


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_a_row_depends_on_itself_alone(dtype: str, level: str) -> None:
    x, weight = normal(50, 77), normal(77, seed=1)
    whole = norm(x, weight, level, dtype).stored
    for threads in (2, 3):
        assert_same_bits(norm(x, weight, level, dtype, threads=threads).stored, whole, f"{threads} threads")
    for row in (0, 1, 24, 49):
        assert_same_bits(norm(x[row : row + 1], weight, level, dtype).stored, whole[row : row + 1], f"row {row}")


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_what_is_no_number_stays_in_its_row(dtype: str, level: str) -> None:
    x, weight = normal(4, 33), normal(33, seed=1)
    clean = norm(x, weight, level, dtype).stored
    x[1, 32] = np.nan
    out = norm(x, weight, level, dtype)
    assert np.isnan(out.values[1]).all()
    assert_same_bits(out.stored[[0, 2, 3]], clean[[0, 2, 3]], "the other rows")


@pytest.mark.parametrize("width", [1, 17, 100])
@pytest.mark.parametrize(("dtype", "level"), [v for v in VARIANTS if v[0] == "float32"])
def test_a_residual_is_added_to_what_is_normed(dtype: str, level: str, width: int) -> None:
    """In float32, where it lies or elsewhere: the bits of a norm and a sum."""
    x, weight, residual = normal(9, width), normal(width, seed=1), normal(9, width, seed=2)
    want = residual + norm(x, weight, level, dtype).values
    assert_same_bits(norm(x, weight, level, dtype, residual=Guarded(residual), threads=2).values, want, "elsewhere")
    out = Guarded(residual)
    args = {"x": Guarded(x), "weight": Guarded(weight), "out": out, "residual": out, "k": width, "eps": 1e-5}
    run([Call("norm", level, dtype, args | {"out_dtype": dtype})], rows_step(9), 2)
    assert_same_bits(out.values, want, "in place")
