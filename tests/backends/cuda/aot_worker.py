"""What came of the kernels of modules, compiled where no ledger knows it: names of modules a line in, JSON a line out.

A process of its own: where kernels are interpreted, nothing can be compiled.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from albireo.backends.cuda.aot import AotCase, cases_of
from albireo.backends.cuda.aot_ledger import Ledger, label_of, measured

LEDGER = Ledger.read(Path(__file__).with_name("aot_ledger.json"))
#: Arguments that another step has another number for.
SIZES = ("num_tokens", "num_tasks", "num_sequences")


def answer(modules: list[str]) -> list[dict[str, Any]]:
    """Of every case of theirs what is known and what was measured, either of which may be None; and its bounds."""
    sample = LEDGER.sample()
    jobs = [
        (module, case, architecture)
        for module in modules
        for case in cases_of(module)
        for architecture in case.architectures
    ]
    known = [LEDGER.facts_of(*job) for job in jobs]
    places = [i for i, facts in enumerate(known) if facts is None or facts.key in sample]
    fresh = dict(zip(places, measured([jobs[i][1:] for i in places]), strict=True))
    return [
        {
            "module": module,
            "label": label_of(case, architecture),
            "known": None if facts is None else asdict(facts),
            "measured": asdict(fresh[i]) if i in fresh else None,
            "max_registers": case.max_registers,
            "max_spills": case.max_spills,
            "max_shared": case.max_shared,
            "specialized": specialized(case),
        }
        for i, ((module, case, architecture), facts) in enumerate(zip(jobs, known, strict=True))
    ]


def specialized(case: AotCase) -> list[str]:
    return [
        each.name
        for each in case.kernel.params
        if each.name in SIZES and case.signature[each.name] == "i32" and not each.do_not_specialize
    ]


def main() -> None:
    os.nice(10)  # the tests beside it are one process: it would have two thirds of a core, and go on alone afterwards
    for line in sys.stdin:
        try:
            answered: object = answer(line.split())
        except Exception:
            answered = traceback.format_exc()
        print(json.dumps(answered), flush=True)


if __name__ == "__main__":
    main()
