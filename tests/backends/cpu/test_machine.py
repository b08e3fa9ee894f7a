"""Levels and threads: the cap, its error, and pools of more threads than there are cores."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from albireo import _native
from albireo.backends.cpu.machine import LEVELS, isa_levels, thread_pool
from albireo.errors import ConfigError

CSRC = Path(__file__).resolve().parents[3] / "csrc"
#: A flag of each, as Linux has it in /proc/cpuinfo.
_FLAGS = {"amx": "amx_int8", "avx2": "avx2", "avx512": "avx512f", "avx512bf16": "avx512_bf16"}
_FLAGS |= {"avxvnni": "avx_vnni", "neon": "asimd", "neondot": "asimddp", "neonmm": "i8mm"}


def test_levels_are_those_of_the_build() -> None:
    lines = [line.split() for line in (CSRC / "isa_levels.txt").read_text().splitlines() if not line.startswith("#")]
    of_this = {"any", "x86-64" if platform.machine() == "x86_64" else "aarch64"}
    assert [line[0] for line in lines if line[2] in of_this] == list(reversed(LEVELS))


def test_levels_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALBIREO_ISA_MAX", raising=False)
    levels = isa_levels()
    assert levels == tuple(level for level in LEVELS if level in levels), "best first"
    assert levels[-1] == "scalar"
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    for level, flag in _FLAGS.items():
        assert level not in levels or flag in flags, f"{level} is claimed, the processor has no {flag}"
    if platform.machine() == "x86_64":
        assert ("avx2" in levels) == all(flag in flags for flag in ("avx2", "fma", "f16c"))


@pytest.mark.parametrize("cap", LEVELS)
def test_the_cap_leaves_lower_levels(cap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALBIREO_ISA_MAX", cap)
    allowed = LEVELS[LEVELS.index(cap) :]
    assert isa_levels() == tuple(level for level in _native.isa_levels() if level in allowed)


def test_an_empty_cap_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALBIREO_ISA_MAX", "")
    assert isa_levels() == tuple(_native.isa_levels())


@pytest.mark.parametrize("cap", ["avx", "AVX2", "avx1024", "none"])
def test_an_unknown_cap_is_refused(cap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALBIREO_ISA_MAX", cap)
    with pytest.raises(ConfigError, match=f"ALBIREO_ISA_MAX='{cap}' is no level; choose one of {', '.join(LEVELS)}"):
        isa_levels()


def test_threads() -> None:
    cores = len(_native.usable_cpus())
    assert cores >= 1
    assert thread_pool(None).size == cores
    for count in (1, 2, cores + 3):
        assert thread_pool(count).size == count


def test_threads_that_the_system_does_not_start_are_an_error() -> None:
    # In a process of its own, whose address space has no room for the stacks of so many.
    code = """
import resource
from albireo.backends.cpu.machine import thread_pool
from albireo.errors import ResourceError
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
try:
    thread_pool(4000)
except ResourceError as error:
    print(error)
print(thread_pool(3).size)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown[0].startswith("num_threads=4000: thread ")
    assert "cannot be started" in shown[0]
    assert shown[1:] == ["3"]
