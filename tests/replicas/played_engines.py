"""Engines whose processes are played: stepped, killed and made ready by a test, which says what each does when."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from albireo.api.requests.submission import Submission
from albireo.config import EngineConfig
from albireo.engine_process.messages import Abort, Add, Message, Ready, Start, Stepped, Update
from albireo.engine_process.tracked import Inbox, Tracked
from albireo.models.settings.generation import GenerationDefaults
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
        #: why it cannot be started
        self.refusal: OSError | None = None

    async def start(self) -> None:
        if self.refusal is not None:
            raise self.refusal

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

        #: of processes from now on
        self.refusal: OSError | None = None

        def launch(index: int) -> Callable[..., Process]:
            def made(on_payload: Any, on_end: Any) -> Process:
                process = self.processes[index] = Process(on_payload, on_end)
                process.refusal = self.refusal
                return process

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
