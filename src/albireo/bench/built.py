"""What a freshly built engine directory does: one short run, and what the cost model says to it, as lines.

Called by cli/build. Does not build, and leaves the directory as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from albireo.backends.cpu.machine import isa_levels
from albireo.bench.report import seconds
from albireo.bench.short_run import measure_short
from albireo.errors import EngineError

#: One request of these lengths: a second for a model of 0.5 B parameters on two cores.
INPUT_LEN, OUTPUT_LEN = 128, 16


def speed_rows(directory: Path, levels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and text of the lines about speed; where it could not be measured, one that says why.

    Args: levels: ISA levels the directory was built for, best first.
    """
    here = isa_levels()
    if not set(levels) <= set(here):
        yield "speed", f"not measured: kernels of {levels[0]} do not run here, where the best are of {here[0]}"
        return
    try:
        speed = measure_short(directory, INPUT_LEN, OUTPUT_LEN, levels)
    except EngineError as error:
        yield "speed", f"not measured: {error}"
        return
    if levels[0] != here[0]:
        yield "predicted", f"not for {levels[0]}: the cost model knows this machine at its best, {here[0]}"
    elif speed.predicted.decode_step_s is not None:
        first, rate = speed.predicted.first_token_s, speed.predicted.decode_step_s.rate(1)
        yield (
            "predicted",
            f"first token {seconds(first.expected)} ({seconds(first.low)} to {seconds(first.high)}), "
            f"decode {rate.expected:,.1f} ({rate.low:,.1f} to {rate.high:,.1f}) tok/s",
        )
    run = speed.run
    yield (
        "measured",
        f"first token {seconds(run.first_token_s[0])}, decode {speed.decode_tokens_per_s:,.1f} tok/s   "
        f"(one request, {run.num_prompt_tokens} + {run.num_output_tokens} tokens; took {seconds(speed.took_s)})",
    )
