"""POST /tokenize and /detokenize, GET /tokenizer_info."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from albireo.api.requests.admission import Admission
from albireo.errors import EngineError
from albireo.params import SamplingParams
from albireo.server.body import parse
from albireo.server.conversation import readable
from albireo.server.errors import HttpError, refused, unsupported
from albireo.server.intake import template_kwargs, template_of
from albireo.server.protocol.tokens import (
    Detokenized,
    DetokenizeRequest,
    Tokenized,
    TokenizeRequest,
    TokenPiece,
)
from albireo.server.serving import Serving
from albireo.text.tokenizer import Tokenizer

_TOKENIZE = msgspec.json.Decoder(TokenizeRequest)
_DETOKENIZE = msgspec.json.Decoder(DetokenizeRequest)


class Tokens:
    """The endpoints."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def tokenize(self, http: Request) -> Response:
        """Text, or a chat, to token ids."""
        serving = self._serving
        async with serving.bodies.read(http.scope, http.receive) as body:
            request = parse(body, _TOKENIZE)
        serving.check_model(request.model)
        admission, tokenizer = serving.admission, serving.tokenizer
        if [request.prompt, request.messages, request.content].count(None) != 2:
            raise HttpError(400, "give prompt, messages or content, one of them", param="prompt")
        _check_fields(request)
        try:
            if request.content is not None:
                pieces = await serving.in_thread(lambda: _pieces(request, tokenizer))
                return _json(Tokenized(len(pieces), serving.ready.max_model_len, pieces))
            if request.prompt is not None:
                text, special = request.prompt, request.add_special_tokens is not False
                ids = await serving.in_thread(lambda: tokenizer.encode(text, add_special_tokens=special))
            else:
                ids = await serving.in_thread(lambda: self._chat(request, admission))
        except EngineError as error:
            raise refused(error, "messages" if request.prompt is None else "prompt") from None
        answer = Tokenized(len(ids), serving.ready.max_model_len, [*ids])
        if request.return_token_strs:
            answer.token_strs = [tokenizer.id_to_token(token) or "" for token in ids]
        return _json(answer)

    def _chat(self, request: TokenizeRequest, admission: Admission) -> list[int]:
        opens = bool(request.continue_final_message)
        template = template_of(self._serving, request.chat_template)
        options = {
            "add_generation_prompt": not opens
            if request.add_generation_prompt is None
            else request.add_generation_prompt,
            "continue_final_message": opens,
            "chat_template": template,
            "tools": request.tools or None,
            "chat_template_kwargs": template_kwargs(self._serving, request.chat_template_kwargs, None),
        }
        messages = readable(request.messages or [], template or self._serving.dialect.template)
        return admission.chat(messages, SamplingParams(), options).prompt_token_ids

    async def info(self, http: Request) -> Response:
        """What chats are written with. Raises: HttpError 404 unless it is to be told."""
        serving = self._serving
        if not serving.settings.enable_tokenizer_info_endpoint:
            raise HttpError(404, "the tokenizer is not told of here; --enable-tokenizer-info-endpoint does")
        tokenizer = serving.tokenizer
        templates = tokenizer.chat_templates
        source = serving.chat_template or templates.get("default") or next(iter(templates.values()), None)
        told = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **tokenizer.named_tokens,
            "model_max_length": serving.ready.max_model_len,
            "vocab_size": tokenizer.vocab_size,
            "chat_template": source,
        }
        return _json(told)

    async def detokenize(self, http: Request) -> Response:
        """Token ids to text."""
        serving = self._serving
        async with serving.bodies.read(http.scope, http.receive) as body:
            request = parse(body, _DETOKENIZE)
        serving.check_model(request.model)
        tokenizer, size = serving.tokenizer, serving.ready.vocab_size
        beyond = next((token for token in request.tokens if token >= size), None)
        if beyond is not None:
            raise HttpError(
                400, f"token id {beyond} is outside the vocabulary; ids are 0 to {size - 1}", param="tokens"
            )
        text = await serving.in_thread(lambda: tokenizer.decode(request.tokens, skip_special_tokens=False))
        return _json(Detokenized(text, text))


def _pieces(request: TokenizeRequest, tokenizer: Tokenizer) -> list[int | TokenPiece]:
    """Of llama.cpp's content."""
    ids = tokenizer.encode(request.content or "", add_special_tokens=bool(request.add_special))
    if not request.with_pieces:
        return [*ids]
    texts = tokenizer.token_strings(ids)
    return [TokenPiece(token, _piece(tokenizer, token, text)) for token, text in zip(ids, texts, strict=True)]


def _piece(tokenizer: Tokenizer, token: int, text: str) -> str | list[int]:
    """A token's text, with the space that is a part of it; its bytes where they are none."""
    piece = None if tokenizer.pieces.kind == "whole" else tokenizer.pieces.piece(token)
    if piece is None:
        return text
    try:
        return piece.data.decode()
    except UnicodeDecodeError:
        return list(piece.data)


#: Fields of llama.cpp's content, and of what else is tokenized.
_OF_CONTENT = ("add_special", "parse_special", "with_pieces")
_OF_MESSAGES = ("tools", "continue_final_message", "chat_template", "chat_template_kwargs")


def _check_fields(request: TokenizeRequest) -> None:
    """Raises: HttpError 400 for what goes with another kind of prompt only."""
    if request.content is not None:
        if request.parse_special is False:
            raise unsupported("parse_special", False, "texts of special tokens become them; leave it out")
        for name in ("add_special_tokens", "return_token_strs", "add_generation_prompt", *_OF_MESSAGES):
            if value := getattr(request, name):
                raise unsupported(name, value, "it goes with prompt or messages, and there is content")
        return
    for name in _OF_CONTENT:
        if (value := getattr(request, name)) is not None:
            raise unsupported(name, value, "it goes with content")
    if request.prompt is None:
        if request.add_special_tokens:
            raise unsupported("add_special_tokens", True, "a chat has those that its template writes")
        return
    for name in _OF_MESSAGES:
        if value := getattr(request, name):
            raise unsupported(name, value, "it goes with messages, and there is a prompt")


def _json(answer: Any) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
