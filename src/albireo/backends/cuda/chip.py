"""Chip: what a plan of a launch needs to know of a GPU.

Called by plans of linears and attention, and by benchmarks. Does not know tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

#: Compute capabilities whose programs have 99 KiB of shared memory: consumer cards and those made of the same chips
#: (8.6, 8.9, 12.x). Others have 163 KiB (8.0, 8.7) or 227 KiB.
_SMALL = (86, 89, 120, 121)


@dataclass(frozen=True, slots=True)
class Chip:
    """multiprocessors: any small number where there is no GPU. capability: 90 is 9.0."""

    multiprocessors: int
    capability: int = 90

    @property
    def has_little_shared_memory(self) -> bool:
        """99 KiB a program, which two share."""
        return self.capability in _SMALL

    @property
    def shared_bytes(self) -> int:
        """Of shared memory that a program may have."""
        if self.has_little_shared_memory:
            return 99 << 10
        return (163 if self.capability < 90 else 227) << 10

    @property
    def has_tma(self) -> bool:
        """And shared memory for tiles that come by it."""
        return self.capability >= 90 and not self.has_little_shared_memory

    @property
    def has_wgmma(self) -> bool:
        """Hopper: warps multiply what they have in registers."""
        return self.capability // 10 == 9

    @property
    def has_tcgen05(self) -> bool:
        """Blackwell of data centers."""
        return self.capability // 10 in (10, 11)


class Absent:
    """What any device that is no GPU is taken for: one of Hopper with few multiprocessors, for kernels that are
    interpreted; see absent_gpu.py for another."""

    chip = Chip(4)


def chip_of(device: torch.device) -> Chip:
    """Of a GPU, or what stands for one."""
    return _chip_of(device) if device.type == "cuda" else Absent.chip


def first_chip() -> Chip:
    """Of the GPU that is used."""
    return _chip_of(torch.device("cuda", 0))


@lru_cache
def _chip_of(device: torch.device) -> Chip:
    found = torch.cuda.get_device_properties(device)
    return Chip(int(found.multi_processor_count), 10 * found.major + found.minor)
