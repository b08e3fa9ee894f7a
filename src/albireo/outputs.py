"""What a caller gets back. Fields and shapes are vLLM's.

Leaf module: plain data, no behaviour beyond construction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from albireo.lora_request import LoRARequest

#: "abort" on a caller's wish; "error" when the engine had to give the request up; "repetition" by what
#: SamplingParams.repetition_detection says.
FinishReason = Literal["stop", "length", "abort", "error", "repetition"]


@dataclass(slots=True)
class Logprob:
    """Log-probability of one token at one place: natural log; rank 1 is the most likely."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


#: One entry a generated token: token id -> Logprob, chosen token first, then the best by rank.
SampleLogprobs = list[dict[int, Logprob]]
#: One entry a prompt token; the first has no predecessor and is None.
PromptLogprobs = list[dict[int, Logprob] | None]


@dataclass(slots=True)
class CompletionOutput:
    """One continuation so far.

    Fields:
        index: 0 to n - 1.
        text: everything that cannot change any more; empty where tokens are not made into text.
        token_ids: all of the output, the token that ended it included.
        cumulative_logprob: sum over token_ids, natural log; None unless logprobs were asked for, as logprobs are.
        finish_reason: None while it goes on.
        stop_reason: the stop string or the stop token's id; None for the model's end of text and for other ends, but
            for "error": then it says what went wrong.
        lora_request: the adapter it was written with.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: SampleLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    lora_request: LoRARequest | None = None

    def finished(self) -> bool:
        """Whether no more of it comes."""
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestMetrics:
    """When things happened to a request; seconds on the engine's monotonic clock.

    Fields:
        num_prefill_chunks: steps in which its prompt was computed, again after a preemption included.
        preempted_s: spent without its blocks between a preemption and its next step; of its continuations, the longest.
        arrival_time: the same as arrival_s on the clock of the system, seconds since 1970.
        num_generation_tokens: of all its continuations.

    Beside these the names of vLLM's RequestStateStats, where 0.0 is what has not happened yet.
    """

    arrival_s: float
    first_scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    finished_s: float | None = None
    num_preemptions: int = 0
    num_prefill_chunks: int = 0
    preempted_s: float = 0.0
    arrival_time: float = 0.0
    num_generation_tokens: int = 0

    @property
    def queued_ts(self) -> float:
        """arrival_s."""
        return self.arrival_s

    @property
    def scheduled_ts(self) -> float:
        """first_scheduled_s."""
        return self.first_scheduled_s or 0.0

    @property
    def first_token_ts(self) -> float:
        """first_token_s."""
        return self.first_token_s or 0.0

    @property
    def last_token_ts(self) -> float:
        """last_token_s."""
        return self.last_token_s or 0.0

    @property
    def first_token_latency(self) -> float | None:
        """Seconds from arrival to the first token; None before it."""
        return None if self.first_token_s is None else self.first_token_s - self.arrival_s


@dataclass(slots=True)
class RequestOutput:
    """The state of one request.

    Fields:
        prompt: its text; None when it was given as token ids.
        outputs: one a continuation, in order of index.
        finished: no continuation goes on.
        prompt_logprobs: one entry a token of the prompt; None unless asked for.
        num_cached_tokens: tokens of the prompt whose keys and values were in the prefix cache when it first ran.
        lora_request: the adapter it runs with.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = False
    prompt_logprobs: PromptLogprobs | None = None
    num_cached_tokens: int = 0
    metrics: RequestMetrics | None = None
    lora_request: LoRARequest | None = None

    @property
    def encoder_prompt(self) -> None:
        """None, as in vLLM where a prompt is one text."""

    @property
    def encoder_prompt_token_ids(self) -> None:
        """None, as encoder_prompt."""

    @property
    def kv_transfer_params(self) -> None:
        """None, as in vLLM where keys and values stay in one engine."""


@dataclass(slots=True)
class BeamSearchSequence:
    """One beam at its end.

    Fields:
        tokens: the prompt's and its own, the token that ended it included.
        logprobs: one entry a token of its own: that token, then the best that were compared with it.
        cum_logprob: sum over its own tokens, natural log.
        text: of all tokens, the prompt as it was given; None where tokens are not made into text.
        finish_reason, stop_reason, lora_request: see CompletionOutput.
    """

    tokens: list[int]
    logprobs: SampleLogprobs
    cum_logprob: float = 0.0
    text: str | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    lora_request: LoRARequest | None = None


@dataclass(slots=True)
class BeamSearchOutput:
    """What became of one prompt: as many sequences as the beam is wide, by their scores, the best first."""

    sequences: list[BeamSearchSequence]


@dataclass(slots=True)
class EmbeddingOutput:
    """One embedding: [hidden_size] values of float32, or as many as PoolingParams.dimensions."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        """How many values it has."""
        return len(self.embedding)

    def __repr__(self) -> str:
        return f"EmbeddingOutput(hidden_size={self.hidden_size})"


@dataclass(slots=True)
class ClassificationOutput:
    """Of each class, in the order of the model's labels, its probability, or what the model gave before that."""

    probs: list[float]

    @property
    def num_classes(self) -> int:
        """How many there are."""
        return len(self.probs)

    def __repr__(self) -> str:
        return f"ClassificationOutput(num_classes={self.num_classes})"


@dataclass(slots=True)
class ScoringOutput:
    """How well two texts go together."""

    score: float


@dataclass(slots=True)
class PoolingOutput:
    """What became of a prompt.

    Fields: data: a numpy array of float32: [values], or where each token has its own [tokens, values]. (This module
        does without numpy, as servers do.)
    """

    data: Any


Pooled = TypeVar("Pooled", EmbeddingOutput, ClassificationOutput, ScoringOutput, PoolingOutput)


@dataclass(slots=True)
class PoolingRequestOutput(Generic[Pooled]):
    """What became of one prompt that is pooled. Fields: as those of RequestOutput; a score that two prompts made has
    the tokens of both, and no metrics."""

    request_id: str
    outputs: Pooled
    prompt_token_ids: list[int]
    finished: bool = True
    num_cached_tokens: int = 0
    metrics: RequestMetrics | None = None


class EmbeddingRequestOutput(PoolingRequestOutput[EmbeddingOutput]):
    """The embedding of one prompt."""


class ClassificationRequestOutput(PoolingRequestOutput[ClassificationOutput]):
    """The classes of one prompt."""


class ScoringRequestOutput(PoolingRequestOutput[ScoringOutput]):
    """The score of one pair of texts."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of what is said. Names are those of OpenAI's API.

    Fields:
        start, end: seconds. token_ids: of its text.
        avg_logprob: of the tokens of its window, times included. no_speech_prob: how likely it is that nothing is said
            in its window, as the model has it; 0: it does not say.
        compression_ratio: of the text to what zlib makes of it: above 2.4 it repeats itself.
    """

    id: int
    start: float
    end: float
    text: str
    token_ids: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float = 0.0


@dataclass(frozen=True, slots=True)
class Word:
    """A word of what is said, with what punctuation stands at it. Fields: start, end: seconds."""

    word: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """What is said in a sound. Fields: language: that is spoken, by its code. duration: of the sound, in seconds.
    segments: where times were asked for. words: where those of words were."""

    text: str
    language: str
    duration: float
    segments: list[Segment]
    task: str = "transcribe"
    words: list[Word] = field(default_factory=list)
