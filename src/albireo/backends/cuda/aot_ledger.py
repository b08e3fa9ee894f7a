"""What came of compilations ahead of time, kept in a file, so that tests compile only what is not there.

What comes of one follows from what the compiler is told: the kernel's source and that of all it calls, the case, the
architecture, Triton's version and that of its ptxas. A digest of these is an entry's key. Entries are facts and no
verdicts, so bounds may change without compiling anew.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import triton
import triton.language as tl
from triton.backends.nvidia.compiler import get_ptxas_version
from triton.runtime.jit import JITCallable

from albireo.backends.cuda.aot import (
    INSTRUCTION_BYTES,
    AotCase,
    arguments_of,
    compile_case,
    disassembled,
    spills,
    spills_in_loops,
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What came of a compilation.

    Fields:
        key: what it follows from, see key_of(). registers: a thread. shared: bytes a block. instructions: of the
            machine code, no-ops behind its end included. spills, spills_in_loops: see aot.py. words: whether each of
            those that were sought is there.
    """

    key: str
    registers: int
    shared: int
    instructions: int
    spills: int
    spills_in_loops: int
    words: Mapping[str, bool]


def label_of(case: AotCase, architecture: int) -> str:
    return f"{case.name} for {architecture}"


def key_of(case: AotCase, architecture: int) -> str:
    """The same in every process and clone, and wherever in its file a kernel stands.

    Raises: RuntimeError where a constant has no description that would be.
    """
    told = arguments_of(case)
    constants = sorted(told.constants.items())
    functions = (case.kernel, *(value for _, value in constants if isinstance(value, JITCallable)))
    parts = (
        triton.__version__,
        get_ptxas_version(architecture),
        architecture,
        sorted(set[tuple[str, str]]().union(*map(sources_of, functions))),
        list(told.signature.items()),
        [(name, _described(value)) for name, value in constants],
        sorted(told.attributes.items()),
        sorted(told.options.items()),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def measured(jobs: Sequence[tuple[AotCase, int]]) -> list[Facts]:
    """Compile each, in order, for an architecture. Raises: what compile_case does; a case is named in a note."""
    compiled = []
    for case, architecture in jobs:
        try:
            compiled.append(compile_case(case, architecture))
        except Exception as error:
            error.add_note(label_of(case, architecture))
            raise
    # where no word is sought and a thread has no memory, a listing would say nothing
    listed: dict[int, list[int]] = {}
    for i, ((case, architecture), result) in enumerate(zip(jobs, compiled, strict=True)):
        if result.has_memory or case.words.get(architecture):
            listed.setdefault(architecture, []).append(i)
    listings = [""] * len(jobs)
    for architecture, places in listed.items():
        texts = disassembled(architecture, [compiled[i].code for i in places])
        for i, text in zip(places, texts, strict=True):
            listings[i] = text
    return [
        Facts(
            key_of(case, architecture),
            result.registers,
            result.shared,
            len(result.code) // INSTRUCTION_BYTES,
            spills(sass),
            spills_in_loops(sass),
            {word: word in sass for word in sorted(case.words.get(architecture, ()))},
        )
        for (case, architecture), result, sass in zip(jobs, compiled, listings, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is kept, of one version of Triton. entries: by module, and by label_of() a case and an architecture."""

    version: str
    entries: Mapping[str, Mapping[str, Facts]]

    @classmethod
    def read(cls, path: Path) -> Ledger:
        found = json.loads(path.read_text())
        entries = {
            module: {label: Facts(**facts) for label, facts in kept.items()}
            for module, kept in found["kernels"].items()
        }
        return cls(found["triton"], entries)

    def write(self, path: Path) -> None:
        """A line an entry, in order of names."""
        modules = [
            f"  {json.dumps(module)}: {{\n"
            + ",\n".join(f"    {json.dumps(label)}: {json.dumps(asdict(kept[label]))}" for label in sorted(kept))
            + "\n  }"
            for module, kept in sorted(self.entries.items())
        ]
        path.write_text(f'{{"triton": {json.dumps(self.version)}, "kernels": {{\n' + ",\n".join(modules) + "\n}}\n")

    @property
    def applies(self) -> bool:
        """Whether it is of the Triton that is here; of another one it knows nothing."""
        return self.version == str(triton.__version__)

    def facts_of(self, module: str, case: AotCase, architecture: int) -> Facts | None:
        """None: not kept, or of something else than is here now, or without a word that is sought."""
        kept = self.entries.get(module, {}).get(label_of(case, architecture)) if self.applies else None
        if kept is None or kept.key != key_of(case, architecture):
            return None
        return kept if kept.words.keys() == set(case.words.get(architecture, ())) else None

    def sample(self) -> set[str]:
        """Keys of some, to be compiled although they are known: of each architecture the first in order of their keys,
        which is no order of anything else, with a 64th of its instructions; what compiling costs grows with these.
        """
        found = set()
        for entries in self._by_architecture():
            left = sum(facts.instructions for facts in entries) // 64
            for facts in sorted(entries, key=lambda facts: facts.key):
                if facts.instructions <= left:
                    found.add(facts.key)
                    left -= facts.instructions
        return found

    def _by_architecture(self) -> list[list[Facts]]:
        found: dict[str, list[Facts]] = {}
        for kept in self.entries.values():
            for label, facts in kept.items():
                found.setdefault(label.rpartition(" ")[2], []).append(facts)
        return list(found.values())


def sources_of(kernel: Any) -> set[tuple[str, str]]:
    """Names and texts of a function, of all that it calls, and of the constants that these name.

    Triton's own digest of a kernel has line numbers in it, and no constants but constexprs by their own names.
    """
    found: set[tuple[str, str]] = set()
    met, waiting = {id(kernel)}, [kernel]
    while waiting:
        texts, called = _source(waiting.pop())
        found |= texts
        waiting += [function for function in called if id(function) not in met]
        met.update(map(id, called))
    return found


@cache
def _source(function: Any) -> tuple[frozenset[tuple[str, str]], tuple[Any, ...]]:
    """The same of one function, and what it calls. Triton's own functions are known by its version."""
    scope = function.get_capture_scope()
    texts, called = {(_name(function), "".join(function.raw_src))}, []
    for node in ast.walk(function.parse()):
        if not isinstance(node, ast.Name | ast.Attribute):
            continue
        value = _resolved(node, scope)
        if isinstance(value, JITCallable):
            if not value.__module__.startswith("triton."):
                called.append(value)
        elif isinstance(value, tl.constexpr | int | float | str | tuple):
            texts.add((f"{function.__module__}.{ast.unparse(node)}", _described(value)))
    return frozenset(texts), tuple(called)


def _resolved(node: ast.expr, scope: Mapping[str, Any]) -> Any:
    """What a name of a module, or a name in a module, is; None: neither."""
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    owner = _resolved(node.value, scope)
    return getattr(owner, node.attr, None) if isinstance(owner, ModuleType) else None


def _described(value: Any) -> str:
    if isinstance(value, JITCallable):
        return _name(value)
    text = repr(value)
    if " at 0x" in text:
        raise RuntimeError(f"a kernel's constant is described by where it lies in memory, so no key can be: {text}")
    return text


def _name(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"
