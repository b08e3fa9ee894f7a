"""Kernels compiled ahead of time for a named GPU, which need not be there: registers, spills, shared memory, SASS.

Called by tests. Triton's wheel carries ptxas, cuobjdump and nvdisasm. compile_case cannot
run in a process whose kernels are interpreted. What came of it is kept: aot_ledger.py.
"""

from __future__ import annotations

import importlib
import re
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

#: Compute capabilities that kernels are compiled for: A100, H100 and H200, B200.
ARCHITECTURES = (80, 90, 100)
KERNELS = Path(__file__).parent / "kernels"
#: Of machine code, as it is for all of them.
INSTRUCTION_BYTES = 16


@dataclass(frozen=True, slots=True)
class AotCase:
    """One way to compile a kernel.

    Fields:
        name: of the case, such as linear.bfloat16.small_m16.
        kernel: the jit function.
        signature: type of each run-time argument by name: "*bf16", "*fp32", "*i32", "*i8", "i32", "fp32".
        constants: value of each constexpr argument by name.
        aligned: arguments that are multiples of 16, pointers' addresses included; wide loads need it.
        max_registers, max_shared: bounds on registers a thread and bytes of shared memory a block. asked_registers: the
            compiler is held to so many. max_spills: registers that may be kept in memory, outside of innermost loops.
        words: by compute capability, instructions that the machine code must have.
        architectures: those it can be compiled for.
        fp_fusion: whether a product and a sum may become one operation; launchers say the same.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 3
    aligned: tuple[str, ...] = ()
    max_registers: int = 255
    asked_registers: int | None = None
    max_spills: int = 0
    max_shared: int = 160 << 10
    words: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    architectures: tuple[int, ...] = ARCHITECTURES
    fp_fusion: bool = False


def modules_with_cases() -> list[str]:
    """Of kernels/."""
    return sorted(path.stem for path in KERNELS.glob("*.py") if "def aot_cases" in path.read_text())


def cases_of(module: str) -> list[AotCase]:
    cases: list[AotCase] = importlib.import_module(f"{__package__}.kernels.{module}").aot_cases()
    return cases


@dataclass(frozen=True, slots=True)
class Compiled:
    """What became of it.

    Fields:
        registers: a thread. has_memory: whether a thread has memory of its own, for registers or for anything else.
            shared: bytes a block. code: its instructions as the GPU reads them, see disassembled().
    """

    registers: int
    has_memory: bool
    shared: int
    code: bytes


@dataclass(frozen=True, slots=True)
class Arguments:
    """What Triton is told of a case beside its kernel and the architecture, all of it."""

    signature: dict[str, str]
    constants: dict[str, Any]
    attributes: dict[tuple[int], list[list[Any]]]
    options: dict[str, Any]


def arguments_of(case: AotCase) -> Arguments:
    names = case.kernel.arg_names
    return Arguments(
        {name: case.signature.get(name, "constexpr") for name in names},
        dict(case.constants),
        {(names.index(name),): [["tt.divisibility", 16]] for name in case.aligned},
        {
            "num_warps": case.num_warps,
            "num_stages": case.num_stages,
            "enable_fp_fusion": case.fp_fusion,
            "maxnreg": case.asked_registers,
        },
    )


def compile_case(case: AotCase, architecture: int) -> Compiled:
    """Compile for a compute capability (90 is 9.0). Raises: what Triton or ptxas say of a kernel they cannot."""
    told = arguments_of(case)
    source = ASTSource(case.kernel, told.signature, constexprs=told.constants, attrs=told.attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=told.options)
    cubin = compiled.asm["cubin"]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _tool("cuobjdump", "-res-usage", str(path))
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing of registers for {case.name}: {usage[:200]!r}")
    registers, stack, local = (int(number) for number in found.groups())
    return Compiled(registers, bool(stack or local), int(compiled.metadata.shared), code_of(cubin))


def disassembled(architecture: int, codes: Sequence[bytes]) -> list[str]:
    """Of each, in order, its instructions as text, a line each with its address in front.

    All at once: nvdisasm takes half a second to begin, and a few milliseconds a kernel. Raises: RuntimeError where its
    listing has another number of instructions, 16 bytes each, than there are.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kernels.bin"
        path.write_bytes(b"".join(codes))
        # from 9.0 on, what Triton makes is for one architecture alone ("a")
        listing = _tool("nvdisasm", "--binary", f"SM{architecture}{'a' * (architecture >= 90)}", str(path))
    lines = re.findall(r"^\s*/\*([0-9a-f]{4,})\*/(.*)$", listing, re.MULTILINE)
    if len(lines) != sum(map(len, codes)) // INSTRUCTION_BYTES:
        raise RuntimeError(f"nvdisasm lists {len(lines)} instructions in {sum(map(len, codes))} bytes")
    numbered = iter(f"/*{address}*/{what}" for address, what in lines)
    return ["\n".join(islice(numbered, len(code) // INSTRUCTION_BYTES)) for code in codes]


def spills(sass: str) -> int:
    """Instructions that keep a register in memory; a frame for a call is none."""
    return len(re.findall(r"\bSTL\b", sass))


def spills_in_loops(sass: str) -> int:
    """Instructions that store or load what is kept in memory, in innermost loops: between a branch back and its aim."""
    code = [(int(at, 16), what) for at, what in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", sass)]
    aims = [(at, re.search(r"\bBRA\b.*\b0x([0-9a-f]+)", what)) for at, what in code]
    loops = [(int(aim[1], 16), at) for at, aim in aims if aim is not None and int(aim[1], 16) < at]
    innermost = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    kept = [at for at, what in code if re.search(r"\b(STL|LDL)\b", what)]
    return sum(any(first <= at <= last for first, last in innermost) for at in kept)


def code_of(cubin: bytes) -> bytes:
    """The instructions of a file with one kernel: its only section .text.*, by the layout of 64-bit ELF.

    Raises: RuntimeError where there is not one.
    """
    (table,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    base = sections[names][4]
    codes = [
        cubin[offset : offset + length]
        for name, _, _, _, offset, length in sections
        if cubin.startswith(b".text.", base + name)
    ]
    if len(codes) != 1:
        raise RuntimeError(f"a compiled kernel has {len(codes)} sections of instructions, wanted one")
    return codes[0]


def _tool(name: str, *arguments: str) -> str:
    tool = getattr(triton.knobs.nvidia, name).path
    return subprocess.run([tool, *arguments], check=True, capture_output=True, text=True).stdout
