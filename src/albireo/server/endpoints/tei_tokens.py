"""POST /tokenize of `inputs`, and /decode: text-embeddings-inference's."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from albireo.api.requests.prompts import Prompt
from albireo.errors import EngineError
from albireo.server.body import parse
from albireo.server.errors import HttpError, refused
from albireo.server.pooling_intake import check_number
from albireo.server.protocol.tei import SimpleToken, TeiDecodeAsk, TeiTokenizeAsk
from albireo.server.serving import Serving

_TOKENIZE, _DECODE = msgspec.json.Decoder(TeiTokenizeAsk), msgspec.json.Decoder(TeiDecodeAsk)
_ENCODER = msgspec.json.Encoder()
#: What goes wrong is told as of this route, whose protocol it is.
_WORDED = "/embed"


class TeiTokens:
    """The endpoints."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def tokenize(self, http: Request) -> Response:
        """Of each text its tokens, with their places in it."""
        serving = self._serving
        try:
            async with serving.bodies.read(http.scope, http.receive) as body:
                ask = parse(body, _TOKENIZE)
            serving.check_model(ask.model)
            texts = [ask.inputs] if isinstance(ask.inputs, str) else ask.inputs
            check_number(serving, "inputs", len(texts))
            _ = serving.ready
            answer = await serving.in_thread(lambda: _ENCODER.encode([self._tokens(text, ask) for text in texts]))
            return Response(answer, media_type="application/json")
        except EngineError as error:
            return refused(error, "inputs").response(_WORDED)
        except HttpError as error:
            return error.response(_WORDED)

    def _tokens(self, text: str, ask: TeiTokenizeAsk) -> list[SimpleToken]:
        """Raises: InvalidParams."""
        tokenizer = self._serving.tokenizer
        if ask.prompt_name is not None:
            text = self._serving.admission.pooling.begun(Prompt(text, None), ask.prompt_name).text or ""
        placed = tokenizer.places(text, add_special_tokens=ask.add_special_tokens is not False)
        raw = text.encode()
        found = []
        for token_id, start, stop in placed:
            if start is None or stop is None:
                found.append(SimpleToken(token_id, tokenizer.id_to_token(token_id) or "", True))
            else:
                found.append(SimpleToken(token_id, raw[start:stop].decode("utf-8", "replace"), False, start, stop))
        return found

    async def decode(self, http: Request) -> Response:
        """Of each list of ids its text."""
        serving = self._serving
        try:
            async with serving.bodies.read(http.scope, http.receive) as body:
                ask = parse(body, _DECODE)
            serving.check_model(ask.model)
            if len({type(each) for each in ask.ids}) > 1:
                raise HttpError(400, "ids mixes ids and lists of them; give one kind", param="ids")
            several = [each for each in ask.ids if isinstance(each, list)] or [
                [each for each in ask.ids if isinstance(each, int)]
            ]
            check_number(serving, "ids", len(several))
            size, skips = serving.ready.vocab_size, ask.skip_special_tokens is not False
            beyond = next((token for ids in several for token in ids if token >= size), None)
            if beyond is not None:
                raise HttpError(
                    400, f"token id {beyond} is outside the vocabulary; ids are 0 to {size - 1}", param="ids"
                )
            tokenizer = serving.tokenizer
            texts = await serving.in_thread(lambda: [tokenizer.decode(ids, skips) for ids in several])
            return Response(_ENCODER.encode(texts), media_type="application/json")
        except HttpError as error:
            return error.response(_WORDED)
