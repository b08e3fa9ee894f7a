"""Who lives where in the arena, and when: read off a program's calls.

Called by the pictures of this room and by cli/inspect. A life begins where a call writes a buffer anew and ends with
the last call that reads it; a residual that is written in place lives on. Works on any program, also on one that was
read from an engine directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from albireo.graph.program import Program
from albireo.graph.program_spec import ALIGNMENT, FAMILIES, buffer_bytes


@dataclass(frozen=True, slots=True)
class Life:
    """A buffer's bytes offset .. offset + num_bytes, held from call first to call last, both included."""

    name: str
    family: str
    offset: int
    num_bytes: int
    first: int
    last: int

    @property
    def stop(self) -> int:
        return self.offset + self.num_bytes


@dataclass(frozen=True, slots=True)
class Arena:
    """Every life in the order in which they begin; family of a life: who writes it first.

    Fields:
        peak: bytes of the arena. lower_bound: most bytes that live during one call; no plan can need fewer.
        unshared: bytes if no two lives shared any.
    """

    lives: tuple[Life, ...]
    num_calls: int
    peak: int
    lower_bound: int
    unshared: int


def arena_map(program: Program) -> Arena:
    """Lifetimes of the activations of a program, for the largest step it is planned for."""
    lives = tuple(sorted(_lives(program), key=lambda life: (life.first, life.offset)))
    at_once = [0] * (len(program.calls) + 1)
    for life in lives:
        for time in range(life.first, life.last + 1):
            at_once[time] += _aligned(life.num_bytes)
    return Arena(
        lives, len(program.calls), program.arena_bytes, max(at_once), sum(_aligned(life.num_bytes) for life in lives)
    )


def arena_lines(program: Program) -> list[str]:
    """The map for reading: each buffer once, with all its lives where layers repeat them."""
    arena = arena_map(program)
    rows: dict[tuple[str, int, int], list[Life]] = {}
    for life in arena.lives:
        rows.setdefault((life.name, life.offset, life.num_bytes), []).append(life)
    maxima = ", ".join(f"{count:,} {symbol}" for symbol, count in program.maxima.items())
    waste = arena.peak - arena.lower_bound
    lines = [
        f"arena      {arena.peak:,} B for {maxima} rows",
        f"bound      {arena.lower_bound:,} B live during one call, so no plan needs fewer: "
        + (f"{waste:,} B above it" if waste else "the plan meets it"),
        f"sharing    without it {arena.unshared:,} B",
        "",
        f"{'buffer':<12}{'offset':>14}{'bytes':>14}  written by    lives from call to call",
    ]
    for (name, offset, size), lives in rows.items():
        lines.append(f"{name:<12}{offset:>14,}{size:>14,}  {lives[0].family:<12}  {_spans(lives)}")
    return lines


def _spans(lives: list[Life]) -> str:
    """2-3, 9-10, 16-17 and 3 more"""
    shown = ", ".join(f"{life.first}-{life.last}" for life in lives[:3])
    return (
        shown if len(lives) <= 3 else f"{shown} and {len(lives) - 3} more, the last {lives[-1].first}-{lives[-1].last}"
    )


def _lives(program: Program) -> Iterator[Life]:
    """Parts of the same rows are one, called after the first of them."""
    open_: dict[str, Life] = {}
    whole: dict[str, str] = {}
    for i, call in enumerate(program.calls):
        outputs = FAMILIES[call.family].outputs
        read = {name for role, name in call.args.items() if role not in outputs and whole.get(name, name) in open_}
        for name in sorted({whole.get(name, name) for name in read}):
            open_[name] = _until(open_[name], i)
        written = [call.args[role] for role in outputs if role in call.args]
        if written and program.buffers[written[0]].within:
            whole |= dict.fromkeys(written, written[0])
            written = written[:1]
        for name in written:
            if name in read:
                continue
            if name in open_:
                yield open_.pop(name)
            buffer = program.buffers[name]
            size = buffer_bytes(replace(buffer, cols=buffer.within or buffer.cols, within=0), program.maxima)
            open_[name] = Life(name, call.family, buffer.offset, size, i, i)
    for name, life in open_.items():
        # what the step hands out is read after the last call
        yield _until(life, len(program.calls)) if name in program.outputs.values() else life


def _until(life: Life, last: int) -> Life:
    return Life(life.name, life.family, life.offset, life.num_bytes, life.first, last)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT
