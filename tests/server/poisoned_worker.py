"""An engine process that a request can hurt, by the bias it asks for on token 1, once it has three tokens; or by a
regular expression, while it is compiled. A test can hold its steps, and its loading (step_gate.py)."""

# ruff: noqa: E402
from __future__ import annotations

import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

gc.disable()  # as in the engine process

import albireo.engine_process.worker
from albireo.errors import OutOfMemory
from albireo.execution.runner import Runner
from albireo.step import StepPlan, StepResult, TokenConstraint
from albireo.structured.compiler import GrammarCompiler
from albireo.structured_params import StructuredOutputsParams

sys.path.append(str(Path(__file__).parents[1]))
from step_gate import VARIABLE, Gate

CRASH, RAISE, HANG, OUT_OF_MEMORY = 0.125, 0.25, 0.5, 0.75
CRASHING_REGEX = "(crash){3}"

_gate = Gate(Path(os.environ[VARIABLE]))
_load = albireo.engine_process.worker.load
_execute = Runner.execute
_compile = GrammarCompiler.compile


def held(*args: Any, **kwargs: Any) -> Any:
    _gate.wait_to_load()
    if _gate.is_broken():
        raise OutOfMemory("the model in /home/somebody needs more than there is")
    return _load(*args, **kwargs)


def poisoned(self: Runner, plan: StepPlan) -> StepResult:
    _gate.wait_to_step()
    for task in (task for work in plan.work for task in work.samples):
        poison = (task.params.logit_bias or {}).get(1)
        if poison is None or len(task.output_token_ids) < 3:
            continue
        if poison == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        if poison == OUT_OF_MEMORY:
            os.kill(os.getpid(), signal.SIGKILL)
        if poison == HANG:
            time.sleep(3600)
        if poison == RAISE:
            raise RuntimeError("/etc/passwd at 0x7f0000001234 is poisoned")
    return _execute(self, plan)


def crashing(self: GrammarCompiler, params: StructuredOutputsParams) -> TokenConstraint:
    if params.regex == CRASHING_REGEX:
        os.kill(os.getpid(), signal.SIGSEGV)
    return _compile(self, params)


gc.freeze()
gc.enable()

if __name__ == "__main__":
    Runner.execute = poisoned  # type: ignore[method-assign]
    GrammarCompiler.compile = crashing  # type: ignore[method-assign]
    albireo.engine_process.worker.load = held
    albireo.engine_process.worker.run(sys.argv[1], sys.argv[2])
