"""What the API reports about a token: log-probabilities and ranks in the model's own distribution.

Called by sampler.py. Sees raw logits only: knows no penalty, bias, temperature or truncation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

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
    peak = float(row.max())
    if not math.isfinite(peak):
        raise InvariantError(f"{whose}: the largest of its {row.size} logits is {peak}; the model's output is damaged")
    shifted = row.astype(np.float64)
    shifted -= peak
    log_total = peak + math.log(np.exp(shifted, out=shifted).sum())
    value = float(row[token_id])
    ids, logprobs, ranks = [token_id], [value - log_total], [1 + int(np.count_nonzero(row > row[token_id]))]
    if num:
        best, best_ranks = _best(row, row.size if num < 0 else min(num, row.size))
        other = best != token_id
        ids += best[other].tolist()
        logprobs += (row[best[other]].astype(np.float64) - log_total).tolist()
        ranks += best_ranks[other].tolist()
    for other_id in dict.fromkeys(named):
        if other_id not in ids:
            ids.append(other_id)
            logprobs.append(float(row[other_id]) - log_total)
            ranks.append(1 + int(np.count_nonzero(row > row[other_id])))
    return TokenLogprobs(ids, logprobs, ranks)


def prompt_logprobs(logits: Row, targets: Sequence[int], num: int) -> list[TokenLogprobs]:
    """Log-probabilities of a prompt's own tokens: targets[i] under logits[i].

    Args: logits: [n, V] raw, n >= len(targets); rows beyond the targets are not looked at.
    Raises: InvariantError when a row is damaged.
    Cost: that of token_logprobs per target.
    """
    return [
        token_logprobs(np.ascontiguousarray(logits[i]), target, num, f"prompt row {i} (token {target} follows)")
        for i, target in enumerate(targets)
    ]


def _best(row: Row, num: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Ids of the num largest, ties by lowest id, and their ranks."""
    kth = row.size - num
    ids = np.flatnonzero(row >= np.partition(row, kth)[kth])
    ids = ids[np.argsort(-row[ids], kind="stable")][:num]
    values = row[ids]
    starts = np.concatenate(([True], values[1:] != values[:-1]))
    ranks = np.maximum.accumulate(np.where(starts, np.arange(1, num + 1), 0))
    return ids, ranks
