"""How long the calls of one kind take: all of them in a row, on the model's weights, as a step has them.

Called by session.py. Calls of all layers take turns, so that weights come from memory and not from a cache. Does not
know which of two times is better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from albireo.api.load import Loaded
from albireo.backends.cpu.fingerprint import cache_bytes
from albireo.backends.cpu.probe import SpeedProbe
from albireo.backends.cpu.runner import Runner
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.tuning_table import call_key
from albireo.graph.program import Call, Program
from albireo.graph.tuning import BUCKETS, CallKey, Tuning

K = TypeVar("K", bound=Hashable)

#: Bytes that the read probe reads: beyond most caches, and done in a millisecond or two.
PROBE_BYTES = 64 << 20
#: A measurement is repeated for about this long, and its fastest time counts: that of the least disturbed one. A glance
#: takes the first figure, what decides takes the second.
GLANCE_S, AIM_S, MAX_REPEATS = 0.002, 0.01, 8
#: Further layers teach nothing behind so many multiplications, some 6 to 15 ms of them, ...
ENOUGH_WORK = 3_000_000_000
#: ... or behind so many bytes of weights: several times the largest cache, and at least this.
ENOUGH_BYTES, ENOUGH_CACHES = 64 << 20, 4
#: KV positions behind a token of a decoding sequence.
CONTEXT = 256


@dataclass(frozen=True, slots=True)
class Kind:
    """Calls that differ in their weights only.

    Fields:
        rows: the symbol that counts their rows.
        weight_elements, weight_bytes: of one call.
    """

    key: CallKey
    calls: tuple[Call, ...]
    rows: str
    weight_elements: int
    weight_bytes: int

    def multiplications(self, row_counts: Sequence[int]) -> int:
        """Of one call, over steps of these rows."""
        shape = dict(self.key.shape)
        if self.key.family == "attention":
            width = 2 * int(shape["num_heads"]) * int(shape["head_dim"])
            return width * sum(rows * max(CONTEXT, rows // 2) for rows in row_counts)
        return self.weight_elements * sum(row_counts)

    def seconds(self, row_counts: Sequence[int], limits: Limits) -> float:
        """Of all calls, over steps of these rows, at the machine's limits: what a point is worth beside others."""
        dots = 2 * self.multiplications(row_counts) / limits.dot_flops_per_s
        return len(self.calls) * max(dots, len(row_counts) * self.weight_bytes / limits.read_bytes_per_s)

    def enough(self, row_counts: Sequence[int], cache: int) -> tuple[Call, ...]:
        """As many calls as there is something to learn from, two at least, from all over the model.

        Args: cache: bytes of the largest.
        """
        count = -(-ENOUGH_WORK // max(1, self.multiplications(row_counts)))
        if self.weight_bytes:
            count = min(count, -(-max(ENOUGH_BYTES, ENOUGH_CACHES * cache) // self.weight_bytes))
        count = min(len(self.calls), max(2, count))
        return tuple(self.calls[i * len(self.calls) // count] for i in range(count))


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast the machine reads and multiplies, now."""

    read_bytes_per_s: float
    dot_flops_per_s: float


def kinds(program: Program) -> list[Kind]:
    """Kinds of call that can be tuned, most weights first; of calls on T rows and on others, those on T."""
    found: dict[CallKey, list[Call]] = {}
    for call in program.calls:
        key = call_key(program, call)
        if key is not None:
            found.setdefault(key, []).append(call)
    result = []
    for key, calls in found.items():
        rows = "T" if any(call.rows == "T" for call in calls) else calls[0].rows
        mine = tuple(call for call in calls if call.rows == rows)
        weights = [program.constants[mine[0].args[role]] for role in ("weight", "v_weight") if role in mine[0].args]
        result.append(Kind(key, mine, rows, sum(w.rows * w.cols for w in weights), sum(w.num_bytes for w in weights)))
    return sorted(result, key=lambda kind: -kind.weight_elements * len(kind.calls))


def step_of(symbol: str, rows: int, loaded: Loaded) -> StepInputs:
    """A step in which `symbol` counts `rows`: up to max_num_seqs tokens decode, each in a sequence of its own; more are
    prompts. KV blocks are shared where there are too few."""
    model, config = loaded.one_rank, loaded.config
    size, limit = config.block_size, loaded.settings.max_model_len
    is_decoding = rows <= config.step_limits.max_num_seqs
    lengths = [1] * rows if is_decoding else [min(limit, rows - start) for start in range(0, rows, limit)]
    contexts = [min(CONTEXT, limit) if is_decoding else length for length in lengths]
    table = np.zeros((len(lengths), max(-(-context // size) for context in contexts)), np.int32)
    table[:] = 1 + np.arange(table.size).reshape(table.shape) % (model.num_blocks // model.program.kv.num_groups - 1)
    positions = [np.arange(c - n, c) for n, c in zip(lengths, contexts, strict=True)]
    slots = [row[p // size] * size + p % size for row, p in zip(table, positions, strict=True)]
    # S counts rows of both kinds, and of either no more than a step may have
    num_top = {"G": rows, "S": min(rows, loaded.program.maxima["G"])}.get(symbol, 0)
    num_logits = rows - num_top if symbol in ("R", "S") else 0
    return StepInputs(
        token_ids=_ints(np.zeros(rows)),
        positions=_ints(np.concatenate(positions)),
        slots=_ints(np.concatenate(slots)),
        query_start=_ints(np.cumsum([0, *lengths])),
        context_len=_ints(contexts),
        block_table=table,
        logit_rows=_ints(np.arange(num_top, num_top + num_logits)),
        top_rows=_ints(np.arange(num_top)),
        state_slots=_ints(np.arange(len(lengths))),
    )


def row_counts_of(bucket: int, most: int) -> tuple[int, ...]:
    """Row counts that stand for a bucket, when a call has at most so many; none when it never has."""
    counts = ((1,), (2, 8), (12, 24), (32, 64), (128,), (512,), (2048,))[bucket]
    least = BUCKETS[bucket][0]
    return tuple(dict.fromkeys(min(count, most) for count in counts if most >= least and min(count, most) >= least))


class _Timer(Generic[K]):
    """search.Measure for lists of calls over a few steps."""

    def __init__(self, steps: Sequence[StepInputs], probe: SpeedProbe, clock: Callable[[], float]) -> None:
        self._steps, self._probe, self._clock = steps, probe, clock
        self._taken: list[float] = []

    def ready(self, choice: K) -> Runner:
        """What runs this choice, its pages in memory."""
        raise NotImplementedError

    def seconds(self, choice: K) -> float:
        """Of the fastest of a few runs of all the calls, summed over the steps."""
        return self._fastest(choice, AIM_S)

    def glance(self, choice: K) -> float:
        """The same, in less time and less surely."""
        return self._fastest(choice, GLANCE_S)

    def read_speed(self) -> float:
        """Bytes per second of a plain read."""
        return self._probe.read()

    def _fastest(self, choice: K, aim_s: float) -> float:
        runner = self.ready(choice)
        if not self._taken:
            self._taken = [self._once(runner, step) for step in self._steps]
        total = 0.0
        for step, taken in zip(self._steps, self._taken, strict=True):
            repeats = max(1, min(MAX_REPEATS, int(aim_s / max(taken, 1e-9))))
            total += min(self._once(runner, step) for _ in range(repeats))
        return total

    def _once(self, runner: Runner, step: StepInputs) -> float:
        started = self._clock()
        runner(step)
        return self._clock() - started

    def _warm(self, runner: Runner) -> Runner:
        """The first run of a new program has its scratch put into memory, and says nothing of the others."""
        for step in self._steps:
            runner(step)
        return runner


class CallTimer(_Timer[Tuning]):
    """search.Measure for the calls of a kind at the row counts that stand for a bucket: one program, retuned."""

    def __init__(
        self, loaded: Loaded, kind: Kind, bucket: int, probe: SpeedProbe, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        row_counts = row_counts_of(bucket, loaded.program.maxima[kind.rows])
        super().__init__([step_of(kind.rows, rows, loaded) for rows in row_counts], probe, clock)
        self._runner = self._warm(loaded.one_rank.runner(kind.enough(row_counts, cache_bytes())))

    def ready(self, choice: Tuning) -> Runner:
        self._runner.retune(choice)
        return self._runner


class StepTimer(_Timer[str]):
    """search.Measure for whole steps: which of a few named programs, compiled alike, runs them faster."""

    def __init__(
        self,
        loaded: Loaded,
        programs: Mapping[str, Program],
        bucket: int,
        probe: SpeedProbe,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        steps = []
        for rows in row_counts_of(bucket, loaded.program.maxima["T"]):
            step = step_of("T", rows, loaded)
            steps.append(
                replace(step, top_rows=step.query_start[1:] - 1, top_counts=_ints(np.ones(step.num_sequences)))
            )
        super().__init__(steps, probe, clock)
        self._runners = {name: self._warm(loaded.one_rank.runner(program.calls)) for name, program in programs.items()}

    def ready(self, choice: str) -> Runner:
        return self._runners[choice]


def _ints(values: object) -> NDArray[np.int32]:
    return np.ascontiguousarray(values, np.int32)
