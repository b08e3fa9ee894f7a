"""Requests that move between engines, over played processes: who has what, and that no token is another one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pytest

from albireo.api.admission import Submission
from albireo.config import EngineConfig
from albireo.engine_process.messages import Abort, Add, Failed, Message, Ready, Start, Stepped, Update
from albireo.engine_process.tracked import Inbox, Tracked
from albireo.errors import EngineError, OutOfMemory
from albireo.models.generation import GenerationDefaults
from albireo.params import SamplingParams
from albireo.replicas.place import Place
from albireo.replicas.replicas import Replicas

CRASH, KILL = -signal.SIGSEGV, -signal.SIGKILL


def next_token(tokens: list[int]) -> int:
    """What the model says: a function of the tokens alone."""
    return (31 * sum(tokens) + 7 * len(tokens)) % 97


class Process:
    """An engine process as its client sees it, stepped by the test; of its requests at most num_seats run."""

    pid = None

    def __init__(self, on_payload: Callable[[bytes], None], on_end: Callable[[int, list[int]], None]) -> None:
        self.say = lambda message: on_payload(msgspec.msgpack.encode(message))
        self._on_end = on_end
        self.heard: list[Message] = []
        self.running: dict[int, list[Any]] = {}
        self.num_killed = 0

    async def start(self) -> None: ...

    async def ended(self) -> None: ...

    def kill(self) -> None:
        self.num_killed += 1

    def send(self, message: Message) -> None:
        self.heard.append(message)

    def is_ready(self, **but: Any) -> None:
        config = msgspec.to_builtins(EngineConfig(max_num_seqs=4, **but.pop("engine", {})))
        known = {"vocab_size": 97, "max_model_len": 512, "max_num_seqs": 4, "num_blocks": 65, "block_size": 16, **but}
        self.say(Ready(config, "", GenerationDefaults(), memory={}, load_s=0.0, **known))

    def obey(self) -> None:
        for message in self.heard:
            if isinstance(message, Add):
                output = list((message.earlier or [[]])[0] or [])
                self.running[message.key] = [message.prompt_token_ids, output, message.params.max_tokens]
            elif isinstance(message, Abort):
                self.running.pop(message.key, None)
        self.heard.clear()

    def compute(self, num_seats: int = 4) -> Stepped:
        """A step, of which nobody is told yet."""
        updates = []
        for key, (prompt, output, most) in list(self.running.items())[:num_seats]:
            output.append(next_token(prompt + output))
            ends = "length" if len(output) == most else None
            updates.append(Update(key, 0, output[-1:], None, ends))
            if ends:
                del self.running[key]
        waiting = max(0, len(self.running) - num_seats)
        return Stepped(updates, 0.0, 0.0, 0, 0, len(self.running) - waiting, waiting, 0.0, 0, 0, 0)

    def step(self, num_seats: int = 4) -> None:
        self.obey()
        self.say(self.compute(num_seats))

    def die(self, status: int, *guilty: Tracked) -> None:
        self._on_end(status, [tracked.ticket for tracked in guilty])


class Bench:
    """Engines whose processes were started; processes[i] is the newest of engine i."""

    def __init__(self, num: int = 2) -> None:
        self.processes: list[Process] = [None] * num  # type: ignore[list-item]

        def launch(index: int) -> Callable[..., Process]:
            def made(on_payload: Any, on_end: Any) -> Process:
                self.processes[index] = Process(on_payload, on_end)
                return self.processes[index]

            return made

        self.over: list[Tracked] = []
        self.num_counted = 0
        places = [Place(launch(i)) for i in range(num)]
        self.all = Replicas({}, places, on_over=self.over.append, on_step=self.count)
        self.all.start()

    def add(self, prompt: list[int], max_tokens: int = 6, priority: int = 0, **params: Any) -> Tracked:
        asked = SamplingParams(max_tokens=max_tokens, **{"seed": 1, **params})
        return self.all.submit("r", Submission(None, prompt, asked), Inbox(), priority=priority, arrival_s=0.0)

    def count(self, index: int, step: Stepped, requests: Mapping[int, Tracked]) -> None:
        """As metrics do, before a step's tokens are given out."""
        self.num_counted += sum(update.key in requests for update in step.updates)

    def run(self) -> None:
        """Until nothing is left to do."""
        for _ in range(50):
            for process, engine in zip(self.processes, self.all.engines, strict=True):
                if engine.health.state == "ready":
                    process.step()
        assert not self.all.requests


def played(play: Callable[[Bench], Awaitable[None]], num: int = 2, ready: int | None = None) -> None:
    """Play with engines of which so many are ready; None: all."""

    async def main() -> None:
        bench = Bench(num)
        await settled()
        for process in bench.processes[:ready]:
            process.is_ready()
        await play(bench)
        await bench.all.close()

    asyncio.run(main())


async def settled() -> None:
    """Let what is due be done."""
    for _ in range(5):
        await asyncio.sleep(0)


