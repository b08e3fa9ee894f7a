"""Kernels that a process compiles ahead, looked up: what came of each is in launched.json, written by `make aot`.

look_up() is called in such a process, as it begins (SITE). What the ledger knows is not compiled, but for a part of it;
and what was launched is noted beside what was compiled. What comes of a kernel follows from its sources, what a launch
tells Triton, and Triton itself, as aot_ledger.py has it: a digest of these is its key.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LEDGER = HERE / "launched.json"
#: What Python reads as it begins, where its folder is in PYTHONPATH.
SITE = f"""
import sys
if "albireo.api.machine.compile_ahead" in sys.orig_argv:
    sys.path.insert(0, {str(HERE.parents[1])!r})
    from backends.cuda.launched import look_up
    look_up()
"""
#: Options that say where something lies on this machine.
_PLACES = frozenset({"extern_libs"})


@dataclass(frozen=True, slots=True)
class Launched:
    """What came of a kernel.

    Fields: shared: bytes a program. instructions: of the machine code. target: as in its assembly. has_e4m3: whether
    pairs of numbers are rounded to e4m3.
    """

    name: str
    shared: int
    instructions: int
    target: str
    has_e4m3: bool


def known() -> dict[str, Launched]:
    """By key; nothing where the ledger is of another Triton."""
    import triton

    found = json.loads(LEDGER.read_text())
    if found["triton"] != triton.__version__:
        return {}
    return {key: Launched(**facts) for key, facts in found["kernels"].items()}


def sample(kept: dict[str, Launched]) -> set[str]:
    """Keys of one, to be compiled although it is known: the first in order of keys, which is no other order."""
    return set(sorted(kept)[:1])


def key_of(function: Any, told: Mapping[str, Any]) -> str:
    """Args: told: what Triton tells a hook of a compilation. Raises: as aot_ledger.key_of does."""
    import triton
    from triton.backends.nvidia.compiler import get_ptxas_version
    from triton.runtime.jit import JITCallable

    from albireo.backends.cuda.aot_ledger import sources_of

    launch = json.loads(told["specialization_data"])
    del launch["key"]  # the same again
    launch["options"] = {name: value for name, value in launch["options"].items() if name not in _PLACES}
    functions = (function, *(each for each in told["constants"].values() if isinstance(each, JITCallable)))
    sources = sorted(set[tuple[str, str]]().union(*map(sources_of, functions)))
    parts = (triton.__version__, get_ptxas_version(launch["target"]["arch"]), sources, launch)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def look_up() -> None:
    """From here on, in this process, compile what is not known, and note all that is launched."""
    import triton

    from albireo.backends.cuda.aot import INSTRUCTION_BYTES, code_of

    kept = known()
    again = sample(kept)

    def is_known(*, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        key = key_of(fn.jit_function, compile)
        if key not in kept or key in again:
            return False
        _note(key, None)
        return True

    def note(*, fn: Any, compile: dict[str, Any], **_: Any) -> None:
        kernel = list(fn.jit_function.device_caches[compile["device"]][0].values())[-1]
        assembly = kernel.asm["ptx"]
        target = next(line.split()[1] for line in assembly.splitlines() if line.startswith(".target"))
        facts = Launched(
            kernel.name,
            kernel.metadata.shared,
            len(code_of(kernel.asm["cubin"])) // INSTRUCTION_BYTES,
            target.strip(","),
            "e4m3x2" in assembly,
        )
        _note(key_of(fn.jit_function, compile), facts)

    triton.knobs.runtime.jit_cache_hook, triton.knobs.runtime.jit_post_compile_hook = is_known, note


def _note(key: str, facts: Launched | None) -> None:
    import triton

    place = Path(triton.knobs.cache.dir)
    place.mkdir(parents=True, exist_ok=True)
    with (place / f"launched.{os.getpid()}").open("a") as file:
        print(json.dumps([key, facts and asdict(facts)]), file=file)


def noted(cache: Path) -> dict[str, Launched | None]:
    """What processes with this cache launched, by key; None: it was known."""
    lines = [json.loads(line) for path in cache.glob("launched.*") for line in path.read_text().splitlines()]
    return {key: Launched(**facts) if facts else None for key, facts in lines}


def write(kernels: dict[str, Launched], path: Path = LEDGER) -> None:
    """A line an entry, in order of names."""
    import triton

    ordered = sorted(kernels.items(), key=lambda entry: (entry[1].name, entry[0]))
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(asdict(facts))}" for key, facts in ordered)
    path.write_text(f'{{"triton": {json.dumps(triton.__version__)}, "kernels": {{\n{lines}\n}}}}\n')
