"""SamplingParams and PoolingParams: what a caller may ask of one request. Names and meanings are vLLM's.

Validated once, on construction; frozen afterwards. Does not know tokenizers, models or tensors.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from numbers import Integral, Real
from operator import index
from typing import Any, Literal

from albireo.beam_search_params import BeamSearchParams
from albireo.errors import InvalidParams, UnsupportedFeature, short
from albireo.repetition_params import RepetitionDetectionParams
from albireo.speech_rules import SpeechRules
from albireo.structured_params import StructuredOutputsParams
from albireo.vllm_names import params_of_vllm

#: Where a prompt is cut that is too long.
TruncationSide = Literal["left", "right"]
#: Below this a temperature means greedy; vLLM's limit.
GREEDY_TEMPERATURE = 1e-5
#: Largest top_k for which the head finds the best logits by itself.
MAX_TOP = 64
MAX_SEED = 2**63 - 1
MAX_LOGPROB_TOKEN_IDS = 128
_FLAGS = (
    "detokenize",
    "ignore_eos",
    "include_stop_str_in_output",
    "skip_special_tokens",
    "spaces_between_special_tokens",
)
#: What the front door fills in, never a caller.
FILLED_FIELDS = ("bad_words_token_ids", "thinking_marks", "speech_rules", "beam_search")
_INTS = ("n", "best_of", "top_k", "seed", "max_tokens", "min_tokens", "logprobs", "prompt_logprobs")
_FLOATS = ("presence_penalty", "frequency_penalty", "repetition_penalty", "temperature", "top_p", "min_p")


class RequestOutputKind(Enum):
    """What each output of AsyncLLM holds: all so far; what is new since the last one; or there is one, at the end."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingMarks:
    """Between which texts an output thinks.

    Fields:
        end_token_ids: what the end is forced by.
        is_open: it thinks from its first token on, since its prompt opened it or its model always does.
        again: what begins further thoughts, anywhere behind the first; empty: there are none.
    """

    begin: str
    end: str
    end_token_ids: tuple[int, ...]
    is_open: bool
    again: str = ""


