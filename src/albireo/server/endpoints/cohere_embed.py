"""POST /v2/embed: Cohere's protocol.

An embedding of /v1/embeddings, told in its words. `input_type` says what a text is for, which many models are told by
words in front of it: those that the model's files name (`prompts` of config_sentence_transformers.json). Of a model
that has none, there is nothing to put in front.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from albireo.engine_process.tracked import Tracked
from albireo.server.body import ClientGone, parse, received_s
from albireo.server.endpoints.embeddings import asked_of, data_of
from albireo.server.endpoints.pooling import Head, answered
from albireo.server.errors import HttpError, unsupported
from albireo.server.packing import Packing, signs
from albireo.server.protocol.cohere import EMBED_NEUTRAL, ByType, EmbedAnswer, TypedEmbedAsk
from albireo.server.protocol.embeddings import EmbeddingRequest
from albireo.server.protocol.fields import unneutral
from albireo.server.serving import Serving

_DECODER = msgspec.json.Decoder(TypedEmbedAsk)
_TYPES = ("float", "base64", "binary", "ubinary")
#: What Cohere calls uses of a text -> what files of models call them.
_USES = {
    "search_query": ("search_query", "query"),
    "search_document": ("search_document", "document", "passage"),
    "classification": ("classification",),
    "clustering": ("clustering",),
}
_FIELDS = {"input": "texts", "dimensions": "output_dimension", "truncate_prompt_tokens": "max_tokens"}


class CohereEmbed:
    """The endpoint, as an ASGI application."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival_s = received_s(scope)
        serving = self._serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                ask = parse(body, _DECODER)
                texts = _texts_of(ask)
                before = self._before(ask.input_type)
                most = None if ask.truncate == "NONE" and ask.max_tokens is None else ask.max_tokens or -1
                given: Any = [before + text for text in texts]
                request = EmbeddingRequest(
                    model=ask.model,
                    input=given,
                    dimensions=ask.output_dimension,
                    truncate_prompt_tokens=most,
                    truncation_side="left" if ask.truncate == "START" else None,
                    priority=ask.priority,
                )
                try:
                    asked = await asked_of(serving, request, partial(_answer, ask.embedding_types or ["float"], texts))
                except HttpError as error:
                    error.param = _FIELDS.get(error.param or "", error.param)
                    raise
            await answered(serving, "embd", request, asked, arrival_s, scope, receive, send)
        except ClientGone:
            return

    def _before(self, use: str | None) -> str:
        """What stands in front of each text. Raises: HttpError 400 for a use that the model has no words for, or that
        is not known."""
        if use is None:
            return ""
        prompts = dict(self._serving.ready.pooling_rule.prompts)
        names = _USES.get(use, (use,))
        found = next((prompts[name] for name in names if name in prompts), None)
        if found is None and (prompts or use not in _USES):
            known = ", ".join(sorted({*prompts} or {*_USES}))
            raise HttpError(400, f"input_type={use!r:.60} is not known; there are {known}", param="input_type")
        return found or ""


def _texts_of(ask: TypedEmbedAsk) -> list[str]:
    """Raises: HttpError 400."""
    asked = unneutral(ask, EMBED_NEUTRAL)
    if asked is not None:
        raise unsupported(*asked)
    if (ask.texts is None) == (ask.inputs is None):
        raise HttpError(400, "give texts or inputs, one of them", param="texts")
    for kind in ask.embedding_types or ():
        if kind not in _TYPES:
            raise unsupported("embedding_types", [kind], f"it may hold {', '.join(_TYPES)}")
    if ask.texts is not None:
        return ask.texts
    return ["\n".join(part.text for part in each.content) for each in ask.inputs or ()]


async def _answer(kinds: list[str], texts: list[str], head: Head, requests: list[Tracked]) -> EmbedAnswer:
    found, raws = ByType(), [tracked.embedding or b"" for tracked in requests]
    if "float" in kinds:
        found.floats = await data_of(None, requests, lambda index, values: values)
    if "base64" in kinds:
        found.base64 = await data_of(Packing(), requests, lambda index, values: values)
    for kind in ("binary", "ubinary"):
        if kind in kinds:
            setattr(found, kind, [signs(raw, is_signed=kind == "binary") for raw in raws])
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": head.usage.prompt_tokens}}
    return EmbedAnswer(head.id, found, texts, meta)
