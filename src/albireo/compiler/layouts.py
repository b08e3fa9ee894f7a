"""Give every constant the layout its kernel reads: constants -> PackedConstants.

Called by pipeline.py after select.py. Only definitions are made here, no byte of a weight is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from albireo.backends.backend import Variant
from albireo.dtypes import itemsize
from albireo.encodings import NEST, Encoding, encoding, is_encoding
from albireo.errors import InvariantError, UnsupportedModel
from albireo.graph.node import ConstantDef, Graph, Node, RowSegment, Value
from albireo.graph.ops import RopeSpec
from albireo.graph.program import GATE_UP_INTERLEAVE, PANEL, PackedConstant, is_gated
from albireo.graph.program_spec import FAMILIES, Family
from albireo.graph.report import PassRecord

WHY = "a weight is packed once, as its kernel streams it; one read in two places is kept once"

VECTOR_PACKING = "row.float32"
#: Roles of matrices of few numbers, which lie so, too, whatever a kernel multiplies.
_OF_FEW_NUMBERS = ("distances", "a_log", "places")


@dataclass(slots=True)
class Layouts:
    """constants by name; args: node -> role -> constant name."""

    constants: dict[str, PackedConstant] = field(default_factory=dict)
    args: dict[Node, dict[str, str]] = field(default_factory=dict)


def plan_layouts(graph: Graph, kernels: Mapping[Node, Variant], max_positions: int) -> tuple[Layouts, PassRecord]:
    """A PackedConstant for each constant and packing in use; one rope table for each distinct RopeSpec."""
    record = PassRecord("plan_layouts", WHY, "exact", len(graph.nodes), len(graph.nodes))
    planner = _Planner(max_positions)
    for node in graph.nodes:
        planner.place(node, kernels[node].packing)
    layouts = planner.layouts
    record.notes += [
        f"{packing}: {count} constants, {num_bytes:,} bytes"
        for packing, count, num_bytes in _by_packing(layouts.constants)
    ]
    record.notes += [f"{value} is read by {len(roles)} kinds of call, kept once" for value, roles in planner.shared()]
    return layouts, record


class _Planner:
    """Collects layouts; the same constant asked for in the same layout is one."""

    def __init__(self, max_positions: int) -> None:
        self.layouts = Layouts()
        self._max_positions = max_positions
        self._known: dict[tuple[Value, str, bool, int], str] = {}
        self._ropes: dict[RopeSpec, str] = {}
        self._roles: dict[Value, set[str]] = {}

    def place(self, node: Node, packing: str) -> None:
        args = self.layouts.args[node] = {}
        family = FAMILIES[str(node.family)]
        gated, blocks = is_gated(node.attrs.get("act", "none")), int(node.attrs.get("num_experts", 0))
        if node.family in ("head_linear", "head_rows"):
            blocks = node.attrs["num_heads"]
        for role, value in node.inputs.items():
            if value.constant is None:
                continue
            args[role] = self._constant(value, _packing(role, value, family, packing), gated, blocks)
            self._roles.setdefault(value, set()).add(str(node.family))
        if "rope" in family.inputs and "rope" in node.attrs:
            args["rope"] = self._rope(node.attrs["rope"])

    def shared(self) -> list[tuple[Value, set[str]]]:
        """Constants that calls of several families read in one layout."""
        copies = [key[0] for key in self._known]
        return [(v, roles) for v, roles in self._roles.items() if len(roles) > 1 and copies.count(v) == 1]

    def _constant(self, value: Value, packing: str, gated: bool, blocks: int) -> str:
        key = (value, packing, gated, blocks)
        name = self._known.get(key)
        if name is None:
            name = value.name if value.name not in self.layouts.constants else f"{value.name}@{packing}"
            self._add(_packed(name, value, packing, gated, blocks))
            self._known[key] = name
        return name

    def _rope(self, spec: RopeSpec) -> str:
        name = self._ropes.get(spec)
        if name is None:
            name = self._ropes[spec] = f"rope.{len(self._ropes)}"
            cols = 2 * len(spec.inv_freq)
            num_bytes = self._max_positions * cols * itemsize("float32")
            self._add(PackedConstant(name, "rope", self._max_positions, cols, num_bytes, rope=spec))
        return name

    def _add(self, constant: PackedConstant) -> None:
        if constant.name in self.layouts.constants:
            raise InvariantError(f"two constants are named {constant.name}")
        self.layouts.constants[constant.name] = constant


def _packing(role: str, value: Value, family: Family, packing: str) -> str:
    """A kernel's packing is that of its weight; a second matrix lies alike, in a type of its own."""
    if len(value.type.dims) < 2 or role in _OF_FEW_NUMBERS:
        return VECTOR_PACKING
    return packing if role == family.weight else f"{packing.partition('.')[0]}.{value.type.dtype}"


