"""Compiles the kernels of one module after another for every architecture: a name a line in, JSON a line out.

A process of its own: where kernels are interpreted, nothing can be compiled.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from base64 import b64encode
from typing import Any

from albireo.backends.cuda.aot import compile_case

#: Arguments that another step has another number for.
SIZES = ("num_tokens", "num_tasks", "num_sequences")


def compiled(module: str) -> list[dict[str, Any]]:
    """What became of every case."""
    found = []
    for case in importlib.import_module(f"albireo.backends.cuda.kernels.{module}").aot_cases():
        for architecture in case.architectures:
            result, words = compile_case(case, architecture), case.words.get(architecture, ())
            found.append(
                {
                    "name": case.name,
                    "architecture": architecture,
                    "registers": result.registers,
                    "max_registers": case.max_registers,
                    "max_spills": case.max_spills,
                    "shared": result.shared,
                    "max_shared": case.max_shared,
                    "specialized": [
                        each.name
                        for each in case.kernel.params
                        if each.name in SIZES and case.signature[each.name] == "i32" and not each.do_not_specialize
                    ],
                    "words": words,
                    # where no word is sought and a thread has no memory, it would say nothing
                    "code": b64encode(result.code).decode() if words or result.has_memory else None,
                }
            )
    return found


def main() -> None:
    os.nice(10)  # the tests beside it are one process: it would have two thirds of a core, and go on alone afterwards
    for line in sys.stdin:
        try:
            answer: object = compiled(line.strip())
        except Exception:
            answer = traceback.format_exc()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
