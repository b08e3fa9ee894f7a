"""What a batch of requests will cost: the steps the engine would plan for it, each at the price of the cost model.

Called by plan.py. The engine itself does the scheduling, with an execute() that computes nothing: chunks, seats and
preemption are the real ones. Does not know models, nor clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import median

from albireo.bench.cost_model import MODEL_ERROR, CostModel
from albireo.bench.roofline import Limits, StepShape, shape_of
from albireo.engine.engine import Engine
from albireo.engine.settings import EngineSettings
from albireo.image_input import ImageInput
from albireo.params import SamplingParams
from albireo.step import SampledToken, StepPlan, StepResult


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of a batch, and for each request the index of the step that gives its first token."""

    steps: list[StepShape]
    first_token_steps: list[int]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A predicted figure and its error bars: the spread of the limits, and the model's own error on top."""

    expected: float
    low: float
    high: float

    @classmethod
    def of(cls, expected: float, best: float, worst: float) -> Estimate:
        """A time, from what it is at the limits expected, the best and the worst."""
        return cls(expected, best * (1 - MODEL_ERROR), worst * (1 + MODEL_ERROR))

    def rate(self, amount: float) -> Estimate:
        """Amount a second, of a time."""
        return Estimate(amount / self.expected, amount / self.high, amount / self.low)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one batch, in seconds.

    Fields:
        first_token_s: the median of the requests, all there from the start.
        prompt_s: until the last of them has its first token.
        decode_step_s: the median of the steps after that; None without any.
    """

    elapsed_s: float
    first_token_s: float
    prompt_s: float
    decode_step_s: float | None


def figures_of(times: Sequence[float], planned: Schedule) -> Figures:
    """Args: times: of each step of the schedule, in seconds."""
    ends, num_prompt_steps = list(accumulate(times)), max(planned.first_token_steps) + 1
    return Figures(
        elapsed_s=ends[-1],
        first_token_s=median(ends[idx] for idx in planned.first_token_steps),
        prompt_s=ends[num_prompt_steps - 1],
        decode_step_s=median(times[num_prompt_steps:]) if len(times) > num_prompt_steps else None,
    )


@dataclass(frozen=True, slots=True)
class Prediction:
    """As Figures, with error bars."""

    elapsed_s: Estimate
    first_token_s: Estimate
    prompt_s: Estimate
    decode_step_s: Estimate | None


def schedule(
    settings: EngineSettings,
    lengths: Sequence[tuple[int, int]],
    params: SamplingParams,
    images: Sequence[ImageInput] = (),
) -> Schedule:
    """Let the engine plan requests that arrive together.

    Args: lengths: for each request, its prompt and output tokens. params: but for max_tokens. images: of each prompt.
    Raises: RequestError for one that is refused.
    Cost: what scheduling them for real costs; nothing is computed.
    """
    steps: list[StepShape] = []

    def execute(plan: StepPlan) -> StepResult:
        steps.append(shape_of(plan))
        return StepResult([SampledToken(task.seq_id, 0) for work in plan.work for task in work.samples])

    # Which guesses come true is not known before, nor how long a step takes.
    engine = Engine(replace(settings, speculative=None, target_step_s=0.0), execute, lambda: float(len(steps)))
    for idx, (prompt_len, output_len) in enumerate(lengths):
        own = replace(params, max_tokens=output_len, ignore_eos=True)
        # A salt of its own: prompts that are alike here are not in what is planned for.
        engine.add_request(str(idx), [0] * prompt_len, own, cache_salt=str(idx), images=images)
    first: dict[int, int] = {}
    while engine.has_work():
        for update in engine.step():
            first.setdefault(int(update.request_id), len(steps) - 1)
    return Schedule(steps, [first[idx] for idx in range(len(lengths))])


def predict(costs: CostModel, planned: Schedule, limits: Sequence[Limits]) -> Prediction:
    """Price a schedule.

    Args: limits: several measurements of them; the medians are expected, the best and the worst give the error bars.
    """
    cases = [
        figures_of([costs.step_s(step, held) + costs.outside_s(step) for step in planned.steps], planned)
        for held in cases_of(limits)
    ]
    decode_steps_s = [each.decode_step_s for each in cases if each.decode_step_s is not None]
    return Prediction(
        elapsed_s=Estimate.of(*(each.elapsed_s for each in cases)),
        first_token_s=Estimate.of(*(each.first_token_s for each in cases)),
        prompt_s=Estimate.of(*(each.prompt_s for each in cases)),
        decode_step_s=Estimate.of(*decode_steps_s) if decode_steps_s else None,
    )


def median_limits(measured: Sequence[Limits]) -> Limits:
    """What is expected of several measurements."""
    return _limits(measured, median)


def cases_of(limits: Sequence[Limits]) -> tuple[Limits, Limits, Limits]:
    """Expected, best and worst."""
    return median_limits(limits), _limits(limits, max), _limits(limits, min)


def _limits(measured: Sequence[Limits], pick: Callable[[list[float]], float]) -> Limits:
    return Limits(pick([each.read_bytes_per_s for each in measured]), pick([each.dot_flops_per_s for each in measured]))
