"""CpuCatalog: the native kernels this machine can run, as the compiler asks for them.

Implements backends.backend.KernelCatalog. The list of variants and their order are the native core's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from albireo import _native
from albireo.backends.backend import BLOCK_GROUPS, Variant
from albireo.backends.cpu.regimes import TILES, Tiles, regime_text, regimes_of, tiles_of
from albireo.dtypes import COMPUTE_DTYPES, TOKEN
from albireo.encodings import encoding, is_encoding
from albireo.graph.program_spec import ACTS, GATED_ACTS
from albireo.graph.tuning import Tuning

#: How threads share a call of each family.
SPLITS = {
    "embed": "rows",
    "given": "rows",
    "add_given": "rows",
    "norm": "rows",
    "gather": "rows",
    "all_reduce": "rows",
    "qkv_rope_kv": "panels",
    "choose_keys": "rows",
    "attention": "heads",
    "linear": "panels",
    "head_top": "panels",
    "route": "rows",
    "expert_linear": "panels",
    "combine": "rows",
    "gate_rows": "rows",
    "add_parts": "rows",
    "row_map": "rows",
    "balance": "rows",
    "join_sums": "rows",
    "pool_rows": "heads",
    "causal_conv": "rows",
    "depthwise_conv": "rows",
    "gated_delta_rule": "heads",
    "selective_state": "heads",
    "selective_scan": "heads",
    "head_linear": "panels",
    "join_heads": "rows",
    "head_norm": "rows",
    "rope": "rows",
    "kv_write": "rows",
    "elementwise": "rows",
    "slice": "rows",
    "top": "panels",
    "adapter": "rows",
}
_PACKED = ("qkv_rope_kv", "linear", "expert_linear", "head_linear", "head_top")
#: Families that can write 8-bit codes with a scale a row, or copy such rows, or read them beside a linear that does.
_TO_TOKENS = ("norm", "elementwise", "gather", "adapter")


class CpuCatalog:
    """Kernels at the given ISA levels; identity is family.dtype.level."""

    def __init__(self, levels: Sequence[str]) -> None:
        self._kernels = [(family, dtype, level) for family, dtype, level in _native.kernels() if level in levels]

    #: See KernelCatalog.
    abilities: frozenset[str] = frozenset({"attention of rows", BLOCK_GROUPS})

    def variants(self, family: str, dtype: str, attrs: Mapping[str, Any]) -> tuple[Variant, ...]:
        """See KernelCatalog."""
        kinds = _kinds(family, dtype)
        if not kinds or attrs.get("act", "none") not in (ACTS if family == "linear" else GATED_ACTS):
            return ()
        if attrs.get("shared", False):  # of a route: no kernel gives rows an expert that none chose
            return ()
        found = [level for name, kind, level in self._kernels if name == family and kind in kinds]
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
    dtype, _, level = identity.partition(".")[2].rpartition(".")
    return tiles_of(dtype, TILES[level])


def _kinds(family: str, dtype: str) -> tuple[str, ...]:
    """What the native core calls kernels that can do with an element type."""
    if dtype in COMPUTE_DTYPES:
        return "any", dtype
    if dtype == TOKEN:
        return ("any",) if family in _TO_TOKENS else ()
    if not is_encoding(dtype) or family == "head_linear" or family not in (*_PACKED, "embed"):
        return ()
    return "any", "fp8" if encoding(dtype).kind == "float" else "integers"


def _packings(family: str, dtype: str) -> tuple[str, ...]:
    if family in _PACKED:
        return (f"p64.{dtype}",)
    if family in ("causal_conv", "depthwise_conv"):
        return (f"row.{dtype}",)
    if family == "embed" and is_encoding(dtype):
        return (f"p64.{dtype}",)
    if family == "embed":
        return f"row.{dtype}", f"p64.{dtype}"
    return ("",)
