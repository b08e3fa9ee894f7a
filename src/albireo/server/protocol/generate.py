"""/inference/v1/generate, vLLM's: token ids in, token ids out; and what routes of /render answer: a request of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from albireo.server.protocol.fields import (
    AllOrCount,
    AtLeastOne,
    CacheSalt,
    Count,
    Id,
    Int64,
    Priority,
    StreamOptions,
    Text,
    Usage,
)


class TokenSampling(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Fields of SamplingParams. What is not said is neutral, whatever the model's files recommend; max_tokens: up to
    the context."""

    n: AtLeastOne = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: AllOrCount = 0
    min_p: float = 0.0
    seed: Int64 | None = None
    stop: Text | list[Text] | None = None
    stop_token_ids: list[Count] | None = None
    ignore_eos: bool = False
    max_tokens: AtLeastOne | None = None
    min_tokens: Count = 0
    logprobs: AllOrCount | None = None
    prompt_logprobs: AllOrCount | None = None
    logprob_token_ids: list[Count] | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    logit_bias: dict[str, float] | None = None
    allowed_token_ids: list[Count] | None = None
    bad_words: list[Text] | None = None
    thinking_token_budget: AllOrCount | None = None
    structured_outputs: Any = None
    repetition_detection: dict[str, Count] | None = None

    #: What is shown is said by output_mode.
    detokenize: Any = None
    output_kind: Any = None

    # there is no such thing here: neutral values only
    extra_args: Any = None
    flat_logprobs: Any = None
    skip_reading_prefix_cache: Any = None


SAMPLING_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "detokenize": (True, False),
    "output_kind": (0, 1, 2),
    "extra_args": ({},),
    "flat_logprobs": (False,),
    "skip_reading_prefix_cache": (False,),
}
#: Fields that are no request's of completions.
SAMPLING_BESIDE = tuple(SAMPLING_NEUTRAL)


class GenerateTokensAsk(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Fields:
    token_ids: the prompt. sampling_params: read as TokenSampling.
    output_mode: text: the answer has the text of its tokens, too.
    return_token_ids: the answer has those of the prompt.
    """

    token_ids: Annotated[list[Count], Meta(min_length=1)]
    sampling_params: dict[str, Any]
    model: str | None = None
    request_id: Id | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    cache_salt: CacheSalt | None = None
    priority: Priority | None = None
    return_token_ids: bool | None = None
    output_mode: Literal["tokens", "text"] | None = None

    # there is no such thing here, or it is said by sampling_params: neutral values only
    reasoning_ended: Any = None
    reasoning_parser_kwargs: Any = None
    token_offsets: Any = None
    features: Any = None
    content_parts: Any = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None


GENERATE_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "reasoning_ended": (True,),
    "reasoning_parser_kwargs": ({}, {"chat_template_kwargs": {}}),
    "token_offsets": (),
    "features": (),
    "content_parts": ([],),
    "kv_transfer_params": ({},),
    "ec_transfer_params": ({},),
}


class Rendered(msgspec.Struct, omit_defaults=True):
    """What a request is to the engine, as a request of /inference/v1/generate."""

    request_id: str
    token_ids: list[int]
    sampling_params: dict[str, Any]
    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    cache_salt: str | None = None
    priority: int = 0


class TokenChance(msgspec.Struct):
    """A token and how likely it was. rank: 1 is the likeliest."""

    token_id: int
    logprob: float
    rank: int


class TokenChances(TokenChance):
    """The token of a place; it again and the best of the others."""

    top_logprobs: list[TokenChance]


class ChancesOfTokens(msgspec.Struct):
    """One entry a token."""

    content: list[TokenChances]


class TokensChoice(msgspec.Struct):
    """One continuation, or what is new of it. logprobs: ChancesOfTokens; with a text ChatLogprobs."""

    index: int
    finish_reason: str | None
    stop_reason: int | str | None
    token_ids: list[int]
    logprobs: Any = None
    text: str | UnsetType = UNSET


class TokensAnswer(msgspec.Struct, kw_only=True):
    """The answer, and a chunk of it."""

    request_id: str
    output_mode: str
    choices: list[TokensChoice]
    model: str | UnsetType = UNSET
    created: int | UnsetType = UNSET
    usage: Usage | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_logprobs: list[dict[str, Any] | None] | UnsetType = UNSET
