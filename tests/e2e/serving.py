"""A model loaded as the front doors load it, an engine on it, and every logit it computes on the way.

Used by the tests of this folder. What is recorded is what the runner saw, row by row, named by request and position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.api.load import Loaded, load
from albireo.backends.cpu.model import CpuModel
from albireo.backends.cpu.ranks import TensorParallelModel
from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import StepOutputs
from albireo.config import EngineConfig
from albireo.engine.block_tables import blocks_needed
from albireo.engine.engine import Engine
from albireo.engine.stats import EngineStats
from albireo.execution.inputs import PackedStep
from albireo.execution.runner import Runner, RunnerParts
from albireo.params import SamplingParams
from albireo.speculative.proposer import Method
from albireo.step import StepPlan, StepResult

Row = NDArray[np.float32]
#: (sequence, position of the token the row is computed from) -> its logits
Rows = dict[tuple[int, int], Row]


@dataclass(frozen=True)
class Ask:
    """One request. adapter: its number, as the loaded model's adapters gave it."""

    prompt: tuple[int, ...]
    params: SamplingParams
    adapter: int | None = None


@dataclass
class Answer:
    """What came of one request.

    Fields:
        tokens: one list a continuation.
        rows: raw logits by the position of the token they were computed from; of continuation 0.
        num_cached_tokens: prompt tokens that were found in the prefix cache.
    """

    tokens: list[list[int]]
    rows: dict[int, Row]
    num_cached_tokens: int = 0


class _Recording:
    """A device model that remembers the outputs of its last step. Its blocks from host on stand for host memory."""

    def __init__(self, model: CpuModel | TensorParallelModel, host: int) -> None:
        self._model = model
        self._host = host
        self.last: StepOutputs | None = None

    def run(self, inputs: StepInputs) -> StepOutputs:
        self.last = self._model.run(inputs)
        return self.last

    def also(self, program: Any) -> _Other:
        """Another program of the model, whose outputs are remembered here, too."""
        return _Other(self, program)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        self._model.copy_blocks(pairs)

    def copy_states(self, pairs: Sequence[tuple[int, int]]) -> None:
        self._model.copy_states(pairs)

    def swap_out(self, pairs: Sequence[tuple[int, int]]) -> None:
        self._model.copy_blocks([(block, self._host + kept) for block, kept in pairs])

    def swap_in(self, pairs: Sequence[tuple[int, int]]) -> None:
        self._model.copy_blocks([(self._host + kept, block) for kept, block in pairs])


class _Packing(Runner):
    """A runner that remembers the last step as it was packed."""

    packed: PackedStep

    def _pack(self, plan: StepPlan) -> PackedStep:
        self.packed = super()._pack(plan)
        return self.packed


@dataclass
class _Other:
    recording: _Recording
    program: Any

    def run(self, inputs: StepInputs) -> StepOutputs:
        self.recording.last = self.program.run(inputs)
        return self.recording.last


def pressed(loaded: Loaded) -> Loaded:
    """With no more blocks than were asked for: a sequence that would fill them finds just room enough, also where
    windows let some go."""
    settings, asked = loaded.settings, loaded.config.num_gpu_blocks_override
    if asked is None:
        return loaded
    size, max_new = settings.block_size, settings.max_num_batched_tokens
    num_blocks = 1 + blocks_needed((asked - 1) * size, size, settings.windows, max_new)
    return replace(loaded, settings=replace(settings, num_blocks=num_blocks))


def spoil(rank: CpuModel) -> None:
    """Memory that holds NaN wherever nothing was written."""
    for memory in (rank._kv.memory, rank._arena, rank._states):
        memory.view()[:] = 0xFF
    if rank.program.kv.windows != (None,):
        rank._kv.fill(1, 0)  # the null block is read where windows have left others


