"""Tune one model: measure every kind of call at every bucket of rows, as far as time allows, and check whole steps.

Called by cli/tune.py and cli/build.py. Loads the model with the defaults; what is found is an Entry a point. Does not
write files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from albireo.api.load import Loaded, load
from albireo.api.tuning import fingerprint
from albireo.backends.cpu.machine import kernel_revision
from albireo.backends.cpu.probe import SpeedProbe
from albireo.compiler.tuning_table import attach
from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.graph.tuning import Entry, Tuning, TuningTable
from albireo.tune.measure import PROBE_BYTES, CallTimer, Kind, StepTimer, kinds, row_counts_of, step_of
from albireo.tune.search import Comparison, compare, search
from albireo.tune.space import Point

#: Buckets in the order they are measured: a single stream, a few streams, long prompts, then what lies between.
BUCKET_ORDER = (0, 2, 1, 6, 5, 3, 4)
#: Part of the budget that goes into searching; the rest is for checking what was found in whole steps.
SEARCH_FRAC = 0.85
#: KV cache to measure with: enough for every step that is tried, on any model.
_KV_BYTES = 1 << 30
DEFAULTS, TUNED = "defaults", "tuned"


@dataclass(frozen=True, slots=True)
class StepCheck:
    """Whole steps at a bucket whose calls were changed. is_dropped: they got slower, so its changes are undone."""

    bucket: int
    before_s: float
    after_s: float
    is_dropped: bool


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What one session measured.

    Fields:
        directory: of the model. table: an entry a point, kept or changed.
        num_left: points that there was no time for; their calls go on with what they have.
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
    points = _points(loaded)
    started = clock()
    entries: list[Entry] = []
    for i, (kind, point) in enumerate(points):
        on_point(i, len(points))
        if i > 0 and clock() - started > SEARCH_FRAC * budget_s:
            break  # the first point is always measured: a session has something to say
        timer = CallTimer(loaded, kind, point.bucket, probe, clock)
        found = search(timer, point, lambda: clock() - started < SEARCH_FRAC * budget_s)
        entries.append(_entry(point, found.tuning, found.comparison))
    table = TuningTable(fingerprint(num_threads), tuple(entries))
    table, steps = _check_steps(loaded, table, probe, clock)
    on_point(len(points), len(points))
    return TuneResult(loaded.directory, table, steps, len(points) - len(entries), clock() - started)


def _points(loaded: Loaded) -> list[tuple[Kind, Point]]:
    found = []
    for bucket in BUCKET_ORDER:
        for kind in kinds(loaded.program):
            row_counts = row_counts_of(bucket, loaded.program.maxima[kind.rows])
            if row_counts:
                found.append((kind, Point(kind.key, bucket, row_counts, loaded.one_rank.pool.size)))
    return [pair for pair in found if _has_candidates(pair[1])]


def _has_candidates(point: Point) -> bool:
    return any(True for name in point.parameters() for _ in point.candidates(name, Tuning()))


def _blocks_touched(loaded: Loaded) -> int:
    """KV blocks, from the first, that any measured step reads or writes."""
    most = 1
    for bucket in BUCKET_ORDER:
        for rows in row_counts_of(bucket, loaded.program.maxima["T"]):
            most = max(most, 1 + int(step_of("T", rows, loaded).block_table.max()))
    return most


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
    loaded: Loaded, table: TuningTable, probe: SpeedProbe, clock: Callable[[], float]
) -> tuple[TuningTable, tuple[StepCheck, ...]]:
    """Whole steps with and without each bucket's changes. A bucket that makes steps slower is set back to defaults."""
    checks = []
    for bucket in sorted({entry.bucket for entry in table.entries if entry.tuning != Tuning()}):
        mine = replace(table, entries=tuple(e for e in table.entries if e.bucket == bucket))
        tuned, _ = attach(loaded.program, [mine], kernel_revision)
        timer = StepTimer(loaded, {DEFAULTS: loaded.program, TUNED: tuned}, bucket, probe, clock)
        # With the defaults as the challenger: they win only when they are clearly faster.
        result = compare(timer, TUNED, DEFAULTS)
        checks.append(StepCheck(bucket, result.candidate_s, result.current_s, result.is_won))
        if result.is_won:
            kept = tuple(
                replace(e, tuning=Tuning(), after_s=e.before_s) if e.bucket == bucket else e for e in table.entries
            )
            table = replace(table, entries=kept)
    return table, tuple(checks)
