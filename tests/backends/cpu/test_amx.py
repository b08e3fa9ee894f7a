"""The kernels of AMX on a model of its tile registers; and that they are used only where they showed that they add up.

The model is portable code, so its level is compared with scalar to the bit, groups included.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import _native
from albireo.backends.cpu import machine
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import LEVELS, isa_levels
from albireo.backends.reference.linear import tree_sum
from albireo.backends.reference.rounding import bfloat16_bits
from albireo.dtypes import TOKEN
from albireo.encodings import encoding
from albireo.quantization.encoded import Encoded
from backends.cpu import test_encoded
from backends.cpu.attention_texts import Case, Placement, Types, attend, exactly, text
from backends.cpu.harness import (
    Cache,
    Call,
    Guarded,
    KVShape,
    assert_close,
    assert_same_bits,
    decode,
    normal,
    panels,
    run,
)
from backends.cpu.test_encoded import INTEGERS, levels_of, random_encoded, random_fp8, tokens
from backends.cpu.test_linear import exact_product, linear
from step_batches import Work, make_step

MODEL = "amx_model"
#: Below a tile, tiles of one, two and three heights of rows, what is left of each, a chunk and more than one.
ROWS = [1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 101]
#: K of whole tiles and of less than one, of part of a word, of several groups and of part of one.
SHAPES = [(64, 128), (70, 36), (130, 200), (5, 5), (16, 1000), (65, 64), (64, 333)]


@pytest.mark.parametrize("name", INTEGERS)
def test_whole_numbers_have_the_bits_of_other_levels(name: str) -> None:
    for i, m in enumerate(ROWS):
        n, k = SHAPES[i % len(SHAPES)]
        encoded = random_encoded(encoding(name), n, k, seed=m)
        packed, rows = test_encoded.panels(encoded), tokens(normal(m, k, seed=m), "scalar")
        found = test_encoded.linear(rows, encoded, packed, MODEL)
        wanted = test_encoded.linear(rows, encoded, packed, "scalar")
        assert_same_bits(found, wanted, f"{m} rows, {n} x {k}")
        if encoding(name).group is None or encoding(name).kind == "progressive":
            best = test_encoded.linear(rows, encoded, packed, levels_of("linear")[0])
            assert_same_bits(found, best, f"{m} rows, {n} x {k}")


@pytest.mark.parametrize("name", INTEGERS)
def test_rows_below_and_above_a_tile_agree(name: str) -> None:
    """A row's bits do not say whether it went through a tile register, nor which row of it it was."""
    encoded = random_encoded(encoding(name), 70, 200, seed=1)
    packed, rows = test_encoded.panels(encoded), tokens(normal(75, 200), "scalar")
    whole = test_encoded.linear(rows, encoded, packed, MODEL, threads=2)
    for start, stop in ((0, 1), (3, 18), (20, 36), (7, 54), (44, 75)):
        part = test_encoded.linear(np.ascontiguousarray(rows[start:stop]), encoded, packed, MODEL)
        assert_same_bits(part, whole[start:stop], f"rows {start} to {stop}")


def test_the_deepest_sum_fits() -> None:
    """Codes at their ends: a model that took them for signed, or saturated, would be far off."""
    k = 65536
    codes = np.full((2, k), 255, np.uint8)
    codes[1] = 1
    encoded = Encoded(encoding("int8"), codes, np.ones((2, 1), np.float32), np.full((2, 1), 128, np.uint8))
    found = test_encoded.linear(
        tokens(np.ones((16, k), np.float32), "scalar"), encoded, test_encoded.panels(encoded), MODEL
    )
    np.testing.assert_allclose(found, [[127.0 * k, -127.0 * k]] * 16, rtol=1e-6)


