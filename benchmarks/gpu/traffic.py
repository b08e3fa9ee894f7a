"""Requests through the real engine: scheduler, blocks, steps ahead; over a model of random numbers.

Neither HTTP nor text: what `LLM` does without a tokenizer. Used by the parts that time serving, not single steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from model import BLOCK_SIZE, vocabulary
from timeline import Timeline

if TYPE_CHECKING:
    from albireo.backends.cuda.model import CudaModel
    from albireo.engine.settings import EngineSettings
    from albireo.engine.stats import EngineStats
    from albireo.speculative.proposer import Method
    from albireo.step import StepPlan, StepResult

#: Requests that wait for a seat, so that none stays empty.
_SPARE = 32


@dataclass(frozen=True)
class Shape:
    """Tokens of each request's prompt and output."""

    prompt: int
    output: int

    def __str__(self) -> str:
        return f"{self.prompt}/{self.output}"

    @property
    def longest(self) -> int:
        return self.prompt + self.output

    def seats(self, num_blocks: int, most: int) -> int:
        """Sequences that a cache of so many blocks has room for once their ages are mixed; a twentieth stays free."""
        mean = self.prompt + self.output / 2 + BLOCK_SIZE
        return max(1, min(most, int(0.95 * (num_blocks - 1) * BLOCK_SIZE / mean)))


@dataclass(frozen=True)
class Measured:
    """What steps of the engine gave. busy: share of the time in which the device had something to do."""

    seconds: float
    steps: int
    output_tokens: int
    prompt_tokens: int
    preemptions: int
    busy: float
    is_sound: bool

    @property
    def rate(self) -> float:
        """Tokens drawn a second."""
        return self.output_tokens / self.seconds

    @property
    def batch(self) -> float:
        """Tokens drawn a step."""
        return self.output_tokens / max(1, self.steps)


def settings_of(model: CudaModel, seats: int, step_tokens: int, longest: int, **more: Any) -> EngineSettings:
    """Without prefix caching: prompts are random."""
    from albireo.engine.settings import EngineSettings
    from albireo.execution.ahead import LOOKAHEAD

    return EngineSettings(
        num_blocks=model.num_blocks,
        max_model_len=longest,
        vocab_size=vocabulary(model),
        block_size=BLOCK_SIZE,
        max_num_seqs=seats,
        max_num_batched_tokens=step_tokens,
        enable_prefix_caching=False,
        lookahead=LOOKAHEAD,
        **more,
    )


@dataclass(frozen=True)
class Asked:
    """A request that comes at once. output: tokens it is to have. more: of SamplingParams; else greedy."""

    prompt: list[int]
    output: int
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Served:
    """tokens, logprobs (of the drawn tokens, where they were asked for): of each request, in order."""

    seconds: float
    tokens: list[list[int]]
    logprobs: list[list[float]]
    stats: EngineStats

    def differences(self, other: Served) -> list[str]:
        """Where another run has other tokens, or log-probabilities with other bits."""
        found = []
        for i, (ours, theirs) in enumerate(
            zip(
                zip(self.tokens, self.logprobs, strict=True),
                zip(other.tokens, other.logprobs, strict=True),
                strict=True,
            )
        ):
            if ours != theirs:
                pairs = zip(ours[0], theirs[0], strict=False)
                at = next((j for j, (a, b) in enumerate(pairs) if a != b), len(ours[0]))
                off = max((abs(a - b) for a, b in zip(ours[1], theirs[1], strict=False)), default=0.0)
                found.append(f"request {i} from token {at} of {len(ours[0])} on, log-probabilities by {off:.2g}")
        return found


