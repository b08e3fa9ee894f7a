"""add_parts, row_map and the gain of elementwise at every level: against the reference, and bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.reference import streams
from albireo.backends.reference.call import OpCall
from albireo.backends.reference.rounding import round_to
from albireo.graph.program_spec import KINDS, ROW_KINDS
from backends.cpu.harness import Call, Guarded, assert_same_bits, normal, rows_step, run, variants

LEVELS = [level for dtype, level in variants("add_parts") if dtype == "float32"]
ROWS = 5


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("parts", "given", "first", "plus", "has_coefs"),
    [(4, 4, 0, 0.0, True), (3, 1, 0, 1.0, True), (3, 1, 1, 1.0, False)],
)
@pytest.mark.parametrize("width", [16, 40, 700])
def test_add_parts(level: str, parts: int, given: int, first: int, plus: float, has_coefs: bool, width: int) -> None:
    x, y = normal(ROWS, parts * width), normal(ROWS, given * width, seed=1)
    coefs = normal(ROWS, parts * given, seed=2)
    roles = {"x": x, "y": y} | ({"coefs": coefs} if has_coefs else {})
    attrs = {"num_parts": parts, "first": first, "plus": plus}
    (wanted,) = streams.add_parts(OpCall(roles, attrs, rows_step(ROWS)))
    args = {"x": Guarded(x), "y": Guarded(y), "k": width, "num_heads": parts, "num_k_heads": given}
    args |= {"first_key": first, "scale": plus} | ({"gates": Guarded(coefs)} if has_coefs else {})
    outs = []
    for threads in (1, 3):
        outs.append(Guarded.poisoned(x.shape, "float32"))
        run([Call("add_parts", level, "float32", args | {"out": outs[-1]})], rows_step(ROWS), threads)
    assert_same_bits(outs[0].values, outs[1].values, "by three threads")
    np.testing.assert_allclose(outs[0].values, wanted, rtol=0, atol=4e-6)
    assert_same_bits(outs[0].values[:, : first * width], x[:, : first * width], "parts before the first")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("width", [16, 40, 700])
def test_rows_as_a_whole(level: str, width: int) -> None:
    x, y = normal(ROWS, width), 3 * normal(ROWS, width, seed=1)
    x[0], x[1], y[2] = 0.0, 1e-4 * x[1], 0.0
    for kind, number, role in (
        ("match_length", 1e-5, "least"),
        ("cut", 1.5, "deviations"),
        ("cut", -0.3, "deviations"),
    ):
        roles = {"x": x, "y": y} if kind == "match_length" else {"x": x}
        (wanted,) = getattr(streams, kind)(OpCall(roles, {role: number}, rows_step(ROWS)))
        out, again = (Guarded.poisoned(x.shape, "float32") for _ in range(2))
        args = {"k": width, "act": ROW_KINDS.index(kind), "scale": number}
        args |= {name: Guarded(array) for name, array in roles.items()}
        run([Call("row_map", level, "float32", args | {"out": out})], rows_step(ROWS), 1)
        run([Call("row_map", level, "float32", args | {"out": again})], rows_step(ROWS), 3)
        assert_same_bits(out.values, again.values, "by three threads")
        np.testing.assert_allclose(out.values, wanted, rtol=2e-6, atol=3e-6)
        assert not out.values[0].any() and (kind == "match_length" or (out.values[3] == 0).any())


@pytest.mark.parametrize(("dtype", "level"), variants("elementwise"))
def test_a_number_for_each_column(dtype: str, level: str) -> None:
    x, weight, out = normal(3, 45), normal(1, 45, seed=1), Guarded.poisoned((3, 45), dtype)
    args = {"x": Guarded(x), "weight": Guarded(weight), "out": out, "k": 45, "out_dtype": dtype}
    run([Call("elementwise", level, dtype, args | {"act": KINDS.index("gain")})], rows_step(3), 2)
    assert_same_bits(out.values, round_to(x * weight, dtype), "products")
