"""What stands behind pooling in a model made for embeddings or scores: a few matrices, once a prompt, in float64.

Made by api/, called by pooling.py. They are computed here and not by the program: a mean is of all tokens, and what
follows is one row a prompt, a hundredth of the prompt's time and less. Does not know checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from albireo.execution.pooling import scaled
from albireo.models.settings.pooling_rule import HeadActivation, PoolingRule
from albireo.params import PoolingParams, PoolingTaskName

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Linear:
    """Fields: weight: [out, in] as stored, widened; bias: [out], or zeros. residual: what is added to what it gives: of
    what comes a linear without a bias, [out, in]; or that itself; None: nothing."""

    weight: Doubles
    bias: Doubles
    activation: HeadActivation = "none"
    residual: Doubles | Literal["itself"] | None = None

    def __call__(self, x: Doubles) -> Doubles:
        # not a BLAS product: its sums depend on how many threads it has
        made = _activated(np.einsum("ij,j->i", self.weight, x) + self.bias, self.activation)
        if self.residual is None:
            return made
        return made + (x if isinstance(self.residual, str) else np.einsum("ij,j->i", self.residual, x))


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Fields: weight, bias: [E]."""

    weight: Doubles
    bias: Doubles
    eps: float

    def __call__(self, x: Doubles) -> Doubles:
        centered = x - math.fsum(x.tolist()) / len(x)
        variance = math.fsum((centered * centered).tolist()) / len(x)
        return np.asarray(centered / math.sqrt(variance + self.eps) * self.weight + self.bias)


class PooledHead:
    """Implements pooling.Ending for a model whose files say what is behind pooling."""

    def __init__(
        self,
        rule: PoolingRule,
        steps: Sequence[Linear | LayerNorm],
        token_heads: Mapping[PoolingTaskName, Linear] | None = None,
    ) -> None:
        """Args: token_heads: of each task that has one of its own."""
        self._rule, self._token_heads = rule, token_heads or {}
        self._steps = tuple(steps)

    def size(self, width: int) -> int:
        """How many values come out. Args: width: of hidden states."""
        linears = [step for step in self._steps if isinstance(step, Linear)]
        return len(linears[-1].bias) if linears else width

    def finished(self, values: Doubles, params: PoolingParams) -> Doubles:
        """An embedding: its first dimensions, of length 1 where that is the rule; or scores, made probabilities."""
        own = None if params.task is None else self._token_heads.get(params.task)
        for step in self._steps if own is None else (own,):
            values = step(values)
        if params.task == "token_classify" and own is not None:
            return values if params.use_activation is False else _activated(values, "relu")
        if self._rule.vocabulary is not None:
            values = np.log1p(np.maximum(values, 0.0))
            if self._rule.vocabulary == "log1p_twice":
                values = np.log1p(values)
        if self._rule.task == "embed":
            wanted = self._rule.normalizes if params.use_activation is None else params.use_activation
            return scaled(values[: params.dimensions], wanted)
        return values if params.use_activation is False else probabilities(values, self._rule.activation)


def probabilities(scores: Doubles, kind: str) -> Doubles:
    """What a classifier's scores mean. Args: kind: a pooling_rule.ScoreActivation."""
    if kind == "sigmoid":
        return np.asarray([_sigmoid(each) for each in scores.tolist()])
    if kind == "softmax":
        powers = np.exp(scores - scores.max())
        return np.asarray(powers / math.fsum(powers.tolist()))
    return scores


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def _activated(x: Doubles, kind: HeadActivation) -> Doubles:
    if kind == "tanh":
        return np.tanh(x)
    if kind == "relu":
        return np.maximum(x, 0.0)
    if kind == "gelu":
        return np.asarray([0.5 * each * (1.0 + math.erf(each / math.sqrt(2.0))) for each in x.tolist()])
    if kind == "silu":
        return np.asarray([each * _sigmoid(each) for each in x.tolist()])
    if kind == "sigmoid":
        return np.asarray([_sigmoid(each) for each in x.tolist()])
    return x
