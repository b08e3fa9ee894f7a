"""Which machine, and which versions of what."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import torch
import triton
from report import Row
from setup import Setup


def run(setup: Setup) -> Iterator[Row]:
    from albireo.backends.cuda.device import driver_version

    yield Row("python, torch, triton", note=f"{platform.python_version()}, {torch.__version__}, {triton.__version__}")
    if setup.is_dry:
        return
    found = torch.cuda.get_device_properties(setup.device)
    yield Row("GPU", note=f"{found.name}, {found.major}.{found.minor}, torch for CUDA {torch.version.cuda}")
    yield Row("multiprocessors", found.multi_processor_count)
    yield Row("memory", found.total_memory / 2**30, "GiB")
    yield Row("second-level cache", found.L2_cache_size / 2**20, "MiB")
    # some containers have not that file
    version = Path("/proc/driver/nvidia/version")
    yield Row(
        "driver", note=version.read_text().partition("\n")[0] if version.exists() else f"for CUDA {driver_version()}"
    )