@pytest.mark.parametrize("dim", [64, 80])
def test_heads_that_lie_across_panels(dim: int) -> None:
    """qkv_rope_kv multiplies into several panels at once: sums are stored further apart."""
    queries, keys, k, rows = 4, 2, 100, 50
    n = (queries + 2 * keys) * dim
    encoded = random_encoded(encoding("int8"), n, k, seed=dim)
    packed, x = test_encoded.panels(encoded), tokens(normal(rows, k), "scalar")
    step = make_step([Work([0] * rows, 0, [5, 2, 7, 1])], 16)
    rope = Guarded(normal(64, 2, dim // 2))
    results = []
    for level in (MODEL, "scalar"):
        cache, out = Cache(KVShape("float32", keys, dim), 8), Guarded.poisoned((rows, queries * dim))
        args: dict[str, Any] = {"x": x.ctypes.data, "x_dtype": TOKEN, "x_stride": x.shape[1], "rope": rope, "out": out}
        args |= {"weight": packed.ctypes.data, "w_dtype": "int8", "kv": cache.memory, "n": n, "k": k, "eps": 1e-5}
        run([Call("qkv_rope_kv", level, "int8", args | {"num_heads": queries} | cache.shape.args)], step)
        results.append((out.values, cache.memory.values))
    assert_same_bits(results[0][0], results[1][0], "queries")
    assert_same_bits(results[0][1], results[1][1], "the cache")
    assert np.isfinite(results[0][0]).all()


# -- bfloat16 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [(m, n, k) for m, (n, k) in zip([*ROWS, 5], [*SHAPES, *SHAPES], strict=True)],
    ids=lambda s: "x".join(map(str, s)),
)
def test_bf16_tiles_are_the_product(shape: tuple[int, int, int]) -> None:
    """Inside the bounds of any float32 sum; memory beside the operands is NaN, and comes into nothing."""
    m, n, k = shape
    x, w = normal(m, k, dtype="bfloat16"), normal(n, k, seed=1, dtype="bfloat16")
    exact, error = exact_product(x, w)
    for x_dtype in ("bfloat16", "float32"):
        ours = linear(x, panels(w, "bfloat16"), n, "bfloat16", MODEL, x_dtype=x_dtype).values
        assert_close(ours, exact, error, "float32")


TILES = [MODEL, pytest.param("amx", marks=pytest.mark.skipif("amx" not in isa_levels(), reason="no AMX here"))]


@pytest.mark.skipif("amx" not in isa_levels(), reason="no AMX here")
def test_the_processor_has_the_bits_of_the_model() -> None:
    """Numbers of all sizes, those below the normal range among them, zeros of both signs, infinities and NaN."""
    for m, (n, k) in zip(ROWS, SHAPES * 2, strict=False):
        x, w = normal(m, k, dtype="bfloat16"), normal(n, k, seed=m, dtype="bfloat16")
        x *= 2.0 ** np.random.default_rng(m).integers(-70, 60, x.shape)
        w *= 2.0 ** np.random.default_rng(n).integers(-70, 60, w.shape)
        x[-1, 0], w[-1, -1], w[0, 0] = -0.0, np.inf, np.nan
        found, wanted = (linear(x, panels(w, "bfloat16"), n, "bfloat16", level).values for level in ("amx", MODEL))
        nan = np.isnan(wanted)
        assert np.array_equal(np.isnan(found), nan) and nan.any() and not nan.all()
        assert_same_bits(np.where(nan, 0, found), np.where(nan, 0, wanted), f"{m} rows, {n} x {k}")


@pytest.mark.parametrize("level", TILES)
def test_bf16_tiles_are_one_numeric_class(level: str) -> None:
    """A row's bits do not depend on the rows beside it, below a tile and above; a tree is the tree of its parts."""
    x, w = normal(75, 200, dtype="bfloat16"), normal(70, 200, seed=1, dtype="bfloat16")
    whole = linear(x, panels(w, "bfloat16"), 70, "bfloat16", level).values
    for start, stop in ((0, 1), (3, 18), (20, 36), (7, 54), (44, 75)):
        part = linear(x[start:stop], panels(w, "bfloat16"), 70, "bfloat16", level).values
        assert_same_bits(part, whole[start:stop], f"rows {start} to {stop}")
    cut = [np.split(a, 4, axis=1) for a in (x, w)]
    alone = [linear(a, panels(b, "bfloat16"), 70, "bfloat16", level).values for a, b in zip(*cut, strict=True)]
    tree = linear(x, panels(w, "bfloat16"), 70, "bfloat16", level, chunks=4).values
    assert_same_bits(tree, tree_sum(alone), "four chunks")


# -- fp8 ---------------------------------------------------------------------------------------------------------------


def fp8_linear(name: str, x: np.ndarray[Any, Any], weight: Encoded, level: str) -> np.ndarray[Any, Any]:
    """x [m, k] as bfloat16 times a weight [n, k]; behind x are NaN."""
    (m, k), n = x.shape, weight.codes.shape[0]
    stored = np.pad(bfloat16_bits(x), ((0, 0), (0, 16)), constant_values=0x7FC0)
    packed, out = test_encoded.panels(weight), np.full((m, n), np.nan, np.float32)
    args = {"x": stored.ctypes.data, "x_stride": k + 16, "x_dtype": "bfloat16", "weight": packed.ctypes.data}
    test_encoded.run("linear", level, name, args | {"w_dtype": name, "out": out.ctypes.data, "n": n, "k": k}, m)
    return out


@pytest.mark.parametrize("name", ["fp8", "fp8.g128"])
@pytest.mark.skipif("amx" not in isa_levels(), reason="no AMX here")
def test_fp8_has_the_bits_of_the_model(name: str) -> None:
    """Rows of one tile have codes made to bfloat16 step by step, more have whole panels of them. The model is of the
    scalar level, which has another way to add one group to the next: of one group only."""
    shapes = [(n, k) for n, k in SHAPES * 4 if name == "fp8" or k <= 128]
    for m, (n, k) in zip(ROWS, shapes, strict=False):
        x, weight = normal(m, k, dtype="bfloat16"), random_fp8(name, n, k)
        assert_same_bits(fp8_linear(name, x, weight, "amx"), fp8_linear(name, x, weight, MODEL), f"{m}, {n} x {k}")


@pytest.mark.parametrize("level", TILES)
@pytest.mark.parametrize("name", ["fp8", "fp8.g128"])
def test_fp8_in_tiles_is_one_numeric_class(name: str, level: str) -> None:
    """However many rows are beside one; k of several groups, and of part of a tile's depth."""
    for k in (36, 128, 200, 424):
        x, weight = normal(75, k, dtype="bfloat16"), random_fp8(name, 70, k)
        whole = fp8_linear(name, x, weight, level)
        assert np.isfinite(whole).all()
        for start, stop in ((0, 1), (2, 9), (3, 18), (20, 36), (7, 54), (59, 75)):
            part = fp8_linear(name, x[start:stop], weight, level)
            assert_same_bits(part, whole[start:stop], f"k {k}, rows {start} to {stop}")


@pytest.mark.parametrize("level", TILES)
def test_fp8_of_one_scale_is_bfloat16(level: str) -> None:
    """Every e4m3 number is one of bfloat16: the same sums, then the scale."""
    x, weight = normal(20, 200, dtype="bfloat16"), random_fp8("fp8", 70, 200)
    numbers = Encoded(weight.encoding, weight.codes, np.ones_like(weight.scale)).decode()
    sums = linear(x, panels(numbers, "bfloat16"), 70, "bfloat16", level).values
    for rows in (slice(None), slice(3, 4)):
        found = fp8_linear("fp8", x[rows], weight, level)
        assert_same_bits(found, sums[rows] * weight.scale[:, 0], f"{len(found)} rows")


# -- attention in bfloat16 ---------------------------------------------------------------------------------------------

BF16, OF_CODES = Types("bfloat16", "bfloat16"), Types("bfloat16", "fp8")
#: Rows of one, two and three tiles and of part of one; channels of whole depths and of half of one; every block size.
HEADS = [
    Case(1, 1, 64, ((1, 1), (17, 1), (130, 1)), 16),
    Case(6, 2, 80, ((70, 1), (33, 2), (97, 30)), 8),
    Case(4, 1, 20, ((40, 40),), 32, window=9),
    Case(20, 1, 96, ((150, 2),), 16, softcap=3.0, has_sinks=True),
    Case(2, 2, 128, ((31, 1), (64, 20)), 16),
    Case(3, 1, 48, ((75, 75),), 16, both_ways=True, reach=7),
    Case(2, 1, 16, ((1030, 3),), 16, window=1020),
]
LATENT = Case(17, 1, 48, ((70, 3), (9, 9)), 16, value_dim=36)


@pytest.mark.parametrize(
    ("types", "case"), [*((t, case) for t in (BF16, OF_CODES) for case in HEADS), (BF16, LATENT)], ids=str
)
def test_attention_in_tiles(types: Types, case: Case) -> None:
    """Inside the bounds of any level's; what no sequence wrote is NaN, and comes into nothing."""
    texts = [text(case, context, types, i) for i, (context, _) in enumerate(case.spans)]
    ours = attend(case, texts, case.spans, types, MODEL, Placement(case.block_size))
    exact = [exactly(case, t, *span, types) for t, span in zip(texts, case.spans, strict=True)]
    value, error = (np.concatenate(arrays) for arrays in zip(*exact, strict=True))
    assert_close(decode(np.concatenate(ours), "bfloat16"), value, error, "bfloat16", types.at_most)


@pytest.mark.parametrize("types", [BF16, OF_CODES], ids=str)
def test_attention_in_tiles_is_one_numeric_class(types: Types) -> None:
    """A row's bits do not depend on the rows beside it, be they less than a tile, or several."""
    case = Case(3, 1, 80, ((150, 150),))
    t, other = text(case, 150, types, 0), text(case, 20, types, 1)
    (whole,) = attend(case, [t], case.spans, types, MODEL, Placement())
    for end, count in ((150, 1), (33, 5), (129, 6), (150, 22), (65, 1)):
        _, got = attend(case, [other, t], [(20, 1), (end, count)], types, MODEL, Placement(8, seed=end))
        assert_same_bits(got, whole[end - count : end], f"{count} rows to {end}")


@pytest.mark.parametrize("dim", [64, 80])
def test_the_model_adds_values_as_the_processor_does(dim: int) -> None:
    """With keys of zero every weight is one, at any level: what is left of attention is sums of values."""
    if "amx" not in isa_levels():
        pytest.skip("this processor has no tile registers")
    case = Case(5, 1, dim, ((1, 1), (40, 40), (300, 10), (1001, 2)))
    texts = [text(case, context, BF16, i) for i, (context, _) in enumerate(case.spans)]
    for t in texts:
        t.k[:] = 0
    ours, models = (attend(case, texts, case.spans, BF16, level, Placement()) for level in ("amx", MODEL))
    assert_same_bits(np.concatenate(ours), np.concatenate(models))


@pytest.mark.parametrize("level", TILES)
def test_deep_rows_have_the_bits_of_few(level: str) -> None:
    """K that is cut, of more panels than go side by side: rows of several chunks, of which the last is short, odd tiles
    and tiles that overlap, against the same rows a few at a time, of which it is not."""
    n, k = 266, 3202
    w, x = (
        panels(normal(n, k, seed=1, dtype="bfloat16"), "bfloat16"),
        normal(75 if level == MODEL else 225, k, dtype="bfloat16"),
    )
    few = np.concatenate([linear(x[i : i + 32], w, n, "bfloat16", level).values for i in range(0, len(x), 32)])
    for rows in (75,) if level == MODEL else (33, 75, 225):  # the model takes seconds
        for threads in (1, 3):
            whole = linear(x[:rows], w, n, "bfloat16", level, threads=threads).values
            assert_same_bits(whole, few[:rows], f"{rows} rows, {threads} threads")


# -- when the level is used --------------------------------------------------------------------------------------------


def test_the_self_test_passes_kernels_that_agree() -> None:
    assert _native.first_difference(MODEL, "scalar") == ""
    if "avx512vnni" in isa_levels():
        assert _native.first_difference("avx512vnni", "avx512") == ""


def test_the_self_test_names_what_differs() -> None:
    """Portable code rounds the chain of groups twice where the others do it once: a difference of one bit."""
    if "avx2" not in isa_levels():
        pytest.skip("this machine has one level")
    found = _native.first_difference("scalar", "avx2")
    assert found.startswith("int8.g32, ") and ": row " in found and ", not " in found
    assert _native.first_difference("amx", "avx3") == "no linear of codes of level avx3"


def test_attention_is_held_to_another_level() -> None:
    """Which adds in another order, so that a bound of nothing is exceeded; a level that loses a channel is far off."""
    best = next(k[2] for k in _native.kernels() if k[0] == "attention" and k[2] in isa_levels() and k[2] != "amx")
    for level in {MODEL, *isa_levels()} & {k[2] for k in _native.kernels() if k[0] == "attention"}:
        assert _native.attention_difference(level, best) == ""
    found = _native.attention_difference(MODEL, best, bound=0.0)
    assert re.match(r"attention: row \d+, channel \d+ is -?\d\.\d+, not -?\d\.\d+$", found)
    assert _native.attention_difference("avx3", best) == "no attention of level avx3"


def test_the_self_test_runs_no_kernel_of_other_weights() -> None:
    """Levels may have linears of bfloat16 and fp8 alone; those would read codes as such, and behind their end."""
    levels = {level for family, _, level in _native.kernels() if family == "linear"}
    others = levels - {k[2] for k in _native.kernels() if k[0] == "linear" and k[1] in ("integers", "any")}
    assert "avx512bf16" in others or "neon" in levels
    for level in sorted(others):
        assert _native.first_difference(level, "scalar") == f"no linear of codes of level {level}"
        assert _native.first_difference("scalar", level) == f"no linear of codes of level {level}"


def test_the_level_is_on_where_the_processor_has_it_or_refused_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALBIREO_ISA_MAX", raising=False)
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    has = "avx512bf16" in isa_levels() and {"amx_tile", "amx_int8", "amx_bf16"} <= set(flags)
    assert ("amx" in isa_levels()) + ("amx" in machine.refused_levels()) == has
    assert all(machine.refused_levels().values())


def test_what_the_operating_system_refuses_is_said() -> None:
    """Asked for in earnest: where the processor has no tile registers, nobody gets them."""
    if "amx" in _native.isa_levels():
        assert _native.amx_refusal() == ""
    else:
        assert re.match(
            "the operating system (refuses|does not save) tile registers|its self-test", _native.amx_refusal()
        )


def test_a_refusal_is_logged_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(_native, "refused_levels", lambda: {"amx": "its self-test failed"})
    machine._log_refusals.cache_clear()
    with caplog.at_level(logging.WARNING):
        isa_levels()
        isa_levels()
    machine._log_refusals.cache_clear()
    assert [record.getMessage() for record in caplog.records] == ["kernels of level amx are off: its self-test failed"]


def test_what_is_chosen() -> None:
    """Tiles, of bfloat16 for any number of rows; never what is there for tests."""
    catalog = CpuCatalog(LEVELS)
    for family in ("linear", "qkv_rope_kv", "head_top"):
        levels = {
            dtype: [v.identity.rsplit(".", 1)[1] for v in catalog.variants(family, dtype, {})]
            for dtype in ("int8", "bfloat16")
        }
        assert levels["int8"] == ["amx", "avx512vnni", "avx512", "avxvnni", "avx2", "scalar"]
        assert levels["bfloat16"] == ["amx", "avx512bf16", "avx512", "avx2", "scalar"]
