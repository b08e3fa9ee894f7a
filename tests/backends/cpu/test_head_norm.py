"""head_norm of heads minus their mean at every level: against torch float64, head by head."""

from __future__ import annotations

import numpy as np
import pytest

from backends.cpu.harness import (
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

LEVELS = sorted({level for _, level in variants("head_norm")})
EPS = 1e-5


@pytest.mark.parametrize("of_all", [True, False], ids=["weights of each head", "of all"])
@pytest.mark.parametrize(("heads", "dim"), [(1, 2), (3, 8), (5, 20), (2, 48), (4, 128)])
@pytest.mark.parametrize("level", LEVELS)
def test_heads_minus_their_mean(level: str, heads: int, dim: int, of_all: bool) -> None:
    """Some of them far from zero: what is off there is the mean, by what a float32 sum of such numbers may be."""
    x = normal(7, heads * dim, seed=1)
    x[3:] += 40
    weight = normal(heads * dim if of_all else dim, seed=2)
    padded = np.zeros(-(-len(weight) // 16) * 16, np.float32)
    padded[: len(weight)] = weight

    def normed(rows: np.ndarray, threads: int = 1) -> np.ndarray:
        out = Guarded.poisoned(rows.shape, "float32")
        args = {"x": Guarded(rows), "weight": Guarded(padded[None]), "out": out, "k": dim, "n": len(weight)}
        args |= {"num_heads": heads, "eps": EPS, "centered": 1}
        run([Call("head_norm", level, "float32", args)], rows_step(len(rows)), threads)
        return out.values

    wide = torch.from_numpy(x).double().view(7, heads, dim)
    exact = torch.nn.functional.layer_norm(wide, (dim,), eps=float(np.float32(EPS))).numpy()
    weights = np.broadcast_to(weight.reshape(-1, dim), (heads, dim))
    exact = exact * weights
    spread = wide.numpy().std(axis=-1, keepdims=True) + np.sqrt(EPS)
    u = ROUNDOFF["float32"]
    of_mean = (np.sqrt(dim) + 4) * u * np.abs(wide.numpy()).mean(axis=-1, keepdims=True) / spread
    error = 2 * of_mean * (np.abs(weights) + np.abs(exact)) + (np.sqrt(dim) + 8) * u * np.abs(exact)
    ours = normed(x)
    assert_close(ours, exact.reshape(x.shape), error.reshape(x.shape), "float32")
    assert_same_bits(np.concatenate([normed(x[i : i + 1]) for i in range(7)]), ours, "alone")
    assert_same_bits(normed(x, threads=3), ours, "by three threads")
