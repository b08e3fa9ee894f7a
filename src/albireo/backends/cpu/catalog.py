"""CpuCatalog: the native kernels this machine can run, as the compiler asks for them.

Implements backends.backend.KernelCatalog. The list of variants and their order are the native core's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from albireo import _native
from albireo.backends.backend import Variant
from albireo.backends.cpu.regimes import TILES, Tiles, regime_text, regimes_of
from albireo.dtypes import COMPUTE_DTYPES
from albireo.graph.tuning import Tuning

#: How threads share a call of each family.
SPLITS = {
    "embed": "rows",
    "norm": "rows",
    "gather": "rows",
    "all_reduce": "rows",
    "qkv_rope_kv": "panels",
    "attention": "heads",
    "linear": "panels",
    "head_top": "panels",
    "head_norm": "rows",
    "rope": "rows",
    "kv_write": "rows",
    "elementwise": "rows",
    "slice": "rows",
    "top": "panels",
}
_PACKED = ("qkv_rope_kv", "linear", "head_top")
_ACTS = ("none", "silu_mul", "gelu_tanh_mul")


class CpuCatalog:
    """Kernels at the given ISA levels; identity is family.dtype.level."""

    def __init__(self, levels: Sequence[str]) -> None:
        self._kernels = [(family, dtype, level) for family, dtype, level in _native.kernels() if level in levels]

    def variants(self, family: str, dtype: str, attrs: Mapping[str, Any]) -> tuple[Variant, ...]:
        """See KernelCatalog."""
        if dtype not in COMPUTE_DTYPES or attrs.get("act", "none") not in _ACTS:
            return ()
        found = [level for name, kind, level in self._kernels if name == family and kind in ("any", dtype)]
        return tuple(
            Variant(f"{family}.{dtype}.{level}", SPLITS[family], packing)
            for level in found
            for packing in _packings(family, dtype)
        )

    def regimes(self, identity: str, rows: Iterable[int], tuning: tuple[Tuning, ...] = ()) -> tuple[str, ...]:
        """What a kernel does for calls of so many rows: names, in order of first use."""
        family, tiles = identity.partition(".")[0], _tiles(identity)
        return tuple(dict.fromkeys(name for count in rows for name in regimes_of(family, tiles, count, tuning)))

    def regime_text(self, identity: str, regime: str) -> str:
        """One of regimes() in words."""
        return regime_text(regime, _tiles(identity))


def _tiles(identity: str) -> Tiles:
    return next(TILES[part] for part in identity.split(".") if part in TILES)


def _packings(family: str, dtype: str) -> tuple[str, ...]:
    if family in _PACKED:
        return (f"p64.{dtype}",)
    if family == "embed":
        return f"row.{dtype}", f"p64.{dtype}"
    return ("",)
