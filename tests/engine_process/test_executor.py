"""Computing sequences one by one gives the bits of computing them together, and the ledger knows whose turn it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from albireo.api.load import load
from albireo.config import EngineConfig
from albireo.engine.engine import Engine
from albireo.engine_process import ledger
from albireo.engine_process.executor import NotingExecutor
from albireo.engine_process.ledger import Ledger
from albireo.errors import DeviceLost, RankLost
from albireo.params import PoolingParams, SamplingParams
from albireo.step import SequenceWork, StepPlan, StepResult


@pytest.fixture(scope="module")
def loaded() -> Any:
    return load(EngineConfig(num_threads=1, skip_tokenizer_init=True))


def run(loaded: Any, path: Path, careful_steps: range) -> tuple[dict[Any, list[int]], dict[Any, Any]]:
    """Four requests of shared prefixes, n = 2 among them, and two embeddings; in some steps one by one."""
    ledger.create(path)
    executor = NotingExecutor(loaded.execute, Ledger(path))
    seen: list[list[int]] = []

    def execute(plan: StepPlan) -> StepResult:
        seen.append(ledger.read(path))
        return loaded.execute(plan)

    executor._execute = execute
    engine = Engine(loaded.settings, executor, lambda: 0.0)
    tokens: dict[Any, list[int]] = {}
    logprobs: dict[Any, Any] = {}
    for i in range(4):
        params = SamplingParams(
            n=1 + i % 2, seed=i, temperature=0.9, max_tokens=20, logprobs=2 if i % 2 else None, ignore_eos=True,
            prompt_logprobs=1 if i == 3 else None,
        )  # fmt: skip
        ids = engine.add_request(str(i), [5, 6, 7] * 11 + [i], params)
        executor.owners.update(dict.fromkeys(ids, i))
    for i, kind in ((4, PoolingParams()), (5, PoolingParams(pooling_type="mean"))):
        ids = engine.add_request(str(i), [5, 6, 7] * 11 + [i], SamplingParams(), pooling=kind)
        executor.owners.update(dict.fromkeys(ids, i))
    step = 0
    while engine.has_work():
        executor.is_careful = step in careful_steps
        seen.clear()
        for update in engine.step():
            tokens.setdefault((update.request_id, update.index), []).extend(update.token_ids)
            logprobs.setdefault((update.request_id, update.index), []).extend(update.logprobs or [])
            if update.embedding is not None:
                logprobs["embedding", update.request_id] = update.embedding
            if update.progress.prompt_logprobs:
                logprobs["prompt"] = list(update.progress.prompt_logprobs)
        assert ledger.read(path) == [], "nothing is computed between steps"
        assert all(len(keys) == 1 for keys in seen) if executor.is_careful else len(seen) == 1
        assert {key for keys in seen for key in keys} <= set(range(6))
        step += 1
    assert step >= 20 and {("embedding", "4"), ("embedding", "5")} <= logprobs.keys()
    return tokens, logprobs


@pytest.mark.parametrize("careful_steps", [range(100), range(1), range(3, 9), range(0, 100, 2)])
def test_one_by_one_is_the_same(loaded: Any, tmp_path: Path, careful_steps: range) -> None:
    together = run(loaded, tmp_path / "a", range(0))
    assert run(loaded, tmp_path / "b", careful_steps) == together


class Panic(BaseException):
    """As pyo3's, of a library in Rust."""


@pytest.mark.parametrize(
    ("error", "suspects"),
    [(Panic(), [7]), (DeviceLost("the GPU is lost"), [7]), (RankLost("rank 1 is gone"), []), (ValueError(), [])],
)
def test_who_was_computed_is_told_where_the_process_ends_of_it(
    tmp_path: Path, error: BaseException, suspects: list[int]
) -> None:
    ledger.create(tmp_path / "ledger")

    def execute(plan: StepPlan) -> StepResult:
        raise error

    executor = NotingExecutor(execute, Ledger(tmp_path / "ledger"))
    executor.owners[3] = 7
    with pytest.raises(type(error)):
        executor(StepPlan(0, [SequenceWork(3, [1], 0, ([1],))], 1))
    assert ledger.read(tmp_path / "ledger") == suspects


def test_a_ledger_is_read_without_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger.create(path)
    writer = Ledger(path)
    writer.note([3, 3, 2**40])
    assert ledger.read(path) == [3, 2**40]
    writer.note_compiled([7, 3])
    assert ledger.read(path) == [3, 2**40, 7]
    writer.note(range(20_000))
    writer.note_compiled(range(30_000, 30_100))
    assert ledger.read(path) == [*range(ledger.MAX_KEYS), *range(30_000, 30_000 + ledger.MAX_COMPILED)]
    writer.note_compiled(())
    assert ledger.read(path) == list(range(ledger.MAX_KEYS))
    writer.note(())
    assert ledger.read(path) == []
