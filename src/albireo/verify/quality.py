"""How well one model predicts a text, and how far its distributions are from another's: any two that give logits.

Called by run.py; whoever changes weights or their type on purpose asks the same questions. Does not know engines,
kernels or types.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


class Predictor(Protocol):
    """Something that gives logits."""

    def logits(self, token_ids: Sequence[int]) -> Iterator[F32]:
        """[n, V] behind each token, in parts from the first to the last; a part may be overwritten by the next."""
        ...


@dataclass(frozen=True, slots=True)
class Quality:
    """A model beside an oracle on one text. Divergences in nats: of the oracle's distribution from the model's.

    Fields:
        num_predictions: tokens predicted, each from those before it in its window.
        perplexity, oracle_perplexity: exp of the mean of -log p(token).
        mean_kl_error: standard error of mean_kl.
        top1_agreement: fraction of predictions whose likeliest token is the oracle's.
        clear_top1_agreement: the same where the oracle's likeliest token is CLEAR times as likely as its next;
            1.0 where there is no such place. num_clear counts them.
    """

    num_predictions: int
    perplexity: float
    oracle_perplexity: float
    mean_kl: float
    mean_kl_error: float
    max_kl: float
    top1_agreement: float
    clear_top1_agreement: float
    num_clear: int


#: How many times as likely as its next a token must be, for another choice to be more than a toss between equals.
CLEAR = 1.5


@dataclass(slots=True)
class _Sums:
    """What is kept of each prediction."""

    kl: list[float]
    seen_loss: list[float]
    oracle_loss: list[float]
    is_same: list[bool]
    is_clear: list[bool]


def measure(
    seen: Predictor, oracle: Predictor, windows: Iterable[Sequence[int]], advance: Callable[[int], None]
) -> Quality:
    """Hold seen against oracle on windows of token ids, each read from its own beginning.

    Args: advance is called with the number of predictions just looked at.
    Cost: beside the two models a few milliseconds a prediction; a part of logits of each is in memory.
    """
    sums = _Sums([], [], [], [], [])
    for window in windows:
        given, targets = window[:-1], iter(window[1:])
        for ours, right in zip(_rows(seen, given), _rows(oracle, given), strict=True):
            _add(sums, ours, right, next(targets))
            advance(1)
    count = len(sums.kl)
    clear = [same for same, is_clear in zip(sums.is_same, sums.is_clear, strict=True) if is_clear]
    return Quality(
        num_predictions=count,
        perplexity=_exp_mean(sums.seen_loss),
        oracle_perplexity=_exp_mean(sums.oracle_loss),
        mean_kl=float(np.mean(sums.kl)),
        mean_kl_error=float(np.std(sums.kl) / math.sqrt(count)),
        max_kl=float(np.max(sums.kl)),
        top1_agreement=float(np.mean(sums.is_same)),
        clear_top1_agreement=float(np.mean(clear)) if clear else 1.0,
        num_clear=len(clear),
    )


def windows(token_ids: Sequence[int], length: int) -> list[Sequence[int]]:
    """A text cut into windows of length; a last one of a single token predicts nothing and is left out."""
    cut = [token_ids[start : start + length] for start in range(0, len(token_ids), length)]
    return [window for window in cut if len(window) > 1]


def _rows(model: Predictor, token_ids: Sequence[int]) -> Iterator[F32]:
    for part in model.logits(token_ids):
        yield from part


def _add(sums: _Sums, seen: F32, oracle: F32, target: int) -> None:
    """Row by row, so that what is computed stays in the cache."""
    ours, right = _log_softmax(seen), _log_softmax(oracle)
    sums.kl.append(float(np.exp(right) @ (right - ours)))
    sums.seen_loss.append(-float(ours[target]))
    sums.oracle_loss.append(-float(right[target]))
    best = int(right.argmax())
    sums.is_same.append(int(ours.argmax()) == best)
    second = float(np.partition(right, -2)[-2]) if len(right) > 1 else -math.inf
    sums.is_clear.append(float(right[best]) - second >= math.log(CLEAR))


def _log_softmax(logits: F32) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max()
    return np.asarray(wide - math.log(float(np.exp(wide).sum())), np.float64)


def _exp_mean(losses: Sequence[float]) -> float:
    mean = float(np.mean(losses))
    return math.exp(mean) if mean < 700 else math.inf
