"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from albireo.server.body import parse
from albireo.server.errors import HttpError
from albireo.server.protocol.adapters import LoadAdapterRequest, UnloadAdapterRequest
from albireo.server.serving import Serving

_LOAD = msgspec.json.Decoder(LoadAdapterRequest)
_UNLOAD = msgspec.json.Decoder(UnloadAdapterRequest)


class AdapterEndpoints:
    """Both."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def load(self, http: Request) -> Response:
        """Serve an adapter by a name."""
        serving = self._serving
        async with serving.bodies.read(http.scope, http.receive) as body:
            request = parse(body, _LOAD)
        self._check()
        name = request.lora_name
        if not name or not request.lora_path:
            field = "lora_path" if name else "lora_name"
            raise HttpError(400, f"{field} is empty; give a name and the directory of an adapter", param=field)
        await serving.adapters.load(name, request.lora_path, in_place=bool(request.load_inplace))
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, http: Request) -> Response:
        """Serve one no more."""
        serving = self._serving
        async with serving.bodies.read(http.scope, http.receive) as body:
            request = parse(body, _UNLOAD)
        self._check()
        serving.adapters.unload(request.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{request.lora_name}' removed successfully.")

    def _check(self) -> None:
        """Raises: HttpError where there are no adapters, or whoever asks may be anybody."""
        serving = self._serving
        serving.check_open()
        if not serving.ready.engine["enable_lora"]:
            raise HttpError(400, "this server runs no adapters; start it with --enable-lora", code="lora_disabled")
        serving.check_trusted("adapters are loaded")
