"""Start, serve, drain, end: the life of `albireo serve`.

Called by cli/serve.py. Raises what made the engine fail, so that the command exits with a status that is not 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from albireo.errors import EngineError
from albireo.replicas.place import Place
from albireo.server.app import application
from albireo.server.batches.runner import Batches
from albireo.server.bounded_http import BoundedHttp
from albireo.server.certificate import check_certificate, keep_certificate
from albireo.server.listening import BACKLOG, Listening
from albireo.server.serving import Serving
from albireo.server.settings import ServerSettings
from albireo.server.streaming import break_stuck
from albireo.system import most_open_files

if TYPE_CHECKING:
    from albireo.server.several import Models

_LOG = logging.getLogger("albireo.server")

MAX_OPEN_FILES = 65_536
#: Seconds for answers to go out that say why a request ended, before the connections are closed.
ANSWER_S = 0.2
#: Least seconds between looks whether an engine is to sleep.
LOOK_S = 0.05
#: Least seconds for connections to close by themselves.
CLOSING_S = 2


def serve(
    settings: ServerSettings,
    engine: Mapping[str, Any],
    *,
    say: Callable[[str], None],
    places: Sequence[Place],
    others: Mapping[str, str] | None = None,
) -> None:
    """Serve until a signal ends it.

    Args:
        engine: fields of EngineConfig.
        say: told the address once it is open, and that the model is ready.
        places: where its engines run.
        others: further models that are served: name -> what EngineConfig names as its model.
    Raises: EngineError when the model cannot be loaded, or the engine cannot be started again.
    """
    _configure_logs()
    import uvloop

    uvloop.run(_serve(settings, engine, say, places, others or {}))


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(
    settings: ServerSettings,
    engine: Mapping[str, Any],
    say: Callable[[str], None],
    places: Sequence[Place],
    others: Mapping[str, str],
) -> None:
    check_certificate(settings)
    listening = Listening(settings)
    try:
        batches: Batches | None = None
        served: Serving | Models
        if others:
            from albireo.server.app_of_several import application as application_of_several
            from albireo.server.several import Models

            served = Models(settings, engine, others, places)
            app = application_of_several(served)
        else:
            served = Serving(settings, engine, places)
            batches = None if settings.batch_dir is None else Batches(served, Path(settings.batch_dir))
            app = application(served, batches)
    except BaseException:
        listening.close()
        raise
    server = _Server(
        uvicorn.Config(
            app,
            http=BoundedHttp,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ssl_keyfile=settings.ssl_keyfile,
            ssl_certfile=settings.ssl_certfile,
            timeout_graceful_shutdown=CLOSING_S,
            limit_concurrency=_max_connections(),
            # Longer than clients keep connections, so that they close them and never write to a closed one.
            timeout_keep_alive=75,
            backlog=BACKLOG,
        )
    )
    stopping = _on_signals(server)
    tasks = [
        asyncio.create_task(_announce(served, batches, server, listening.address, say)),
        asyncio.create_task(_drain_when(stopping, served, batches, server)),
        asyncio.create_task(_end_when_failed(served, server)),
        asyncio.create_task(_sweep(served)),
        asyncio.create_task(_rest(served)),
        asyncio.create_task(keep_certificate(settings, server.config)),
    ]
    try:
        await server.serve(sockets=[listening.socket])
    finally:
        for task in tasks:
            task.cancel()
        if batches is not None:
            await batches.stop()
        await served.close()
        listening.close()
    failure = served.failure()
    if failure is not None:
        raise failure


def _on_signals(server: uvicorn.Server) -> asyncio.Event:
    """Set by the first SIGTERM, SIGINT or SIGHUP (a terminal that closes); a further SIGTERM or SIGINT ends at once.

    A terminal that closes sends SIGHUP twice: its shell does, and the system once the shell has ended.
    """
    stopping = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if stopping.is_set() and number != signal.SIGHUP:
            server.force_exit = True
            server.should_exit = True
        stopping.set()

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it, which is to outlive its terminal
        numbers.append(signal.SIGHUP)
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    return stopping


async def _announce(
    served: Serving | Models, batches: Batches | None, server: uvicorn.Server, address: str, say: Callable[[str], None]
) -> None:
    while not server.started:
        await asyncio.sleep(0.005)
    settings = served.settings
    say(f"listening on {address}")
    if not settings.is_loopback and not settings.api_key:
        say(f"warning: {settings.host} can be reached from other machines, and no --api-key is set")
    try:
        await served.load()
    except EngineError:
        return  # _end_when_failed sees it
    if batches is not None:
        batches.start()
    first, *rest = served.servings
    num = len(first.client.engines)
    engines, models = f", the first of {num} engines" * (num > 1), f"; {len(rest)} more when asked for" * bool(rest)
    say(f"{first.names[0]} is ready after {first.ready.load_s:.2f} s{engines}{models}")


async def _drain_when(
    stopping: asyncio.Event, served: Serving | Models, batches: Batches | None, server: uvicorn.Server
) -> None:
    await stopping.wait()
    began_s = time.monotonic()
    await served.drain()
    if batches is not None:
        await batches.stop()
    if busy := [serving.client for serving in served.servings if serving.client.requests]:
        await asyncio.gather(*(client.close() for client in busy))
        await asyncio.sleep(ANSWER_S)
    # the engine is done before the last bytes are read: who reads slowly has what is left of the time
    left_s = served.settings.shutdown_timeout - (time.monotonic() - began_s)
    server.config.timeout_graceful_shutdown = max(CLOSING_S, math.ceil(left_s))
    _end(served, server)


def _end(served: Serving | Models, server: uvicorn.Server) -> None:
    for serving in served.servings:
        serving.live.close()
    server.should_exit = True


async def _end_when_failed(served: Serving | Models, server: uvicorn.Server) -> None:
    failure = await served.wait_until_failed()
    if any(serving.is_loaded for serving in served.servings):  # else whoever started it is told at once
        _LOG.error("the engine cannot go on: %s", failure)
    await asyncio.sleep(ANSWER_S)
    _end(served, server)


async def _sweep(served: Serving | Models) -> None:
    while True:
        await asyncio.sleep(min(1.0, served.settings.reader_timeout / 4))
        for serving in served.servings:
            break_stuck(serving, time.monotonic())


async def _rest(served: Serving | Models) -> None:
    """Send engines to sleep each time that nobody wanted anything of them for long."""
    while True:
        await asyncio.sleep(min(1.0, max(served.sleep_after_s / 4, LOOK_S)))
        if not served.is_draining:
            with contextlib.suppress(EngineError):  # somebody came meanwhile: looked at again
                await served.rest()


def _max_connections() -> int:
    """As many as there may be open files, but for some: without them a new engine process could not be started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most_open_files(MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES))
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return max(16, soft - 128)


def _configure_logs() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    requests = logging.getLogger("albireo.server")
    requests.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    requests.addHandler(handler)
    requests.propagate = False
