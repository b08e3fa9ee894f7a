"""KernelCatalog: what the compiler asks of a backend before it emits a program.

Implemented by each backend, called by compiler/select.py. Speaks of families and element types: neither of devices
nor of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from albireo.graph.tuning import Tuning

#: The ability to multiply e4m3 numbers with e4m3 numbers.
EIGHT_BY_EIGHT_FLOATS = "8-bit floats by 8-bit floats"
#: The ability to multiply 4-bit codes with zero points (encodings of kind integer) with bfloat16, too.
FOUR_BY_SIXTEEN = "4 bits by 16"
#: The ability to run steps with a block table for each group of layers.
BLOCK_GROUPS = "block groups"
#: The ability to route all rows to an expert beside those that each chooses.
SHARED_EXPERTS = "shared experts"


@dataclass(frozen=True, slots=True)
class Variant:
    """One kernel that can perform a family.

    Fields:
        identity: the same string in programs, logs, tests and profiles: linear.bfloat16.avx512bf16.m6n64.
        split: how threads share a call: panels, rows, heads or one.
        packing: packing id its weight (or table) must have, see PackedConstant; "" for families without one.
    """

    identity: str
    split: str
    packing: str = ""


def identity_parts(identity: str) -> tuple[str, str, str]:
    """Family, element type and level of a kernel; the type may have dots of its own."""
    family, _, rest = identity.partition(".")
    dtype, _, level = rest.rpartition(".")
    return family, dtype, level


class KernelCatalog(Protocol):
    """The kernels of one backend on one machine."""

    #: What its kernels do beside what each backend's do: names in pipeline.ABLE_PASSES, and BLOCK_GROUPS.
    abilities: frozenset[str]

    def variants(self, family: str, dtype: str, attrs: Mapping[str, Any]) -> tuple[Variant, ...]:
        """Kernels that can perform a call, best first; empty when there is none.

        Args:
            family: a call family of graph/program.py.
            dtype: element type of the weight (linear, expert_linear, qkv_rope_kv, head_top), of the table (embed), of
                the output (norm, gather, combine, gate_rows, elementwise, head_norm, output_gate, rope, slice), of the
                query (attention), of x (top, route), of k (kv_write).
            attrs: attributes of the call.

        A call without residual and without act writes float32; with a residual float32; with an act dtype.
        An embed should list a variant for each packing it can read: a table tied to the head is kept once.
        Cost: called a few times a distinct call, on the way to the first token.
        """
        ...


class ExplainedCatalog(KernelCatalog, Protocol):
    """A catalog that says what its kernels do, for whoever looks at a program."""

    def regimes(self, identity: str, rows: Iterable[int], tuning: tuple[Tuning, ...] = ()) -> tuple[str, ...]:
        """What a kernel does for calls of so many rows: names, in order of first use."""
        ...

    def regime_text(self, identity: str, regime: str) -> str:
        """One of regimes() in words."""
        ...
