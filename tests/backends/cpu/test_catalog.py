"""CpuCatalog: variants in the native core's order, at the given levels, with the packings they read."""

from __future__ import annotations

import pytest

from albireo import _native
from albireo.backends.cpu.catalog import SPLITS, CpuCatalog
from albireo.backends.cpu.machine import LEVELS
from albireo.dtypes import COMPUTE_DTYPES
from albireo.graph.op_numbers import RECURRENT
from albireo.graph.program_spec import COMMON_FAMILIES, OF_STREAMS

ALL = CpuCatalog(LEVELS)
#: Of this kind of processor: levels that add float32 numbers their own way, and the one that multiplies bfloat16.
ADDING, OF_BFLOAT16 = ({"avx2", "avx512"}, "amx") if "avx2" in LEVELS else ({"neon"}, "neonmm")


def identities(family: str, dtype: str, levels: tuple[str, ...] = LEVELS) -> list[str]:
    return [v.identity for v in CpuCatalog(levels).variants(family, dtype, {})]


def test_every_family_of_programs_has_kernels_and_a_split() -> None:
    assert (
        set(SPLITS)
        == {*COMMON_FAMILIES, "adapter", *RECURRENT, *OF_STREAMS}
        == {family for family, _, _ in _native.kernels()}
    )


@pytest.mark.parametrize("family", sorted(SPLITS))
@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
def test_order_is_best_level_first_and_scalar_last(family: str, dtype: str) -> None:
    levels = [v.identity.split(".")[2] for v in ALL.variants(family, dtype, {})]
    assert levels == sorted(levels, key=LEVELS.index)
    assert levels[-1] == "scalar"
    assert set(levels) >= ADDING


@pytest.mark.parametrize("family", ["linear", "qkv_rope_kv", "attention", "head_top"])
def test_bfloat16_hardware_is_for_bfloat16(family: str) -> None:
    assert identities(family, "bfloat16")[0] == f"{family}.bfloat16.{OF_BFLOAT16}"
    assert identities(family, "float16")[0] == f"{family}.float16.{max(ADDING, key=lambda level: -LEVELS.index(level))}"


def test_lower_levels_leave_out_the_higher_ones() -> None:
    least = LEVELS[-2:]
    assert identities("linear", "bfloat16", least) == [f"linear.bfloat16.{level}" for level in least]
    assert identities("norm", "float32", ("scalar",)) == ["norm.float32.scalar"]
    assert identities("norm", "float32", ()) == []


@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
def test_packings(dtype: str) -> None:
    def packings(family: str) -> list[str]:
        return list(dict.fromkeys(v.packing for v in ALL.variants(family, dtype, {})))

    for family in ("linear", "qkv_rope_kv", "head_top"):
        assert packings(family) == [f"p64.{dtype}"]
    assert packings("embed") == [f"row.{dtype}", f"p64.{dtype}"]
    for family in ("norm", "attention"):
        assert packings(family) == [""]


def test_what_there_is_no_kernel_for() -> None:
    assert ALL.variants("linear", "int7", {}) == ()
    assert ALL.variants("convolution", "float32", {}) == ()
    assert ALL.variants("linear", "float32", {"act": "relu2"}) == ()
    for act in ("none", "silu_mul", "gelu_tanh_mul"):
        assert ALL.variants("linear", "float32", {"act": act})


@pytest.mark.parametrize("family", sorted(SPLITS))
def test_every_identity_can_be_bound(family: str) -> None:
    """add() takes what a variant's identity says, here with shapes of one; n of given rows is their place in a step."""
    n = 0 if family in ("given", "add_given") else 64
    for dtype in COMPUTE_DTYPES:
        for variant in ALL.variants(family, dtype, {}):
            name, kind, level = variant.identity.split(".")
            program = _native.Program(_native.ThreadPool([-1]), 1)
            program.add(name, level, kind, {"n": n, "k": 16, "head_dim": 16, "num_heads": 1, "num_kv_heads": 1})
