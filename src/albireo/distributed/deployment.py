"""The serving app as a deployment of Ray Serve, which listens, scales, routes: `serve.run(deployment({"model": DIR}))`.

Called by users. Each of Serve's replicas is a server without a socket, with engine processes of its own beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ray import serve

from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.replicas.place import local_places
from albireo.server.app import application
from albireo.server.serving import Serving
from albireo.server.settings import ServerSettings


class LivingApp:
    """The application, whose engines live as long as it does: they begin to load when it starts, which does not wait
    for them; until then requests get a 503, as from `albireo serve`."""

    def __init__(self, engine: Mapping[str, Any], settings: ServerSettings) -> None:
        num_engines = EngineConfig.from_kwargs(**engine).data_parallel_size
        self._serving = Serving(settings, engine, local_places(num_engines))
        self._app = application(self._serving)

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Answer a request; or begin, and end when told to."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        assert (await receive())["type"] == "lifespan.startup"
        loading = asyncio.create_task(self._serving.load())
        loading.add_done_callback(lambda task: task.cancelled() or task.exception())  # /health tells of it
        await send({"type": "lifespan.startup.complete"})
        await receive()
        loading.cancel()
        await self._serving.close()
        await send({"type": "lifespan.shutdown.complete"})


def deployment(
    engine: Mapping[str, Any],
    settings: ServerSettings | None = None,
    *,
    num_cpus: float = 1,
    num_gpus: float = 0,
    **options: Any,
) -> serve.Application:
    """An application for serve.run().

    Args:
        engine: fields of EngineConfig; with a GPU, device="cuda".
        settings: as of `albireo serve`; host, port and certificates are Serve's business.
        num_cpus, num_gpus: what Ray sets aside for each replica of it.
        options: of Serve's deployment, such as num_replicas.
    Raises: ConfigError for settings that cannot be.
    """
    EngineConfig.from_kwargs(**engine)
    if settings is not None and settings.batch_dir is not None:
        raise ConfigError("batch_dir belongs to one server, and Serve may run several; leave it out")

    def build() -> LivingApp:
        return LivingApp(engine, settings or ServerSettings())

    made = serve.deployment(
        serve.ingress(build)(),
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
        **{"name": "albireo", **options},
    )
    return made.bind()
