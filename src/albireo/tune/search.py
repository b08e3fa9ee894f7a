"""Which of two settings is faster, on a machine that is not quiet; and the best of many, one parameter after another.

Called by session.py with functions that measure. Does not know calls, files or clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol, TypeVar

from albireo.graph.tuning import Tuning

#: What is compared: numbers of a call, or whole programs.
C = TypeVar("C", contravariant=True)

#: A change must gain this much in so many of so many rounds: else noise would decide, and every run decide otherwise.
MARGIN, WINS, ROUNDS = 0.03, 4, 5
#: Rounds in which a parameter's values are looked at, the worse half left out after each: what is not faster than the
#: present choice by half of MARGIN in one of them does not come back.
GLANCES = 3
#: A round between whose ends the machine's reading speed changed by more than this is measured again ...
STEADY = 0.8
#: ... but not more often than this in one comparison; after that it counts as lost.
MAX_REPEATS = 4


class Measure(Protocol[C]):
    """What search needs to know about the machine."""

    def seconds(self, choice: C) -> float:
        """Time with this choice, now."""
        ...

    def glance(self, choice: C) -> float:
        """The same, in less time and less surely."""
        ...

    def read_speed(self) -> float:
        """Speed of a read probe, now."""
        ...


class Space(Protocol):
    """What there is to try; see space.Point."""

    def parameters(self) -> tuple[str, ...]: ...

    def candidates(self, name: str, current: Tuning) -> Iterator[Tuning]: ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rounds of current against candidate, in turn.

    Fields:
        is_won: the candidate is faster, by the rules above.
        current_s, candidate_s: medians; spread: of the candidate's times, over their median.
    """

    is_won: bool
    current_s: float
    candidate_s: float
    spread: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found for one point.

    Fields:
        comparison: of the defaults with the choice, in the same rounds; when kept, the defaults' glances.
        tried: candidates that were looked at.
        is_complete: there was time for all of them.
    """

    tuning: Tuning
    comparison: Comparison
    tried: int
    is_complete: bool


def compare(measure: Measure[C], current: C, candidate: C) -> Comparison:
    """Measure both in each of up to so many rounds, who is first changing; ends early once the candidate cannot win."""
    times: list[tuple[float, float]] = []
    wins = repeats = 0
    speed = measure.read_speed()
    while len(times) < ROUNDS:
        ahead, before = len(times) % 2 == 1, speed
        first = measure.seconds(candidate if ahead else current)
        second = measure.seconds(current if ahead else candidate)
        speed = measure.read_speed()
        is_steady = min(before, speed) >= STEADY * max(before, speed)
        if not is_steady and repeats < MAX_REPEATS:
            repeats += 1
            continue
        current_s, candidate_s = (second, first) if ahead else (first, second)
        times.append((current_s, candidate_s))
        wins += is_steady and candidate_s <= current_s * (1 - MARGIN)
        if len(times) - wins > ROUNDS - WINS:
            break
    currents, candidates = zip(*times, strict=True)
    middle = median(candidates)
    return Comparison(
        wins >= WINS,
        median(currents),
        middle,
        (max(candidates) - min(candidates)) / middle if middle else 0,
        len(times),
    )


def search(measure: Measure[Tuning], space: Space, has_time: Callable[[], bool]) -> Outcome:
    """Look at each parameter's values beside the best so far; what is found must then beat the defaults themselves.

    Looking is quick and decides nothing: noise may carry a candidate through it, but not through the rules above.
    Args: has_time: asked before each candidate; when it says no, the search ends with what it has.
    """
    default = best = Tuning()
    tried, is_complete = 0, True
    glances: list[float] = []
    for name in space.parameters():
        candidates = list(space.candidates(name, best))
        if candidates and is_complete:
            seen: list[float] = []
            present = best
            best, looked_at = _promising(measure, present, candidates, has_time, seen)
            glances += seen if present == default else []
            tried += looked_at
            is_complete = looked_at == len(candidates)
    if best != default:
        final = compare(measure, default, best)
        if final.is_won:
            return Outcome(best, final, tried, is_complete)
    glances = glances or [measure.glance(default)]
    least, middle = min(glances), median(glances)
    spread = (max(glances) - least) / middle if middle else 0
    return Outcome(default, Comparison(False, least, least, spread, len(glances)), tried, is_complete)


def _promising(
    measure: Measure[Tuning],
    current: Tuning,
    candidates: Sequence[Tuning],
    has_time: Callable[[], bool],
    seen: list[float],
) -> tuple[Tuning, int]:
    """Successive halving: the candidate that looks clearly faster, else current; and how many were looked at.

    Args: seen: takes the times of current.
    """
    left, looked_at = {candidate: list[float]() for candidate in candidates}, 0
    for i in range(GLANCES):
        times: dict[Tuning, float] = {}
        seen.append(measure.glance(current))
        for candidate in list(left)[:: -1 if i % 2 else 1]:
            if not has_time():
                return current, looked_at
            times[candidate] = measure.glance(candidate)
            looked_at += i == 0
        seen.append(measure.glance(current))
        now = min(seen[-2:])
        for candidate, seconds in times.items():
            left[candidate].append(seconds / now)
        faster = sorted((c for c in left if left[c][-1] <= 1 - MARGIN / 2), key=lambda c: median(left[c]))
        left = {candidate: left[candidate] for candidate in faster[: -(-len(left) // 2)]}
        if not left:
            return current, looked_at
    best = min(left, key=lambda c: median(left[c]))
    return (best if median(left[best]) <= 1 - MARGIN else current), looked_at
