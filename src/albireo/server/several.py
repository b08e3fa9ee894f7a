"""Several models behind one server: each is a whole of its own, loaded when it is first asked for, and sleeps when
another one needs the memory.

Made by run.py when there is more than one. A request's field `model` chooses; the application of that model answers,
and does not know of the others. What is told of all of them is in app_of_several.py, whose turn it is in turns.py.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
from starlette.types import ASGIApp, Receive, Scope

from albireo.api.sources.check_files import check_files
from albireo.config import EngineConfig
from albireo.engine_process.tracked import SHUTTING_DOWN
from albireo.errors import ConfigError, EngineError
from albireo.replicas.place import Place
from albireo.server.app import behind_errors, routes
from albireo.server.body import Bodies, ClientGone
from albireo.server.conversation_store import ConversationStore
from albireo.server.errors import NO_RETRY, HttpError, busy, shutting_down
from albireo.server.response_store import ResponseStore
from albireo.server.serving import Serving
from albireo.server.settings import ServerSettings
from albireo.server.turns import Turns

_LOG = logging.getLogger("albireo.server")

#: One that cannot be loaded is tried again after 1, 2, 4 … seconds, and at most so many.
MAX_PAUSE_S = 60.0


class Model:
    """One of them.

    Attributes:
        names: what it answers to; name: the first.
        serving, app: it; others in their place, once its engine cannot run any more.
        responses: those that are stored of it.
        num_inside, used_s, woken_s: as turns.py has them.
    """

    def __init__(
        self,
        settings: ServerSettings,
        engine: Mapping[str, Any],
        places: Sequence[Place],
        conversations: ConversationStore,
    ) -> None:
        """Args: engine: fields of EngineConfig. conversations: of all models."""
        self._engine = engine
        self._make: Callable[[], Serving] = lambda: Serving(settings, engine, places)
        self.responses = ResponseStore(conversations)
        self.num_inside, self.used_s, self.woken_s = 0, 0.0, 0.0
        #: Tries in a row that failed, and when the last one did.
        self._num_failures, self._failed_s = 0, 0.0
        self._renew()

    def _renew(self) -> None:
        self.serving = self._make()
        self.app: ASGIApp = behind_errors(routes(self.serving, None, self.responses))
        self._has_begun = self._is_checked = False

    @property
    def names(self) -> tuple[str, ...]:
        """What it answers to."""
        return self.serving.names

    @property
    def name(self) -> str:
        """The first of them."""
        return self.names[0]

    @property
    def status(self) -> str:
        """In a word, where it is not the engine's: unloaded; failed: it is tried again when it is asked for."""
        return "" if self._has_begun else "failed" if self._num_failures else "unloaded"

    @property
    def retry_s(self) -> float:
        """Seconds before it is tried again, after one try in a row or more that failed; 0: now."""
        if not self._num_failures:
            return 0.0
        pause_s = min(2.0 ** (self._num_failures - 1), MAX_PAUSE_S)
        return max(0.0, self._failed_s + pause_s - time.monotonic())

    # -- its sleep -----------------------------------------------------------------------------------------------------

    @property
    def takes_memory(self) -> bool:
        """Whether it has processes, or will by itself."""
        has_engine = self._has_begun and self.serving.failure() is None and not self.serving.client.is_asleep
        return has_engine or self.num_inside > 0 or self.responses.num_running > 0

    @property
    def is_ready(self) -> bool:
        """Whether it can be given a request now; while its process is started again, too."""
        serving = self.serving
        return serving.is_loaded and serving.failure() is None and not serving.client.is_asleep

    @property
    def is_at_rest(self) -> bool:
        """Whether nobody wants anything of it."""
        return not self.num_inside and not self.responses.num_running and self.serving.client.is_at_rest

    @property
    def is_asleep(self) -> bool:
        """Whether it has no process."""
        return not self._has_begun or self.serving.failure() is not None or self.serving.client.is_asleep

    def rest_s(self) -> float:
        """Seconds that it has had nothing to do; 0 while it has, or is not there."""
        return self.serving.client.rest_s() if self.is_at_rest else 0.0

    async def check(self) -> None:
        """What its files say, before somebody else gives memory back for it. Raises: EngineError, as one more try that
        failed."""
        if self._is_checked or self.serving.is_loaded:
            return
        try:
            await self.serving.in_thread(lambda: check_files(EngineConfig.from_kwargs(**self._engine)))
        except EngineError:
            self._note_failure()
            raise
        self._is_checked = True

    def _note_failure(self) -> None:
        self._num_failures, self._failed_s = min(self._num_failures + 1, 64), time.monotonic()

    async def start(self) -> None:
        """Load it, or wake it, unless it is there. Raises: EngineError when that cannot be done."""
        if self.is_ready:
            return
        started_s = time.monotonic()
        if self.serving.failure() is not None:
            await self._replace()
        try:
            if not self._has_begun:
                self._has_begun = True
                await self.serving.load()
            else:
                await self.serving.client.wake()
        except Exception:
            self._note_failure()
            if not self.serving.is_loaded:
                await self._replace()
            raise
        if (failure := self.serving.failure()) is not None:
            raise failure
        self.woken_s, self._num_failures = time.monotonic(), 0
        self._log("awake", load_s=round(self.woken_s - started_s, 2))

    async def _replace(self) -> None:
        """It cannot run as it is: end that, and begin anew when it is asked for. Its accounts and counts are kept."""
        old = self.serving
        await old.close()
        self._renew()
        self.serving.accounts, self.serving.is_draining = old.accounts, old.is_draining
        self.serving.earlier_metrics = old.told_metrics
        if old.told_metrics is not None:
            old.told_metrics.begin_anew()

    async def sleep(self) -> None:
        """Give its memory back; returns once it is. Raises: EngineError while it has work to do."""
        if not self._has_begun or self.serving.failure() is not None:
            return
        if self.is_asleep:
            await self.serving.client.sleep()  # until it is gone
            return
        if not self.is_at_rest:
            raise EngineError(f"{self.name} has work to do, or is being started")
        await self.serving.client.sleep()
        self._log("asleep")

    def _log(self, event: str, **more: float) -> None:
        line = {"time": round(time.time(), 3), "event": event, "model": self.name, **more}
        _LOG.info("%s", msgspec.json.encode(line).decode())