async def restarted(bench: Bench, index: int) -> Process:
    """The next process of an engine whose last one died, not ready yet."""
    old = bench.processes[index]
    async with asyncio.timeout(30):
        while bench.processes[index] is old:
            await asyncio.sleep(0.001)
    await settled()
    assert isinstance(bench.processes[index].heard[0], Start)
    return bench.processes[index]


def expected(tracked: Tracked) -> list[int]:
    tokens = list(tracked.submission.prompt_token_ids)
    for _ in range(tracked.submission.params.max_tokens or 0):
        tokens.append(next_token(tokens))
    return tokens[len(tracked.submission.prompt_token_ids) :]


def is_whole(tracked: Tracked) -> bool:
    return tracked.is_over and tracked.continuations[0].token_ids == expected(tracked)


def test_those_of_a_killed_process_go_on_at_once_elsewhere() -> None:
    async def play(bench: Bench) -> None:
        a, b, c = (bench.add([i, i + 1]) for i in range(3))
        assert [t.replica for t in (a, b, c)] == [0, 1, 0]
        bench.processes[0].step()
        bench.processes[0].step()
        bench.processes[0].die(KILL, a, c)
        assert [t.replica for t in (a, b, c)] == [1, 1, 1] and [t.num_moves for t in (a, b, c)] == [1, 0, 1]
        (add,) = (m for m in bench.processes[1].heard if isinstance(m, Add) and m.key == a.ticket)
        assert add.earlier == [expected(a)[:2]]
        assert bench.all.health.state == "ready" and bench.all.health.num_restarts == 1
        bench.run()
        assert all(map(is_whole, (a, b, c))) and {*bench.over} == {a, b, c} and len(bench.over) == 3

    played(play)


def test_what_the_old_engine_still_says_is_not_heard() -> None:
    """A request moves away and comes back while a step of before is on its way: its token is counted once."""

    async def play(bench: Bench) -> None:
        tracked = bench.add([1, 2])
        first, second = bench.processes
        first.obey()
        late = first.compute()
        bench.all._move(tracked)
        assert tracked.replica == 1
        second.step()
        bench.all._move(tracked)
        assert tracked.replica == 0
        first.say(late)
        assert tracked.num_output_tokens == 1
        bench.run()
        assert is_whole(tracked)

    played(play)


def test_who_may_have_crashed_a_process_is_not_given_to_another() -> None:
    async def play(bench: Bench) -> None:
        computed, other, waiting = bench.add([1]), bench.add([2]), bench.add([3])
        assert [t.replica for t in (computed, other, waiting)] == [0, 1, 0]
        bench.processes[0].die(CRASH, computed)
        assert [t.replica for t in (computed, other, waiting)] == [0, 1, 1]
        process = await restarted(bench, 0)
        process.is_ready()
        process.obey()
        process.die(CRASH, computed)
        assert computed.is_over and computed.continuations[0].finish_reason == "error"
        await restarted(bench, 0)
        bench.processes[0].is_ready()
        bench.run()
        assert is_whole(other) and is_whole(waiting) and bench.all.engines[1].health.num_restarts == 0

    played(play)


def test_a_kill_is_passed_on_once_only() -> None:
    async def play(bench: Bench) -> None:
        tracked = bench.add([1])
        bench.processes[0].die(KILL, tracked)
        assert tracked.replica == 1
        (await restarted(bench, 0)).is_ready()
        bench.processes[1].die(KILL, tracked)
        assert tracked.replica == 1, "two in a row may be its doing"
        assert bench.add([2]).replica == 0
        (await restarted(bench, 1)).is_ready()
        bench.run()
        assert is_whole(tracked)

    played(play)


def test_without_any_process_requests_wait_for_whichever_is_first() -> None:
    async def play(bench: Bench) -> None:
        before = bench.add([1])
        for process in bench.processes:
            process.die(KILL)
        between = bench.add([2])
        assert bench.all.health.state == "restarting" and bench.all.health.num_restarts == 2
        (await restarted(bench, 1)).is_ready()
        assert (before.replica, between.replica) == (1, 1)
        bench.run()
        assert is_whole(before) and is_whole(between)

    played(play)


def test_an_idle_engine_takes_the_end_of_a_line() -> None:
    async def play(bench: Bench) -> None:
        bench.processes[1].die(KILL)
        line = [bench.add([i]) for i in range(8)]
        (await restarted(bench, 1)).is_ready()
        bench.processes[0].step(num_seats=2)
        await settled()
        assert [t.replica for t in line] == [0] * 5 + [1] * 3 and all(t.num_moves == 0 for t in line[:5])
        bench.run()
        assert all(map(is_whole, line))

    played(play)


def test_what_a_step_brought_is_given_out_before_a_line_is_cut() -> None:
    """The step that tells of a line brings the first tokens of those at its end, which metrics have counted."""

    async def play(bench: Bench) -> None:
        bench.processes[1].die(KILL)
        line = [bench.add([i]) for i in range(8)]
        (await restarted(bench, 1)).is_ready()
        bench.processes[0].obey()
        step = bench.processes[0].compute(num_seats=8)
        step.num_waiting = 4
        bench.processes[0].say(step)
        await settled()
        bench.run()
        assert all(map(is_whole, line))
        assert bench.num_counted == sum(t.num_output_tokens for t in line)

    played(play)


