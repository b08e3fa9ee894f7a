"""GET /props and /slots, POST /apply-template: llama.cpp's protocol, what it tells of the model and its seats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from albireo import __version__
from albireo.errors import EngineError
from albireo.params import SamplingParams
from albireo.server.body import parse
from albireo.server.conversation import readable
from albireo.server.dialects.llama_cpp import told_settings
from albireo.server.dialects.llama_sampling import DEFAULT_WINDOW
from albireo.server.errors import HttpError, busy, refused
from albireo.server.intake import chat_options
from albireo.server.protocol.chat import ChatRequest
from albireo.server.protocol.llama_cpp import AppliedTemplate, SampledFields
from albireo.server.serving import Serving

_CHAT = msgspec.json.Decoder(ChatRequest)
#: (method, path) -> what is not done there.
REFUSED = {
    ("POST", "/props"): "properties are not changed here; flags say them where the server is started",
    ("POST", "/slots/{name}"): "slots have nothing of their own here: a prefix that was computed is found from any",
}


class LlamaTold:
    """The endpoints."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/apply-template", self.apply_template, methods=["POST"]),
            Route("/props", self.props),
            Route("/slots", self.slots),
            *(Route(path, _refusing(words), methods=[method]) for (method, path), words in REFUSED.items()),
        ]

    async def apply_template(self, http: Request) -> Response:
        """The text that a chat is for the model, without what a tokenizer puts in front of every prompt."""
        serving = self._serving
        async with serving.bodies.read(http.scope, http.receive) as body:
            request = parse(body, _CHAT)
        serving.check_model(request.model)
        options = chat_options(serving, request)
        messages = readable(request.messages, options["chat_template"] or serving.dialect.template)
        try:
            made = await serving.in_thread(lambda: serving.admission.chat(messages, SamplingParams(), options))
        except EngineError as error:
            raise refused(error, "messages") from None
        tokenizer = serving.tokenizer
        begins = tokenizer.decode(tokenizer.encode(""), skip_special_tokens=False)
        return _json(AppliedTemplate((made.prompt or "").removeprefix(begins)))

    async def props(self, http: Request) -> Response:
        """The model, and what holds where a request says nothing."""
        serving = self._serving
        ready, tokenizer = serving.ready, serving.tokenizer
        # as /completion reads one that says nothing: to the end of the context, penalties by their window
        silent = {"max_tokens": None, "penalty_window": DEFAULT_WINDOW, **serving.admission.advice}
        settings = told_settings(SampledFields(), SamplingParams(**silent))
        return _json(
            {
                "default_generation_settings": {"n_ctx": ready.max_model_len, "params": settings},
                "total_slots": ready.max_num_seqs,
                "model_alias": serving.names[0],
                "model_path": serving.names[0],  # where it lies is nobody's business
                "modalities": {"vision": not ready.image_problem, "audio": not ready.sound_problem},
                "chat_template": serving.dialect.template,
                "bos_token": tokenizer.named_tokens.get("bos_token") or "",
                "eos_token": tokenizer.named_tokens.get("eos_token") or "",
                "build_info": f"albireo {__version__}",
                "is_sleeping": serving.client.is_asleep,
            }
        )

    async def slots(self, http: Request) -> Response:
        """As many as run at one time; those that do are told first. Raises: HttpError 503 with fail_on_no_slot, where
        all do."""
        serving = self._serving
        num, limit = serving.ready.max_num_seqs, serving.ready.max_model_len
        running = min(num, sum(len(each.continuations) - each.num_ended for each in serving.client.requests.values()))
        if running == num and http.query_params.get("fail_on_no_slot"):
            raise busy(503, "no slot is free; come again later", "no_slot")
        seats = ({"id": at, "n_ctx": limit, "is_processing": at < running} for at in range(num))
        return _json([{**seat, "speculative": False, "id_task": -1} for seat in seats])


def _refusing(words: str) -> Callable[[Request], Any]:
    async def refuse(http: Request) -> Response:
        raise HttpError(400, words, code="unsupported")

    return refuse


def _json(answer: Any) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
