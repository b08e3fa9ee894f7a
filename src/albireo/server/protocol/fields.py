"""Fields that protocols share: what shapes the text, what is accepted only in its neutral value.

Used by completions.py, chat.py and responses.py beside it. Ranges that need the model are checked where it is known.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

#: Far above any context; what exceeds the model's is refused with its number.
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
AtLeastOne = Annotated[int, Meta(ge=1, le=2**31 - 1)]
AllOrCount = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, Meta(max_length=256)]
#: Of a request or an answer: may stand in a header and in a log.
Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
#: Of what can be asked for by its id: may stand in a path, too.
PathId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._~:@-]+$")]
Priority = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
CacheSalt = Annotated[str, Meta(min_length=1, max_length=1024)]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """include_usage: a last chunk with the counts; continuous_usage_stats: the counts in every chunk."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None

    @property
    def asks(self) -> bool:
        """Of a stream anything at all."""
        return bool(self.include_usage or self.continuous_usage_stats or self.include_obfuscation)


class AskedFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Fields of every protocol that asks for a text; None: not said."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # what shapes the text: names of SamplingParams
    min_tokens: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: AllOrCount | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: Int64 | None = None
    stop: Text | list[Text] | None = None
    stop_token_ids: list[Count] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    logit_bias: dict[str, float] | None = None
    bad_words: list[Text] | None = None
    thinking_token_budget: AllOrCount | None = None

    # how it is run, and the form of the output
    priority: Priority | None = None
    cache_salt: CacheSalt | None = None
    structured_outputs: Any = None

    # about the caller; they change nothing here, in other servers neither
    user: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    session_id: Any = None
    service_tier: Any = None

    # there is no such thing here: neutral values only
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None
    vllm_xargs: Any = None
    watermarking: Any = None


class GenerationFields(AskedFields, kw_only=True, forbid_unknown_fields=True):
    """Fields of completions and chats. stream_interval: tokens that a chunk waits for, but the first and the last."""

    stream_interval: AtLeastOne | None = None

    # what shapes the text: names of SamplingParams
    n: AtLeastOne | None = None
    max_tokens: Count | None = None
    spaces_between_special_tokens: bool | None = None
    allowed_token_ids: list[Count] | None = None
    prompt_logprobs: AllOrCount | None = None
    logprob_token_ids: list[Count] | None = None
    truncate_prompt_tokens: AllOrCount | None = None
    truncation_side: Literal["left", "right"] | None = None

    #: Fields of RepetitionDetectionParams.
    repetition_detection: dict[str, Count] | None = None

    # a beam search, which is n wide: read by intake.py
    use_beam_search: bool | None = None
    length_penalty: float | None = None

    # how it is run and told
    request_id: Id | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    return_timings: bool | None = None
    add_special_tokens: bool | None = None

    # the form of the output: read by forms.py
    response_format: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    guided_decoding_backend: Any = None
    guided_whitespace_pattern: Annotated[str, Meta(max_length=8192)] | None = None

    # llama.cpp's: a penalty by its name there, how far penalties look back, which samplers are used, its timings in an
    # answer and in all chunks; how its cache is kept, which changes nothing
    repeat_penalty: float | None = None
    repeat_last_n: AllOrCount | None = None
    samplers: str | list[str] | None = None
    timings_per_token: bool | None = None
    cache_prompt: bool | None = None
    id_slot: int | None = None

    # about the caller; they change nothing here, in other servers neither
    metadata: Any = None
    store: Any = None

    # there is no such thing here: neutral values only
    best_of: AtLeastOne | None = None
    return_token_offsets: Any = None


class LlamaSampling(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How tokens are chosen, in the words of llama.cpp, which Ollama has from there; None: not said.

    Fields:
        repeat_last_n: how far penalties look back.
        mirostat_tau, mirostat_eta: say something of others only.
    """

    temperature: float | None = None
    top_k: AllOrCount | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: Int64 | None = None
    stop: Text | list[Text] | None = None
    repeat_penalty: float | None = None
    repeat_last_n: AllOrCount | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None


#: Field -> values beside null that ask for nothing. Compared with ==, so 1 stands for 1.0, and False for 0.
ASKED_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "service_tier": ("auto", "default"),
    "kv_transfer_params": ({},),
    "ec_transfer_params": ({},),
    "vllm_xargs": ({},),
    "watermarking": (False,),
}
NEUTRAL = ASKED_NEUTRAL | {"store": (False,), "return_token_offsets": (False,)}

#: Fields that SamplingParams has by the same name.
SAMPLING = (
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "logit_bias",
    "allowed_token_ids",
    "bad_words",
    "prompt_logprobs",
    "logprob_token_ids",
    "thinking_token_budget",
    "repetition_detection",
    "truncate_prompt_tokens",
    "truncation_side",
)


def unneutral(fields: msgspec.Struct, table: dict[str, tuple[Any, ...]]) -> tuple[str, Any] | None:
    """The first field that asks for something, with its value."""
    for name, allowed in table.items():
        value = getattr(fields, name)
        if value is not None and value not in allowed:
            return name, value
    return None


class Usage(msgspec.Struct, omit_defaults=True):
    """Tokens of an answer.

    Fields:
        completion_tokens_details: reasoning_tokens: of them, those of thoughts, of a model that thinks.
        timings: seconds of each part of its account, when asked for.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | None = None
    completion_tokens_details: dict[str, int] | None = None
    timings: dict[str, float] | None = None


def usage(num_prompt: int, num_output: int, num_cached: int) -> Usage:
    """The counts as OpenAI has them."""
    return Usage(num_prompt, num_output, num_prompt + num_output, {"cached_tokens": num_cached})