class Models:
    """All of them, as run.py has one.

    Attributes:
        all: the first is the one that answers who names none.
        bodies: reads those whose model is not known yet.
        is_draining: nothing new is taken.
    """

    def __init__(
        self,
        settings: ServerSettings,
        engine: Mapping[str, Any],
        others: Mapping[str, str],
        places: Sequence[Place],
    ) -> None:
        """Args:
        settings, engine: as of one model, the first.
        others: name -> what EngineConfig names as its model.
        """
        self.settings, self.is_draining = settings, False
        conversations = ConversationStore()
        self.all = [
            Model(settings, engine, places, conversations),
            *(
                Model(replace(settings, served_model_name=(name,)), {**engine, "model": model}, places, conversations)
                for name, model in others.items()
            ),
        ]
        self.bodies = Bodies(settings.max_body_bytes)
        self._turns = Turns(self.all, settings.max_awake_models, settings.switch_after)
        self._failed: asyncio.Future[EngineError] = asyncio.get_running_loop().create_future()

    @property
    def first(self) -> Model:
        """Who answers a request that names none."""
        return self.all[0]

    @property
    def servings(self) -> list[Serving]:
        """Of all."""
        return [each.serving for each in self.all]

    @property
    def awake(self) -> Model:
        """The first that has its memory; the first, when none has."""
        return next((each for each in self.all if each.is_ready), self.first)

    def find(self, name: str | None) -> Model:
        """Who answers to a name; to none, or an empty one, the first. Raises: HttpError 404 that names all."""
        if not name:
            return self.first
        for each in self.all:
            if name in each.names:
                return each
        known = ", ".join(known for each in self.all for known in each.names)
        raise HttpError(
            404, f"the model {name!r:.100} does not exist; there is {known}", param="model", code="model_not_found"
        )

    def waited_for(self, model: Model) -> dict[str, Any]:
        """How many requests wait until it is awake, and when it is tried again, if it cannot be loaded."""
        waiting: dict[str, Any] = {"num_waiting": self._turns.num_waiting_for(model)}
        return waiting | ({"retry_s": math.ceil(10 * model.retry_s) / 10} if model.retry_s else {})

    # -- a request -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def turn(self, model: Model, scope: Scope, receive: Receive) -> AsyncIterator[None]:
        """Around what a model does; it is awake meanwhile. Raises: HttpError when it cannot be; ClientGone."""
        self.check_open()
        timeout_s = self.first.serving.timeout_s(scope["headers"])
        if self._turns.num_waiting >= self.settings.max_num_queued_requests:
            words = f"{self._turns.num_waiting} requests wait for a model that is not awake; come again later"
            raise busy(429, f"the server is busy: {words}", "queue_full")
        if model.retry_s and not model.is_ready:
            raise _not_loaded(model)
        waiter = self._turns.ask(model)
        try:
            if not waiter.turn.done():
                leaving = asyncio.create_task(_until_gone(receive))
                try:
                    wanted = (waiter.turn, leaving)
                    await asyncio.wait(wanted, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    leaving.cancel()
                if not waiter.turn.done():
                    if leaving.done():
                        raise ClientGone
                    raise HttpError(
                        504, f"{model.name} was not awake after {timeout_s:g} s", code="deadline_exceeded",
                        headers=NO_RETRY,
                    )  # fmt: skip
            if waiter.turn.result() is not None:
                self.check_open()
                raise _not_loaded(model)
            yield
        finally:
            self._turns.withdraw(waiter)

    async def wake(self, model: Model) -> None:
        """Have it awake once. Raises: EngineError when it cannot be."""
        waiter = self._turns.ask(model)
        try:
            error = await waiter.turn
        finally:
            self._turns.withdraw(waiter)
        if error is not None:
            raise error

    @property
    def sleep_after_s(self) -> float:
        """The least of all; see Serving."""
        return min(serving.sleep_after_s for serving in self.servings)

    async def rest(self) -> None:
        """Send those to sleep that nobody wanted anything of for long."""
        resting = [each for each in self.all if 0 < each.rest_s() >= each.serving.sleep_after_s]
        await asyncio.gather(*(each.sleep() for each in resting))

    def check_open(self) -> None:
        """Raises: HttpError 503 when nothing new is taken."""
        if self.is_draining:
            raise shutting_down()

    # -- their life, as of one -----------------------------------------------------------------------------------------

    async def load(self) -> None:
        """The first of them. Raises: EngineError, and it is all over."""
        try:
            await self.wake(self.first)
        except EngineError as error:
            if not self.is_draining:
                self._failed.set_result(error)
            raise

    async def drain(self) -> None:
        """Take nothing new, and let what runs finish within the time there is for it."""
        self.is_draining = True
        self._turns.close(SHUTTING_DOWN)
        await asyncio.gather(*(serving.drain() for serving in self.servings))

    async def close(self) -> None:
        """End everything."""
        self._turns.close(SHUTTING_DOWN)
        await asyncio.gather(*(serving.close() for serving in self.servings))

    def failure(self) -> EngineError | None:
        """Why there is no server: the first could not be loaded. Later ones end nothing but the requests for them."""
        return self._failed.result() if self._failed.done() else None

    async def wait_until_failed(self) -> EngineError:
        """Returns: failure(), once there is one."""
        return await asyncio.shield(self._failed)


def check_several(settings: ServerSettings, engine: Mapping[str, Any]) -> None:
    """Raises: ConfigError for what is for one model alone."""
    wrong = {
        "batch_dir": settings.batch_dir is not None,
        "lora_modules": bool(settings.lora_modules),
        "enable_lora": bool(engine.get("enable_lora")),
        "distributed_executor_backend=ray": settings.distributed_executor_backend == "ray",
    }
    for name, is_given in wrong.items():
        if is_given:
            raise ConfigError(f"{name} goes with one model, and there are several; leave it out, or serve one")


def _not_loaded(model: Model) -> HttpError:
    retry_s = max(1, math.ceil(model.retry_s))
    words = f"the model {model.name} cannot be loaded now, and is tried again in {retry_s} s; the server's log says why"
    return busy(503, words, "model_not_loaded", retry_s)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
