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
from albireo.backends.cpu.model import CpuModel
from albireo.backends.cpu.probe import SpeedProbe
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.tuning_table import call_key
from albireo.graph.program import Call, Program
from albireo.graph.tuning import BUCKETS, CallKey, Tuning

K = TypeVar("K", bound=Hashable)

#: Bytes that the read probe reads: beyond most caches, and done in a millisecond or two.
PROBE_BYTES = 64 << 20
#: A measurement is repeated for about this long, and its fastest time counts: that of the least disturbed one.
AIM_S, MAX_REPEATS = 0.01, 8
#: Multiplications after which further layers teach nothing: some 20 to 50 ms, and more weights than a cache holds
#: wherever weights are what takes the time.
ENOUGH_WORK = 10_000_000_000
#: KV positions behind a token of a decoding sequence.
CONTEXT = 256


@dataclass(frozen=True, slots=True)
class Kind:
    """Calls that differ in their weights only; rows: the symbol that counts their rows."""

    key: CallKey
    calls: tuple[Call, ...]
    rows: str
    weight_elements: int

    def multiplications(self, row_counts: Sequence[int]) -> int:
        """Of one call, over steps of these rows."""
        shape = dict(self.key.shape)
        if self.key.family == "attention":
            width = 2 * int(shape["num_heads"]) * int(shape["head_dim"])
            return width * sum(rows * max(CONTEXT, rows // 2) for rows in row_counts)
        return self.weight_elements * sum(row_counts)

    def enough(self, row_counts: Sequence[int]) -> tuple[Call, ...]:
        """As many calls as ENOUGH_WORK asks for, two at least, from all over the model."""
        count = min(len(self.calls), max(2, -(-ENOUGH_WORK // max(1, self.multiplications(row_counts)))))
        return tuple(self.calls[i * len(self.calls) // count] for i in range(count))


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
        weight = program.constants.get(mine[0].args.get("weight", ""))
        result.append(Kind(key, mine, rows, weight.rows * weight.cols if weight else 0))
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
    table[:] = 1 + np.arange(table.size).reshape(table.shape) % (model.num_blocks - 1)
    positions = [np.arange(c - n, c) for n, c in zip(lengths, contexts, strict=True)]
    slots = [row[p // size] * size + p % size for row, p in zip(table, positions, strict=True)]
    out = _ints(np.arange(rows))
    none = _ints(())
    return StepInputs(
        token_ids=_ints(np.zeros(rows)),
        positions=_ints(np.concatenate(positions)),
        slots=_ints(np.concatenate(slots)),
        query_start=_ints(np.cumsum([0, *lengths])),
        context_len=_ints(contexts),
        block_table=table,
        logit_rows=out if symbol == "R" else none,
        top_rows=out if symbol in ("G", "S") else none,
    )


def row_counts_of(bucket: int, most: int) -> tuple[int, ...]:
    """Row counts that stand for a bucket, when a call has at most so many; none when it never has."""
    counts = ((1,), (2, 8), (12, 24), (32, 64), (128,), (512,), (2048,))[bucket]
    least = BUCKETS[bucket][0]
    return tuple(dict.fromkeys(min(count, most) for count in counts if most >= least and min(count, most) >= least))


class _Timer(Generic[K]):
    """search.Measure for lists of calls, one a choice, over a few steps."""

    def __init__(
        self, model: CpuModel, steps: Sequence[StepInputs], probe: SpeedProbe, clock: Callable[[], float]
    ) -> None:
        self._model, self._steps = model, steps
        self._probe, self._clock = probe, clock
        self._runners: dict[K, Callable[[StepInputs], None]] = {}
        self._repeats = [1] * len(steps)

    def calls(self, choice: K) -> Sequence[Call]:
        """What is run."""
        raise NotImplementedError

    def seconds(self, choice: K) -> float:
        """Of the fastest of a few runs of all the calls, summed over the steps."""
        runner = self._runner(choice)
        return sum(
            min(self._once(runner, step) for _ in range(repeats))
            for step, repeats in zip(self._steps, self._repeats, strict=True)
        )

    def read_speed(self) -> float:
        """Bytes per second of a plain read."""
        return self._probe.read()

    def _once(self, runner: Callable[[StepInputs], None], step: StepInputs) -> float:
        started = self._clock()
        runner(step)
        return self._clock() - started

    def _runner(self, choice: K) -> Callable[[StepInputs], None]:
        """A program of the calls; a new one runs once first, so that its scratch is in memory."""
        runner = self._runners.get(choice)
        if runner is None:
            runner = self._model.runner(self.calls(choice))
            for step in self._steps:
                runner(step)
            if not self._runners:
                taken = [self._once(runner, step) for step in self._steps]
                self._repeats = [max(1, min(MAX_REPEATS, int(AIM_S / max(s, 1e-9)))) for s in taken]
            self._runners[choice] = runner
        return runner


class CallTimer(_Timer[Tuning]):
    """search.Measure for the calls of a kind at the row counts that stand for a bucket."""

    def __init__(
        self, loaded: Loaded, kind: Kind, bucket: int, probe: SpeedProbe, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        row_counts = row_counts_of(bucket, loaded.program.maxima[kind.rows])
        super().__init__(loaded.one_rank, [step_of(kind.rows, rows, loaded) for rows in row_counts], probe, clock)
        self._calls = kind.enough(row_counts)

    def calls(self, choice: Tuning) -> Sequence[Call]:
        return [replace(call, tuning=(choice,) * len(BUCKETS)) for call in self._calls]


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
        super().__init__(loaded.one_rank, steps, probe, clock)
        self._programs = programs

    def calls(self, choice: str) -> Sequence[Call]:
        return self._programs[choice].calls


def _ints(values: object) -> NDArray[np.int32]:
    return np.ascontiguousarray(values, np.int32)
