"""The engine process of random_server.py: a model of random numbers, and a note of how busy the GPU was.

    random_worker.py REPORT WEIGHTS SEATS DRY SOCKET LEDGER

The worker, its engine and its messages are those of `albireo serve`; only what would load a checkpoint is not. Once
SEATS sequences have decoded for a while, the share of the next seconds in which the GPU computed is written to REPORT.
"""

from __future__ import annotations

import json
import sys
import time
import types
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]


class Nothing(types.ModuleType):
    """In place of the native core, where it is not built: the backend for CPUs names parts of it, and is not used."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (tuple,), {})  # whatever is listed there: nothing


try:
    import albireo._native
except ImportError:
    sys.modules["albireo._native"] = Nothing("albireo._native")

import torch  # noqa: E402 - the path comes first
from model import BLOCK_SIZE, random_model, vocabulary  # noqa: E402
from setup import Setup  # noqa: E402
from timeline import Timeline  # noqa: E402
from traffic import settings_of  # noqa: E402

import albireo.engine_process.worker  # noqa: E402
from albireo.api.load import Loaded  # noqa: E402
from albireo.api.machine.memory import MemoryPlan  # noqa: E402
from albireo.config import EngineConfig  # noqa: E402
from albireo.execution.ahead import AheadRunner  # noqa: E402
from albireo.models.settings.generation import GenerationDefaults  # noqa: E402
from albireo.step import StepPlan, StepResult  # noqa: E402

STEP_TOKENS, LONGEST = 8192, 2048
#: Of decoding with all seats taken: before it is measured, and measured.
WARM_SECONDS, SECONDS = 2.0, 8.0


class Watched:
    """Executes plans, and measures once, as the module says."""

    def __init__(self, runner: AheadRunner, timeline: Timeline, report: Path, seats: int, setup: Setup) -> None:
        self._runner, self._timeline, self._report, self._seats = runner, timeline, report, seats
        self._warm, self._seconds = setup.pick((WARM_SECONDS, SECONDS), (0.0, 0.0))
        self._begun = self._start = 0.0
        self._steps, self._tokens, self._is_done = 0, 0, False

    def execute(self, plan: StepPlan) -> StepResult:
        result = self._runner.execute(plan)
        if self._is_done or len(result.tokens) < self._seats:
            return result
        now = time.perf_counter()
        self._begun = self._begun or now
        if not self._start and now - self._begun >= self._warm:
            self._start = now
            self._timeline.restart()
        elif self._start:
            self._steps += 1
            self._tokens += len(result.tokens)
            if now - self._start >= self._seconds and self._steps > 1:
                self._is_done = True
                found = {"busy": self._timeline.share(), "steps": self._steps, "tokens": self._tokens}
                self._report.write_text(json.dumps(found | {"seconds": now - self._start}))
        return result


def loaded(config: EngineConfig, report: Path, weights: str, seats: int, setup: Setup) -> Loaded:
    start = time.perf_counter()
    step_tokens, longest = setup.pick((STEP_TOKENS, LONGEST), (32, 64))
    blocks = 1 + seats * longest // BLOCK_SIZE
    model = random_model(setup, weights, {"T": step_tokens, "R": seats, "G": seats}, longest, blocks)
    settings = settings_of(model, seats, step_tokens, longest)
    runner = AheadRunner(model, vocabulary(model), BLOCK_SIZE, longest)
    arena = model.program.arena_bytes
    unread: Any = None
    return Loaded(
        config=config,
        directory=Path(str(config.model)),
        config_directory=Path(str(config.model)),
        model_config=unread,
        defaults=GenerationDefaults(),
        eos_token_ids=(),
        tokenizer=None,
        program=model.program,
        settings=settings,
        memory=MemoryPlan(0, 0, model.program.weight_bytes, arena, 0, model.num_blocks, longest),
        model=model,
        execute=Watched(runner, Timeline(model), report, seats, setup).execute,
        load_s=time.perf_counter() - start,
        device="cuda",
        prepare=runner.prepare,
    )


def main() -> None:
    report, weights, seats, dry, socket, ledger = sys.argv[1:]
    is_dry = dry == "dry"
    setup = Setup(torch.device("cpu" if is_dry else "cuda"), is_dry, float("inf"))

    def load(config: EngineConfig, **_: Any) -> Loaded:
        return loaded(config, Path(report), weights, int(seats), setup)

    albireo.engine_process.worker.load = load  # type: ignore[assignment,attr-defined]
    albireo.engine_process.worker.run(socket, ledger)


if __name__ == "__main__":
    main()
