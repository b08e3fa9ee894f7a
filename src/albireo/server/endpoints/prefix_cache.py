"""POST /reset_prefix_cache, as in vLLM: no prompt finds anything of what was computed before."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from albireo.errors import EngineError
from albireo.server.errors import HttpError, busy
from albireo.server.serving import Serving

#: vLLM's; the first changes nothing: who runs goes on with what it has, and nobody else finds it.
_RUNNING, _EXTERNAL = "reset_running_requests", "reset_external"
_WORDS = {"true": True, "1": True, "false": False, "0": False}


class PrefixCache:
    """The endpoint."""

    def __init__(self, serving: Serving) -> None:
        """Args: serving: whose cache is meant, unless _forget() says otherwise."""
        self._serving = serving

    async def reset(self, http: Request) -> Response:
        """Answers once it is done, and disturbs nobody. With reset_external what is kept in files goes, too."""
        self._check_open()
        self._serving.check_trusted("the prefix cache is reset")
        asked = dict(http.query_params)
        model = asked.pop("model", None)
        flags = {name: self._flag(name, value) for name, value in asked.items()}
        try:
            await self._forget(model, flags.get(_EXTERNAL, False))
        except EngineError as error:
            raise busy(503, str(error), "engine_down", 5) from None
        return Response()

    def _flag(self, name: str, value: str) -> bool:
        if name not in (_RUNNING, _EXTERNAL):
            words = f"{name!r:.60} is not known here; there are {_RUNNING}, {_EXTERNAL} and model"
            raise HttpError(400, words, param=name[:60])
        if value.lower() not in _WORDS:
            raise HttpError(400, f"{name}={value!r:.60} is not known; it must be true or false", param=name)
        return _WORDS[value.lower()]

    def _check_open(self) -> None:
        """Raises: HttpError 503 when nothing new is done."""
        self._serving.check_open()

    async def _forget(self, model: str | None, with_files: bool) -> None:
        """Raises: HttpError 404 for another model; EngineError."""
        self._serving.check_model(model)
        if with_files:
            await self._serving.client.wake()  # who sleeps does not know where they are
        await self._serving.client.forget_prefixes(with_files)
