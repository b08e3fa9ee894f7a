"""Start, serve, drain, end: the life of `albireo serve`.

Called by cli/serve.py. Raises what made the engine fail, so that the command exits with a status that is not 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from albireo.errors import ConfigError, EngineError
from albireo.replicas.place import Place
from albireo.server.app import application
from albireo.server.batches.runner import Batches
from albireo.server.bounded_http import BoundedHttp
from albireo.server.serving import Serving
from albireo.server.settings import ServerSettings
from albireo.server.streaming import break_stuck

_LOG = logging.getLogger("albireo.server")

BACKLOG = 2048
MAX_OPEN_FILES = 65_536
#: Seconds for answers to go out that say why a request ended, before the connections are closed.
ANSWER_S = 0.2


def serve(
    settings: ServerSettings,
    engine: Mapping[str, Any],
    *,
    say: Callable[[str], None],
    places: Sequence[Place],
) -> None:
    """Serve until a signal ends it.

    Args:
        engine: fields of EngineConfig.
        say: told the address once it is open, and that the model is ready.
        places: where its engines run.
    Raises: EngineError when the model cannot be loaded, or the engine cannot be started again.
    """
    _configure_logs()
    import uvloop

    uvloop.run(_serve(settings, engine, say, places))


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
) -> None:
    _check_certificate(settings)
    listening = _listen(settings)
    try:
        serving = Serving(settings, engine, places)
        batches = None if settings.batch_dir is None else Batches(serving, Path(settings.batch_dir))
    except BaseException:
        listening.close()
        raise
    server = _Server(
        uvicorn.Config(
            application(serving, batches),
            http=BoundedHttp,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ssl_keyfile=settings.ssl_keyfile,
            ssl_certfile=settings.ssl_certfile,
            timeout_graceful_shutdown=2,
            limit_concurrency=_max_connections(),
            # Longer than clients keep connections, so that they close them and never write to a closed one.
            timeout_keep_alive=75,
            backlog=BACKLOG,
        )
    )
    stopping = _on_signals(server)
    tasks = [
        asyncio.create_task(_announce(serving, batches, server, listening.getsockname()[1], say)),
        asyncio.create_task(_drain_when(stopping, serving, batches, server)),
        asyncio.create_task(_end_when_failed(serving, server)),
        asyncio.create_task(_sweep(serving)),
        asyncio.create_task(_rest(serving)),
    ]
    try:
        await server.serve(sockets=[listening])
    finally:
        for task in tasks:
            task.cancel()
        if batches is not None:
            await batches.stop()
        await serving.close()
    failure = serving.failure()
    if failure is not None:
        raise failure


def _listen(settings: ServerSettings) -> socket.socket:
    """The socket, before anything is loaded. Raises: ConfigError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}); take another"
        ) from None


def _check_certificate(settings: ServerSettings) -> None:
    """Raises: ConfigError where HTTPS cannot be served with the files that are named."""
    if settings.ssl_certfile is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    except OSError as error:
        raise ConfigError(
            f"ssl_certfile={settings.ssl_certfile} and ssl_keyfile={settings.ssl_keyfile} are no certificate and its "
            f"key, in PEM ({error.strerror or error}); give others"
        ) from None


def _on_signals(server: uvicorn.Server) -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second ends at once."""
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            server.force_exit = True
            server.should_exit = True
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return stopping


async def _announce(
    serving: Serving, batches: Batches | None, server: uvicorn.Server, port: int, say: Callable[[str], None]
) -> None:
    while not server.started:
        await asyncio.sleep(0.005)
    settings = serving.settings
    scheme = "https" if settings.ssl_certfile else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    say(f"listening on {scheme}://{host}:{port}")
    if not settings.is_loopback and not settings.api_key:
        say(f"warning: {settings.host} can be reached from other machines, and no --api-key is set")
    try:
        await serving.load()
    except EngineError:
        return  # _end_when_failed sees it
    if batches is not None:
        batches.start()
    num = len(serving.client.engines)
    say(f"{serving.names[0]} is ready after {serving.ready.load_s:.2f} s" + f", the first of {num} engines" * (num > 1))


async def _drain_when(
    stopping: asyncio.Event, serving: Serving, batches: Batches | None, server: uvicorn.Server
) -> None:
    await stopping.wait()
    await serving.drain()
    if batches is not None:
        await batches.stop()
    if serving.client.requests:
        await serving.client.close()
        await asyncio.sleep(ANSWER_S)
    serving.live.close()
    server.should_exit = True


async def _end_when_failed(serving: Serving, server: uvicorn.Server) -> None:
    failure = await serving.client.wait_until_failed()
    _LOG.error("the engine cannot go on: %s", failure)
    await asyncio.sleep(ANSWER_S)
    serving.live.close()
    server.should_exit = True


async def _sweep(serving: Serving) -> None:
    while True:
        await asyncio.sleep(min(1.0, serving.settings.reader_timeout / 4))
        break_stuck(serving, time.monotonic())


async def _rest(serving: Serving) -> None:
    """Send the engine to sleep each time that nobody wanted anything of it for long."""
    after_s, client = serving.settings.sleep_after, serving.client
    while after_s:
        await asyncio.sleep(min(1.0, after_s / 4))
        if client.rest_s() >= after_s and not serving.is_draining:
            await client.sleep()
            _LOG.info('{"time":%.3f,"event":"asleep","rest_s":%g}', time.time(), after_s)


def _max_connections() -> int:
    """As many as there may be open files, but for some: without them a new engine process could not be started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
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
