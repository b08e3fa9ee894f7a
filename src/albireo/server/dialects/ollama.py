"""A request of Ollama's -> a request of a chat, a completion or an embedding.

Used by endpoints/ollama.py and ollama_embed.py. Does not know the engine.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from albireo.server.dialect import Dialect
from albireo.server.dialects.ollama_messages import messages_of
from albireo.server.dialects.ollama_options import sampling_of
from albireo.server.errors import HttpError, unsupported
from albireo.server.keep_alive import seconds
from albireo.server.protocol.chat import ChatRequest
from albireo.server.protocol.completions import CompletionRequest
from albireo.server.protocol.fields import unneutral
from albireo.server.protocol.ollama import (
    GENERATE_NEUTRAL,
    TEXT_NEUTRAL,
    ChatAsk,
    GenerateAsk,
    Message,
    Options,
    TextFields,
)
from albireo.server.settings import SWITCHES

#: What response_format is called here.
FORM = "format"
#: What clients write behind the name of a model that has no tag.
_TAG = ":latest"
#: Fields of a request here -> what they are called there.
FIELDS = {
    "max_tokens": "options.num_predict",
    "repetition_penalty": "options.repeat_penalty",
    "reasoning_effort": "think",
    **{
        name: f"options.{name}"
        for name in ("temperature", "top_k", "top_p", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty")
    },
}


@dataclass(frozen=True, slots=True)
class Known:
    """What is to be known of a model.

    Fields:
        names: what it answers to. variables: of its chat template.
        max_tokens: of a completion that says nothing of its length: the model's own advice, or all of the context.
    """

    dialect: Dialect
    names: Collection[str]
    variables: Collection[str]
    max_tokens: int


def plain_name(name: str | None, names: Collection[str]) -> str | None:
    """The name of a model, without a tag that was only put behind it."""
    return name if name is None or name in names else name.removesuffix(_TAG)


def tagged(name: str) -> str:
    """The same with a tag, as clients expect of all."""
    return name if ":" in name else name + _TAG


def as_chat(ask: ChatAsk, options: Options, known: Known) -> ChatRequest:
    """What /api/chat asks, as a chat. Raises: HttpError 400 that names a field."""
    _check(ask, TEXT_NEUTRAL)
    chat = _chat(ask, messages_of(ask.messages or []), options, known)
    chat.tools = ask.tools or None
    chat.continue_final_message = chat.messages[-1]["role"] == "assistant" and not chat.messages[-1].get("tool_calls")
    return chat


def as_request(ask: GenerateAsk, options: Options, known: Known) -> ChatRequest | CompletionRequest:
    """What /api/generate asks: a chat of one message; or a completion, of a prompt that is taken as it stands, or that
    has a gap to be filled. Raises: HttpError 400 that names a field."""
    _check(ask, GENERATE_NEUTRAL)
    if ask.raw or ask.suffix:
        return _completion(ask, options, known)
    said = [Message("user", ask.prompt, images=ask.images)]
    if ask.system:
        said.insert(0, Message("system", ask.system))
    if ask.context and ask.images:
        raise unsupported("context", f"{len(ask.context)} tokens", "it goes with texts alone; use /api/chat")
    return _chat(ask, messages_of(said), options, known)


def _completion(ask: GenerateAsk, options: Options, known: Known) -> CompletionRequest:
    what = "raw" if ask.raw else "suffix"
    for name in ("system", "images", "context", "think"):
        if value := getattr(ask, name):
            raise HttpError(
                400, f"{name}={value!r:.60} goes with a prompt that the model's template writes, and there is {what}; "
                "leave one of them out", param=name,
            )  # fmt: skip
    logprobs = (ask.top_logprobs or 0) if ask.logprobs else None
    if ask.top_logprobs and logprobs is None:
        raise HttpError(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
    return CompletionRequest(
        model=plain_name(ask.model, known.names),
        prompt=ask.prompt or "",
        suffix=ask.suffix or None,
        stream=ask.stream is not False,
        logprobs=logprobs,
        response_format=_response_format(ask.format),
        **{"max_tokens": known.max_tokens, **sampling_of(options)},
    )


def _chat(ask: TextFields, messages: list[dict[str, Any]], options: Options, known: Known) -> ChatRequest:
    return ChatRequest(
        model=plain_name(ask.model, known.names),
        messages=messages,
        stream=ask.stream is not False,
        logprobs=ask.logprobs,
        top_logprobs=ask.top_logprobs,
        response_format=_response_format(ask.format),
        include_reasoning=ask.think is not False,
        reasoning_effort=ask.think or None if isinstance(ask.think, str) else None,
        chat_template_kwargs=_switches(ask.think, known),
        **sampling_of(options),
    )


def _check(ask: TextFields, neutral: dict[str, tuple[Any, ...]]) -> None:
    asked = unneutral(ask, neutral)
    if asked is not None:
        raise unsupported(*asked)


def _response_format(form: Any) -> dict[str, Any] | None:
    if form is None or form == "":
        return None
    if form == "json":
        return {"type": "json_object"}
    if not isinstance(form, dict):
        raise HttpError(400, f"{FORM}={form!r:.60} is not known; give 'json' or a JSON schema", param=FORM)
    return {"type": "json_schema", "json_schema": {"name": "output", "schema": form}}


def _switches(think: bool | str | None, known: Known) -> dict[str, Any] | None:
    """Variables that turn the model's thinking on or off."""
    if think is None or think == "":
        return None
    if think is not False and known.dialect.reasoning_parser is None:
        raise unsupported("think", think, "this model does not think; leave it out")
    if isinstance(think, str):
        return None  # reasoning_effort says it
    return {name: think for name in SWITCHES if name in known.variables} or None


def is_unload(keep_alive: float | str | None, said: Any) -> bool:
    """Whether nothing is asked but that the model's memory be given back. Args: said: what it is to read. Raises:
    HttpError 400."""
    return not said and keep_alive is not None and seconds(keep_alive) == 0
