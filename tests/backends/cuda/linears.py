"""Operands of linears, their products in float64, and how far float32 sums may be from them."""

from __future__ import annotations

import torch

from albireo.backends.cuda.kernels.parts.row_squares import RowParts

EPS = 2.0**-24
ACTS = ("none", "silu_mul", "gelu_tanh_mul")


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def interleaved(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """32 gate rows, 32 up rows, in turn; the last turn is filled with zeros."""
    half = -(-len(gate) // 32) * 32
    parts = [torch.cat([part, part.new_zeros(half - len(part), *part.shape[1:])]) for part in (gate, up)]
    turns = [part.reshape(half // 32, 32, *part.shape[1:]) for part in parts]
    return torch.cat(turns, dim=1).reshape(2 * half, *gate.shape[1:]).contiguous()


def activated(gate: torch.Tensor, up: torch.Tensor, act: str) -> torch.Tensor:
    if act == "silu_mul":
        return torch.nn.functional.silu(gate) * up
    if act == "clamped_swiglu":
        gate = gate.clamp(max=7.0)
        return (up.clamp(-7.0, 7.0) + 1) * gate * torch.sigmoid(1.702 * gate)
    return torch.nn.functional.gelu(gate, approximate="tanh") * up


def bound(x: torch.Tensor, weight: torch.Tensor, extra: int = 8) -> torch.Tensor:
    """Of sums of K products, each addition rounded to float32, and of some more roundings."""
    return (x.shape[1] + extra) * EPS * (x.double().abs() @ weight.double().abs().T)


def parts_of(gain: torch.Tensor, tokens: int) -> RowParts:
    n = len(gain)
    scaled = torch.full((tokens, n), torch.nan, dtype=torch.bfloat16)
    return RowParts(gain, scaled, torch.full((tokens, -(-n // 64)), torch.nan))
