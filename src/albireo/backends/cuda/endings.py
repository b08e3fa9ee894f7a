"""Endings: what follows the logits of a step on the device: tokens drawn, and what is told of them.

Owned by placed_program.py, which says where logits lie and when to launch. Brings drawing.py and reporting.py together
with the arrays they are told by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.buckets import DRAWS, NO_ENDING, Ending
from albireo.backends.cuda.capture import Launches
from albireo.backends.cuda.drawing import Drawing
from albireo.backends.cuda.kernels.spec_verify import spec_verify
from albireo.backends.cuda.reporting import NO_REPORTS, REPORT_COLUMNS, Reporting, Reports, reported, reports_of
from albireo.backends.cuda.sampling import TASK_COLUMNS, SamplingTensors
from albireo.backends.cuda.staging import Arrays, Columns, Staging, Tail, Writer
from albireo.backends.step_outputs import DrawnTokens
from albireo.step import SampleTask

#: Arrays of a step beside those of a StepInputs.
ENDING_COLUMNS: Columns = {**TASK_COLUMNS, **REPORT_COLUMNS}
#: Every launch that there is.
WHOLE = Ending(draws=True, changes=True, truncates=True, reports=True)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a step is to end in. Fields: write: fills ENDING_COLUMNS."""

    ending: Ending
    reports: Reports
    num_tasks: int
    write: Writer

    @property
    def counts(self) -> dict[str, int]:
        """As staging counts them."""
        return {"D": self.num_tasks, "L": len(self.reports.rows)}


class Endings:
    """Room for the largest step.

    Args: maxima: most D and L. output: the first rows of a program's output, by name. lender: of another program of the
        same model, whose steps these take turns with: what draws and reports is its, so that either finds what the
        other drew.
    """

    def __init__(
        self,
        maxima: Mapping[str, int],
        output: Callable[[str, int], torch.Tensor],
        staging: Staging,
        device: torch.device,
        lender: Endings | None = None,
    ) -> None:
        logits = output("logits", maxima["R"])
        self._output, self._staging = output, staging
        self._drawing: Drawing = lender._drawing if lender else Drawing(maxima["D"], logits.shape[1], device)
        self._reporting: Reporting = (
            lender._reporting if lender else Reporting(maxima["L"], len(logits), logits.shape[1], device)
        )

    @property
    def tokens(self) -> torch.Tensor:
        """What the last step drew, on the device."""
        return self._drawing.tokens

    @property
    def found(self) -> dict[str, torch.Tensor]:
        """All that a step may find, in its largest shape."""
        return {"tokens": self._drawing.tokens, **self._reporting.found}

    def can_draw(self, tasks: Sequence[SampleTask]) -> bool:
        """See execution.ahead.AheadDevice."""
        return self._drawing.can_draw(tasks)

    def wish(
        self,
        tasks: Sequence[SampleTask],
        rows: Sequence[int],
        targets: Sequence[tuple[int, int, int]],
        is_top: bool,
        ahead: int,
    ) -> Wish:
        """What a step is to end in.

        Args: is_top: tasks take the best token; no logits are there. ahead: tokens of each task that are drawn but not
            among its output yet. The others are those of AheadDevice.submit().
        """
        if is_top:

            def write_rows(columns: Arrays, tail: Tail) -> None:
                columns["task_rows"][: len(rows)], columns["task_rows"][len(rows) :] = rows, 0

            return Wish(DRAWS if tasks else NO_ENDING, NO_REPORTS, len(tasks), write_rows)
        arrays, reports = self._drawing.arrays, reports_of(tasks, rows, targets)
        arrays.set(tasks)

        def write(columns: Arrays, tail: Tail) -> None:
            arrays.write(columns, tail, rows, ahead)
            reports.write(columns)

        ending = Ending(bool(tasks), arrays.changes, arrays.truncates, bool(reports.rows))
        return Wish(ending, reports, len(tasks), write)

    def launches(self, sizes: Mapping[str, int], ending: Ending) -> Launches:
        """What follows the program's own launches, in steps of these sizes."""
        if not (ending.draws or ending.reports):
            return lambda: None
        columns = self._staging.tensors(sizes, ENDING_COLUMNS)
        drawing, reporting = self._drawing, self._reporting
        if not sizes["R"]:
            ids, values = self._output("top_ids", sizes["G"]), self._output("top_values", sizes["G"])
            return lambda: drawing.from_best(ids, values, columns["task_rows"])
        logits, tasks = self._output("logits", sizes["R"]), SamplingTensors.of(columns, self._staging.words)

        def end() -> None:
            if ending.draws:
                drawing.from_logits(logits, tasks, ending)
            if ending.reports:
                reporting.launch(logits, columns, drawing.tokens)

        return end

    def judge(self, sizes: Mapping[str, int], num_sequences: int) -> None:
        """Behind all launches of a step of these sizes that drew from every row: say which tokens stand.

        Not among what is recorded: a step with drafts is one of so many decoding sequences to all that is.
        """
        found = self._staging.tensors(sizes, ("token_ids", "query_start"))
        spec_verify(found["token_ids"], found["query_start"][: num_sequences + 1], self._drawing.tokens)

    def results(self, wish: Wish, num_rows: int) -> dict[str, torch.Tensor]:
        """What a step found, on the device. Args: num_rows: of logits."""
        found = {"tokens": self._drawing.tokens[: wish.num_tasks]}
        if wish.ending.reports:
            room, count = self._reporting.found, len(wish.reports.rows)
            found |= {"ids": room["ids"][:num_rows], "logprobs": room["logprobs"][:count]}
            found["ranks"] = room["ranks"][:count]
        return found

    @staticmethod
    def told(reports: Reports, found: Mapping[str, NDArray[Any]]) -> DrawnTokens:
        """The same on the host, as it is to be told."""
        tokens: NDArray[np.int32] = found["tokens"]
        is_sound = not (tokens == -1).any()
        if not (is_sound and reports.rows):
            return DrawnTokens(tokens, is_sound)
        told = reported(reports, tokens, found["ids"], found["logprobs"], found["ranks"])
        if told is None:
            return DrawnTokens(tokens, is_sound=False)
        return DrawnTokens(
            tokens, True, told[: len(tokens)], [each for each in told[len(tokens) :] if each is not None]
        )
