"""embed at every level: a copy, so bit by bit; and the widening of every 16-bit pattern."""

from __future__ import annotations

import numpy as np
import pytest

from backends.cpu.harness import F32, Call, Guarded, assert_same_bits, normal, panels, rows_step, run, variants

torch = pytest.importorskip("torch")

VARIANTS = variants("embed")


def embed(table: Guarded, width: int, ids: list[int], dtype: str, level: str, packed: int, threads: int = 1) -> F32:
    out = Guarded.poisoned((len(ids), width))
    args = {"weight": table, "out": out, "k": width, "w_dtype": dtype, "packed": packed}
    run([Call("embed", level, dtype, args)], rows_step(len(ids), token_ids=ids), threads)
    return out.values


@pytest.mark.parametrize("packed", [0, 1])
@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 33, 64, 101])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_rows_of_the_table(dtype: str, level: str, width: int, packed: int) -> None:
    vocab = 131
    rows = normal(vocab, width, dtype=dtype)
    table = panels(rows, dtype) if packed else Guarded(rows, dtype)
    ids = [0, 1, 63, 64, 65, 127, 128, 130, 130, 0, 77]
    for threads in (1, 3):
        assert_same_bits(embed(table, width, ids, dtype, level, packed, threads), rows[ids], f"{threads} threads")


@pytest.mark.parametrize("packed", [0, 1])
@pytest.mark.parametrize(("dtype", "level"), [v for v in VARIANTS if v[0] != "float32"])
def test_every_16_bit_number_is_widened_exactly(dtype: str, level: str, packed: int) -> None:
    kind = getattr(torch, dtype)
    exact = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(kind).float().numpy().reshape(-1, 64)
    nan = np.isnan(exact)
    exact = np.where(nan, np.float32(np.nan), exact)
    table = panels(exact, dtype) if packed else Guarded(exact, dtype)
    ours = embed(table, 64, list(range(len(exact))), dtype, level, packed)
    assert np.isnan(ours[nan]).all()
    assert_same_bits(ours[~nan], exact[~nan], "widened")


@pytest.mark.parametrize("width", [1, 17, 64])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_rows_times_a_number(dtype: str, level: str, width: int) -> None:
    rows, ids = normal(70, width, dtype=dtype), [0, 69, 3]
    out = Guarded.poisoned((3, width))
    args = {"weight": Guarded(rows, dtype), "out": out, "k": width, "w_dtype": dtype, "packed": 0, "scale": 55.5}
    run([Call("embed", level, dtype, args)], rows_step(3, token_ids=ids))
    assert_same_bits(out.values, rows[ids] * np.float32(55.5), "times")


@pytest.mark.parametrize("level", sorted({level for _, level in VARIANTS}))
def test_rows_that_the_step_gives(level: str) -> None:
    """In place of those of tokens; not where rows are the table's whatever is given, which may be of another width."""
    ids, given_rows = [0, 69, 3, 5], np.array([-1, 1, 0, -1], np.int32)
    given, found = normal(2, 17), []
    calls = []
    for width, ids_of in ((17, 0), (40, 3)):
        rows, out = normal(70, width), Guarded.poisoned((4, width))
        args = {"weight": Guarded(rows), "out": out, "k": width, "w_dtype": "float32", "packed": 0, "ids_of": ids_of}
        calls.append(Call("embed", level, "float32", args))
        found.append((out, rows[ids]))
    run(calls, rows_step(4, token_ids=ids, given=(given,), given_rows=given_rows))
    (ours, wanted), (alone, of_table) = found
    wanted[1:3] = given[[1, 0]]
    assert_same_bits(ours.values, wanted, "given")
    assert_same_bits(alone.values, of_table, "the table's")
