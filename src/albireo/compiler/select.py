"""Choose a kernel for every fused node, by asking the backend's catalog.

Called by pipeline.py after the passes. Does not know devices: a kernel is a name, a packing and a way to be split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from albireo.backends.backend import EIGHT_BY_EIGHT_FLOATS, FOUR_BY_SIXTEEN, KernelCatalog, Variant
from albireo.compiler.passes.narrow_activations import takes_narrow
from albireo.compiler.passes.widen_activations import takes_wide
from albireo.compiler.rewrite import label
from albireo.dtypes import FP8_TOKEN
from albireo.encodings import encoding, is_encoding
from albireo.errors import UnsupportedModel
from albireo.graph.node import Graph, Node, Value
from albireo.graph.program_spec import FAMILIES
from albireo.graph.report import PassRecord

#: Families whose kernels are chosen by another type than the weight's: that of the output, or of an input.
_BY_OUTPUT = (
    "given",
    "add_given",
    "norm",
    "gather",
    "all_reduce",
    "combine",
    "gate_rows",
    "add_parts",
    "row_map",
    "balance",
    "mix_streams",
    "join_sums",
    "elementwise",
    "head_norm",
    "rope",
    "slice",
    "join_heads",
    "output_gate",
)
_BY_INPUT = {"embed": "table", "attention": "q", "kv_write": "k", "top": "x", "combine_norm": "x", "route": "x"}
_BY_INPUT |= {"all_reduce_norm": "x", "choose_keys": "q", "read_streams": "x"}
_BY_INPUT |= {
    "add_given_norm": "x",
    "two_norms": "x",
    "adapter": "x",
    "causal_conv": "x",
    "depthwise_conv": "x",
    "gated_delta_rule": "x",
    "selective_state": "x",
    "selective_scan": "x",
    "pool_rows": "x",
}

WHY = "the kernels are known before the first step, which then calls pointers"


def select_kernels(
    graph: Graph, catalog: KernelCatalog, packings: Mapping[str, str] | None = None
) -> tuple[dict[Node, Variant], PassRecord]:
    """A variant for each node of a fused graph.

    The catalog's first choice is taken. An embedding table that a linear reads too is kept once: there the first
    choice that reads the linear's packing is taken; and of constants that are packed already, that which reads them.

    Args: packings: of those, by name.

    Raises: UnsupportedModel naming the node for which the catalog has no kernel.
    """
    record = PassRecord("select_kernel", WHY, "exact", len(graph.nodes), len(graph.nodes))
    chosen: dict[Node, Variant] = {}
    known_packings: dict[Value, set[str]] = {}
    for name, packing in (packings or {}).items():
        if name in graph.constants:
            known_packings[graph.constants[name]] = {packing}
    for node in sorted(graph.nodes, key=lambda n: n.family == "embed"):
        dtype = _dtype(node, catalog.abilities)
        variants = catalog.variants(str(node.family), dtype, call_attrs(node))
        if not variants:
            raise UnsupportedModel(
                f"{label(node)}: this backend has no {node.family} kernel for {dtype} with {call_attrs(node)}; "
                "try another dtype"
            )
        role = FAMILIES[str(node.family)].weight
        known = known_packings.setdefault(node.inputs[role], set()) if role in node.inputs else set()
        chosen[node] = next((v for v in variants if v.packing in known), variants[0])
        known.add(chosen[node].packing)
    counts = Counter(variant.identity for variant in chosen.values())
    record.notes += [f"{identity} {count}x" for identity, count in counts.items()]
    return chosen, record


def call_attrs(node: Node) -> dict[str, object]:
    """Attributes of the call a fused node becomes."""
    return {name: node.attrs[name] for name in FAMILIES[str(node.family)].all_attrs if name in node.attrs}


def _dtype(node: Node, abilities: Collection[str]) -> str:
    """The element type kernels of this family are chosen by. Raises: UnsupportedModel for mixed operands."""
    if node.family in _BY_OUTPUT:
        return node.output.type.dtype
    if node.family in _BY_INPUT:
        return node.inputs[_BY_INPUT[node.family]].type.dtype
    weight = node.inputs["weight"].type.dtype
    wanted = encoding(weight).activation if is_encoding(weight) else weight
    may_be = {wanted}
    if FOUR_BY_SIXTEEN in abilities and takes_wide(weight):
        may_be.add("bfloat16")
    if EIGHT_BY_EIGHT_FLOATS in abilities and takes_narrow(weight):
        may_be.add(FP8_TOKEN)
    if node.family == "head_rows":  # which rounds what it reads
        may_be.add("float32")
    if "x" in node.inputs and node.inputs["x"].type.dtype not in may_be:
        raise UnsupportedModel(
            f"{label(node)}: multiplies {node.inputs['x'].type.dtype} with {weight}, which wants {wanted}"
        )
    return weight
