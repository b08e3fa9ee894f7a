"""Compile and link the native core for macOS on any machine, and look at what came of it; no Mac is needed, or used.

Run: make macos, or python tools/check_macos.py [arm64] [x86_64]. Needs cmake, ninja and ziglang (a package of PyPI:
clang with the headers of macOS and the names of its libraries). CMake's lists are those of an install, and so are
flags; a warning is an error. Of the module that comes out, in build/macos/:

- what it has from elsewhere is Python's, of the names that nanobind's list allows extensions, or libSystem's;
- it is for the processor and the system that were asked for.

The numbers in src/albireo/system/macos.py are held against the headers, too. Headers of Python are those of this
interpreter, whose pyconfig.h is Linux'.
"""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))
from albireo.system import macos  # noqa: E402

#: As pyproject.toml has it.
RELEASE = "13.0"
#: Processor -> zig's name for it, and what Mach-O files call it.
PROCESSORS = {"arm64": ("aarch64", 0x0100000C), "x86_64": ("x86_64", 0x01000007)}
#: libc++ of macOS, with what each release of the system has; its configuration is a file there, and these words here.
_LIBCXX = (
    "ABI_VERSION=1", "ABI_NAMESPACE=__1", "HAS_THREADS=1", "HAS_MONOTONIC_CLOCK=1", "HAS_TERMINAL=1", "HAS_MUSL_LIBC=0",
    "HAS_VENDOR_AVAILABILITY_ANNOTATIONS=1", "HAS_FILESYSTEM=1", "HAS_RANDOM_DEVICE=1", "HAS_LOCALIZATION=1",
    "HAS_UNICODE=1", "HAS_WIDE_CHARACTERS=1", "PSTL_BACKEND_SERIAL=1", "DISABLE_VISIBILITY_ANNOTATIONS=1",
    "HARDENING_MODE=_LIBCPP_HARDENING_MODE_NONE", "ASSERTION_SEMANTIC_DEFAULT=_LIBCPP_ASSERTION_SEMANTIC_IGNORE",
)  # fmt: skip

_COMPILER = """#!/bin/sh
# Clang's own driver compiles, so that it reads flags as on a Mac; zig's links, since it has a linker for Mach-O.
for word in "$@"; do
  case $word in -c|-E|--version) exec {compile} "$@";; esac
done
count=$#
while [ $count -gt 0 ]; do
  word=$1; shift; count=$((count - 1))
  case $word in
    -Wl,@*) set -- "$@" -Wl,-undefined,dynamic_lookup;;  # a file of names, which are looked at when all is linked
    -bundle) set -- "$@" -dynamiclib;;  # the same to who loads it
    *) set -- "$@" "$word";;
  esac
done
exec {link} "$@"
"""

_TOOLCHAIN = """set(CMAKE_SYSTEM_NAME Darwin)
set(CMAKE_SYSTEM_PROCESSOR {processor})
set(CMAKE_CXX_COMPILER "{folder}/c++")
set(CMAKE_CXX_FLAGS "-Werror")
set(CMAKE_AR "{folder}/ar")
set(CMAKE_RANLIB true)
set(CMAKE_INSTALL_NAME_TOOL true)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
"""

_NUMBERS = f"""#include <fcntl.h>
#include <libproc.h>
#include <mach/mach.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/sysctl.h>
#include <sys/ucred.h>
#include <sys/un.h>
static_assert(SOL_LOCAL == {macos.SOL_LOCAL} && LOCAL_PEERCRED == {macos.LOCAL_PEERCRED});
static_assert(LOCAL_PEERPID == {macos.LOCAL_PEERPID} && sizeof(pid_t) == 4);
static_assert(sizeof(xucred) == {macos.XUCRED_BYTES} && offsetof(xucred, cr_uid) == 4 && sizeof(uid_t) == 4);
static_assert(sizeof(sockaddr_un::sun_path) == {macos.LONGEST_SOCKET_PATH} + 1);
static_assert(HOST_VM_INFO64 == {macos.HOST_VM_INFO64} && HOST_VM_INFO64_REV1_COUNT == {macos.VM_WORDS});
static_assert(offsetof(vm_statistics64, free_count) == 0 && offsetof(vm_statistics64, inactive_count) == 8);
static_assert(PROC_PIDTASKINFO == {macos.PROC_PIDTASKINFO} && sizeof(proc_taskinfo) == {macos.TASK_BYTES});
static_assert(offsetof(proc_taskinfo, pti_resident_size) == 8 && sizeof(proc_taskinfo::pti_resident_size) == 8);
static_assert(RENAME_SWAP == {macos.RENAME_SWAP} && F_FULLFSYNC == {macos.F_FULLFSYNC});
int (*swap)(const char*, const char*, unsigned) = renamex_np;
int (*ask)(const char*, void*, size_t*, void*, size_t) = sysctlbyname;
int (*look)(int, int, uint64_t, void*, int) = proc_pidinfo;
kern_return_t (*count)(host_t, host_flavor_t, host_info64_t, mach_msg_type_number_t*) = host_statistics64;
"""


class Symbol(NamedTuple):
    """provider: what a module has it from; None: from whatever has it when it is loaded."""

    name: str
    provider: str | None


def main() -> int:
    missing = [tool for tool in ("cmake", "ninja") if shutil.which(tool) is None]
    spec = find_spec("ziglang")
    if missing or spec is None or spec.origin is None:
        missing += ["ziglang (pip install ziglang)"] * (spec is None)
        print(f"skipped: not installed: {', '.join(missing)}")
        return 0
    zig = Path(spec.origin).parent
    for processor in sys.argv[1:] or PROCESSORS:
        if processor not in PROCESSORS:
            print(f"{processor!r} is no processor of Macs; choose of {', '.join(PROCESSORS)}")
            return 2
        folder = ROOT / "build" / "macos" / processor
        prepare(folder, zig, processor)
        check_numbers(folder)
        module = compile_module(folder)
        print(f"{processor}: {module.relative_to(ROOT)}: {look_at(module, processor)}")
    return 0