def packed_bytes(packing: str, rows: int, cols: int) -> int:
    """Bytes of a constant in a packing: panels are padded to PANEL rows, pairs of k to an even number; rows to nothing.

    Raises: UnsupportedModel for a packing this compiler cannot size.
    """
    kind, _, dtype = packing.partition(".")
    if kind == "row" and is_encoding(dtype):
        return rows * _encoded_row_bytes(encoding(dtype), cols)
    if kind == "row":
        return rows * cols * itemsize(dtype)
    panels = -(-rows // PANEL)
    if kind == "p64" and is_encoding(dtype):
        return panels * PANEL * _encoded_bytes(encoding(dtype), cols)
    if kind == "p64":
        depth = cols + cols % 2 if dtype == "bfloat16" else cols
        return panels * PANEL * depth * itemsize(dtype)
    raise UnsupportedModel(f"packing {packing!r} is not known; choose row.<dtype> or p64.<dtype>")


def _encoded_bytes(e: Encoding, cols: int) -> int:
    """Bytes of one column of a panel, its part of heads and scales included; see csrc's encoded.h."""
    groups = e.num_groups(cols)
    if e.is_nested:
        # each byte a group, float16 numbers a nest, scales and offsets, to whole words; a unit of 32 is whole words
        parts = 2 if e.kind == "nested affine" else 1
        head = parts * (2 + NEST // (e.group or NEST))
        return e.num_nests(cols) * (-(-head // 4) * 4) + -(-cols // 32) * 4 * e.bits
    if e.kind == "progressive":
        return -(-2 * groups // 4) * 4 + groups * (e.group or 0) // 2 + 4
    if e.kind == "microscaled":
        return -(-groups // 4) * 4 + groups * (e.group or 0) // 2 + 4
    if e.kind == "float":
        return -(-(groups * e.group if e.group else cols) // 4) * 4 + 4 * groups
    if e.group is None:
        return -(-cols // 4) * 4 + 4
    return groups * (e.group * e.bits // 8 + (8 if e.kind == "affine" else 4))


def _encoded_row_bytes(e: Encoding, cols: int) -> int:
    """Bytes of one row in arrays of codes, scales, zeros and so on; see backends/cuda/matrix.py."""
    if e.is_nested:  # whole nests of codes; a byte of each group and a float16 of each nest, and as much for offsets
        parts = 2 if e.kind == "nested affine" else 1
        return e.num_nests(cols) * (NEST * e.bits // 8 + parts * (2 + NEST // (e.group or NEST)))
    groups = e.num_groups(cols)
    codes = -(-cols // 256) * 128 if e.bits == 4 else -(-cols // 128) * 128 if e.kind == "float" else cols
    if e.kind == "progressive":
        return codes + 2 * groups + 4
    if e.kind == "microscaled":
        return codes + groups + 4
    zeros = groups if e.bits == 4 and e.kind == "integer" else 0
    return codes + zeros + groups * (8 if e.kind == "affine" else 4)


def interleave(definition: ConstantDef) -> ConstantDef:
    """[gate; up] -> GATE_UP_INTERLEAVE gate rows, as many up rows, in turn; the last turn is filled with zeros."""
    half = definition.num_rows // 2
    gate = _chunks(definition.rows(0, half).segments)
    up = _chunks(definition.rows(half, 2 * half).segments)
    return ConstantDef(tuple(s for pair in zip(gate, up, strict=True) for chunk in pair for s in chunk))


def _whole_panels(definition: ConstantDef) -> ConstantDef:
    """The rows, and rows of zeros to the end of their last panel."""
    missing = -definition.num_rows % PANEL
    return replace(definition, segments=(*definition.segments, RowSegment(None, 0, missing))) if missing else definition


def _packed(name: str, value: Value, packing: str, gated: bool, blocks: int) -> PackedConstant:
    definition = value.constant
    if definition is None:
        raise InvariantError(f"{value} is not a constant")
    if blocks:
        padded = [interleave(each) if gated else _whole_panels(each) for each in definition.blocks(blocks)]
        definition = replace(definition, segments=tuple(s for block in padded for s in block.segments))
    elif gated:
        definition = interleave(definition)
    rows, cols = definition.num_rows, 1
    if len(value.type.dims) == 1:
        rows, cols = 1, rows
    else:
        cols = int(value.type.dims[1])
    return PackedConstant(name, packing, rows, cols, packed_bytes(packing, rows, cols), definition)


def _chunks(segments: Sequence[RowSegment]) -> Iterator[list[RowSegment]]:
    """The rows in runs of GATE_UP_INTERLEAVE."""
    chunk: list[RowSegment] = []
    missing = GATE_UP_INTERLEAVE
    for segment in segments:
        start = segment.start
        while start < segment.stop:
            stop = min(start + missing, segment.stop)
            chunk.append(RowSegment(segment.source, start, stop))
            missing -= stop - start
            start = stop
            if missing == 0:
                yield chunk
                chunk, missing = [], GATE_UP_INTERLEAVE
    if chunk:
        yield [*chunk, RowSegment(None, 0, missing)]


def _by_packing(constants: Mapping[str, PackedConstant]) -> list[tuple[str, int, int]]:
    groups: dict[str, list[int]] = {}
    for constant in constants.values():
        groups.setdefault(constant.packing, []).append(constant.num_bytes)
    return [(packing, len(sizes), sum(sizes)) for packing, sizes in groups.items()]
