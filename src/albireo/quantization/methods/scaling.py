"""Scales of inputs: divide an input channel by s and multiply its weights by s, so that what is rounded rounds better.

SmoothQuant (Xiao et al. 2022) evens out inputs that are rounded token by token; AWQ (Lin et al. 2023) gives channels
with large inputs finer steps. Both are a power of the inputs' sizes; which one, is searched on outputs. Called by
compress/, for all linears that read one input. Where s is folded to is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from albireo.quantization.encoded import F32
from albireo.quantization.rounding import round_tokens

#: Rounds weights [N, K] and gives the numbers they became.
Rounder = Callable[[F32], F32]
_STEPS = 20
#: Scales beyond this are cut: a channel that is hardly used must not swallow the range of the others.
_LARGEST = np.float32(1e4)


@dataclass(frozen=True, slots=True)
class Scaled:
    """What a search found.

    Fields:
        scales: [K]; ones where nothing is better.
        alpha: the power, None where nothing is better.
        error, plain_error: squared distance of outputs with it and without.
    """

    scales: F32
    alpha: float | None
    error: float
    plain_error: float


def smoothquant_scales(input_max: F32, weight_max: F32, alpha: float) -> F32:
    """[K] max|x|^alpha / max|w|^(1 - alpha)."""
    return _normalized(_floored(input_max) ** alpha / _floored(weight_max) ** (1 - alpha))


def awq_scales(input_mean: F32, alpha: float) -> F32:
    """[K] mean|x|^alpha."""
    return _normalized(_floored(input_mean) ** alpha)


def smoothquant_candidates(input_max: F32, weights: Sequence[F32]) -> Iterator[tuple[float, F32]]:
    weight_max = np.max([np.abs(weight).max(axis=0) for weight in weights], axis=0)
    for step in range(1, _STEPS):
        yield step / _STEPS, smoothquant_scales(input_max, weight_max, step / _STEPS)


def awq_candidates(input_mean: F32) -> Iterator[tuple[float, F32]]:
    for step in range(1, _STEPS + 1):
        yield step / _STEPS, awq_scales(input_mean, step / _STEPS)


def search_scales(
    inputs: F32,
    weights: Sequence[F32],
    candidates: Iterator[tuple[float, F32]],
    round_weight: Rounder,
    are_inputs_rounded: bool,
    snap: Callable[[F32], F32],
) -> Scaled:
    """The candidate with which the outputs of all weights together change least.

    Args:
        inputs: [M, K] rows seen in calibration.
        weights: [N, K] of each linear that reads them.
        are_inputs_rounded: to int8, token by token, as at run time.
        snap: makes scales of scales that the place they are folded into can hold exactly.
    Cost: for each candidate a rounding of all weights and M * N * K multiplications.
    """
    wanted = [inputs @ weight.T for weight in weights]

    def error(scales: F32 | None) -> float:
        x = inputs if scales is None else inputs / scales
        if are_inputs_rounded:
            q, token_scale = round_tokens(x)
            x = q * token_scale
        total = 0.0
        for weight, right in zip(weights, wanted, strict=True):
            seen = x @ round_weight(weight if scales is None else weight * scales).T
            total += float(np.sum((seen - right) ** 2, dtype=np.float64))
        return total

    plain = error(None)
    best = Scaled(np.ones(inputs.shape[1], np.float32), None, plain, plain)
    for alpha, scales in candidates:
        snapped = snap(scales)
        found = error(snapped)
        if found < best.error:
            best = Scaled(snapped, alpha, found, plain)
    return best


def _floored(x: F32) -> F32:
    return np.maximum(x, np.float32(1e-5) * max(float(x.max(initial=0)), 1e-30)).astype(np.float32)


def _normalized(scales: F32) -> F32:
    """Their geometric middle of smallest and largest is 1."""
    middle = np.sqrt(scales.max() * scales.min())
    return np.asarray(np.clip(scales / middle, 1 / _LARGEST, _LARGEST), np.float32)
