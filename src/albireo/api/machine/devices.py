"""Which device a program runs on: what is asked for, or a GPU where one can be used.

Called by load.py. What a GPU takes is imported where one is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.api.machine.cpu_device import CpuDevice
from albireo.api.machine.device import Device
from albireo.backends.cpu.machine import isa_levels
from albireo.backends.cuda.known_gpus import KnownGpu
from albireo.config import EngineConfig


def planning_device(config: EngineConfig, gpu: KnownGpu | None = None) -> Device:
    """As open_device(), to plan for and not to run on: a GPU that is asked for need not be here.

    Args: gpu: one that is named, in place of what is here.
    """
    if gpu is None and (config.device != "cuda" or _has_gpu()):
        return open_device(config)
    from albireo.api.machine.cuda_device import AbsentGpu

    return AbsentGpu() if gpu is None else AbsentGpu(gpu.capability, gpu.memory_bytes)


def open_device(config: EngineConfig, levels: Sequence[str] | None = None) -> Device:
    """The device that config asks for; auto: a GPU that can be used, else the CPU.

    Args: levels: ISA levels to choose kernels from, which only a CPU has; None: those of this machine.
    Raises: ConfigError when a GPU is asked for and there is none that can be used.
    """
    if config.device == "cuda" or (config.device == "auto" and levels is None and _has_gpu()):
        from albireo.api.machine.cuda_device import CudaDevice

        return CudaDevice()
    return CpuDevice(tuple(isa_levels() if levels is None else levels))


def _has_gpu() -> bool:
    from albireo.backends.cuda.device import driver_version, gpu_facts

    return driver_version() is not None and gpu_facts().problem is None
