"""Two lists of calls against each other: which were added, removed or moved, and what changed in the others.

Called by diff.py. Calls are matched by family and origin; what differs alike in many layers is one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from albireo.graph.program import Call, Program
from albireo.inspect.story import layer_of

_LAYER = re.compile(r"\blayers\.\d+\.?")


def call_lines(a: Program, b: Program) -> list[str]:
    """A line a kind of change; none when the calls are the same."""
    pairs, removed, added, moved = _match(a.calls, b.calls)
    groups: dict[str, list[Call]] = {}
    for one, other in pairs:
        for text in _changes(a, b, one, other):
            groups.setdefault(text, []).append(one)
    lines = [f"{_where(calls)}: {text}" for text, calls in groups.items()]
    for verb, calls in (("gone", removed), ("new", added), ("in another place of the order", moved)):
        kinds: dict[str, list[Call]] = {}
        for call in calls:
            part = _LAYER.sub("", call.origin)
            kinds.setdefault(f"{call.family}{f' ({part})' * bool(part)}", []).append(call)
        lines += [f"{_where(each)}: {kind} {verb}" for kind, each in kinds.items()]
    if len(a.calls) != len(b.calls):
        lines.insert(0, f"{len(a.calls):,} -> {len(b.calls):,}")
    return lines


def _match(a: Sequence[Call], b: Sequence[Call]) -> tuple[list[tuple[Call, Call]], list[Call], list[Call], list[Call]]:
    """(pairs, removed, added, moved); a moved call is in pairs too."""
    keys = [[(call.family, call.origin) for call in calls] for calls in (a, b)]
    pairs: list[tuple[Call, Call]] = []
    removed: list[Call] = []
    added: list[Call] = []
    for tag, i, i_stop, j, j_stop in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes():
        if tag == "equal":
            pairs += zip(a[i:i_stop], b[j:j_stop], strict=True)
        else:
            removed += a[i:i_stop]
            added += b[j:j_stop]
    moved = []
    for call in list(removed):
        twin = next((c for c in added if (c.family, c.origin) == (call.family, call.origin)), None)
        if twin is not None:
            pairs.append((call, twin))
            moved.append(call)
            removed.remove(call)
            added.remove(twin)
    return pairs, removed, added, moved


def _changes(a: Program, b: Program, one: Call, other: Call) -> Iterator[str]:
    if one.kernel != other.kernel:
        yield f"kernel {one.kernel} -> {other.kernel}"
    for name in dict.fromkeys([*one.attrs, *other.attrs]):
        if one.attrs.get(name) != other.attrs.get(name):
            yield f"{one.family} {name} {one.attrs.get(name)} -> {other.attrs.get(name)}"
    for role in dict.fromkeys([*one.args, *other.args]):
        before, after = _argument(a, one.args.get(role)), _argument(b, other.args.get(role))
        if before != after:
            yield f"{one.family} {role} {before} -> {after}"
    if one.rows != other.rows:
        yield f"{one.family} on {one.rows} rows -> {other.rows}"
    if one.split != other.split:
        yield f"{one.family} by {one.split} -> {other.split}"
    if one.barrier != other.barrier:
        yield f"{one.family} {'barrier behind it gone' if one.barrier else 'barrier behind it new'}"


def _argument(program: Program, name: str | None) -> str:
    """What a call is given, without layer numbers. One activation is as good as another: their names change with the
    plan, and their shapes are told by the attributes."""
    if name is None:
        return "none"
    return "an activation" if name in program.buffers else _LAYER.sub("layers.*.", name)


def _where(calls: Sequence[Call]) -> str:
    """24 layers, or layer 3; and what lies outside of layers."""
    layers = sorted({layer for call in calls if (layer := layer_of(call.origin)) is not None})
    others = list(dict.fromkeys(call.origin or call.family for call in calls if layer_of(call.origin) is None))
    parts = []
    if layers:
        parts.append(f"{len(layers)} layers" if len(layers) > 1 else f"layer {layers[0]}")
    return " and ".join([*parts, *([", ".join(others)] if others else [])])
