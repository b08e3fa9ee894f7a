"""Reporting: log-probabilities and ranks of drawn tokens, and of a prompt's own, found beside the logits.

Owned by model.py. A row of logits is looked at once for the best few that any report of it wants; then each report
has its token, drawn or given. What the API promises of them is in sampling/logprobs.py, for the host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.kernels.top import top, top_workspace
from albireo.backends.cuda.kernels.top_logprobs import top_logprobs, top_logprobs_workspace
from albireo.backends.cuda.staging import Arrays, Columns
from albireo.backends.step_outputs import REFUSED
from albireo.graph.op_numbers import TOP_LOGITS
from albireo.step import SampleTask, TokenLogprobs

#: Arrays of L reports, and how many of the best each row of logits is to give.
REPORT_COLUMNS: Columns = {
    "report_rows": ("L", np.int32),
    "report_tokens": ("L", np.int32),
    "best_counts": ("R", np.int32),
}


@dataclass(frozen=True, slots=True)
class Reports:
    """What a step is asked to report.

    Fields:
        rows: of logits. tokens: that are given; -1 - i: what task i draws.
        nums: how many of the best; None: nothing, the report is there for its place alone.
    """

    rows: Sequence[int]
    tokens: Sequence[int]
    nums: Sequence[int | None]

    def write(self, arrays: Arrays) -> None:
        """Fill the arrays of a step that is being staged."""
        count = len(self.rows)
        rows, tokens, best = arrays["report_rows"], arrays["report_tokens"], arrays["best_counts"]
        rows[:count], rows[count:] = self.rows, 0
        tokens[:count], tokens[count:] = self.tokens, 0
        best[:] = 0
        for row, num in zip(self.rows, self.nums, strict=True):
            if num:
                best[row] = max(best[row], num)


NO_REPORTS = Reports((), (), ())


def reports_of(tasks: Sequence[SampleTask], rows: Sequence[int], targets: Sequence[tuple[int, int, int]]) -> Reports:
    """Of each task, where one wants any, then of each target: (row, token, how many of the best)."""
    nums = [task.params.logprobs for task in tasks]
    if not targets and all(num is None for num in nums):
        return NO_REPORTS
    drawn = [-1 - i for i in range(len(tasks))]
    own_rows, own_tokens, own_nums = zip(*targets, strict=True) if targets else ((), (), ())
    return Reports([*rows, *own_rows], [*drawn, *own_tokens], [*nums, *own_nums])


class Reporting:
    """Room for the largest step. Args: num_reports, num_rows, vocab: most reports and rows of logits, and their width.

    Fields: found: ids [rows, TOP_LOGITS], logprobs and ranks [reports, 1 + TOP_LOGITS]; see kernels/top_logprobs.py.
    """

    def __init__(self, num_reports: int, num_rows: int, vocab: int, device: torch.device) -> None:
        def room(dtype: torch.dtype, *shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.found = {
            "ids": room(torch.int32, num_rows, TOP_LOGITS),
            "logprobs": room(torch.float64, num_reports, 1 + TOP_LOGITS),
            "ranks": room(torch.int32, num_reports, 1 + TOP_LOGITS),
        }
        self._values = room(torch.float32, num_rows, TOP_LOGITS)
        num_partial, num_above = top_logprobs_workspace(num_reports, vocab)
        self._partial, self._above = room(torch.float64, num_partial), room(torch.int32, num_above)
        self._keys = room(torch.int64, top_workspace(num_rows, vocab))

    def launch(self, logits: torch.Tensor, columns: Mapping[str, torch.Tensor], drawn: torch.Tensor) -> None:
        """Args: logits: [R, V]. columns: of REPORT_COLUMNS. drawn: [D]."""
        rows = columns["report_rows"]
        num_rows, num_reports = len(logits), len(rows)
        values = self._values[:num_rows]
        top(logits, columns["best_counts"], self.found["ids"][:num_rows], values, self._keys)
        top_logprobs(
            logits,
            rows,
            columns["report_tokens"],
            drawn,
            values,
            self.found["logprobs"][:num_reports],
            self.found["ranks"][:num_reports],
            self._partial,
            self._above,
        )


def reported(
    reports: Reports,
    drawn: NDArray[np.int32],
    ids: NDArray[Any],
    logprobs: NDArray[Any],
    ranks: NDArray[Any],
) -> list[TokenLogprobs | None] | None:
    """What the API reports, from what was found: one entry a report, None for what asked for nothing, or is refused.

    Returns: None when a row is damaged: the host is to say how.
    """
    most = max(num or 0 for num in reports.nums)
    best, values, places = ids[:, :most].tolist(), logprobs[:, : most + 1].tolist(), ranks[:, : most + 1].tolist()
    found: list[TokenLogprobs | None] = []
    for i, (row, token, num) in enumerate(zip(reports.rows, reports.tokens, reports.nums, strict=True)):
        token_id = token if token >= 0 else int(drawn[-1 - token])
        if num is None or token_id == REFUSED:
            found.append(None)
            continue
        told = TokenLogprobs([token_id, *best[row][:num]], values[i][: num + 1], places[i][: num + 1])
        if token_id < 0 or math.isnan(told.logprobs[0]):
            return None
        if token_id in best[row][:num]:  # it is not told twice
            again = told.token_ids.index(token_id, 1)
            del told.token_ids[again], told.logprobs[again], told.ranks[again]
        found.append(told)
    return found
