"""/v1/completions: request, answer, chunk."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from albireo.server.llama_timings import Timings
from albireo.server.protocol.fields import NEUTRAL, AllOrCount, Count, GenerationFields, Usage


class CompletionRequest(GenerationFields, kw_only=True, forbid_unknown_fields=True):
    """prompt: a text, several, token ids, or several lists of them. suffix: what stands behind the gap to be filled."""

    prompt: str | list[str | Count | list[Count]]
    echo: bool | None = None
    logprobs: AllOrCount | None = None
    suffix: str | None = None
    prompt_embeds: Any = None


COMPLETION_NEUTRAL = {**NEUTRAL, "prompt_embeds": ()}


class CompletionLogprobs(msgspec.Struct):
    """One entry a token; top_logprobs: token -> log-probability, of the best and of the chosen one."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct):
    """One continuation, or what is new of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_logprobs: list[dict[str, Any] | None] | UnsetType = UNSET


class Completion(msgspec.Struct):
    """The answer, and a chunk of it."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    object: str = "text_completion"
    usage: Usage | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET
