"""Tune one model: measure every kind of call at every bucket of rows, as far as time allows, and check whole steps.

Called by cli/tune.py, and through it by cli/build.py. Loads the model with the defaults; what is found is an Entry a
point. Does not write files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from albireo.api.load import Loaded, load
from albireo.api.machine.tuning import fingerprint
from albireo.backends.cpu.machine import kernel_revision
from albireo.backends.cpu.probe import SpeedProbe
from albireo.compiler.tuning_table import attach
from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.graph.tuning import BUCKETS, Entry, Tuning, TuningTable
from albireo.tune.measure import PROBE_BYTES, CallTimer, Kind, Limits, StepTimer, kinds, row_counts_of, step_of
from albireo.tune.search import Comparison, compare, search
from albireo.tune.space import Point

#: Part of the budget that goes into searching; the rest is for checking what was found in whole steps.
SEARCH_FRAC = 0.85
#: KV cache to measure with: enough for every step that is tried, on any model.
_KV_BYTES = 1 << 30
DEFAULTS, TUNED = "defaults", "tuned"


@dataclass(frozen=True, slots=True)
class StepCheck:
    """Whole steps at a bucket whose calls were changed.

    Fields:
        before_s, after_s: 0 where there was no time to see.
        is_dropped: steps got slower, or there was no time: the changes are undone.
    """

    bucket: int
    before_s: float
    after_s: float
    is_dropped: bool


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What one session measured.

    Fields:
        directory: of the model. table: an entry a point, kept or changed.
        num_left: points that there was no time for, or not for all there is to try; their calls go on with what they
            have.
    """

    directory: Path
    table: TuningTable
    steps: tuple[StepCheck, ...]
    num_left: int
    elapsed_s: float


def tune_model(
    model: str | None,
    *,
    budget_s: float,
    dtype: str = "auto",
    num_threads: int | None = None,
    on_point: Callable[[int, int], None] = lambda done, total: None,
    clock: Callable[[], float] = time.perf_counter,
) -> TuneResult:
    """Measure what can be tuned of a model, with the weights it has.

    Args:
        model: as for LLM: directory of either kind, hub name, None for the bundled model.
        budget_s: seconds to spend, loading aside; points that it does not suffice for are left.
        on_point: called with how many points are done, and how many there are.
    Raises: ModelError, ConfigError, OutOfMemory.
    """
    if not budget_s > 0:
        raise ConfigError(f"a budget of {budget_s} s allows no measurement; give some seconds, 60 is usual")
    config = EngineConfig(
        device="cpu",
        model=model,
        dtype=dtype,
        num_threads=num_threads,
        kv_cache_memory_bytes=_KV_BYTES,
        skip_tokenizer_init=True,
    )
    loaded = load(config, show_progress=True, is_tuned=False)
    probe = SpeedProbe(loaded.one_rank.pool, PROBE_BYTES)
    loaded.one_rank.fill_with_numbers(_blocks_touched(loaded))
    points = _points(loaded, Limits(probe.read(), probe.dot(loaded.model_config.dtype)))
    started = clock()

    def has_time() -> bool:
        return clock() - started < SEARCH_FRAC * budget_s

    entries: list[Entry] = []
    for i, (kind, point) in enumerate(points):
        on_point(i, len(points))
        if i > 0 and not has_time():
            break  # the first point is always measured: a session has something to say
        found = search(CallTimer(loaded, kind, point.bucket, probe, clock), point, has_time)
        if i == 0 or found.is_complete or found.tuning != Tuning():
            entries.append(_entry(point, found.tuning, found.comparison))
    table = TuningTable(fingerprint(num_threads), tuple(entries))
    table, steps = _check_steps(loaded, table, probe, clock, started + budget_s)
    on_point(len(points), len(points))
    return TuneResult(loaded.directory, table, steps, len(points) - len(entries), clock() - started)


def _points(loaded: Loaded, limits: Limits) -> list[tuple[Kind, Point]]:
    """What to measure: first what takes the greatest part of a step of its rows, by the machine's limits."""
    shares: list[tuple[float, Kind, Point]] = []
    for bucket in range(len(BUCKETS)):
        mine = []
        for kind in kinds(loaded.program):
            row_counts = row_counts_of(bucket, loaded.program.maxima[kind.rows])
            if row_counts:
                point = Point(kind.key, bucket, row_counts, loaded.one_rank.pool.size)
                mine.append((kind.seconds(row_counts, limits), kind, point))
        step_s = sum(seconds for seconds, _, _ in mine)
        shares += [(seconds / step_s, kind, point) for seconds, kind, point in mine]
    shares.sort(key=lambda found: -found[0])
    return [(kind, point) for _, kind, point in shares if _has_candidates(point)]


def _has_candidates(point: Point) -> bool:
    return any(True for name in point.parameters() for _ in point.candidates(name, Tuning()))


def _blocks_touched(loaded: Loaded) -> int:
    """KV blocks of all groups, from the first, that any measured step reads or writes."""
    most = 1
    for bucket in range(len(BUCKETS)):
        for rows in row_counts_of(bucket, loaded.program.maxima["T"]):
            most = max(most, 1 + int(step_of("T", rows, loaded).block_table.max()))
    return most * loaded.program.kv.num_groups


def _entry(point: Point, tuning: Tuning, comparison: Comparison) -> Entry:
    return Entry(
        key=point.key,
        revision=kernel_revision(point.key.family),
        bucket=point.bucket,
        tuning=tuning,
        before_s=comparison.current_s,
        after_s=comparison.candidate_s,
        spread=comparison.spread,
        rounds=comparison.rounds,
    )


def _check_steps(
    loaded: Loaded, table: TuningTable, probe: SpeedProbe, clock: Callable[[], float], end: float
) -> tuple[TuningTable, tuple[StepCheck, ...]]:
    """Whole steps with and without each bucket's changes, until the end.

    A bucket that makes steps slower is set back to defaults, and so is one that there is no time for.
    """
    checks = []
    for bucket in sorted({entry.bucket for entry in table.entries if entry.tuning != Tuning()}):
        check = StepCheck(bucket, 0.0, 0.0, True)
        if clock() < end:
            mine = replace(table, entries=tuple(e for e in table.entries if e.bucket == bucket))
            tuned, _ = attach(loaded.program, [mine], kernel_revision)
            timer = StepTimer(loaded, {DEFAULTS: loaded.program, TUNED: tuned}, bucket, probe, clock)
            # With the defaults as the challenger: they win only when they are clearly faster.
            result = compare(timer, TUNED, DEFAULTS)
            check = StepCheck(bucket, result.candidate_s, result.current_s, result.is_won)
        checks.append(check)
        if check.is_dropped:
            kept = tuple(
                replace(e, tuning=Tuning(), after_s=e.before_s) if e.bucket == bucket else e for e in table.entries
            )
            table = replace(table, entries=kept)
    return table, tuple(checks)
