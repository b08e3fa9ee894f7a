"""Runs and limits -> the figures of a report, as JSON and as lines of text.

Called by latency.py and throughput.py. Every speed comes with its fraction of the limit of the device that computed, as
measured beside it; every figure over several runs with its spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any

from albireo.api.sources.overrides import said
from albireo.backends.cpu.machine import isa_levels
from albireo.bench.cost_model import CostModel
from albireo.bench.limits import Probe
from albireo.bench.machine import machine_facts
from albireo.bench.roofline import Limits, Roofline, Work
from albireo.bench.timed import Run, TimedStep
from albireo.errors import InvariantError

#: In place of a prediction.
NO_GPU_COSTS = "nothing: the cost model knows a processor's kernels, not a GPU's"


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of a figure over the runs."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values))

    def text(self, form: Callable[[float], str]) -> str:
        """The median, and the spread in brackets when there is one."""
        low, high = form(self.min), form(self.max)
        return form(self.median) if low == high else f"{form(self.median)}  ({low} to {high})"


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A run and the limits that held for it."""

    run: Run
    limits: Limits


@dataclass(frozen=True, slots=True)
class Fractions:
    """How near a run came to the machine's limit: the floor's time over the time taken.

    Fields:
        whole: of the whole run, everything outside the steps included.
        decode, prompt: of the steps in which every sequence computed one token, and of the others; None without any.
        outside_steps: fraction of the run's time that was not spent in a step: scheduling and text.
        compute_bound: fraction of the floor's time in steps that the dot product limits; the rest is reading.
    """

    whole: float
    decode: float | None
    prompt: float | None
    outside_steps: float
    compute_bound: float


@dataclass(frozen=True, slots=True)
class Yardsticks:
    """What runs are held against: the least a step can take, what the cost model says, and the limits' probe.

    costs: None on a GPU, whose kernels the cost model does not know.
    """

    roofline: Roofline
    costs: CostModel | None
    probe: Probe


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the cost model says to the steps of one run, at the limits that held for it.

    Fields:
        elapsed_s: all steps and what is between them.
        decode_step_s: the median step in which every sequence computed one token; None without any.
        whole_error, decode_error, prompt_error: predicted over measured, less one; None without such steps.
    """

    elapsed_s: float
    decode_step_s: float | None
    whole_error: float
    decode_error: float | None
    prompt_error: float | None


def predicted(measured: MeasuredRun, costs: CostModel) -> Predicted:
    """Hold the cost model against one run."""
    run = measured.run
    times = [costs.step_s(step.shape, measured.limits) for step in run.steps]
    elapsed_s = sum(times) + sum(costs.outside_s(step.shape) for step in run.steps)
    decode = [time for time, step in zip(times, run.steps, strict=True) if step.shape.is_decode]
    fractions_of = [_of_steps(run.steps, times, is_decode=is_decode) for is_decode in (True, False)]
    decode_error, prompt_error = (None if each is None else each - 1 for each in fractions_of)
    return Predicted(
        elapsed_s, median(decode) if decode else None, elapsed_s / run.elapsed_s - 1, decode_error, prompt_error
    )


def fractions(measured: MeasuredRun, roofline: Roofline) -> Fractions:
    """Hold one run against its limits."""
    run, limits = measured.run, measured.limits
    works = [roofline.work(step.shape) for step in run.steps]
    floors = [limits.floor_s(work) for work in works]
    in_steps = sum(step.seconds for step in run.steps)
    return Fractions(
        whole=sum(floors) / run.elapsed_s,
        decode=_of_steps(run.steps, floors, is_decode=True),
        prompt=_of_steps(run.steps, floors, is_decode=False),
        outside_steps=1 - in_steps / run.elapsed_s,
        compute_bound=_compute_bound(works, floors, limits),
    )


def common_figures(
    runs: Sequence[MeasuredRun], yardsticks: Yardsticks, model: str, hf_overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What both benchmarks report beside their own keys.

    Raises: InvariantError when runs of the same requests produced different tokens.
    """
    hashes = {measured.run.outputs_sha256 for measured in runs}
    if len(hashes) != 1:
        raise InvariantError(f"the same requests gave {len(hashes)} different outputs in {len(runs)} runs")
    probe = yardsticks.probe
    per_run = [fractions(measured, yardsticks.roofline) for measured in runs]
    expected = [] if yardsticks.costs is None else [predicted(measured, yardsticks.costs) for measured in runs]
    first = runs[0].run
    return {
        "time_to_first_token_s": asdict(Spread.of([median(m.run.first_token_s) for m in runs])),
        "decode_step_s": _decode_step(runs),
        "num_steps": len(first.steps),
        "num_prompt_tokens": first.num_prompt_tokens,
        "num_output_tokens": first.num_output_tokens,
        "num_cached_tokens": first.num_cached_tokens,
        # How many there are depends on what a row costs, which is measured: of all runs.
        "num_draft_tokens": sum(m.run.num_draft_tokens for m in runs),
        "num_accepted_tokens": sum(m.run.num_accepted_tokens for m in runs),
        "fraction_of_limit": {
            name: _spread([getattr(each, name) for each in per_run])
            for name in ("whole", "decode", "prompt", "outside_steps", "compute_bound")
        },
        "predicted": {
            field.name: _spread([getattr(each, field.name) for each in expected]) for field in fields(Predicted)
        }
        if expected
        else None,
        "limits": {
            "read_bytes_per_s": asdict(Spread.of([m.limits.read_bytes_per_s for m in runs])),
            "dot_flops_per_s": asdict(Spread.of([m.limits.dot_flops_per_s for m in runs])),
            "read_bytes": probe.read_bytes,
            "num_threads": probe.num_threads,
            "gpu": probe.gpu,
        },
        "model": model,
        "model_id": model,  # vLLM's name of it
        "hf_overrides": hf_overrides,
        "machine": {**asdict(machine_facts()), "isa_levels": list(isa_levels())},
        "outputs_sha256": first.outputs_sha256,
    }


