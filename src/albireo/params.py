"""SamplingParams and PoolingParams: what a caller may ask of one request. Names and meanings are vLLM's.

Validated once, on construction; frozen afterwards. Does not know tokenizers, models or tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured_params import StructuredOutputsParams

#: Below this a temperature means greedy; vLLM's limit.
GREEDY_TEMPERATURE = 1e-5
#: Largest top_k for which the head finds the best logits by itself.
MAX_TOP = 64
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingMarks:
    """Between which texts an output thinks.

    Fields:
        end_token_ids: what the end is forced by.
        is_open: it thinks from its first token on, since its prompt opened it or its model always does.
    """

    begin: str
    end: str
    end_token_ids: tuple[int, ...]
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """What one request asks for.

    Fields not described here mean what they mean in vLLM.
        n: independent continuations of one prompt.
        temperature: 0 is greedy.
        top_k: 0 and -1 both mean all.
        seed: None draws one; a request with a seed gives the same tokens alone and in any batch.
        max_tokens: None means up to the context.
        logprobs: number of best alternatives per token beside the chosen one; 0 the chosen only; -1 all.
        stop: strings that end the text; stop_token_ids: ids that do.
        logit_bias: token id -> added to its logit.
        bad_words: strings never produced; allowed_token_ids: the only ids allowed.
        thinking_token_budget: tokens an output may spend on thinking; then the end of thinking is forced. None and -1:
            as many as it likes. What comes after the prompt counts, from the opening mark on.
        structured_outputs: the form the output must have; an object with the fields of StructuredOutputsParams will do.
            The output ends where the form does: min_tokens and ignore_eos put its end off as long as it can go on.

    Raises: InvalidParams naming field, value and limit; UnsupportedFeature for what asks the impossible.
    """

    n: int = 1
    best_of: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
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
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = None
    skip_reading_prefix_cache: bool | None = None
    thinking_token_budget: int | None = None
    structured_outputs: StructuredOutputsParams | None = None
    #: Filled by the front door once a tokenizer is known; never by a caller.
    bad_words_token_ids: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    thinking_marks: ThinkingMarks | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        def set_(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        set_("stop", (self.stop,) if isinstance(self.stop, str) else _list("stop", self.stop))
        set_("stop_token_ids", _list("stop_token_ids", self.stop_token_ids))
        set_("bad_words", _list("bad_words", self.bad_words))
        if self.allowed_token_ids is not None:
            set_("allowed_token_ids", _list("allowed_token_ids", self.allowed_token_ids))
        if self.logit_bias is not None:
            try:
                set_("logit_bias", {int(k): float(v) for k, v in self.logit_bias.items()})
            except (AttributeError, TypeError, ValueError):
                raise InvalidParams(f"logit_bias must map token ids to numbers, got {self.logit_bias!r}") from None
        if self.structured_outputs is not None:
            set_("structured_outputs", StructuredOutputsParams.of(self.structured_outputs))
        if self.top_k == -1:
            set_("top_k", 0)
        if self.thinking_token_budget == -1:
            set_("thinking_token_budget", None)
        self._verify()

    def _verify(self) -> None:
        _int("n", self.n, 1, 16384)
        if self.best_of not in (None, self.n):
            raise UnsupportedFeature(f"best_of={self.best_of} is not supported; ask for n={self.best_of}")
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("repetition_penalty", self.repetition_penalty, 0.0, math.inf, low_open=True)
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
        if self.thinking_token_budget is not None:
            _int("thinking_token_budget", self.thinking_token_budget, 0, None, "at least 0, or -1 (no limit)")
        _tokens("stop_token_ids", self.stop_token_ids)
        _tokens("allowed_token_ids", self.allowed_token_ids)
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise InvalidParams("allowed_token_ids is empty: nothing could be produced; leave it out to allow all")
        for name in ("stop", "bad_words"):
            for text in getattr(self, name):
                if not isinstance(text, str) or not text:
                    raise InvalidParams(f"{name} must hold strings that are not empty, got {text!r}")
        if self.stop and not self.detokenize:
            raise InvalidParams("stop strings need detokenize=True; use stop_token_ids or allow detokenizing")
        for token_id, bias in (self.logit_bias or {}).items():
            if token_id < 0:
                raise InvalidParams(f"logit_bias names token id {token_id}; ids start at 0")
            if math.isnan(bias):
                raise InvalidParams(f"logit_bias of token {token_id} is not a number")

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
        return (
            self.logprobs is None
            and self.presence_penalty == 0.0
            and self.frequency_penalty == 0.0
            and self.repetition_penalty == 1.0
            and not self.logit_bias
            and self.allowed_token_ids is None
            and not self.bad_words
            and self.min_tokens == 0
            and self.structured_outputs is None
            and self.thinking_token_budget is None
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
        )

    def clone(self, **changes: Any) -> SamplingParams:
        """A copy with some fields changed."""
        return replace(self, **changes)


#: How the hidden states of a prompt become one: that of its last token, or the mean of all.
POOLING_TYPES = ("last", "mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingParams:
    """What one embedding is to be.

    Fields:
        pooling_type: last (the hidden state of the last token) or mean (of all tokens); LAST and MEAN, as vLLM writes
            them, too. None: last.
        dimensions: keep the first so many values, before they are normalized; None: all. Only models that were trained
            for it (Matryoshka) give good embeddings then.
        use_activation: scale the embedding to length 1; None: do.

    Raises: InvalidParams naming field, value and limit.
    """

    pooling_type: Literal["last", "mean"] | None = None
    dimensions: int | None = None
    use_activation: bool | None = None

    def __post_init__(self) -> None:
        kind = "last" if self.pooling_type is None else self.pooling_type
        known = kind.lower() if isinstance(kind, str) else kind
        if known not in POOLING_TYPES:
            raise InvalidParams(f"pooling_type={kind!r:.80} is not supported; it must be {' or '.join(POOLING_TYPES)}")
        object.__setattr__(self, "pooling_type", known)
        if self.dimensions is not None:
            _int("dimensions", self.dimensions, 1, None)
        if self.use_activation is not None and not isinstance(self.use_activation, bool):
            raise InvalidParams(f"use_activation={self.use_activation!r:.80} is not allowed; it must be true or false")


def _list(name: str, values: Any) -> tuple[Any, ...]:
    if values is None:
        return ()
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidParams(f"{name}={values!r} must be a list")
    return tuple(values)


def _number(name: str, value: Any, low: float, high: float, *, low_open: bool = False) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    if not is_number or value > high or value < low or (low_open and value == low) or value == math.inf:
        bracket = "(" if low_open else "["
        upper = "inf)" if high == math.inf else f"{high}]"
        raise InvalidParams(f"{name}={value!r} is outside {bracket}{low}, {upper}")


def _int(name: str, value: Any, low: int, high: int | None, words: str | None = None) -> None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_int or value < low or (high is not None and value > high):
        limit = words or (f"a whole number of at least {low}" + (f" and at most {high}" if high else ""))
        raise InvalidParams(f"{name}={value!r} is not allowed; it must be {limit}")


def _tokens(name: str, ids: Sequence[int] | None) -> None:
    for token_id in ids or ():
        if not isinstance(token_id, int) or isinstance(token_id, bool) or token_id < 0:
            raise InvalidParams(f"{name} must hold token ids (whole numbers from 0), got {token_id!r}")