def served(
    model: CudaModel,
    asked: Sequence[Asked],
    settings: EngineSettings,
    execute: Callable[[StepPlan], StepResult] | None = None,
    method: Method | None = None,
) -> Served:
    """All of them. execute: None: ahead, on the model. method: of drafts; None: what settings say. Raises: RuntimeError
    when one fails."""
    from albireo.engine.engine import Engine
    from albireo.execution.ahead import AheadRunner
    from albireo.params import SamplingParams

    if execute is None:
        execute = AheadRunner(model, settings.vocab_size, settings.block_size, settings.max_model_len).execute
    engine = Engine(settings, execute, time.perf_counter, method)
    tokens: list[list[int]] = [[] for _ in asked]
    logprobs: list[list[float]] = [[] for _ in asked]
    start = time.perf_counter()
    for i, one in enumerate(asked):
        params = {"temperature": 0.0, "ignore_eos": True, "max_tokens": one.output} | dict(one.more)
        engine.add_request(str(i), one.prompt, SamplingParams(**params))
    while engine.has_work():
        for update in engine.step():
            at = int(update.request_id)
            tokens[at] += update.token_ids
            logprobs[at] += [entry.logprobs[0] for entry in update.logprobs or []]
            if update.finish_reason not in (None, "length"):
                raise RuntimeError(f"a request ended by {update.finish_reason}: {update.stop_reason}")
    return Served(time.perf_counter() - start, tokens, logprobs, engine.stats())


class Traffic:
    """Requests of one shape without end: whoever ends is followed by another. Args: seats: sequences of a step."""

    def __init__(self, model: CudaModel, timeline: Timeline, shape: Shape, seats: int, step_tokens: int) -> None:
        from albireo.engine.engine import Engine
        from albireo.execution.ahead import AheadRunner

        settings = settings_of(model, seats, step_tokens, shape.longest)
        self._compute = AheadRunner(model, settings.vocab_size, BLOCK_SIZE, shape.longest).execute
        self._execute = _pretend
        self._engine = Engine(settings, lambda plan: self._execute(plan), lambda: 0.0)
        self._timeline, self._shape, self._vocab = timeline, shape, settings.vocab_size
        self._rng = np.random.default_rng(1)
        self._num_requests, self._seats = 0, seats
        # Seats are taken by requests of every age, as they are after a while.
        for age in self._rng.permutation(seats) * shape.output // seats:
            self._add(int(age))
        for _ in range(_SPARE):
            self._add(0)

    def fill(self) -> None:
        """Every seat is taken, and nothing was computed: the cache holds random numbers anyway."""
        self._execute = _pretend
        running, still = 0, 0
        while running < self._seats and still < 50:  # blocks may be fewer than seats
            self._step()
            running, before = self._engine.stats().num_requests_running, running
            still = 0 if running > before else still + 1

    def run(self, seconds: float, least_steps: int = 20) -> Measured:
        """Compute so long, and so many steps at least."""
        self._execute = self._compute
        before, start, tokens, steps, is_sound = self._engine.stats(), time.perf_counter(), 0, 0, True
        self._timeline.restart()
        while steps < least_steps or time.perf_counter() - start < seconds:
            drawn = self._step()
            tokens += len(drawn)
            is_sound = is_sound and min(drawn, default=0) >= 0 and max(drawn, default=0) < self._vocab
            steps += 1
        elapsed, after = time.perf_counter() - start, self._engine.stats()
        return Measured(
            elapsed,
            steps,
            tokens,
            after.prompt_tokens - before.prompt_tokens,
            after.num_preemptions - before.num_preemptions,
            self._timeline.share(),
            is_sound and after.finished["error"] == 0,
        )

    def _step(self) -> list[int]:
        """Returns: the tokens drawn."""
        drawn: list[int] = []
        for update in self._engine.step():
            drawn += update.token_ids
            if update.is_request_finished:
                self._add(0)
        return drawn

    def _add(self, age: int) -> None:
        """A request that has had `age` tokens of its output already, which are part of its prompt."""
        from albireo.params import SamplingParams

        prompt = self._rng.integers(3, self._vocab, self._shape.prompt + age).tolist()
        params = SamplingParams(temperature=0.0, max_tokens=self._shape.output - age, ignore_eos=True)
        self._engine.add_request(str(self._num_requests), prompt, params)
        self._num_requests += 1


def _pretend(plan: StepPlan) -> StepResult:
    from albireo.step import SampledToken, StepResult

    return StepResult([SampledToken(task.seq_id, 7) for work in plan.work for task in work.samples])