@params_of_vllm(
    guided_decoding="structured_outputs=StructuredOutputsParams(…) has the same fields",
    logits_processors="logit_bias, allowed_token_ids, bad_words and structured_outputs say what may be drawn",
    extra_args="nothing reads any",
    skip_clone="",
    flat_logprobs="log-probabilities are a dictionary at each place",
    use_beam_search="LLM.beam_search() searches",
    length_penalty="BeamSearchParams has it",
    early_stopping="LLM.beam_search() searches",
    prompt_logprob_token_ids="prompt_logprobs tells of a prompt's tokens and the best",
    prompt_logprob_start="prompt_logprobs tells of all of a prompt",
    stream_interval="requests of a server have it; readers of AsyncLLM take what has come",
    trace_decode_token_ids="prompt_logprobs tells how likely given tokens are",
    routed_experts_prompt_start="which experts a token had is not told",
    output_text_buffer_length="texts hold what cannot change any more",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """What one request asks for.

    Fields:
        n: independent continuations of one prompt, 1 to 16384; best_of: None or the same.
        presence_penalty, frequency_penalty: subtracted from the logit of each token of the output so far, once or for
            each time it is there; -2 to 2.
        repetition_penalty: logits of tokens in prompt and output are divided by it if positive, else multiplied; > 0.
        penalty_window: all three look at the last so many tokens of prompt and output together, as in llama.cpp, and a
            token there counts wherever it is from; None: at all there is, as said.
        temperature: logits are divided by it; below 1e-5 the likeliest token is taken (greedy).
        top_p: draw from the smallest set of tokens with this much probability, in (0, 1].
        top_k: draw from the k likeliest tokens; 0 and -1: from all.
        min_p: leave out tokens less likely than this fraction of the likeliest, in [0, 1].
        seed: of 64 bits, with a sign; a request with a seed gives the same tokens alone and in any batch. None and -1:
            derived from the engine's seed and the number of the request.
        stop: one string or several that end the text; stop_token_ids: ids that do. The text is cut in front of a string
            unless include_stop_str_in_output.
        ignore_eos: go on after the model's end of text.
        max_tokens: most tokens of the output; None: up to the context. min_tokens: before that many nothing ends it,
            and no token comes that could, EOS included where it is ignored.
        logprobs: of each output token its log-probability and those of the best so many; 0: its own only; -1: all;
            None: none. prompt_logprobs: the same of the prompt's tokens. EngineConfig.max_logprobs is the limit.
        logprob_token_ids: tokens whose log-probability is told at each place of the output, beside its own and in place
            of the best ones; at most MAX_LOGPROB_TOKEN_IDS.
        detokenize: False: token ids only, the text stays empty.
        skip_special_tokens: leave special tokens out of the text.
        spaces_between_special_tokens: see Tokenizer.decode.
        logit_bias: token id -> added to its logit.
        allowed_token_ids: the only ids that may be drawn; bad_words: texts whose own tokens never come in a row (other
            tokens may still spell them).
        thinking_token_budget: tokens an output may spend on thinking; then the end of thinking is forced. None and -1:
            as many as it likes. What comes after the prompt counts, from the opening mark on.
        truncate_prompt_tokens: keep so many tokens of a longer prompt, with what the tokenizer puts round a text; -1:
            as many as leave room for max_tokens, or for one. None: what does not fit is refused.
        truncation_side: where it is cut: left (the last tokens stay; None is the same), or right (the first ones do).
        skip_reading_prefix_cache: compute the whole prompt, also what is in the prefix cache.
        repetition_detection: end an output that only repeats itself, by what RepetitionDetectionParams says; an object
            with its fields will do. None: not.
        output_kind: what outputs of AsyncLLM hold; those of LLM are whole.
        structured_outputs: the form the output must have; an object with the fields of StructuredOutputsParams will do.
            The output ends where the form does: min_tokens and ignore_eos put its end off as long as it can go on.

    Raises: InvalidParams naming field, value and limit; UnsupportedFeature for what asks the impossible.
    """

    n: int = 1
    best_of: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    penalty_window: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logprob_token_ids: Sequence[int] | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = None
    truncate_prompt_tokens: int | None = None
    truncation_side: TruncationSide | None = None
    skip_reading_prefix_cache: bool | None = None
    thinking_token_budget: int | None = None
    structured_outputs: StructuredOutputsParams | None = None
    repetition_detection: RepetitionDetectionParams | None = None
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    #: FILLED_FIELDS, once a tokenizer is known; of a beam search, whose width n is (api/requests/beam_search.py).
    bad_words_token_ids: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    thinking_marks: ThinkingMarks | None = field(default=None, repr=False)
    speech_rules: SpeechRules | None = field(default=None, repr=False)
    beam_search: BeamSearchParams | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        def set_(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name in (*_INTS, *_FLOATS, "thinking_token_budget", "truncate_prompt_tokens", "penalty_window"):
            set_(name, plain_number(getattr(self, name)))
        set_("stop", (self.stop,) if isinstance(self.stop, str) else _list("stop", self.stop))
        set_("stop_token_ids", tuple(map(plain_number, _list("stop_token_ids", self.stop_token_ids))))
        set_("bad_words", _list("bad_words", self.bad_words))
        if self.allowed_token_ids is not None:
            set_("allowed_token_ids", tuple(map(plain_number, _list("allowed_token_ids", self.allowed_token_ids))))
        set_("logprob_token_ids", tuple(map(plain_number, _list("logprob_token_ids", self.logprob_token_ids))) or None)
        if self.logprob_token_ids:
            set_("logprobs", 0)
        if self.logit_bias is not None:
            try:
                set_("logit_bias", {_key(k): float(v) for k, v in self.logit_bias.items()})
            except (AttributeError, OverflowError, TypeError, ValueError):
                shown = short(self.logit_bias)
                raise InvalidParams(f"logit_bias must map token ids to finite numbers, got {shown}") from None
        if self.structured_outputs is not None:
            set_("structured_outputs", StructuredOutputsParams.of(self.structured_outputs))
        if self.repetition_detection is not None:
            found = RepetitionDetectionParams.of(self.repetition_detection)
            set_("repetition_detection", found if found.max_pattern_size else None)
        if self.top_k == -1:
            set_("top_k", 0)
        if self.seed == -1:  # in vLLM, llama.cpp and what was written for them: any
            set_("seed", None)
        if self.thinking_token_budget == -1:
            set_("thinking_token_budget", None)
        self._verify()

    def _verify(self) -> None:
        _int("n", self.n, 1, 16384)
        if self.best_of not in (None, self.n):
            raise UnsupportedFeature(
                f"best_of={short(self.best_of)} is not supported; it must be n={self.n}, or left out"
            )
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("repetition_penalty", self.repetition_penalty, 0.0, math.inf, low_open=True)
        if self.penalty_window is not None:
            _int("penalty_window", self.penalty_window, 1, None)
        _number("temperature", self.temperature, 0.0, math.inf)
        _number("top_p", self.top_p, 0.0, 1.0, low_open=True)
        _int("top_k", self.top_k, 0, None, "0 or -1 (all), or at least 1")
        _number("min_p", self.min_p, 0.0, 1.0)
        if self.seed is not None:
            _int("seed", self.seed, -MAX_SEED - 1, MAX_SEED)
        if self.max_tokens is not None:
            _int("max_tokens", self.max_tokens, 1, None)
        _int("min_tokens", self.min_tokens, 0, None)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidParams(
                f"min_tokens={self.min_tokens} exceeds max_tokens={self.max_tokens}; lower it or raise max_tokens"
            )
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if value is not None:
                _int(name, value, -1, None, "-1 (all), 0 (the chosen token), or more")
        for name in _FLAGS:
            _flag(name, getattr(self, name))
        if not isinstance(self.output_kind, RequestOutputKind):
            raise InvalidParams(f"output_kind={short(self.output_kind)} must be a RequestOutputKind")
        if self.skip_reading_prefix_cache is not None:
            _flag("skip_reading_prefix_cache", self.skip_reading_prefix_cache)
        if self.truncate_prompt_tokens not in (None, -1):
            _int("truncate_prompt_tokens", self.truncate_prompt_tokens, 1, None, "at least 1, or -1 (what fits)")
        _check_side(self.truncation_side)
        if self.thinking_token_budget is not None:
            _int("thinking_token_budget", self.thinking_token_budget, 0, None, "at least 0, or -1 (no limit)")
        _tokens("stop_token_ids", self.stop_token_ids)
        _tokens("logprob_token_ids", self.logprob_token_ids)
        if len(self.logprob_token_ids or ()) > MAX_LOGPROB_TOKEN_IDS:
            raise InvalidParams(
                f"logprob_token_ids holds {len(self.logprob_token_ids or ())} ids, at most {MAX_LOGPROB_TOKEN_IDS} are "
                "taken; logprobs=-1 tells of all"
            )
        _tokens("allowed_token_ids", self.allowed_token_ids)
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise InvalidParams("allowed_token_ids is empty: nothing could be produced; leave it out to allow all")
        for name in ("stop", "bad_words"):
            for text in getattr(self, name):
                if not isinstance(text, str) or not text:
                    raise InvalidParams(f"{name} must hold strings that are not empty, got {short(text)}")
                if not is_unicode(text):
                    raise InvalidParams(
                        f"{name} holds {short(text)}, which is no Unicode text: half of a surrogate pair"
                    )
        if self.stop and not self.detokenize:
            raise InvalidParams("stop strings need detokenize=True; use stop_token_ids or allow detokenizing")
        for token_id, bias in (self.logit_bias or {}).items():
            if token_id < 0:
                raise InvalidParams(f"logit_bias names token id {token_id}; ids start at 0")
            if math.isnan(bias) or bias == math.inf:
                raise InvalidParams(f"logit_bias of token {token_id} is {bias}; it must be a number below infinity")

    @property
    def is_greedy(self) -> bool:
        """True when the most likely token is taken and no random number is drawn."""
        return self.temperature < GREEDY_TEMPERATURE

    @property
    def needs_logits(self) -> bool:
        """False when the best num_top raw logits decide, so that the others need not be written out."""
        return self.num_top == 0

    @property
    def num_top(self) -> int:
        """How many of the best raw logits decide: 1 for the arg max, k for top-k of at most MAX_TOP, 0 for all."""
        num = 1 if self.is_greedy else self.top_k if self.top_k <= MAX_TOP else 0
        return num if self.draws_from_raw else 0

    @property
    def draws_from_raw(self) -> bool:
        """Whether a token is all that is wanted, drawn from the raw logits whatever the output is so far."""
        return self.logprobs is None and self.ignores_output

    @property
    def ignores_output(self) -> bool:
        """Whether a token is drawn from the raw logits whatever the output is so far, and none is told of by its id."""
        return (
            self.presence_penalty == 0.0
            and self.frequency_penalty == 0.0
            and self.repetition_penalty == 1.0
            and not self.logit_bias
            and self.allowed_token_ids is None
            and not self.bad_words
            and self.min_tokens == 0
            and self.structured_outputs is None
            and self.thinking_token_budget is None
            and self.speech_rules is None
            and not self.logprob_token_ids
        )

    @property
    def changes_logits(self) -> bool:
        """Whether a row may be changed at every token (min_tokens, which depends on the token, aside)."""
        return bool(
            self.allowed_token_ids is not None
            or self.bad_words_token_ids
            or self.logit_bias
            or self.repetition_penalty != 1.0
            or self.frequency_penalty
            or self.presence_penalty
            or self.speech_rules is not None
        )

    def clone(self, **changes: Any) -> SamplingParams:
        """A copy with some fields changed."""
        return replace(self, **changes)

    @classmethod
    def from_optional(cls, **given: Any) -> SamplingParams:
        """Of what is not None."""
        return cls(**{name: value for name, value in given.items() if value is not None})


#: How the hidden states of a prompt become one: that of its last token, the mean of all, that of the first; or stay.
PoolingType = Literal["last", "mean", "max", "cls", "all"]
POOLING_TYPES = ("last", "mean", "max", "cls", "all")
#: What becomes of a prompt that is pooled, by vLLM's names: of all of it, or of each of its tokens.
PoolingTaskName = Literal["embed", "classify", "token_embed", "token_classify"]
POOLING_TASKS = ("embed", "classify", "token_embed", "token_classify")


@params_of_vllm(
    normalize="here it is use_activation",
    activation="here it is use_activation",
    softmax="here it is use_activation",
    step_tag_id="encode() gives what each token has; take those that are wanted",
    returned_token_ids="encode() gives what each token has; take those that are wanted",
    skip_reading_prefix_cache="pooled prompts are computed alike either way",
    extra_kwargs="nothing reads any",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingParams:
    """What one embedding is to be.

    Fields:
        pooling_type: last (the hidden state of the last token), mean (of all tokens), max (of all tokens the largest of
            each value), cls (of the first, where all see all), or all (each token has its own); in capitals, as vLLM
            writes them, too. None: what the model's files say, else last.
        dimensions: keep the first so many values, before they are normalized; None: all. Only models that were trained
            for it (Matryoshka) give good embeddings then.
        use_activation: scale the embedding to length 1, or make probabilities of scores; None: as the model's files
            say, else do.
        type_start: place of the first token of the second of two texts, where the model tells them apart by types of
            tokens; None: there is one text, or one type.
        truncate_prompt_tokens: cut a longer prompt to so many tokens, at its end, of a pair at the end of the second
            text; what is put round texts counts and stays. Of token ids the first ones stay. -1: as many as the context
            has; None: a prompt that does not fit is refused.
        truncation_side: right (None is the same): it is cut at its end; left: at its start, of a pair at the start of
            the second text.
        task: what becomes of the prompt, where it is encoded: embed, classify, token_embed or token_classify, by
            vLLM's names; None: what is asked for otherwise, or what the model does.

    Raises: InvalidParams naming field, value and limit.
    """

    pooling_type: PoolingType | None = None
    dimensions: int | None = None
    use_activation: bool | None = None
    type_start: int | None = None
    truncate_prompt_tokens: int | None = None
    truncation_side: TruncationSide | None = None
    task: PoolingTaskName | None = None

    def clone(self, **changes: Any) -> PoolingParams:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def __post_init__(self) -> None:
        if self.task not in (None, *POOLING_TASKS):
            raise InvalidParams(f"task={short(self.task)} is unknown; it must be {' or '.join(POOLING_TASKS)}")
        kind = self.pooling_type
        known = kind.lower() if isinstance(kind, str) else kind
        if known is not None and known not in POOLING_TYPES:
            raise InvalidParams(f"pooling_type={kind!r:.80} is not supported; it must be {' or '.join(POOLING_TYPES)}")
        object.__setattr__(self, "pooling_type", known)
        if self.dimensions is not None:
            _int("dimensions", self.dimensions, 1, None)
        if self.use_activation is not None:
            _flag("use_activation", self.use_activation)
        if self.type_start is not None:
            _int("type_start", self.type_start, 0, None)
        if self.truncate_prompt_tokens not in (None, -1):
            _int("truncate_prompt_tokens", self.truncate_prompt_tokens, 1, None, "at least 1, or -1 (what fits)")
        _check_side(self.truncation_side)


def _check_side(side: Any) -> None:
    if side not in (None, "left", "right"):
        raise InvalidParams(f"truncation_side={short(side)} is not allowed; it must be left or right")


def _list(name: str, values: Any) -> tuple[Any, ...]:
    if values is None:
        return ()
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidParams(f"{name}={short(values)} must be a list")
    return tuple(values)


def plain_number(value: Any) -> Any:
    """A number as Python has it, where it is another library's (a scalar of NumPy); all else as it is."""
    if value is None or type(value) in (int, float, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8: it holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(token_id: Any) -> int:
    """A key of logit_bias, which JSON makes a string. Raises: TypeError, ValueError."""
    return int(token_id) if isinstance(token_id, str) else index(token_id)


def _number(name: str, value: Any, low: float, high: float, *, low_open: bool = False) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise InvalidParams(f"{name}={short(value)} is not allowed; it must be a number")
    # Whole numbers have no limit, so they may exceed every float.
    if not low <= value <= min(high, sys.float_info.max) or (low_open and value == low):
        bracket = "(" if low_open else "["
        upper = "inf)" if high == math.inf else f"{high}]"
        raise InvalidParams(f"{name}={short(value)} is outside {bracket}{low}, {upper}")


def _int(name: str, value: Any, low: int, high: int | None, words: str | None = None) -> None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_int or value < low or (high is not None and value > high):
        limit = words or (f"a whole number of at least {low}" + (f" and at most {high}" if high else ""))
        raise InvalidParams(f"{name}={short(value)} is not allowed; it must be {limit}")


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidParams(f"{name}={short(value)} is not allowed; it must be true or false")


def _tokens(name: str, ids: Sequence[int] | None) -> None:
    for token_id in ids or ():
        if not isinstance(token_id, int) or isinstance(token_id, bool) or token_id < 0:
            raise InvalidParams(f"{name} must hold token ids (whole numbers from 0), got {short(token_id)}")
