"""Compiles every AotCase of the kernels named on the command line for every architecture, and prints JSON.

A process of its own: where kernels are interpreted, nothing can be compiled.
"""

from __future__ import annotations

import importlib
import json
import sys

from albireo.backends.cuda.aot import compile_case


def main() -> None:
    found = []
    for module in sys.argv[1:]:
        for case in importlib.import_module(f"albireo.backends.cuda.kernels.{module}").aot_cases():
            for architecture in case.architectures:
                compiled = compile_case(case, architecture)
                missing = [word for word in case.words.get(architecture, ()) if word not in compiled.sass]
                found.append(
                    {
                        "name": case.name,
                        "architecture": architecture,
                        "registers": compiled.registers,
                        "max_registers": case.max_registers,
                        "spills": compiled.spills,
                        "shared": compiled.shared,
                        "max_shared": case.max_shared,
                        "missing": missing,
                    }
                )
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
