"""Which GPU there is, and what is wrong where there is none: said before an import fails.

Asked by api/machine/cuda_device.py and by `albireo doctor`. Does not import torch until the driver is known to be
there.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from importlib.util import find_spec

from albireo import devflags
from albireo.errors import NoGpu

#: A100; older GPUs have no bfloat16 products.
MIN_CAPABILITY = (8, 0)


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """What was found, as far as it could be looked at.

    Fields:
        driver: version of CUDA that the driver speaks, such as 12.8; None: no driver.
        torch, triton: versions; None: not installed.
        torch_cuda: version of CUDA torch was built for; None: torch computes on the CPU only.
        name, capability, memory_bytes, free_bytes: of the first GPU; None where torch cannot use one.
        problem, fix: why CUDA cannot be used, and what to do; None: it can.
    """

    driver: str | None = None
    torch: str | None = None
    triton: str | None = None
    torch_cuda: str | None = None
    name: str | None = None
    capability: tuple[int, int] | None = None
    memory_bytes: int | None = None
    free_bytes: int | None = None
    problem: str | None = None
    fix: str | None = None


def driver_version() -> str | None:
    """The newest CUDA that the NVIDIA driver runs; None where there is no driver. Loads the driver, not a context."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int(0)
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def gpu_names() -> list[str]:
    """Numbers of all GPUs here, as CUDA_VISIBLE_DEVICES names them. NVML is asked: it opens no context, and the
    variable may still be set. Empty where NVML cannot tell."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return []
    count = ctypes.c_uint(0)
    if nvml.nvmlInit_v2() != 0:
        return []
    try:
        return list(map(str, range(count.value))) if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 else []
    finally:
        nvml.nvmlShutdown()


def num_gpus() -> int:
    """That torch can use."""
    import torch

    return int(torch.cuda.device_count())


def gpu_facts() -> GpuFacts:
    """Look, in the order in which things go wrong: driver, packages, torch's build, GPU, capability, C compiler."""
    driver = driver_version()
    if driver is None:
        return GpuFacts(problem="there is no NVIDIA driver (libcuda.so.1)", fix="install the driver")
    missing = [name for name in ("torch", "triton") if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        return GpuFacts(
            driver, problem=f"{' and '.join(missing)} {verb} not installed", fix="pip install 'albireo[cuda]'"
        )
    return _with_torch(driver)


def _with_torch(driver: str) -> GpuFacts:
    import torch
    import triton

    versions = (driver, torch.__version__, triton.__version__, torch.version.cuda)
    if torch.version.cuda is None:
        return GpuFacts(
            *versions,
            problem=f"torch {torch.__version__} is a build for the CPU",
            fix=f"install torch for CUDA {driver} or older: https://pytorch.org/get-started",
        )
    if not torch.cuda.is_available():
        if devflags.cuda_visible_devices() == []:
            return GpuFacts(
                *versions,
                problem="CUDA_VISIBLE_DEVICES hides every GPU: it is empty, or begins with -1",
                fix="unset it, or name GPUs in it",
            )
        return GpuFacts(
            *versions,
            problem=f"torch for CUDA {torch.version.cuda} finds no GPU it can use; the driver is for CUDA {driver}",
            fix=f"look at CUDA_VISIBLE_DEVICES; update the driver, or install torch for CUDA {driver} or older",
        )
    capability = torch.cuda.get_device_capability(0)
    free, total = torch.cuda.mem_get_info(0)
    facts = GpuFacts(*versions, torch.cuda.get_device_name(0), capability, total, free)
    if capability < MIN_CAPABILITY:
        least = ".".join(map(str, MIN_CAPABILITY))
        return replace(
            facts,
            problem=f"{facts.name} has compute capability {capability[0]}.{capability[1]}, {least} is the least",
            fix="use an A100, RTX 30 or newer GPU",
        )
    try:
        # once on a machine Triton compiles what launches kernels, in C; what came of it is in its cache
        _ = triton.runtime.driver.active.utils
    except Exception as error:
        words = (str(error).splitlines() or [""])[0]
        return replace(
            facts,
            problem=f"Triton cannot build what launches kernels ({type(error).__name__}: {words[:200]})",
            fix="install a C compiler and Python's headers (Debian, Ubuntu: apt install gcc python3-dev)",
        )
    return facts


def require_gpu() -> GpuFacts:
    """The facts of a GPU that can be used. Raises: NoGpu saying what is wrong and what to do."""
    facts = gpu_facts()
    if facts.problem is not None:
        reason = f"{facts.problem}; {facts.fix}"
        raise NoGpu(f"device=cuda: {reason}, or use --device cpu. albireo doctor says more", reason)
    return facts