def common_lines(figures: dict[str, Any]) -> list[str]:
    """The figures of common_figures() for reading."""
    limits, parts = figures["limits"], figures["fraction_of_limit"]
    first_token = Spread(**figures["time_to_first_token_s"])
    read, dot = Spread(**limits["read_bytes_per_s"]), Spread(**limits["dot_flops_per_s"])
    overrides = figures["hf_overrides"]
    lines = [] if overrides is None else [row("overrides", said(overrides))]
    lines.append(row("first token", f"{first_token.text(seconds)}{_fraction(parts['prompt'], 'prompt steps')}"))
    if figures["decode_step_s"] is not None:
        step = Spread(**figures["decode_step_s"])
        lines.append(row("decode step", f"{step.text(seconds)}{_fraction(parts['decode'], 'decode steps')}"))
    drafts, accepted = figures["num_draft_tokens"], figures["num_accepted_tokens"]
    if drafts:
        lines.append(row("drafts", f"{drafts:,}, of which {accepted:,} came true ({accepted / drafts:.0%})"))
    lines += [
        row(
            "whole run",
            f"{parts['whole']['median']:.2f} of the limit, {parts['compute_bound']['median']:.0%} of it "
            f"by dot products, the rest by reading; {parts['outside_steps']['median']:.1%} of the time outside steps",
        ),
        row("predicted", _predicted(figures["predicted"])),
        row(
            "limits",
            f"read {read.text(lambda x: f'{x / 1e9:.1f}')} GB/s of {limits['read_bytes'] / 1e6:.1f} MB, "
            f"dot {dot.text(lambda x: f'{x / 1e9:.0f}')} Gflop/s",
        ),
        row("machine", _machine(figures["machine"], limits)),
        row("outputs", f"sha256 {figures['outputs_sha256'][:16]}, the same in every run"),
    ]
    return lines


def row(name: str, text: str) -> str:
    """One line of a report."""
    return f"{name:<14}{text}"


def seconds(value: float) -> str:
    """A duration for reading."""
    return f"{value:.3f} s" if value >= 1 else _ms(value)


def _ms(value: float) -> str:
    return f"{value * 1e3:.3g} ms"


def _fraction(spread: dict[str, float] | None, what: str) -> str:
    return "" if spread is None else f"   {spread['median']:.2f} of the limit in {what}"


def _machine(machine: dict[str, Any], limits: dict[str, Any]) -> str:
    """What computed."""
    if limits["gpu"] is not None:
        return f"{limits['gpu']}, beside {machine['cpu']}"
    return f"{machine['cpu']}, {limits['num_threads']} threads, {machine['isa_levels'][0]}"


def _predicted(figures: dict[str, Any] | None) -> str:
    """What the cost model says, and by how much it is off."""
    if figures is None:
        return NO_GPU_COSTS
    parts = [f"whole {seconds(figures['elapsed_s']['median'])}, {_off(figures['whole_error'])} of measured"]
    if figures["decode_step_s"] is not None:
        step = _ms(figures["decode_step_s"]["median"])
        parts.append(f"decode step {step}, {_off(figures['decode_error'])}")
    if figures["prompt_error"] is not None:
        parts.append(f"prompt steps {_off(figures['prompt_error'])}")
    return "; ".join(parts)


def _off(error: dict[str, float]) -> str:
    return f"{error['median']:+.0%}"


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return asdict(Spread.of(known)) if known else None


def _decode_step(runs: Sequence[MeasuredRun]) -> dict[str, float] | None:
    medians = []
    for measured in runs:
        times = [step.seconds for step in measured.run.steps if step.shape.is_decode]
        if times:
            medians.append(median(times))
    return _spread(medians)


def _of_steps(steps: Sequence[TimedStep], floors: Sequence[float], *, is_decode: bool) -> float | None:
    which = [i for i, step in enumerate(steps) if step.shape.is_decode == is_decode]
    return sum(floors[i] for i in which) / sum(steps[i].seconds for i in which) if which else None


def _compute_bound(works: Sequence[Work], floors: Sequence[float], limits: Limits) -> float:
    bound = sum(floor for work, floor in zip(works, floors, strict=True) if limits.is_compute_bound(work))
    return bound / sum(floors) if floors else 0.0
