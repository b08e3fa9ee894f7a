"""llama.cpp's /completion, /infill and /apply-template: requests and answers."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from albireo.server.llama_timings import Timings
from albireo.server.protocol.fields import AllOrCount, Count, LlamaSampling

#: A text, token ids, or both in turn.
MixedPrompt = str | Annotated[list[str | Count], Meta(min_length=1)]


class SampledFields(LlamaSampling, kw_only=True, forbid_unknown_fields=True):
    """What both routes take; None: not said.

    Fields:
        n_predict: most tokens of the answer; -1: to the end of the context; 0: the prompt is computed, no more.
        samplers: which of them choose tokens: names, or llama.cpp's letters; their order is this server's.
        n_probs: so many of the best tokens at each place are told.
        logit_bias: pairs of a token, by its id or as a text, and what is added; false: never.
        n_indent: the answer ends before a line that is indented less. t_max_predict_ms: and once it has taken so long
            and has a line.
        response_fields: only these of the answer, a/b for b within a.
        cache_prompt, id_slot, n_keep, n_discard, t_max_prompt_ms: change nothing; see dialects/llama_cpp.py.
    """

    model: str | None = None
    stream: bool | None = None
    n_predict: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    max_tokens: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    ignore_eos: bool | None = None
    samplers: str | list[str] | None = None
    logit_bias: list[tuple[Count | str, float | bool]] | dict[str, float | bool] | None = None
    n_probs: Count | None = None
    grammar: str | None = None
    json_schema: Any = None
    n_indent: Count | None = None
    t_max_predict_ms: AllOrCount | None = None
    return_tokens: bool | None = None
    timings_per_token: bool | None = None
    response_fields: Annotated[list[str], Meta(max_length=64)] | None = None

    # they say something of others only
    dynatemp_exponent: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: list[str] | None = None
    xtc_threshold: float | None = None

    cache_prompt: bool | None = None
    id_slot: int | None = None
    n_keep: int | None = None
    n_discard: int | None = None
    t_max_prompt_ms: int | None = None

    # there is no such thing here: neutral values only
    dynatemp_range: Any = None
    typical_p: Any = None
    top_n_sigma: Any = None
    dry_multiplier: Any = None
    xtc_probability: Any = None
    mirostat: Any = None
    min_keep: Any = None
    n_cmpl: Any = None
    post_sampling_probs: Any = None
    return_progress: Any = None
    lora: Any = None
    image_data: Any = None


SAMPLED_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "dynatemp_range": (0,),
    "typical_p": (1,),
    "top_n_sigma": (-1, 0),
    "dry_multiplier": (0,),
    "xtc_probability": (0,),
    "mirostat": (0,),
    "min_keep": (0,),
    "n_cmpl": (1,),
    "post_sampling_probs": (False,),
    "return_progress": (False,),
    "lora": ([],),
    "image_data": ([],),
}


class CompletionAsk(SampledFields, kw_only=True):
    """/completion."""

    prompt: MixedPrompt


class ExtraFile(msgspec.Struct, forbid_unknown_fields=True):
    """What else an editor knows: another file, or a part of one. time: when it was seen; changes nothing."""

    text: str
    filename: str | None = None
    time: Any = None


class InfillAsk(SampledFields, kw_only=True):
    """/infill. prompt: how what fills the gap begins. input_extra: what stands in front of all, the oldest first."""

    input_prefix: str
    input_suffix: str
    input_extra: Annotated[list[ExtraFile], Meta(max_length=4096)] | None = None
    prompt: str | None = None


class TokenProb(msgspec.Struct):
    """A token at a place; bytes: of its text."""

    id: int
    token: str
    bytes: list[int] | None
    logprob: float


class PlaceProbs(TokenProb):
    """The token that was chosen, and the best there were."""

    top_logprobs: list[TokenProb]


class Completed(msgspec.Struct, kw_only=True):
    """The answer, or of a stream what is new; the last of it has `stop`, and all that is set in an answer's end.

    Fields:
        tokens: ids, with return_tokens or in a stream. tokens_evaluated: of the prompt; tokens_cached: of it and of
        the answer. stop_type: eos, word, limit. has_new_line: there is one in the text.
    """

    content: str
    index: int = 0
    id_slot: int = -1
    stop: bool = False
    tokens: list[int] = msgspec.field(default_factory=list)
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    completion_probabilities: list[PlaceProbs] | UnsetType = UNSET
    model: str | UnsetType = UNSET
    generation_settings: dict[str, Any] | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    has_new_line: bool | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET
    stop_type: str | UnsetType = UNSET
    stopping_word: str | UnsetType = UNSET
    tokens_cached: int | UnsetType = UNSET
    timings: Timings | UnsetType = UNSET


class AppliedTemplate(msgspec.Struct):
    """Messages as the model gets them."""

    prompt: str
