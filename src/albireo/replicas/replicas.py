"""All engines as the server sees them, as if they were one: submit requests, read what they bring.

Called by server, on one event loop. A request may move from one engine to another at any time: its next token is a
function of those it has, whatever runs beside it. So those of a process that died go on at once elsewhere, and an idle
engine takes from the line of a busy one. Does not know HTTP; a single engine is watched and restarted by its client.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from albireo.api.requests.submission import Submission
from albireo.engine.request import derive_seed
from albireo.engine_process.client import EngineClient, Health
from albireo.engine_process.messages import MAX_MEDIA_BYTES, AdapterLoaded, Blocks, Ready, Stepped
from albireo.engine_process.tracked import SHUTTING_DOWN, Inbox, Tracked
from albireo.errors import ConfigError, EngineError, InvalidParams
from albireo.outputs import FinishReason
from albireo.replicas.place import Place
from albireo.replicas.prefixes import block_keys
from albireo.replicas.router import Router, Standing
from albireo.text.tokenizer import Tokenizer

_LOG = logging.getLogger(__name__)

Requests = Mapping[int, Tracked]
#: See Replicas.pause().
PauseMode = Literal["abort", "wait", "keep"]


class Replicas:
    """Invariants: 1. every request that submit() took ends, exactly once; 2. its tokens are those that it would have
    had in one process that never died; 3. while an engine has nothing to do, none waits for a seat longer than a step.

    Attributes:
        engines: all of them, in order; a request's replica is its engine's place among them.
        ready: what the first of them said that had loaded; None before.
        requests: those that are not over, by key, in order of arrival.
    """

    def __init__(
        self,
        engine: Mapping[str, Any],
        places: Sequence[Place],
        *,
        on_step: Callable[[int, Stepped, Requests], None] = lambda *_: None,
        on_blocks: Callable[[int, Blocks], None] = lambda *_: None,
        on_over: Callable[[Tracked], None] = lambda _: None,
    ) -> None:
        """Args:
        engine: fields of EngineConfig, of each.
        on_step: an engine's step, and its requests by ticket; called before they have their tokens.
        on_over: a request is over; called before its reader is.
        """
        self.ready: Ready | None = None
        self.requests: dict[int, Tracked] = {}
        self.engines = [
            EngineClient(
                {**engine, **place.settings}, place.launch, place.share, name=_name(index, place, len(places)),
                is_alone=len(places) == 1, on_step=partial(self._stepped, index),
                on_blocks=partial(on_blocks, index), on_over=self._over, on_change=partial(self._changed, index),
                held=lambda: (self._held or {}).values(),
            )
            for index, place in enumerate(places)
        ]  # fmt: skip
        self._on_step, self._on_over = on_step, on_over
        self._numbers, self._order = itertools.count(), itertools.count()
        self._router: Router | None = None
        self._news = asyncio.Event()
        #: Requests that wait until resume(), by key; None: it is not paused.
        self._held: dict[int, Tracked] | None = None
        self._tokenizer: Tokenizer | None = None
        self._seed = 0
        self._is_closed = False

    # -- their life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to load, in the background."""
        for engine in self.engines:
            engine.start()

    async def wait_until_ready(self) -> Ready:
        """Wait for the first. Raises: EngineError when none can be loaded, or all is closed before."""
        while self.ready is None:
            if (failure := self.failure) is not None:
                raise failure
            self._check_open()
            self._news.clear()
            await self._news.wait()
        return self.ready

    async def wait_until_failed(self) -> EngineError:
        """Returns: why none of them can go on; never, while one can."""
        while (failure := self.failure) is None:
            self._news.clear()
            await self._news.wait()
        return failure

    @property
    def failure(self) -> EngineError | None:
        """Why no engine will run any more; None while one may."""
        failures = [engine.health.failure for engine in self.engines]
        return failures[0] if all(failures) else None

    @property
    def health(self) -> Health:
        """How they are together: ready while one is. Its times are the newest, its restarts those of all."""
        each = [engine.health for engine in self.engines]
        order = ("ready", "waking", "asleep", "restarting", "loading", "closed", "failed")
        return Health(
            min((health.state for health in each), key=order.index),
            max(health.loaded_frac for health in each),
            max(health.last_step_s for health in each),
            sum(health.num_restarts for health in each),
            self.failure,
        )

    # -- their sleep ---------------------------------------------------------------------------------------------------

    def rest_s(self) -> float:
        """Seconds that all have had nothing to do; 0 while one has, or is no more, or not yet, there."""
        return min((engine.rest_s() for engine in self._usable), default=0.0)

    @property
    def is_at_rest(self) -> bool:
        """Whether all that can be used have nothing to do, or are asleep."""
        return not self.requests and all(
            engine.is_at_rest or engine.health.state == "asleep" for engine in self._usable
        )

    @property
    def is_asleep(self) -> bool:
        """Whether no engine has a process, and the next request starts them."""
        return all(engine.health.state == "asleep" for engine in self._usable)

    async def sleep(self) -> None:
        """End all processes, so that others may have their memory; the next request starts them again, and waits. KV
        caches are lost. Returns once the memory is given back.

        Raises: EngineError while there are requests that are not held, or one is being started; all of them go on then.
        """
        num = len(self.requests) - self.num_held
        if num or any(not engine.is_at_rest and engine.health.state != "asleep" for engine in self._usable):
            raise EngineError(f"there are {num} requests, or an engine is being started")
        await asyncio.gather(*(engine.sleep() for engine in self._usable))

    async def wake(self) -> None:
        """Start what is asleep, and wait for it. Raises: EngineError when it cannot be."""
        for engine in self.engines:
            engine.wake()
        while any(engine.health.state == "waking" for engine in self.engines):
            self._news.clear()
            await self._news.wait()
        self._check_open()
        if any(engine.health.state == "asleep" for engine in self.engines):
            raise EngineError("the engine could not be started; the log says why")

    # -- their pause ---------------------------------------------------------------------------------------------------

    @property
    def is_paused(self) -> bool:
        """Whether nothing is begun until resume()."""
        return self._held is not None

    @property
    def num_held(self) -> int:
        """Requests that wait until resume()."""
        return len(self._held or ())

    async def pause(self, mode: PauseMode) -> bool:
        """Begin nothing until resume(): what comes waits. Returns once nothing runs, or it is resumed: whether it is
        still paused.

        Args: mode: what becomes of those that run: abort: they end as they are. wait: they are finished. keep: they
            wait, too, and go on from their tokens.
        """
        held = self._held = {} if self._held is None else self._held
        running = [tracked for key, tracked in self.requests.items() if key not in held]
        if mode == "abort":
            for tracked in running:
                self.abort(tracked)
        elif mode == "keep":
            for tracked in running:
                held[tracked.key] = tracked
                self.engines[tracked.replica].release(tracked)
        while self._held is held and len(self.requests) > len(held) and not self._is_closed:
            self._news.clear()
            await self._news.wait()
        return self._held is held

    def resume(self) -> None:
        """Go on, with what waits in the order of its arrival."""
        held, self._held = self._held or {}, None
        self._news.set()
        for key in sorted(held):
            held[key].ticket = next(self._numbers)
            self._give(held[key])

    @property
    def _usable(self) -> list[EngineClient]:
        return [engine for engine in self.engines if engine.health.failure is None]

    def idle_s(self) -> float:
        """Seconds without a step, with work to do; of several engines with work, the shortest."""
        return min((engine.idle_s() for engine in self.engines if engine.requests), default=0.0)

    def use(self, tokenizer: Tokenizer | None) -> None:
        """Make text with this tokenizer from now on."""
        self._tokenizer = tokenizer

    async def forget_prefixes(self, with_files: bool) -> None:
        """See EngineClient.forget_prefixes(), of all of them."""
        if self._router is not None:
            for index in range(len(self.engines)):
                self._router.forget(index)
        await asyncio.gather(*(engine.forget_prefixes(with_files) for engine in self._usable))

    def fail(self, error: EngineError) -> None:
        """They cannot be used as they were meant to be."""
        for engine in self.engines:
            engine.fail(error)

    async def close(self) -> None:
        """End the processes and every request."""
        self._is_closed = True
        await asyncio.gather(*(engine.close() for engine in self.engines))
        self._end_held(SHUTTING_DOWN)
        self._news.set()

    def _end_held(self, reason: str) -> None:
        for tracked in list((self._held or {}).values()):
            tracked.end_all("error", reason)
            self._over(tracked)

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineError(SHUTTING_DOWN)

    def watch(self, interval_s: float | None) -> None:
        """Have on_blocks called at this interval; None: no more."""
        for engine in self.engines:
            engine.watch(interval_s)

    # -- adapters, which EngineConfig allows for an engine that is alone -----------------------------------------------

    async def load_adapter(self, path: str) -> AdapterLoaded:
        """See EngineClient.load_adapter()."""
        return await self.engines[0].load_adapter(path)

    def drop_adapter(self, number: int) -> None:
        """See EngineClient.drop_adapter()."""
        self.engines[0].drop_adapter(number)

    # -- requests ------------------------------------------------------------------------------------------------------

    def submit(
        self, request_id: str, submission: Submission, inbox: Inbox, *, priority: int = 0, arrival_s: float
    ) -> Tracked:
        """Run a request; inbox is told when there is news.

        A request without a seed gets one now, so that it can be gone on with by another process.
        Raises: EngineError when no engine can run any more, or after close(); InvalidParams for more pictures than a
            message has room for.
        """
        if (failure := self.failure) is not None:
            raise failure
        self._check_open()
        num_bytes = sum(len(tile.pixels) for image in submission.images for tile in image.tiles)
        if num_bytes > MAX_MEDIA_BYTES:
            raise InvalidParams(
                f"the prompt's images, sounds and videos are {num_bytes >> 20} MiB as the model reads them, at most "
                f"{MAX_MEDIA_BYTES >> 20} MiB of one prompt go to an engine; give it fewer, or smaller ones"
            )
        order = next(self._order)
        if submission.params.seed is None:
            seed = derive_seed(self._seed, order)
            params = submission.params.clone(seed=seed - (1 << 64) if seed >> 63 else seed)
            submission = replace(submission, params=params)
        key = next(self._numbers)
        tracked = Tracked.new(key, request_id, submission, priority, inbox, arrival_s, self._tokenizer)
        self.requests[key] = tracked
        if self._held is None:
            self._give(tracked)
        else:
            self._held[key] = tracked
        return tracked

    def abort(self, tracked: Tracked, reason: FinishReason = "abort") -> None:
        """Its reader is gone, or has waited long enough, or has enough: let its blocks go. Safe when it is over."""
        if tracked.key not in self.requests:
            return
        self.engines[tracked.replica].release(tracked)
        tracked.end_all(reason, None)
        self._over(tracked)

    # -- who has what --------------------------------------------------------------------------------------------------

    def _give(self, tracked: Tracked) -> None:
        """To the engine that the router names, of those that run; of all that may run again, when none does. Those that
        are asleep wake together: one of them is not what there was."""
        for engine in self.engines:
            engine.wake()
        if len(self.engines) > 1:
            keys = self._keys(tracked)
            tracked.replica = self._choose(tracked, keys)
            if self._router is not None:
                tracked.num_pending = self._router.num_missing(tracked.replica, keys, _length(tracked))
                self._router.sent(tracked.replica, keys)
        self.engines[tracked.replica].take(tracked)

    def _choose(self, tracked: Tracked, keys: list[bytes]) -> int:
        alive = [index for index, engine in enumerate(self.engines) if engine.health.failure is None]
        able = [index for index in alive if self.engines[index].health.state == "ready"] or alive
        if self._router is None:
            return able[0]
        return self._router.choose(keys, _length(tracked), [self._standing(index) for index in able])

    def _standing(self, index: int) -> Standing:
        assert self.ready is not None, "there is a router"
        engine = self.engines[index]
        return Standing(index, engine.num_pending, engine.num_sequences, self.ready.max_num_seqs)

    def _keys(self, tracked: Tracked) -> list[bytes]:
        if self.ready is None or not self.ready.engine["enable_prefix_caching"]:
            return []
        tokens = tracked.submission.prompt_token_ids + tracked.continuations[0].token_ids
        submission = tracked.submission
        return block_keys(tokens, self.ready.block_size, submission.cache_salt, submission.images)

    def _move(self, tracked: Tracked) -> None:
        """From the engine that has it to another one. What the old one still says of it is not heard."""
        self.engines[tracked.replica].release(tracked)
        tracked.ticket = next(self._numbers)
        tracked.num_moves += 1
        self._give(tracked)

    # -- what the engines say ------------------------------------------------------------------------------------------

    def _changed(self, index: int) -> None:
        """An engine is ready, or its process is gone."""
        engine = self.engines[index]
        if engine.health.state == "ready":
            assert engine.ready is not None, "it said so"
            if (misfit := self._take_ready(engine.ready)) is not None:
                engine.fail(misfit)  # which comes here again
                return
        elif self._router is not None:
            self._router.forget(index)
        if not self._is_closed:
            self._rescue()
        if self.failure is not None:
            self._end_held("the engine does not run any more")
        self._news.set()

    def _take_ready(self, ready: Ready) -> EngineError | None:
        """Note what engines are like. Returns: why this one, unlike the others, cannot go on with what is theirs"""
        if self.ready is None:
            self.ready, self._seed = ready, ready.engine["seed"]
            # a prefix takes a block of each group
            num_blocks = ready.num_blocks // len(ready.windows)
            self._router = Router(len(self.engines), ready.block_size, num_blocks)
        if ready.max_model_len >= self.ready.max_model_len:
            return None
        return ConfigError(
            f"it has room for {ready.max_model_len} tokens of context, the first that was ready for "
            f"{self.ready.max_model_len}; set max_model_len to {ready.max_model_len}"
        )

    def _rescue(self) -> None:
        """What waits for a process that is gone, and may not be why, goes on in one that runs; where none runs, what
        was left by one that will not any more waits for another that may."""
        is_any_ready = any(engine.health.state == "ready" for engine in self.engines)
        for engine in self.engines:
            has_failed = engine.health.failure is not None
            if (is_any_ready and engine.health.state != "ready") or (has_failed and self._usable):
                moving = [tracked for tracked in engine.requests.values() if engine.may_move(tracked)]
                for tracked in moving:
                    self._move(tracked)
                if moving:
                    _LOG.warning("%d requests of %s go on elsewhere", len(moving), engine.name)

    def _stepped(self, index: int, step: Stepped) -> None:
        self._on_step(index, step, self.engines[index].requests)
        if step.num_waiting and any(self._idle()):
            # Once its requests have what this step brought.
            asyncio.get_running_loop().call_soon(self._relieve, index, step.num_waiting)

    def _idle(self) -> Iterator[EngineClient]:
        return (engine for engine in self.engines if engine.health.state == "ready" and not engine.requests)

    def _relieve(self, index: int, num_waiting: int) -> None:
        """Give half of an engine's line to one that has nothing to do: the end of it, which would wait longest."""
        engine = self.engines[index]
        if engine.health.state != "ready" or not any(self._idle()):
            return
        line = [each for each in engine.requests.values() if each.num_pending and engine.may_move(each)]
        assert self.ready is not None, "it steps"
        if self.ready.engine["scheduling_policy"] == "priority":
            line.sort(key=lambda each: each.priority)
        for tracked in line[-((num_waiting + 1) // 2) :]:
            self._move(tracked)

    def _over(self, tracked: Tracked) -> None:
        if self.requests.pop(tracked.key, None) is None:
            return
        was_held = self._held is not None and self._held.pop(tracked.key, None) is not None
        if was_held:
            self.engines[tracked.replica].drop_adapters()
        self._news.set()
        if self._router is not None and len(self.engines) > 1 and tracked.error is None and not was_held:
            self._router.ended(tracked.replica, self._keys(tracked))
        self._on_over(tracked)


def _length(tracked: Tracked) -> int:
    """Tokens to be in the KV cache before its next one."""
    return len(tracked.submission.prompt_token_ids) + tracked.num_output_tokens


def _name(index: int, place: Place, num: int) -> str:
    """What the log calls an engine."""
    return "the engine process" if num == 1 else f"engine {index}{place.where and ' on '}{place.where}"
