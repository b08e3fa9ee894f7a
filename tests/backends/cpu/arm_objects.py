"""Units of the levels for Arm: as this machine compiled them, or as a compiler for Arm does here.

Used by the tests of this folder. Takes the flags from csrc, so that they cannot be others.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from albireo import _native

CSRC = Path(__file__).resolve().parents[3] / "csrc"
IS_ARM = platform.machine() in ("aarch64", "arm64")
_COMPILER, _OBJDUMP, _EMULATOR = "aarch64-linux-gnu-g++", "aarch64-linux-gnu-objdump", "qemu-aarch64"


def level_flags(level: str) -> list[str]:
    """What csrc/isa_levels.txt compiles units of a level with."""
    lines = (line.split("|") for line in (CSRC / "isa_levels.txt").read_text().splitlines() if "|" in line)
    return next(fields[2].split() for fields in lines if fields[0].strip() == level)


def _common_flags() -> list[str]:
    text = (CSRC / "CMakeLists.txt").read_text()
    found = re.search(r"target_compile_options\(albireo_core PRIVATE (.*?)\)", text, re.DOTALL)
    assert found
    return found[1].split()


def compiled(units: Iterable[str], folder: Path) -> list[Path]:
    """Objects of units of csrc in a folder, compiled for Arm where they are not there yet; a suffix is a level.
    What is of no level for Arm is only there to run: -O1. Skips where no compiler does that."""
    if shutil.which(_COMPILER) is None:
        pytest.skip(f"{_COMPILER} is not installed")
    running, objects = [], []
    for unit in units:
        objects.append(folder / (unit.replace("/", ".") + ".o"))
        if objects[-1].exists():
            continue
        suffix = Path(unit).stem.rpartition("_")[2]
        flags = level_flags(suffix) if suffix.startswith("neon") else [*level_flags("neon")[:1], "-O1"]
        command = [_COMPILER, "-std=c++20", *_common_flags(), *flags, f"-I{CSRC}", f"-I{CSRC / 'include'}", "-c"]
        running.append(subprocess.Popen([*command, str(CSRC / unit), "-o", str(objects[-1])]))
        if len(running) == 2:
            assert running.pop(0).wait() == 0
    assert all(each.wait() == 0 for each in running)
    return objects


def disassembled(units: Iterable[str], folder: Path) -> list[tuple[str, str]]:
    """(address, instruction) of units, in order: of the whole native module on a machine that is Arm."""
    files = (_native.__file__,) if IS_ARM else compiled(units, folder)
    tool = "objdump" if IS_ARM else _OBJDUMP
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} (binutils) is not installed")
    found = []
    for i, file in enumerate(files):
        command = [tool, "-d", "--no-show-raw-insn", str(file)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        pairs = re.findall(r"^ *([0-9a-f]+):\t([^\n/<]+)", text, re.MULTILINE)
        found += [(f"{i}.{address}", f"{instruction.strip()} @{i}") for address, instruction in pairs]
    return found


def run_for_arm(source: Path, units: tuple[str, ...], folder: Path) -> str:
    """What a program with these units prints in an emulator."""
    if shutil.which(_EMULATOR) is None:
        pytest.skip(f"{_EMULATOR} (QEMU's user-mode emulation) is not installed")
    objects = compiled(units, folder)
    program = folder / "program"
    command = [_COMPILER, "-std=c++20", "-static", f"-I{CSRC}", f"-I{CSRC / 'include'}", str(source)]
    subprocess.run([*command, *map(str, objects), "-o", str(program), "-pthread"], check=True)
    return subprocess.run([_EMULATOR, "-cpu", "max", str(program)], capture_output=True, text=True, check=True).stdout