def prepare(folder: Path, zig: Path, processor: str) -> None:
    """Write what CMake takes for a compiler, and what it is told of it."""
    folder.mkdir(parents=True, exist_ok=True)
    program, lib = zig / "zig", zig / "lib"
    headers = ("libcxx/include", "libcxxabi/include", "include", "libc/include/any-darwin-any")
    compile_ = [str(program), "clang", "--no-default-config", "-target", f"{processor}-apple-macosx{RELEASE}"]
    compile_ += ["-nostdinc", "-nostdinc++", *(f"-isystem{lib / each}" for each in headers)]
    compile_ += [f"-D_LIBCPP_{each}" for each in _LIBCXX]
    cache = [f"ZIG_{which}_CACHE_DIR={folder.parent / 'zig'}" for which in ("GLOBAL", "LOCAL")]
    link = ["env", *cache, str(program), "c++", "-target", f"{PROCESSORS[processor][0]}-macos.{RELEASE}"]
    texts = {
        "c++": _COMPILER.format(compile=shlex.join(compile_), link=shlex.join(link)),
        "ar": f'#!/bin/sh\nexec {shlex.quote(str(program))} ar "$@"\n',
        "toolchain.cmake": _TOOLCHAIN.format(processor=processor, folder=folder),
    }
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:  # else all would be compiled anew
            path.write_text(text)
            path.chmod(0o755)


def check_numbers(folder: Path) -> None:
    """Raises: CalledProcessError where a number of macos.py is not that of the headers; the compiler says which."""
    source = folder / "numbers.cc"
    source.write_text(_NUMBERS)
    command = [str(folder / "c++"), "-std=c++20", "-c", str(source), "-o", str(folder / "numbers.o")]
    subprocess.run(command, check=True)


def compile_module(folder: Path) -> Path:
    """Raises: CalledProcessError."""
    build = folder / "build"
    if not (build / "build.ninja").exists():
        options = {
            "CMAKE_TOOLCHAIN_FILE": folder / "toolchain.cmake",
            "CMAKE_BUILD_TYPE": "Release",
            "Python_EXECUTABLE": sys.executable,
            "Python_INCLUDE_DIR": sysconfig.get_paths()["include"],
        }
        command = ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build)]
        subprocess.run([*command, *(f"-D{name}={value}" for name, value in options.items())], check=True)
    subprocess.run(["ninja", "-C", str(build)], check=True)
    (module,) = build.glob("_native*.so")
    return module


def look_at(module: Path, processor: str) -> str:
    """What it is, in words. Raises: AssertionError, which says what should not be in it."""
    data = module.read_bytes()
    magic, kind, *_ = struct.unpack_from("<2I", data)
    assert magic == 0xFEEDFACF and kind == PROCESSORS[processor][1], f"it is for another processor: {kind:#x}"
    release = next((struct.unpack_from("<2I", data, at + 8) for code, at in _commands(data) if code == 0x32), (0, 0))
    assert release == (1, int(RELEASE.partition(".")[0]) << 16), f"it is for another system: {release}"
    found = list(undefined(data))
    foreign = sorted({each.provider for each in found if each.provider is not None} - {"libSystem"})
    assert not foreign, f"it wants libraries that Macs may not have: {', '.join(foreign)}"
    pythons = {each.name for each in found if each.provider is None}
    unknown = sorted(pythons - _of_python())
    assert not unknown, f"neither Python nor the system has {', '.join(unknown)}"
    return f"{len(pythons)} names of Python, {len(found) - len(pythons)} of libSystem, nothing else"


def undefined(data: bytes) -> Iterator[Symbol]:
    """Symbols that a Mach-O file of 64 bits has from elsewhere. Format: mach-o/loader.h, mach-o/nlist.h."""
    libraries, table = [], (0, 0, 0)
    for code, at in _commands(data):
        if code & 0x7FFFFFFF in (0xC, 0x18):  # LC_LOAD_DYLIB, LC_LOAD_WEAK_DYLIB
            (offset,) = struct.unpack_from("<I", data, at + 8)
            path = data[at + offset : data.index(b"\0", at + offset)].decode()
            libraries.append(Path(path).name.partition(".")[0])
        elif code == 0x2:  # LC_SYMTAB
            table = struct.unpack_from("<3I", data, at + 8)
    first, count, names = table
    for i in range(count):
        name, kind, _, described, _ = struct.unpack_from("<IBBHQ", data, first + 16 * i)
        if kind & 0xEF != 0x1:  # external, undefined
            continue
        ordinal = described >> 8
        at = names + name
        yield Symbol(
            data[at : data.index(b"\0", at)].decode(),
            libraries[ordinal - 1] if 0 < ordinal <= len(libraries) else None,
        )


def _commands(data: bytes) -> Iterator[tuple[int, int]]:
    """Load commands: code and place."""
    (count,) = struct.unpack_from("<I", data, 16)
    at = 32
    for _ in range(count):
        code, size = struct.unpack_from("<2I", data, at)
        yield code, at
        at += size


def _of_python() -> set[str]:
    """Names that nanobind lets an extension leave to the interpreter which loads it."""
    command = [sys.executable, "-m", "nanobind", "--cmake_dir"]
    folder = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return set((Path(folder) / "darwin-ld-cpython.sym").read_text().replace("-U ", "").split())


if __name__ == "__main__":
    os.chdir(ROOT)
    try:
        sys.exit(main())
    except (AssertionError, subprocess.CalledProcessError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
