"""GPUs as they are sold, to plan for one that is not here: numbers of NVIDIA's data sheets, memory as its driver tells
it.

Called by api/machine/devices.py and bench/. Nothing here was measured. Does not know kernels.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownGpu:
    """One GPU.

    Fields:
        capability: 90 is 9.0.
        mebibytes: of its memory.
        gigabytes_per_s: 10^9 bytes of it that can be read.
        teraflops: 10^12 operations of dense products of 16 bits, summed in float32.
        float32_teraflops: of float32 outside of the matrix units.
    """

    name: str
    capability: int
    mebibytes: int
    gigabytes_per_s: float
    teraflops: float
    float32_teraflops: float

    @property
    def memory_bytes(self) -> int:
        """Of its memory."""
        return self.mebibytes << 20

    def flops_per_s(self, dtype: str) -> float:
        """Of products of a compute type."""
        return 1e12 * (self.float32_teraflops if dtype == "float32" else self.teraflops)


_ALL = (
    KnownGpu("a100-40gb", 80, 40_960, 1_555, 312, 19.5),
    KnownGpu("a100-80gb", 80, 81_920, 2_039, 312, 19.5),
    KnownGpu("a30", 80, 24_576, 933, 165, 10.3),
    KnownGpu("a10", 86, 23_028, 600, 125, 31.2),
    KnownGpu("rtx3090", 86, 24_576, 936, 71, 35.6),
    KnownGpu("l4", 89, 23_034, 300, 121, 30.3),
    KnownGpu("l40s", 89, 46_068, 864, 362, 91.6),
    KnownGpu("rtx4090", 89, 24_564, 1_008, 165, 82.6),
    KnownGpu("h100", 90, 81_559, 3_350, 989, 67),
    KnownGpu("h100-pcie", 90, 81_559, 2_000, 756, 51),
    KnownGpu("h200", 90, 143_771, 4_800, 989, 67),
    KnownGpu("b200", 100, 183_359, 8_000, 2_250, 80),
    KnownGpu("rtx5090", 120, 32_607, 1_792, 209, 104.8),
)
#: By the name that one asks for.
KNOWN_GPUS = {gpu.name: gpu for gpu in _ALL}
