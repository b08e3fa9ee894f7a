"""A program, with the place of each packed constant in the weights file, as JSON and back.

Called by api/build.py and reader.py. The program of a directory is never run: where a directory is loaded the graph is
compiled again, and what is read here tells where each constant lies and whether it is still what the compiler wants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from albireo.artifact.graph_json import present, rope_from_json, rope_to_json
from albireo.artifact.layout import sha256
from albireo.artifact.record import MAX_COUNT, Record, guarded, scalar, slopes
from albireo.dtypes import COMPUTE_DTYPES, SIZES
from albireo.encodings import ENCODINGS
from albireo.errors import Corrupt, InvariantError, short
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import SYMBOLS
from albireo.graph.program import Buffer, Call, PackedConstant, Program, StateLayout
from albireo.graph.program_checks import check_program
from albireo.graph.program_spec import FAMILIES, SPLITS

PACKINGS = (
    "rope",
    *(f"{kind}.{dtype}" for kind in ("p64", "row") for dtype in COMPUTE_DTYPES),
    *(f"p64.{name}" for name in ENCODINGS),
    *(f"row.{name}" for name in ENCODINGS),
)
#: Constants begin at multiples of this in the weights file.
ALIGN = 4096
_MAX_STATE_DIMS = 3


@dataclass(frozen=True, slots=True)
class StoredConstant:
    """A packed constant in the weights file.

    Fields:
        constant: as the program of the build has it; its definition is not kept.
        made_of: rows_digest() of its definition; empty for rotation tables.
        offset: where it begins; sha256 is of its num_bytes.
    """

    constant: PackedConstant
    made_of: str
    offset: int
    sha256: str


def rows_digest(constant: PackedConstant) -> str:
    """Which checkpoint rows a constant is made of, in which order, which of their columns, and what is done to their
    numbers, as one hash."""
    definition = constant.definition
    if definition is None:
        return ""
    rows: list[Any] = [[s.source, s.start, s.stop] for s in definition.segments]
    made_of = rows if definition.columns is None else [rows, definition.columns]
    if definition.is_altered:
        made_of = [made_of, definition.plus, definition.factor, *(["absolute"] if definition.is_absolute else [])]
    return sha256(json.dumps(made_of).encode())


def program_to_json(programs: Sequence[Program], stored: Sequence[Mapping[str, StoredConstant]]) -> dict[str, Any]:
    """Plain data: the program of rank 0, and the constants of every rank; the report is left to report.md."""
    program = programs[0]
    return {
        "arena_bytes": program.arena_bytes,
        "buffers": [_buffer(buffer) for buffer in program.buffers.values()],
        "calls": [_call(call) for call in program.calls],
        "constants": [_constant(stored[0][name]) for name in program.constants],
        "kv": _kv(program.kv),
        **({"states": [list(shape) for shape in program.states.shapes]} if program.states else {}),
        "maxima": dict(program.maxima),
        "outputs": [{"name": name, "value": buffer} for name, buffer in program.outputs.items()],
        "other_ranks": [
            {"constants": [_constant(constants[name]) for name in other.constants]}
            for other, constants in zip(programs[1:], stored[1:], strict=True)
        ],
    }


def program_from_json(data: Any, where: str) -> tuple[Program, tuple[dict[str, StoredConstant], ...]]:
    """The program of rank 0, held to program_spec.check_program, and the constants of every rank by name.

    Raises: Corrupt.
    """
    top = Record(data, where)
    stored = _read_constants(top)
    others = []
    # not written by 2.0, which knew one rank only
    for record in top.records("other_ranks") if "other_ranks" in top.keys() else ():  # noqa: SIM118
        others.append(_read_constants(record))
        record.done()
    buffers = [_read_buffer(record) for record in top.records("buffers")]
    maxima = top.record("maxima")
    program = Program(
        calls=tuple(_read_call(record) for record in top.records("calls")),
        buffers={buffer.name: buffer for buffer in buffers},
        constants={name: item.constant for name, item in stored.items()},
        kv=_read_kv(top.record("kv")),
        states=_read_states(top),
        # P is there where tokens have experts
        maxima={s: maxima.count(s, 1) for s in SYMBOLS if s != "P" or s in maxima.keys()},  # noqa: SIM118
        arena_bytes=top.count("arena_bytes"),
        outputs=top.pairs("outputs"),
    )
    maxima.done()
    top.done()
    with guarded(where):
        check_program(program)
    return program, (stored, *others)


def _read_constants(record: Record) -> dict[str, StoredConstant]:
    stored: dict[str, StoredConstant] = {}
    for each in record.records("constants"):
        item = _read_constant(each)
        if item.constant.name in stored:
            raise Corrupt(f"{each.where}: {short(item.constant.name)} appears twice")
        stored[item.constant.name] = item
    return stored


def _buffer(buffer: Buffer) -> dict[str, Any]:
    return {
        "name": buffer.name,
        "dtype": buffer.dtype,
        "rows": buffer.rows,
        "cols": buffer.cols,
        "offset": buffer.offset,
    } | ({"within": buffer.within} if buffer.within else {})


def _call(call: Call) -> dict[str, Any]:
    return {
        "family": call.family,
        "kernel": call.kernel,
        "args": dict(call.args),
        "attrs": dict(call.attrs),
        "rows": call.rows,
        "split": call.split,
        "barrier": call.barrier,
        "origin": call.origin,
    }


def _kv(kv: KVLayout) -> dict[str, Any]:
    return {
        "num_layers": kv.num_layers,
        "num_kv_heads": kv.num_kv_heads,
        "head_dim": kv.head_dim,
        "dtype": kv.dtype,
        "block_size": kv.block_size,
        **({} if kv.has_values else {"has_values": False}),
        **({"shapes": [list(shape) for shape in kv.shapes]} if kv.shapes else {}),
        **({"groups": [list(group) for group in kv.groups]} if kv.groups else {}),
        **({"windows": list(kv.windows)} if kv.windows != (None,) else {}),
        **({"in_chunks": list(kv.in_chunks)} if kv.in_chunks else {}),
        **({"keys_alone": list(kv.keys_alone)} if kv.keys_alone else {}),
        **({"every": list(kv.every)} if kv.every else {}),
    }


def _constant(item: StoredConstant) -> dict[str, Any]:
    constant = item.constant
    return {
        "name": constant.name,
        "packing": constant.packing,
        "rows": constant.rows,
        "cols": constant.cols,
        "num_bytes": constant.num_bytes,
        "rope": None if constant.rope is None else rope_to_json(constant.rope),
        "made_of": item.made_of,
        "offset": item.offset,
        "sha256": item.sha256,
    }


def _read_constant(record: Record) -> StoredConstant:
    rope = record.raw("rope")
    packing = record.choice("packing", PACKINGS)
    if (packing == "rope") != (rope is not None):
        record.fail("rope", rope, f"does not go with packing {packing}")
    constant = PackedConstant(
        name=record.text("name"),
        packing=packing,
        rows=record.count("rows", 1),
        cols=record.count("cols", 1),
        num_bytes=record.count("num_bytes", 1),
        rope=None if rope is None else rope_from_json(record.record("rope")),
    )
    offset = record.count("offset")
    if offset % ALIGN:
        record.fail("offset", offset, f"must be a multiple of {ALIGN}")
    item = StoredConstant(constant, record.text("made_of"), offset, record.digest("sha256"))
    record.done()
    return item


def _read_buffer(record: Record) -> Buffer:
    rows = record.raw("rows")
    if rows not in SYMBOLS:
        record.fail("rows", rows, f"must be one of {', '.join(SYMBOLS)}")
    buffer = Buffer(
        record.text("name"),
        record.choice("dtype", tuple(SIZES)),
        rows,
        record.count("cols", 1),
        record.count("offset"),
        record.count("within") if record.has("within") else 0,
    )
    record.done()
    return buffer


def _read_call(record: Record) -> Call:
    family = record.choice("family", tuple(FAMILIES))
    attrs = record.record("attrs")
    said: dict[str, Any] = {
        name: (slopes if name == "slopes" else scalar)(attrs.raw(name), attrs.where)
        for name in present(FAMILIES[family], attrs)
    }
    of_heads = "num_v_heads" if family == "selective_state" else "num_heads"
    if "slopes" in said and len(said["slopes"]) != said[of_heads]:
        attrs.fail("slopes", said["slopes"], f"must be one of each of {of_heads}={said[of_heads]} heads")
    call = Call(
        family=family,
        kernel=record.text("kernel"),
        args=_read_args(record, family),
        attrs=said,
        rows=record.choice("rows", SYMBOLS),
        split=record.choice("split", SPLITS),
        barrier=record.flag("barrier"),
        origin=record.text("origin"),
    )
    attrs.done()
    record.done()
    return call


def _read_args(record: Record, family: str) -> dict[str, str]:
    """Roles in the family's order, as the compiler writes them; JSON is sorted."""
    args = record.texts("args")
    roles = (*FAMILIES[family].inputs, *FAMILIES[family].outputs)
    if not args.keys() <= set(roles):
        record.fail("args", args, f"has a role that {family} does not have")
    return {role: args[role] for role in roles if role in args}


