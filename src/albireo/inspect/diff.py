"""What differs between two builds, in few lines: layers that differ alike are one.

Called by cli/inspect. Compares plain data of two Sides; reads no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from albireo.graph.program import PackedConstant
from albireo.graph.show import totals
from albireo.inspect.call_diff import call_lines
from albireo.inspect.side import Side

_WIDTH = 14


def diff_lines(a: Side, b: Side) -> list[str]:
    """A line or more for each thing that differs, under the name of what it belongs to; none when nothing does."""
    sections: tuple[tuple[str, Callable[[Side, Side], Iterable[str]]], ...] = (
        ("created by", _created),
        ("model", lambda a, b: _fields(a.config, b.config)),
        ("options", _options),
        ("source", _sources),
        ("passes", _passes),
        ("calls", lambda a, b: call_lines(a.program, b.program)),
        ("constants", _constants),
        ("arena", _arena),
        ("totals", _totals),
        ("files", _files),
    )
    lines = []
    for name, compare in sections:
        for i, text in enumerate(compare(a, b)):
            lines.append(f"{name if i == 0 else '':<{_WIDTH}}{text}")
    return lines


def weights_are_compared(a: Side, b: Side) -> bool:
    return a.manifest is not None and b.manifest is not None


def _created(a: Side, b: Side) -> Iterator[str]:
    if a.manifest is not None and b.manifest is not None and a.manifest.version != b.manifest.version:
        yield f"albireo {a.manifest.version} -> {b.manifest.version}"


def _options(a: Side, b: Side) -> Iterator[str]:
    """Options that a build alone has are not compared with a checkpoint's."""
    shared = a.options.keys() & b.options.keys()
    if weights_are_compared(a, b):
        shared = a.options.keys() | b.options.keys()
    one, other = ({name: value for name, value in side.options.items() if name in shared} for side in (a, b))
    yield from _fields(one, other)


def _fields(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*a, *b]):
        one, other = a.get(name), b.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from (f"{name}.{text}" for text in _fields(one, other))
        elif one != other:
            yield f"{name} {_short(one)} -> {_short(other)}"


def _sources(a: Side, b: Side) -> Iterator[str]:
    """Weight files of the checkpoint, by hash where both are known, else by size."""
    for name in dict.fromkeys([*a.sources, *b.sources]):
        one, other = a.sources.get(name), b.sources.get(name)
        if one is None or other is None:
            yield f"{name} only {'in the first' if other is None else 'in the second'}"
        elif one[1] and other[1] and one[1] != other[1]:
            yield f"{name} sha256 {one[1][:12]} -> {other[1][:12]}"
        elif one[0] != other[0]:
            yield f"{name} {one[0]:,} B -> {other[0]:,} B"


def _passes(a: Side, b: Side) -> Iterator[str]:
    fired = [{record.name: record.fired for record in side.records} for side in (a, b)]
    for name in dict.fromkeys([*fired[0], *fired[1]]):
        one, other = (each.get(name) for each in fired)
        if one != other:
            before, after = ("left out" if count is None else f"fired {count:,}×" for count in (one, other))
            yield f"{name}: {before} -> {after}"


def _constants(a: Side, b: Side) -> Iterator[str]:
    one, other = a.program.constants, b.program.constants
    yield from _named("only in the first", [name for name in one if name not in other])
    yield from _named("only in the second", [name for name in other if name not in one])
    groups: dict[str, list[str]] = {}
    for name in one:
        if name in other:
            for text in _constant_changes(a, b, one[name], other[name]):
                groups.setdefault(text, []).append(name)
    for text, names in groups.items():
        yield from _named(text, names)


def _constant_changes(a: Side, b: Side, one: PackedConstant, other: PackedConstant) -> Iterator[str]:
    name = one.name
    if one.packing != other.packing:
        yield f"packing {one.packing} -> {other.packing}"
    if one.rope != other.rope:
        yield "other rotation"
    if (one.rows, one.cols) != (other.rows, other.cols):
        yield f"{one.rows} x {one.cols} -> {other.rows} x {other.cols}"
    elif a.made_of.get(name) != b.made_of.get(name):
        yield "made of other rows"
    hashes = a.hashes.get(name, ""), b.hashes.get(name, "")
    if all(hashes) and hashes[0] != hashes[1]:
        yield "other bytes (sha256)"


def _named(text: str, names: list[str]) -> Iterator[str]:
    if len(names) == 1:
        yield f"{text}: {names[0]}"
    elif names:
        yield f"{text}: {len(names)} constants, {names[0]} … {names[-1]}"


def _arena(a: Side, b: Side) -> Iterator[str]:
    one, other = a.program, b.program
    if one.arena_bytes != other.arena_bytes:
        yield f"{one.arena_bytes:,} B -> {other.arena_bytes:,} B"
    yield from (f"most rows {text}" for text in _fields(one.maxima, other.maxima))
    buffers = [{v.name: v for v in program.buffers.values()} for program in (one, other)]
    places = [name for name, v in buffers[0].items() if name in buffers[1] and v != buffers[1][name]]
    lone = [name for name in dict.fromkeys([*buffers[0], *buffers[1]]) if (name in buffers[0]) != (name in buffers[1])]
    for text, names in (("lie elsewhere or have another shape", places), ("are on one side only", lone)):
        if names:
            yield f"{len(names)} of {len(buffers[0])} buffers {text}: {', '.join(names[:8])}{', …' * (len(names) > 8)}"
    yield from (f"KV {text}" for text in _fields(_kv(a), _kv(b)))


def _kv(side: Side) -> dict[str, Any]:
    kv = side.program.kv
    heads, dims = (sorted({getattr(each, name) for each in kv.layers}) for name in ("num_kv_heads", "head_dim"))
    return {"layers": kv.num_layers, "heads": _some(heads), "head size": _some(dims), "dtype": kv.dtype}


def _some(numbers: list[int]) -> str:
    return " and ".join(map(str, numbers))


def _totals(a: Side, b: Side) -> Iterator[str]:
    one, other = totals(a.program), totals(b.program)
    for name, unit in (
        ("barriers", ""),
        ("many_barriers", ""),
        ("weight_bytes", " B"),
        ("bytes_per_token", " B"),
        ("kv_bytes_per_position", " B"),
    ):
        before, after = getattr(one, name), getattr(other, name)
        if before != after:
            yield f"{name.replace('_', ' ')} {before:,}{unit} -> {after:,}{unit} ({(after - before) / before:+.1%})"


def _files(a: Side, b: Side) -> Iterator[str]:
    """Every other file of two engine directories; what weights and program hold is told above."""
    if a.manifest is None or b.manifest is None:
        return
    one, other = a.manifest.files, b.manifest.files
    differ = [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
    if differ:
        yield f"{len(differ)} of {len({*one, *other})} differ: {', '.join(differ)}"


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    if len(text) > 60 and isinstance(value, tuple):
        return f"{len(value)} entries"
    return text if len(text) <= 60 else text[:57] + "..."
