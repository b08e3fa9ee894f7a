"""What the API reports about a token: log-probabilities and ranks in the model's own distribution.

Called by sampler.py. Sees raw logits only: knows no penalty, bias, temperature or truncation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from albireo.backends.cpu.machine import ThreadPool
from albireo.backends.cpu.rows import log_rows
from albireo.errors import InvariantError
from albireo.step import TokenLogprobs

Row = npt.NDArray[np.float32]


def token_logprobs(row: Row, token_id: int, num: int, whose: str, named: Sequence[int] = ()) -> TokenLogprobs:
    """The chosen token first, then the num best, then those that are named (none is repeated).

    Args:
        row: [V] raw logits; not written to. num: 0 the chosen token only; -1 all. named: ids of others.
        whose: for the message if the row is damaged, e.g. "sequence 7".
    Returns: values in nats; rank = 1 + number of tokens with a larger logit, so equal ones share a rank; among
        equal ones the lowest id comes first.
    Raises: InvariantError when the row holds NaN or +inf, or nothing above -inf.
    Cost: O(V), and sorting num entries.
    """
    peak = _peak(row, whose)
    tokens = [token_id, *dict.fromkeys(named)]
    count = row.size if num < 0 else min(num, row.size)
    totals, best, above = log_rows([np.ascontiguousarray(row)], [peak], np.array([tokens], np.int32), count)
    return _entry(row, tokens, float(totals[0]), best[0], above[0])


def prompt_logprobs(
    logits: Row, targets: Sequence[int], num: int, threads: ThreadPool | None = None
) -> list[TokenLogprobs]:
    """Log-probabilities of a prompt's own tokens: targets[i] under logits[i].

    Args: logits: [n, V] raw, n >= len(targets); rows beyond the targets are not looked at. threads: None: this one.
    Raises: InvariantError when a row is damaged.
    Cost: that of token_logprobs per target.
    """
    if not targets:
        return []
    rows = [np.ascontiguousarray(logits[i]) for i in range(len(targets))]
    whose = (f"prompt row {i} (token {target} follows)" for i, target in enumerate(targets))
    peaks = [_peak(row, name) for row, name in zip(rows, whose, strict=True)]
    count = logits.shape[1] if num < 0 else min(num, logits.shape[1])
    named = np.array(targets, np.int32).reshape(-1, 1)
    totals, best, above = log_rows(rows, peaks, named, count, threads)
    each = zip(rows, targets, totals.tolist(), best, above, strict=True)
    return [_entry(row, [target], total, its_best, its_above) for row, target, total, its_best, its_above in each]


def _peak(row: Row, whose: str) -> float:
    peak = float(row.max())
    if not math.isfinite(peak):
        raise InvariantError(f"{whose}: the largest of its {row.size} logits is {peak}; the model's output is damaged")
    return peak


def _entry(
    row: Row, tokens: Sequence[int], total: float, best: npt.NDArray[np.int32], above: npt.NDArray[np.int64]
) -> TokenLogprobs:
    """Args: tokens: the chosen one, then those that are named. above: how many logits are larger than theirs."""
    values = row[best]
    starts = np.concatenate(([True], values[1:] != values[:-1])) if best.size else np.zeros(0, bool)
    ranks = np.maximum.accumulate(np.where(starts, np.arange(1, best.size + 1), 0))
    found = {tokens[0]: 1 + int(above[0])} | dict(zip(best.tolist(), ranks.tolist(), strict=True))
    found |= {token: 1 + int(count) for token, count in zip(tokens, above.tolist(), strict=True)}
    ids = list(found)
    logprobs = row[ids].astype(np.float64) - total
    return TokenLogprobs(ids, logprobs.tolist(), list(found.values()))
