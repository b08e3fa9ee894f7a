"""Numbers -> codes and scales on the device, bit for bit as quantization.rounding has them in numpy.

Called by constants.py where a checkpoint of numbers is loaded in fewer bits: on a GPU the time is that of the copy
there. Divisors are tensors throughout: by a number of Python's, torch multiplies with the reciprocal on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from albireo.encodings import Encoding
from albireo.quantization.encoded import SCALE_SPARE_BITS


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Encoded (quantization/encoded.py) on the device: the same fields, types and shapes."""

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None = None
    gamma: torch.Tensor | None = None
    offset: torch.Tensor | None = None


def can_round(e: Encoding) -> bool:
    """Progressive scales are searched for, by the host."""
    return e.kind in ("float", "integer")


def round_rows(numbers: torch.Tensor, e: Encoding) -> EncodedRows:
    """numbers: [N, K] float32."""
    n, k = numbers.shape
    count, size = e.num_groups(k), e.group or k
    groups = torch.nn.functional.pad(numbers, (0, count * size - k)).view(n, count, size)
    if e.kind == "float":
        return _floats(groups, k)
    return _symmetric(groups, k, e) if e.bits == 8 else _asymmetric(groups, k)


def _floats(groups: torch.Tensor, k: int) -> EncodedRows:
    scale = groups.abs().amax(dim=2) / _number(448, groups)
    codes = (groups / _divisor(scale)).clamp_(-448, 448).to(torch.float8_e4m3fn)
    return EncodedRows(_joined(codes.view(torch.uint8), k), scale)


def _symmetric(groups: torch.Tensor, k: int, e: Encoding) -> EncodedRows:
    scale = groups.abs().amax(dim=2) / _number(127, groups)
    if e.group is not None:
        scale = _storable(scale)
    codes = (groups / _divisor(scale)).round_().clamp_(-127, 127).add_(128)
    return EncodedRows(_joined(codes.to(torch.uint8), k), scale, torch.full_like(scale, 128, dtype=torch.uint8))


def _asymmetric(groups: torch.Tensor, k: int) -> EncodedRows:
    low, high = groups.amin(dim=2).clamp_(max=0), groups.amax(dim=2).clamp_(min=0)
    scale = _storable((high - low) / _number(15, groups))
    divisor = _divisor(scale)
    zero = (-low[:, :, None] / divisor).round_().clamp_(0, 15)
    codes = (groups / divisor).round_().add_(zero).clamp_(0, 15)
    return EncodedRows(_joined(codes.to(torch.uint8), k), scale, zero[:, :, 0].to(torch.uint8))


def _number(value: float, like: torch.Tensor) -> torch.Tensor:
    return torch.full((1,), value, dtype=torch.float32, device=like.device)


def _divisor(scale: torch.Tensor) -> torch.Tensor:
    """[N, groups, 1]; a group without numbers becomes zeros."""
    return torch.where(scale > 0, scale, torch.inf)[:, :, None]


def _storable(scale: torch.Tensor) -> torch.Tensor:
    """See quantization.encoded.storable_scale."""
    bits = scale.view(torch.int32)
    half = (1 << (SCALE_SPARE_BITS - 1)) - 1
    return ((bits + half + ((bits >> SCALE_SPARE_BITS) & 1)) & ~((1 << SCALE_SPARE_BITS) - 1)).view(torch.float32)


def _joined(codes: torch.Tensor, k: int) -> torch.Tensor:
    return codes.flatten(1)[:, :k]