@dataclass
class Server:
    """A loaded model; every serve() is an engine of its own, with an empty prefix cache, on the same KV memory.

    Fields:
        num_host: of the model's blocks so many are not the engine's, and stand for host memory to swap to.
        method: how drafts are made, where there are some.
    """

    loaded: Loaded
    num_host: int = 0
    method: Method | None = None
    rows: Rows = field(default_factory=dict)

    @classmethod
    def load(cls, directory: Path, **config: Any) -> Server:
        defaults = {"num_threads": 1, "max_num_seqs": 8, "skip_tokenizer_init": True, "max_num_batched_tokens": 512}
        # steps are those of any machine, however fast: what is to come about does
        defaults |= {"target_itl_ms": 0}
        loaded = load(EngineConfig(model=str(directory), **{**defaults, **config}))
        return cls(pressed(loaded))

    def engine(self) -> Engine:
        """A new engine whose every logit goes to rows, on memory that holds NaN wherever nothing was written."""
        self.rows = {}
        for rank in getattr(self.loaded.model, "ranks", [self.loaded.model]):
            spoil(rank)
        config, num_blocks = self.loaded.config, self.loaded.settings.num_blocks
        settings = replace(self.loaded.settings, num_blocks=num_blocks - self.num_host, num_host_blocks=self.num_host)
        recording = _Recording(self.loaded.model, num_blocks - self.num_host)
        adapters = None if self.loaded.adapters is None else self.loaded.adapters.runner
        if adapters is not None:
            program = adapters.program()
            adapters._program = recording.also(program.program if isinstance(program, _Other) else program)
            adapters._held.clear()
        vocab_size = self.loaded.model_config.vocab_size
        states = recording if settings.num_state_slots else None
        kept = self.loaded.hidden_states
        runner = _Packing(
            recording,
            vocab_size,
            config.block_size,
            RunnerParts(adapters=adapters),
            host=recording,
            states=states,
            hidden_states=kept,
        )

        def execute(plan: StepPlan) -> StepResult:
            result = runner.execute(plan)
            if recording.last is not None and plan.work:
                self._record(runner.packed, recording.last.logits, result)
            return result

        ticks = count()
        return Engine(settings, execute, lambda: float(next(ticks)), self.method or self.loaded.method)

    def _record(self, step: PackedStep, logits: Row, result: StepResult) -> None:
        if step.is_top:
            return
        for work, first in step.prompt_rows:
            for i in range(len(work.prompt_targets)):
                self._keep((work.seq_id, work.num_computed_tokens + i), logits[first + i])
        drawn = Counter(token.seq_id for token in result.tokens)
        for task, row in zip(step.tasks, step.task_rows, strict=True):
            position = len(task.prompt_token_ids) + len(task.output_token_ids) - 1
            for i in range(drawn[task.seq_id]):  # more than one where drafts came true
                self._keep((task.seq_id, position + i), logits[row + i])

    def _keep(self, key: tuple[int, int], row: Row) -> None:
        """Rows that are computed again, after a preemption, have the bits they had."""
        if key in self.rows:
            assert self.rows[key].tobytes() == row.tobytes(), f"{key} was computed twice, with different results"
        self.rows[key] = row.copy()

    def serve(self, asks: Sequence[Ask], waves: int = 1, stagger: int = 0) -> tuple[list[Answer], EngineStats]:
        """Answer requests, all in one engine.

        Args:
            waves: the requests come in so many groups, each when the one before is done.
            stagger: steps between one request and the next of a wave.
        """
        engine = self.engine()
        answers = [Answer([[] for _ in range(ask.params.n)], {}) for ask in asks]
        first_ids = np.cumsum([0, *(ask.params.n for ask in asks)]).tolist()
        per_wave = -(-len(asks) // waves)

        def step() -> None:
            for update in engine.step():
                answer = answers[int(update.request_id)]
                answer.tokens[update.index] += update.token_ids
                answer.num_cached_tokens = update.progress.num_cached_tokens

        for start in range(0, len(asks), per_wave):
            for i in range(start, min(start + per_wave, len(asks))):
                engine.add_request(str(i), asks[i].prompt, asks[i].params, adapter=asks[i].adapter)
                for _ in range(stagger):
                    step()
            while engine.has_work():
                step()
        engine.check_invariants()
        for i, answer in enumerate(answers):
            answer.rows = {p: row for (seq, p), row in self.rows.items() if seq == first_ids[i]}
        return answers, engine.stats()

    def alone(self, asks: Sequence[Ask]) -> list[Answer]:
        """Each request in an engine of its own."""
        return [self.serve([ask])[0][0] for ask in asks]


def assert_same_answers(got: Sequence[Answer], wanted: Sequence[Answer]) -> None:
    """The same tokens, and the same bits in every row of logits both have; at least those of the outputs."""
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert a.tokens == b.tokens, f"request {i}"
        common = a.rows.keys() & b.rows.keys()
        assert len(common) >= len(b.tokens[0]) > 0, f"request {i}: only rows {sorted(common)} can be compared"
        for position in sorted(common):
            x, y = a.rows[position].view(np.uint32), b.rows[position].view(np.uint32)
            assert np.array_equal(x, y), f"request {i}, position {position}: {(x != y).sum()} of {x.size} logits differ"
