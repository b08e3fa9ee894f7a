"""What is wrong is said in the order in which it goes wrong, with what to do; no import fails before it is said."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from albireo import LLM
from albireo.api import load
from albireo.api.machine.cuda_device import CudaDevice
from albireo.backends.cuda import device
from albireo.errors import ConfigError


class Driver:
    """Triton's, which compiles a C file when it is first asked for."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    @property
    def active(self) -> SimpleNamespace:
        if self._error is not None:
            raise self._error
        return SimpleNamespace(utils=None)


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    *,
    torch_cuda: str | None = "12.8",
    has_gpu: bool = True,
    capability: Any = (9, 0),
    driver_error: Exception | None = None,
) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: has_gpu,
        get_device_capability=lambda index: capability,
        get_device_name=lambda index: "NVIDIA H200",
        mem_get_info=lambda index: (130 << 30, 140 << 30),
    )
    torch = SimpleNamespace(__version__="2.13.0", version=SimpleNamespace(cuda=torch_cuda), cuda=cuda)
    monkeypatch.setattr(device, "driver_version", lambda: "12.8")
    monkeypatch.setitem(sys.modules, "torch", torch)
    runtime = SimpleNamespace(driver=Driver(driver_error))
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="3.9.0", runtime=runtime))
    monkeypatch.setattr(device, "find_spec", lambda name: object())


def test_a_gpu_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    facts = device.require_gpu()
    assert facts.problem is None and facts.fix is None
    assert (facts.name, facts.capability, facts.memory_bytes) == ("NVIDIA H200", (9, 0), 140 << 30)


@pytest.mark.parametrize(
    ("machine", "problem", "fix"),
    [
        ({"torch_cuda": None}, "torch 2.13.0 is a build for the CPU", "install torch for CUDA 12.8"),
        ({"has_gpu": False}, "torch for CUDA 12.8 finds no GPU", "CUDA_VISIBLE_DEVICES"),
        ({"capability": (7, 5)}, "compute capability 7.5, 8.0 is the least", "A100"),
        (
            {"driver_error": RuntimeError("Failed to find C compiler.\nPlease specify")},
            "Triton cannot build what launches kernels (RuntimeError: Failed to find C compiler.)",
            "apt install gcc python3-dev",
        ),
    ],
)
def test_what_is_wrong_comes_with_a_fix(
    monkeypatch: pytest.MonkeyPatch, machine: dict[str, Any], problem: str, fix: str
) -> None:
    pretend(monkeypatch, **machine)
    with pytest.raises(ConfigError) as caught:
        device.require_gpu()
    message = str(caught.value)
    assert message.startswith("device=cuda: ") and problem in message and fix in message and "--device cpu" in message


@pytest.mark.parametrize("shown", ["", "-1", "-1,0"])
def test_gpus_that_are_hidden_are_no_fault_of_the_driver(monkeypatch: pytest.MonkeyPatch, shown: str) -> None:
    pretend(monkeypatch, has_gpu=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    with pytest.raises(ConfigError, match=r"CUDA_VISIBLE_DEVICES hides every GPU: .*; unset it, or name GPUs in it"):
        device.require_gpu()


def test_without_a_driver_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "driver_version", lambda: None)
    monkeypatch.setitem(sys.modules, "torch", None)
    facts = device.gpu_facts()
    assert facts.problem == "there is no NVIDIA driver (libcuda.so.1)" and facts.torch is None


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    monkeypatch.setattr(device, "find_spec", lambda name: None if name == "triton" else object())
    facts = device.gpu_facts()
    assert facts.problem == "triton is not installed" and facts.fix == "pip install 'albireo[cuda]'"


def test_a_cache_of_float8_is_refused_where_it_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, capability=(8, 0))
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: CudaDevice())
    with pytest.raises(
        ConfigError, match=r"kv_cache_dtype=fp8 needs compute capability 8.9, NVIDIA H200 has 8.0; use int8"
    ):
        LLM(device="cuda", kv_cache_dtype="fp8")
