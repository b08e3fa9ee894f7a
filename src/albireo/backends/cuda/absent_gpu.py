"""A GPU that is not there, as Triton sees one: what is launched is compiled for it, loaded nowhere, and runs nowhere.

Used in processes of their own, compile_ahead.py's and tests', where kernels are not interpreted: a model on CPU tensors
then launches all that it would launch on a GPU, with the very arguments, and what becomes of it is what a GPU would
load.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver as nvidia

from albireo.backends.cuda.chip import Absent, Chip

_WARP = 32
_MOST_THREADS = 1024


@dataclass(frozen=True, slots=True)
class Loaded:
    """A kernel that was launched for the first time. Fields: shared: bytes a program. num_bytes: of machine code."""

    name: str
    shared: int
    num_bytes: int


class AbsentGpu:
    """What Triton asks of a driver. Fields: loaded: every kernel so far; num_launches: of all of them."""

    def __init__(self, chip: Chip) -> None:
        self.loaded: list[Loaded] = []
        self.num_launches = 0
        self.utils = self
        self._chip = chip

    @classmethod
    def take(cls, chip: Chip) -> AbsentGpu:
        """Launch for such a GPU from now on, until the process ends.

        Raises: RuntimeError where kernels are interpreted.
        """
        if triton.knobs.runtime.interpret:
            raise RuntimeError("kernels of this process are interpreted; unset TRITON_INTERPRET")
        gpu = cls(chip)
        triton.runtime.driver.set_active(gpu)
        Absent.chip = chip
        return gpu

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._chip.capability, _WARP)

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        """There is one."""

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": self._chip.shared_bytes, "multiprocessor_count": self._chip.multiprocessors}

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        """Returns: module, function, registers and spills, of which there are none, and most threads."""
        self.loaded.append(Loaded(name, shared, len(kernel)))
        return 1, 1, 0, 0, _MOST_THREADS

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        _keep_launcher(source, metadata)

        def launch(*args: Any) -> None:
            self.num_launches += 1

        return launch


def _keep_launcher(source: Any, metadata: Any) -> None:
    """Of Triton 3.6 and older, what launches a kernel is a C function of its own, compiled and kept as kernels are."""
    if hasattr(nvidia, "make_launcher"):
        # where there is no driver to link with, or no compiler, whoever launches it is told
        with suppress(Exception):
            nvidia.CudaLauncher(source, metadata)