def _read_states(top: Record) -> StateLayout:
    """Shapes of what sequences keep; not written where they keep nothing, nor before 2.10."""
    shapes = top.items("states") if "states" in top.keys() else []  # noqa: SIM118
    for shape in shapes:
        is_list = isinstance(shape, list) and 0 < len(shape) <= _MAX_STATE_DIMS
        if not is_list or any(type(n) is not int or not 0 < n <= MAX_COUNT for n in shape):
            top.fail("states", shape, f"must be 1 to {_MAX_STATE_DIMS} whole numbers of at least 1")
    return StateLayout(tuple(tuple(shape) for shape in shapes))


def _read_kv(record: Record) -> KVLayout:
    kv = KVLayout(
        num_layers=(layers := record.count("num_layers")),
        num_kv_heads=record.count("num_kv_heads", min(layers, 1)),
        head_dim=record.count("head_dim", min(layers, 1)),
        dtype=record.choice("dtype", tuple(SIZES)),
        block_size=record.count("block_size", 1),
        has_values=record.flag("has_values") if record.has("has_values") else True,
        shapes=_read_shapes(record) if record.has("shapes") else (),
        groups=_read_groups(record) if record.has("groups") else (),
        windows=_read_windows(record) if record.has("windows") else (None,),
        in_chunks=_read_numbers(record, "in_chunks", "block group") if record.has("in_chunks") else (),
        keys_alone=_read_numbers(record, "keys_alone", "layer") if record.has("keys_alone") else (),
        every=_read_numbers(record, "every", "position") if record.has("every") else (),
    )
    if kv.shapes and (len(kv.shapes) != kv.num_layers or kv.shapes[0] != (kv.num_kv_heads, kv.head_dim)):
        record.fail("shapes", kv.shapes, f"must be one of each of {kv.num_layers} layers, first that of num_kv_heads")
    try:
        kv.check()
    except InvariantError as error:
        record.fail("groups", kv.groups, str(error))
    record.done()
    return kv