def test_the_least_urgent_leave_a_line_by_priority() -> None:
    async def play(bench: Bench) -> None:
        for process in bench.processes:
            process.is_ready(engine={"scheduling_policy": "priority"})
        bench.processes[1].die(KILL)
        line = [bench.add([i], priority=-i) for i in range(6)]
        (await restarted(bench, 1)).is_ready()
        bench.processes[0].obey()
        bench.processes[0].say(Stepped([], 0.0, 0.0, 0, 0, 2, 4, 0.0, 0, 0, 0))
        await settled()
        assert [t.replica for t in line] == [1, 1, 0, 0, 0, 0]

    played(play, ready=0)


def test_prompts_follow_their_prefix() -> None:
    async def play(bench: Bench) -> None:
        prompt = list(range(64))
        first, other = bench.add(prompt), bench.add([90])
        bench.run()
        assert (first.replica, other.replica) == (0, 1)
        held = [bench.add([*prompt, i]) for i in range(2)]
        assert [t.replica for t in held] == [0, 1], "four blocks are not worth a sequence"
        assert held[0].num_pending == 1 and held[1].num_pending == 65
        bench.run()
        again = bench.add([*prompt, 5], priority=1)
        salted = bench.all.submit(
            "s", Submission(None, prompt, SamplingParams(max_tokens=2), "salt"), Inbox(), arrival_s=0.0
        )
        assert again.num_pending == 1 and salted.num_pending == 64
        bench.run()

    played(play)


def test_the_next_turn_follows_the_answer_until_its_engine_dies() -> None:
    async def play(bench: Bench) -> None:
        first = bench.add(list(range(10)), max_tokens=40)
        bench.run()
        turn = [*range(10), *expected(first)]
        assert bench.add(turn).num_pending == 50 - 48
        bench.run()
        bench.processes[first.replica].die(KILL)
        (await restarted(bench, first.replica)).is_ready()
        assert bench.add(turn).num_pending == 50
        bench.run()

    played(play)


def test_requests_are_the_same_whatever_the_number_of_engines() -> None:
    seeds = []
    for num in (1, 3):

        async def play(bench: Bench) -> None:
            found = [bench.add([i], seed=None) for i in range(4)]
            seeds.append([t.submission.params.seed for t in found])
            bench.run()
            assert all(map(is_whole, found))

        played(play, num)
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == 4


def test_one_that_cannot_start_leaves_the_work_to_the_others() -> None:
    async def play(bench: Bench) -> None:
        bench.processes[0].say(Failed("OutOfMemory", "no room"))
        assert bench.all.failure is None and bench.all.health.state == "loading"
        bench.processes[1].is_ready()
        assert (await bench.all.wait_until_ready()).num_blocks == 65
        tracked = bench.add([1])
        assert tracked.replica == 1 and isinstance(bench.all.engines[0].health.failure, OutOfMemory)
        bench.run()
        assert is_whole(tracked)

    played(play, ready=0)


def test_with_none_that_can_start_there_is_a_reason() -> None:
    async def play(bench: Bench) -> None:
        waiting = asyncio.create_task(bench.all.wait_until_ready())
        for process in bench.processes:
            await settled()
            process.say(Failed("OutOfMemory", "no room"))
        with pytest.raises(OutOfMemory, match="no room"):
            await waiting
        assert isinstance(await bench.all.wait_until_failed(), OutOfMemory)
        with pytest.raises(EngineError):
            bench.add([1])

    played(play, ready=0)


def test_one_with_less_room_than_the_first_is_not_used() -> None:
    async def play(bench: Bench) -> None:
        bench.processes[1].is_ready(max_model_len=256)
        failure = bench.all.engines[1].health.failure
        assert failure is not None and "256 tokens of context" in str(failure) and bench.processes[1].num_killed == 1
        assert [bench.add([i]).replica for i in range(2)] == [0, 0]
        bench.run()

    played(play, ready=1)


def test_the_load_is_what_is_not_over() -> None:
    async def play(bench: Bench) -> None:
        tracked = [bench.add([1, 2, 3]) for _ in range(3)]
        assert [t.num_pending for t in tracked] == [3, 3, 3]
        assert bench.all._standing(0).num_sequences == 2 and bench.all._standing(0).num_pending == 6
        bench.processes[0].step()
        assert bench.all._standing(0).num_pending == 0
        bench.all.abort(tracked[0])
        bench.all.abort(tracked[0])
        assert bench.all._standing(0).num_sequences == 1 and bench.over == [tracked[0]]
        bench.run()
        assert bench.all._standing(0) == bench.all._standing(1).__class__(0, 0, 0, 4)

    played(play)
