"""What is said in a sound, as text: how a model is asked, and what its tokens say.

Made by admission.py, used by sound_batch.py, async_llm.py and the server, which run what is asked here. A sound that is
too long to be heard at once is cut where it is quiet; its windows are requests of their own, so that they are written
in one batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from albireo.api.requests.prompts import Prompt
from albireo.errors import EngineError
from albireo.outputs import CompletionOutput, Transcript
from albireo.params import SamplingParams
from albireo.transcription_params import TranscriptionParams

if TYPE_CHECKING:
    from albireo.sounds.decode import Sound
    from albireo.sounds.windows import Window

#: What is asked where nothing is said: the likeliest tokens, up to the context.
SAMPLING = SamplingParams(temperature=0.0, max_tokens=None)
#: Languages that are written without blanks between words.
_WITHOUT_BLANKS = frozenset(("zh", "ja", "th", "lo", "my", "yue", "km", "bo"))
#: Above this likelihood of silence, and below this mean log-probability, a text is left out; Whisper's own numbers.
_NO_SPEECH, _UNLIKELY = 0.6, -1.0


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote of a window, or has so far.

    Fields: token_ids: those of the opening, too. avg_logprob: of those behind it. no_speech: how likely it is that
        nothing is said. temperature: at which it was asked.
    """

    token_ids: Sequence[int]
    avg_logprob: float
    no_speech: float
    temperature: float = 0.0

    @property
    def may_be_silence(self) -> bool:
        """Whether it takes more to tell that it is not made up."""
        return self.no_speech > _NO_SPEECH

    @property
    def is_silence(self) -> bool:
        """Whether nothing was said, and what is written is not likely either: models make up texts of silence."""
        return self.may_be_silence and self.avg_logprob < _UNLIKELY


class Transcriber(Protocol):
    """Of one model. Threads may share it."""

    @property
    def rate(self) -> int:
        """Samples a second, of windows."""
        ...

    @property
    def has_times(self) -> bool:
        """Whether it tells when something was said."""
        ...

    @property
    def has_word_times(self) -> bool:
        """Whether it tells when each word was said, too."""
        ...

    @property
    def finds_language_first(self) -> bool:
        """Whether the first token of a first window says what is spoken, which is then told to other windows."""
        ...

    def windows(self, sound: Sound) -> list[Window]:
        """Of a sound, at the rate that is heard. Raises: InvalidParams where that cannot be made."""
        ...

    def check(self, asked: TranscriptionParams, sampling: SamplingParams) -> None:
        """Raises: InvalidParams, UnsupportedFeature for what this model does not do."""
        ...

    def prompt(
        self, window: Window, asked: TranscriptionParams, sampling: SamplingParams
    ) -> tuple[Prompt, SamplingParams]:
        """What the engine is asked of a window. Args: asked: check() passed it."""
        ...

    def written(self, token_ids: Sequence[int], logprobs: Sequence[Mapping[int, float]]) -> Written:
        """Args: logprobs: of each token its own, and with the first that of silence, where a model tells it."""
        ...

    def language(self, token_ids: Sequence[int]) -> str | None:
        """The code of what the model said is spoken, where it was left to it."""
        ...

    def spoken(self, text: str, is_over: bool, asked: TranscriptionParams) -> str:
        """Of what a window's tokens are, as text, what was said; nothing as long as that cannot be known."""
        ...

    def is_doubtful(self, written: Written) -> bool:
        """Whether a text repeats itself, or is not likely: it may be another at another temperature."""
        ...

    def transcript(self, parts: Sequence[Window], written: Sequence[Written], asked: TranscriptionParams) -> Transcript:
        """Of a whole sound. Args: written: of each of its windows."""
        ...


def temperatures(asked: TranscriptionParams, sampling: SamplingParams) -> Iterator[SamplingParams]:
    """How a window is asked, and how again as long as what is written is doubtful. Draws do not depend on what else
    runs, nor on when they are made."""
    yield sampling
    if sampling.temperature == 0:
        for each in asked.temperatures:
            yield sampling.clone(temperature=each, seed=sampling.seed or 0)


def written_of(transcriber: Transcriber, output: CompletionOutput, temperature: float) -> Written:
    """What a finished output is of a window. Args: temperature: at which it was asked.

    Raises: EngineError when it failed while it ran.
    """
    if output.finish_reason in ("error", "abort"):
        raise EngineError(f"a sound was not written down to its end: {output.stop_reason or output.finish_reason}")
    places = [{token: told.logprob for token, told in place.items()} for place in output.logprobs or ()]
    return replace(transcriber.written(output.token_ids, places), temperature=temperature)


def compression(text: str) -> float:
    """How many times smaller a text becomes: of one that repeats itself much."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def joined(texts: Sequence[str], language: str) -> str:
    """Texts of windows in a row. Args: language: that they are in."""
    whole = ""
    for text in texts:
        needs_blank = whole and text and not whole[-1].isspace() and not text[0].isspace()
        whole += (" " if needs_blank and language not in _WITHOUT_BLANKS else "") + text
    return whole.strip()
