"""Which machine, and which versions of what."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import torch
import triton
from report import Row
from setup import Setup


def run(setup: Setup) -> Iterator[Row]:
    yield Row("python, torch, triton", note=f"{platform.python_version()}, {torch.__version__}, {triton.__version__}")
    if setup.is_dry:
        return
    found = torch.cuda.get_device_properties(setup.device)
    yield Row("GPU", note=f"{found.name}, {found.major}.{found.minor}, torch for CUDA {torch.version.cuda}")
    yield Row("multiprocessors", found.multi_processor_count)
    yield Row("memory", found.total_memory / 2**30, "GiB")
    yield Row("second-level cache", found.L2_cache_size / 2**20, "MiB")
    with open("/proc/driver/nvidia/version") as file:
        yield Row("driver", note=file.readline().strip())