def _read_groups(record: Record) -> tuple[tuple[int, ...], ...]:
    """Layers of each block group; not written where there is one, nor before 2.12."""
    for group in record.items("groups"):
        if not isinstance(group, list) or any(type(n) is not int or not 0 <= n < MAX_COUNT for n in group):
            record.fail("groups", group, "must be lists of numbers of layers")
    return tuple(tuple(group) for group in record.items("groups"))


def _read_windows(record: Record) -> tuple[int | None, ...]:
    """Of each block group, how many positions a token sees; none: all."""
    for window in record.items("windows"):
        if window is not None and (type(window) is not int or not 0 < window <= MAX_COUNT):
            record.fail("windows", window, "must be a whole number of at least 1, or null")
    return tuple(record.items("windows"))


def _read_numbers(record: Record, name: str, what: str) -> tuple[int, ...]:
    """Numbers of block groups, or of layers; not written where there are none, nor before 2.24, or 2.25."""
    for number in record.items(name):
        if type(number) is not int or not 0 <= number < MAX_COUNT:
            record.fail(name, number, f"must be the number of a {what}")
    return tuple(record.items(name))


def _read_shapes(record: Record) -> tuple[tuple[int, int], ...]:
    """KV heads and head_dim of each layer."""
    for shape in record.items("shapes"):
        if not isinstance(shape, list) or len(shape) != 2 or any(type(n) is not int or n < 1 for n in shape):
            record.fail("shapes", shape, "must be two whole numbers of at least 1")
    return tuple((heads, dim) for heads, dim in record.items("shapes"))
