"""POST /v1/audio/transcriptions and /v1/audio/translations: OpenAI's fields and answers, and vLLM's sampling."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from albireo.server.protocol.fields import AllOrCount, AtLeastOne, CacheSalt, Id, Int64, Priority

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
#: Of which a field may come several times, with [] behind its name or without.
LISTS = ("timestamp_granularities", "include")


class TranscriptionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of the form, its file aside; None: not said."""

    model: str | None = None
    language: Annotated[str, Meta(max_length=16)] | None = None
    prompt: str | None = None
    response_format: ResponseFormat | None = None
    temperature: float | None = None
    timestamp_granularities: list[Literal["segment", "word"]] | None = None
    stream: bool | None = None

    # vLLM's
    seed: Int64 | None = None
    top_p: float | None = None
    top_k: AllOrCount | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    max_completion_tokens: AtLeastOne | None = None

    # how it is run
    priority: Priority | None = None
    request_id: Id | None = None
    cache_salt: CacheSalt | None = None

    # there is no such thing here: neutral values only
    include: list[str] | None = None
    chunking_strategy: str | None = None
    known_speaker_names: Any = None
    known_speaker_references: Any = None
    to_language: str | None = None
    use_beam_search: bool | None = None


#: Field -> values beside null that ask for nothing. A sound is always cut where it is quiet.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "include": ([],),
    "chunking_strategy": ("auto",),
    "known_speaker_names": ([],),
    "known_speaker_references": ([],),
    "to_language": ("en",),
    "use_beam_search": (False,),
}
#: Fields that are names of SamplingParams.
SAMPLING = (
    "temperature",
    "seed",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
)


class SecondsUsage(msgspec.Struct, tag_field="type", tag="duration"):
    """What was heard, in seconds."""

    seconds: int


class Transcription(msgspec.Struct):
    """json."""

    text: str
    usage: SecondsUsage


class TranscriptionSegment(msgspec.Struct):
    """avg_logprob and no_speech_prob are of the window of 30 s that it lies in."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class TranscriptionWord(msgspec.Struct):
    """When a word was said, in seconds."""

    word: str
    start: float
    end: float


class VerboseTranscription(msgspec.Struct):
    """verbose_json; segments and words where timestamp_granularities has them, or is not there: segments."""

    task: str
    language: str
    duration: float
    text: str
    usage: SecondsUsage
    segments: list[TranscriptionSegment] | msgspec.UnsetType = msgspec.UNSET
    words: list[TranscriptionWord] | msgspec.UnsetType = msgspec.UNSET


class TextDelta(msgspec.Struct, tag_field="type", tag="transcript.text.delta"):
    """An event: more of the text."""

    delta: str


class TextDone(msgspec.Struct, tag_field="type", tag="transcript.text.done"):
    """The last event: all of it."""

    text: str
    usage: SecondsUsage
