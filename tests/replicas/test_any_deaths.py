"""Random deaths, sleeps, moves, aborts and words on their way: every request ends once, with the tokens it gets alone.

Processes are played, but what they run is the engine itself, told and asked as worker.py does. What is said waits until
it is delivered, in both directions; a process that died has said all that it said.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.api.requests.submission import Submission
from albireo.config import EngineConfig
from albireo.engine.engine import Engine
from albireo.engine.settings import EngineSettings
from albireo.engine_process import retries
from albireo.engine_process.executor import NotingExecutor
from albireo.engine_process.messages import (
    Abort,
    Add,
    Careful,
    Finish,
    Message,
    Progress,
    Ready,
    Refused,
    Start,
    Stepped,
    Update,
)
from albireo.engine_process.tracked import Inbox, Tracked
from albireo.errors import EngineError, RequestError
from albireo.models.settings.generation import GenerationDefaults
from albireo.params import SamplingParams
from albireo.replicas.place import Place
from albireo.replicas.replicas import Replicas
from albireo.step import SampledToken, SampleTask, StepPlan, StepResult, TokenLogprobs
from more_examples import more_examples
from replicas.played_engines import CRASH, KILL, settled

VOCAB, EOS, SEATS = 23, 0, 3
CONFIG = {"vocab_size": VOCAB, "max_model_len": 40, "max_num_seqs": SEATS, "num_blocks": 12, "block_size": 8}


def drawn(task: SampleTask, history: list[int]) -> tuple[int, float]:
    """The token behind a history, and its log-probability."""
    found = zlib.crc32(bytes(history), task.seed & 0xFFFFFFFF)
    token = found % VOCAB
    while token in task.early_ends:
        token = (token + 1) % VOCAB
    return token, -float(found % 1000) / 64


def execute(plan: StepPlan) -> StepResult:
    """The model: it is told histories, since blocks are of no interest here."""
    result = StepResult([])
    for work in plan.work:
        for task in work.samples:
            token, value = drawn(task, [*task.prompt_token_ids, *task.output_token_ids])
            told = None if task.params.logprobs is None else TokenLogprobs([token], [value], [1])
            result.tokens.append(SampledToken(task.seq_id, token, told))
        if work.prompt_logprobs is not None:
            targets = list(work.prompt_targets)
            result.prompt_logprobs[work.seq_id] = [TokenLogprobs([target], [-1.0 * target], [1]) for target in targets]
    return result


def alone(tracked: Tracked) -> list[list[int]]:
    """Tokens of each continuation, worked out without an engine."""
    params, prompt = tracked.submission.params, tracked.submission.prompt_token_ids
    ends = {EOS, *(params.stop_token_ids or ())} if not params.ignore_eos else {*(params.stop_token_ids or ())}
    longest = min(CONFIG["max_model_len"] - len(prompt), params.max_tokens or 1000)
    assert params.seed is not None, "the server names it"
    found = []
    for index in range(params.n):
        output: list[int] = []
        while len(output) < longest and not (output and output[-1] in ends and len(output) >= params.min_tokens):
            task = SampleTask(0, params, (params.seed + index) % 2**64, prompt, output, tuple(sorted({EOS, *ends})))
            output.append(drawn(task, [*prompt, *output])[0])
        found.append(output)
    return found


class Notes:
    """A ledger that dies with nobody."""

    def __init__(self) -> None:
        self.keys: list[int] = []

    def note(self, keys: Any) -> None:
        self.keys = list(dict.fromkeys(keys))


class Process:
    """Implements link.EngineLink. Attributes: is_there: it lives. unsaid: what it says and nobody was told yet."""

    pid = None

    def __init__(self, on_payload: Callable[[bytes], None], on_end: Callable[[int, list[int]], None]) -> None:
        self.on_payload, self._on_end = on_payload, on_end
        self.heard: list[Message] = []
        self.unsaid: list[Message] = []
        self.is_there, self.is_told_to_end, self.is_loaded = True, False, False
        self.num_ends = 0
        self.notes = Notes()
        self.executor = NotingExecutor(self._execute, self.notes)  # type: ignore[arg-type]
        self.engine = Engine(EngineSettings(**CONFIG, eos_token_ids=frozenset({EOS})), self.executor, lambda: 0.0)
        self.fresh: set[int] = set()
        self.dies_at: int | None = None
        self._num_executed = 0
        self._has_ended = asyncio.Event()

    async def start(self) -> None: ...

    async def ended(self) -> None:
        await self._has_ended.wait()

    def kill(self) -> None:
        """It ends when end() is called; what it said before is still read."""
        self.is_told_to_end = True

    def send(self, message: Message) -> None:
        if self.is_there:
            self.heard.append(msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message)))

    def deliver(self, num: int = 1000) -> None:
        for _ in range(min(num, len(self.unsaid))):
            self.on_payload(msgspec.msgpack.encode(self.unsaid.pop(0)))

    def end(self, status: int) -> None:
        if self.is_there:
            self.is_there = False
            self.deliver()
            self.num_ends += 1
            self._has_ended.set()
            self._on_end(status, list(self.notes.keys))

    def load(self) -> None:
        assert isinstance(self.heard[0], Start)
        config = msgspec.to_builtins(EngineConfig(max_num_seqs=SEATS))
        self.is_loaded = True
        self.unsaid.append(Ready(config, "", GenerationDefaults(), memory={}, load_s=0.0, **CONFIG))

    def turn(self, dies_at: int | None = None) -> bool:
        """Obey, and step. Args: dies_at: of how manyth part of the step. Returns: whether it did that."""
        messages, self.heard = self.heard, []
        for message in messages:
            self._obey(message)
        if not self.engine.has_work():
            return True
        self.dies_at, self._num_executed = dies_at, 0
        try:
            updates = self.engine.step()
        except StopIteration:
            return False
        told = [self._update(update) for update in updates]
        stats = self.engine.stats()
        counts = (stats.num_requests_running, stats.num_requests_waiting)
        self.unsaid.append(Stepped(told, 0.0, 0.0, 0, 0, *counts, 0.0, 0, 0, 0))
        self.engine.check_invariants()
        return True

    def _execute(self, plan: StepPlan) -> StepResult:
        self._num_executed += 1
        if self.dies_at == self._num_executed or (self.dies_at is not None and not self.executor.is_careful):
            raise StopIteration
        return execute(plan)

    def _obey(self, message: Message) -> None:
        if isinstance(message, Add):
            try:
                ids = self.engine.add_request(
                    str(message.key), message.prompt_token_ids, message.params, earlier=message.earlier
                )
            except RequestError as error:
                self.unsaid.append(Refused(message.key, type(error).__name__, str(error)))
                return
            self.fresh.add(message.key)
            self.executor.owners.update(dict.fromkeys(ids, message.key))
        elif isinstance(message, Abort):
            self.engine.abort(str(message.key))
        elif isinstance(message, Finish):
            self.engine.finish(str(message.key), message.index, "stop")
        elif isinstance(message, Careful):
            self.executor.is_careful = message.is_on

    def _update(self, update: Any) -> Update:
        key, progress = int(update.request_id), None
        if key in self.fresh or update.is_request_finished:
            told = update.progress.prompt_logprobs if key in self.fresh else None
            self.fresh.discard(key)
            progress = Progress(0.0, 0.0, 0, 0, 0, 0.0, None, told)
        found = (update.token_ids, update.logprobs, update.finish_reason, update.stop_reason, progress)
        return Update(key, update.index, *found)


class Bench:
    def __init__(self, num: int) -> None:
        self.processes: list[Process] = [None] * num  # type: ignore[list-item]
        self.over: list[Tracked] = []
        self.added: list[Tracked] = []
        self.aborted: set[Tracked] = set()
        #: there were two processes of one engine, which would want its memory twice
        self.were_together = False
        places = [Place(lambda said, end, at=index: self._launched(at, said, end)) for index in range(num)]
        self.all = Replicas({}, places, on_over=self.over.append)
        self.all.start()

    def _launched(self, index: int, on_payload: Any, on_end: Any) -> Process:
        before = self.processes[index]
        self.were_together |= before is not None and before.is_there
        self.processes[index] = Process(on_payload, on_end)
        return self.processes[index]

    def add(self, spec: dict[str, Any]) -> None:
        asked = dict(spec)
        submission = Submission(None, asked.pop("prompt"), SamplingParams(detokenize=False, **asked))
        try:
            self.added.append(self.all.submit("r", submission, Inbox(), arrival_s=0.0))
        except EngineError:
            assert self.all.failure is not None

    async def apply(self, event: tuple[Any, ...]) -> None:
        kind, which, what = event
        process = self.processes[which % len(self.processes)]
        if kind == "add":
            self.add(what)
        elif kind == "abort" and self.added:
            tracked = self.added[what % len(self.added)]
            if not tracked.is_over:
                self.aborted.add(tracked)
            self.all.abort(tracked)
        elif kind == "sleep":
            if what:
                await self.finish()
            if self.all.is_at_rest and not self.all.is_asleep:
                # not waited for: who is told to end says something more
                self.sleeping = asyncio.create_task(self.all.sleep())
        elif kind == "die":
            for _ in range(what[2]):
                self._die(which % len(self.processes), *what[:2])
                await settled()
        elif process is not None and process.is_there and not process.is_told_to_end:
            self._play(process, kind, what)
        await settled()
        for engine in self.all.engines:
            there = engine.requests.values()
            num_sequences = sum(len(each.continuations) - each.num_ended for each in there)
            assert (engine.num_sequences, engine.num_pending) == (num_sequences, sum(t.num_pending for t in there))

    def _die(self, index: int, status: int, dies_at: int | None) -> None:
        """One that was not loaded yet is, as a rule, so that it dies of what it computes."""
        process = self.processes[index]
        if process is None or not process.is_there:
            return
        if process.is_told_to_end:
            process.end(KILL)
            return
        if dies_at is not None and not process.is_loaded and process.heard:
            process.load()
            process.deliver()
        if not process.is_loaded or process.turn(dies_at):
            process.notes.keys = []
        process.end(status)

    def _play(self, process: Process, kind: str, what: Any) -> None:
        if kind == "load" and not process.is_loaded and process.heard:
            process.load()
        elif kind == "turn" and process.is_loaded:
            for _ in range(what):
                process.turn()
        elif kind == "hear":
            process.deliver(what)

    async def finish(self) -> None:
        for _ in range(200):
            await settled()
            if not self.all.requests:
                return
            for process in self.processes:
                if process is None or not process.is_there:
                    continue
                if process.is_told_to_end:
                    process.end(KILL)
                    continue
                if not process.is_loaded and process.heard:
                    process.load()
                if process.is_loaded:
                    process.turn()
                process.deliver()
        raise AssertionError(f"requests that do not end: {self.all.requests}")

    async def close(self) -> None:
        """Nobody is left, and nothing comes back by what is still said."""
        closing = asyncio.create_task(self.all.close())
        await settled()
        for process in self.processes:
            if process is not None and process.is_there:
                assert process.is_told_to_end
                if not process.is_loaded and process.heard:
                    process.load()
                process.end(KILL)
        await closing
        await settled()
        assert all(process is None or not process.is_there for process in self.processes)


specs = st.fixed_dictionaries(
    {
        "prompt": st.lists(st.integers(1, VOCAB - 1), min_size=1, max_size=36),
        "n": st.sampled_from([1, 1, 2, 4]),
        "max_tokens": st.sampled_from([1, 2, 7, None]),
        "min_tokens": st.sampled_from([0, 0, 1]),
        "seed": st.sampled_from([None, 1, -(2**63)]),
        "ignore_eos": st.booleans(),
        "stop_token_ids": st.sampled_from([None, (3, 5, 9)]),
        "logprobs": st.sampled_from([None, 0]),
        "prompt_logprobs": st.sampled_from([None, None, 0]),
    }
)
engines = st.integers(0, 2)
#: status, in which part of a step, and how often
deaths = st.tuples(
    st.sampled_from([CRASH, CRASH, KILL, 1]), st.sampled_from([None, 1, 1, 2]), st.sampled_from([1, 1, 2, 3, 4])
)
events = st.one_of(
    st.tuples(st.just("add"), engines, specs),
    st.tuples(st.just("add"), engines, specs),
    st.tuples(st.just("load"), engines, st.none()),
    st.tuples(st.just("turn"), engines, st.integers(1, 3)),
    st.tuples(st.just("turn"), engines, st.integers(1, 3)),
    st.tuples(st.just("hear"), engines, st.sampled_from([1, 2, 100])),
    st.tuples(st.just("hear"), engines, st.sampled_from([1, 2, 100])),
    st.tuples(st.just("die"), engines, deaths),
    st.tuples(st.just("abort"), engines, st.integers(0, 20)),
    st.tuples(st.just("sleep"), engines, st.booleans()),
)


def check(bench: Bench) -> None:
    assert not bench.were_together
    assert len(bench.over) == len(set(bench.over)) == len(bench.added), "each is over once"
    assert not any(engine.requests for engine in bench.all.engines)
    for tracked in bench.added:
        reasons = {continuation.finish_reason for continuation in tracked.continuations}
        assert tracked.is_over
        if tracked.error is not None:
            assert "was asleep and could not be started" in str(tracked.error)
            continue
        assert None not in reasons
        for continuation, whole in zip(tracked.continuations, alone(tracked), strict=True):
            found = continuation.token_ids
            assert found == whole[: len(found)]
            assert found == whole or continuation.finish_reason in ("abort", "error")
            assert continuation.logprobs is None or len(continuation.logprobs) == len(found)
        if "abort" in reasons:
            assert tracked in bench.aborted
        if "error" in reasons:
            assert tracked.strikes.num > 0 or bench.all.failure is not None
        elif tracked.submission.params.prompt_logprobs is not None and tracked not in bench.aborted:
            assert tracked.prompt_logprobs is not None
            assert [each.token_ids for each in tracked.prompt_logprobs] == [
                [token] for token in tracked.submission.prompt_token_ids[1:]
            ]


@more_examples(3)
@given(num=st.integers(1, 3), script=st.lists(events, min_size=8, max_size=50))
def test_every_request_ends_once_with_its_tokens_whatever_dies(num: int, script: list[tuple[Any, ...]]) -> None:
    async def main() -> None:
        bench = Bench(num)
        await settled()
        for event in script:
            await bench.apply(event)
        await bench.finish()
        check(bench)
        await bench.close()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retries, "PAUSE_S", 0.0)
        asyncio.run(main())
