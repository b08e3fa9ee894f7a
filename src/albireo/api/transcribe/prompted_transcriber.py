"""What is said, by models that hear sounds in prompts: a prompt asks them to write it down.

Opened by transcribers.py. Sources: Qwen team 2026, Qwen3-ASR Technical Report; Liu et al. 2025, Voxtral.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from albireo.api.requests.prompts import Prompt
from albireo.api.transcribe.transcription import Written, joined
from albireo.errors import InvalidParams, ModelError, UnsupportedFeature
from albireo.image_input import GivenSound
from albireo.outputs import Transcript
from albireo.params import SamplingParams
from albireo.sounds.decode import Sound
from albireo.sounds.processor import SoundProcessor
from albireo.sounds.resample import resampled
from albireo.sounds.voxtral_realtime import VoxtralRealtime
from albireo.sounds.windows import Window, windows
from albireo.text.chat_prompt import ChatEncoder
from albireo.text.tokenizer import Tokenizer
from albireo.transcription_params import TranscriptionParams

#: What a prompt may take of the context; the rest is for what is written.
_SHARE = 0.5


class PromptedTranscriber(ABC):
    """Implements transcription.Transcriber, but for how a family is asked, and how it answers.

    Fields: rate, has_times, has_word_times, finds_language_first: see there. longest_s: of a sound that is heard at
    once. is_told: what a model may be told beside the sound. languages: that it knows; None: it is not said which.
    """

    rate: int

    has_times = has_word_times = finds_language_first = False
    longest_s: float
    is_told: tuple[str, ...] = ("language", "prompt")
    languages: Collection[str] | None = None

    def __init__(self, processor: SoundProcessor, tokenizer: Tokenizer, max_model_len: int) -> None:
        self._tokenizer, self.rate = tokenizer, processor.rate
        room_s = _SHARE * max_model_len / processor.rows_per_s
        self._seconds = max(1.0, min(self.longest_s, room_s))

    def windows(self, sound: Sound) -> list[Window]:
        return windows(resampled(sound.samples, sound.rate, self.rate), self.rate, self._seconds)

    def check(self, asked: TranscriptionParams, sampling: SamplingParams) -> None:
        if asked.task != "transcribe":
            raise UnsupportedFeature(f"task={asked.task}: this model writes down what is said as it is said")
        if asked.words and not self.has_word_times:
            raise UnsupportedFeature("words: this model does not say when something was said; leave them out")
        if asked.timestamps and not self.has_times:
            raise UnsupportedFeature("timestamps: this model does not say when something was said; leave them out")
        if sampling.n != 1:
            raise UnsupportedFeature(f"n={sampling.n}: a sound has one transcript; leave it out")
        for name, value in (("language", asked.language), ("prompt", asked.prompt.strip())):
            if value and name not in self.is_told:
                raise UnsupportedFeature(f"{name}: this model is told nothing beside the sound; leave it out")
        if self.languages is not None and asked.language is not None and asked.language not in self.languages:
            known = ", ".join(self.languages)
            raise InvalidParams(f"language={asked.language} is none that this model knows: {known}")

    def prompt(
        self, window: Window, asked: TranscriptionParams, sampling: SamplingParams
    ) -> tuple[Prompt, SamplingParams]:
        heard = GivenSound(Sound(window.samples, self.rate))
        return Prompt(None, self._ids(asked), sounds=[heard]), sampling.clone(logprobs=sampling.logprobs or 0)

    @abstractmethod
    def _ids(self, asked: TranscriptionParams) -> list[int]:
        """Of a prompt with a place for one sound."""

    def written(self, token_ids: Sequence[int], logprobs: Sequence[Mapping[int, float]]) -> Written:
        own = [place[token] for token, place in zip(token_ids, logprobs, strict=True)]
        return Written(token_ids, sum(own) / max(1, len(own)), 0.0)

    def language(self, token_ids: Sequence[int]) -> str | None:
        return None

    def spoken(self, text: str, is_over: bool, asked: TranscriptionParams) -> str:
        return text

    def is_doubtful(self, written: Written) -> bool:
        return False  # nobody has said what it takes

    def _text(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)

    def transcript(self, parts: Sequence[Window], written: Sequence[Written], asked: TranscriptionParams) -> Transcript:
        found = (self.language(each.token_ids) for each in written)
        language = asked.language or next((each for each in found if each), "")
        texts = [self.spoken(self._text(each.token_ids), True, asked).strip() for each in written]
        last = parts[-1]
        duration = last.start_s + len(last.samples) / self.rate
        # what is translated is in English
        text = joined(texts, "en" if asked.task == "translate" else language)
        return Transcript(text=text, language=language, duration=duration, segments=[], task=asked.task)


class ChatTranscriber(PromptedTranscriber):
    """It is asked in a chat. Fields: longest_s: at most the processor's."""

    longest_s = math.inf

    def __init__(self, processor: SoundProcessor, tokenizer: Tokenizer, max_model_len: int, chats: ChatEncoder) -> None:
        self.longest_s = min(self.longest_s, processor.longest_s)
        super().__init__(processor, tokenizer, max_model_len)
        self._chats = chats

    def _asked(self, before: str = "", behind: str = "", system: str = "") -> list[int]:
        """Of a chat with words before a sound, or behind it, and of who rules it."""
        parts = {"type": "text", "text": before}, {"type": "audio", "audio": ()}, {"type": "text", "text": behind}
        content = [part for part in parts if part.get("text") != ""]
        rules = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        return self._chats.encode([*rules, {"role": "user", "content": content}], sound_problem="").token_ids


#: Names by which Qwen3-ASR was taught languages.
_NAMES = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fa": "Persian",
    "fi": "Finnish",
    "fil": "Filipino",
    "fr": "French",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "mk": "Macedonian",
    "ms": "Malay",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "vi": "Vietnamese",
    "yue": "Cantonese",
    "zh": "Chinese",
}
_CODES = {name.lower(): code for code, name in _NAMES.items()}
#: What is between the language and the text.
_TEXT = "<asr_text>"
_SAYS_LANGUAGE = re.compile(r"\s*language\s+([^<,\n]+)")
_BEGINNING = "language"


class Qwen3AsrTranscriber(ChatTranscriber):
    """It says itself what is spoken, before what was said: language English<asr_text>..."""

    longest_s = 1200.0
    languages = _NAMES

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        ids = self._asked(system=asked.prompt.strip())
        if asked.language is None:
            return ids
        opening = f"{_BEGINNING} {_NAMES[asked.language]}{_TEXT}"
        return [*ids, *self._tokenizer.encode(opening, add_special_tokens=False)]

    def language(self, token_ids: Sequence[int]) -> str | None:
        said, mark, _ = self._text(token_ids).partition(_TEXT)
        found = _SAYS_LANGUAGE.match(said) if mark else None
        return None if found is None else _CODES.get(found[1].strip().lower())

    def spoken(self, text: str, is_over: bool, asked: TranscriptionParams) -> str:
        if asked.language is not None:
            return text
        said, mark, found = text.partition(_TEXT)
        if mark:
            return found
        # it says the language, or is about to; what says none is a text
        begins = said.lstrip()[: len(_BEGINNING)]
        return text if is_over or not _BEGINNING.startswith(begins) else ""


class OmniTranscriber(ChatTranscriber):
    """It is asked in words for what is said, or what that means in English."""

    #: Of the longer of the two that there are.
    longest_s = 1200.0
    languages = _NAMES

    def check(self, asked: TranscriptionParams, sampling: SamplingParams) -> None:
        super().check(replace(asked, task="transcribe"), sampling)

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        spoken = "" if asked.language is None else _NAMES[asked.language]
        if asked.task == "translate":
            asks = f"Translate this audio{spoken and f' from {spoken}'} into English."
        else:
            asks = f"Transcribe this audio{spoken and f' into {spoken}'}."
        return self._asked(behind=" ".join(filter(None, (asks, asked.prompt.strip()))))


class GemmaTranscriber(OmniTranscriber):
    """As those; of a sound it hears half a minute."""

    longest_s = 30.0


class GlmAsrTranscriber(ChatTranscriber):
    """It is asked in words; it finds out itself what is spoken."""

    longest_s = 655.0
    is_told = ()
    _ASKS = "Please transcribe this audio into text"

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        return self._asked(behind=self._ASKS)


class GraniteTranscriber(ChatTranscriber):
    """It is asked in words for what is said, or what that means in English."""

    is_told = ()
    _ASKS: Mapping[str, str] = {
        "transcribe": "can you transcribe the speech into a written format?",
        "translate": "translate the speech to English",
    }

    def check(self, asked: TranscriptionParams, sampling: SamplingParams) -> None:
        super().check(replace(asked, task="transcribe"), sampling)

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        return self._asked(behind=self._ASKS[asked.task])


class FunAsrTranscriber(ChatTranscriber):
    """Its template asks it, of a chat that has a sound and nothing else; or what is told beside that."""

    def check(self, asked: TranscriptionParams, sampling: SamplingParams) -> None:
        super().check(asked, sampling)
        if asked.language is not None:
            raise UnsupportedFeature("language: this model is not told one here, and finds it out; leave it out")

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        return self._asked(behind=asked.prompt.strip())


class PhiTranscriber(GraniteTranscriber):
    """As that, in words of its own."""

    _ASKS: Mapping[str, str] = {
        "transcribe": "Transcribe the audio clip into text.",
        "translate": "Translate the audio to English.",
    }


class AudioFlamingoTranscriber(ChatTranscriber):
    """It is asked in words, before the sound, and answers in words, in which what was said stands between quotes."""

    is_told = ()
    _ASKS = "Transcribe the input speech."
    _FRAMES = (
        "The spoken content of the audio is",
        "The transcription of the audio is",
        "The content of the input audio is",
    )

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        return self._asked(before=self._ASKS)

    def spoken(self, text: str, is_over: bool, asked: TranscriptionParams) -> str:
        if not is_over:
            return ""  # what is around it is known at its end
        text = text.strip()
        text = text.removeprefix(next(filter(text.startswith, self._FRAMES), "")).strip()
        text = text.removesuffix(".").strip()
        is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        return text[1:-1].strip() if is_quoted else text


class VoxtralTranscriber(PromptedTranscriber):
    """It is asked by a token of its own."""

    longest_s = 1800.0
    is_told = ("language",)
    #: Of a tile, which is heard whole, whatever is in it.
    _TILE_S = 30.0

    def __init__(self, processor: SoundProcessor, tokenizer: Tokenizer, max_model_len: int) -> None:
        super().__init__(processor, tokenizer, max_model_len)
        self._seconds = max(self._TILE_S, self._seconds // self._TILE_S * self._TILE_S)
        names = "<s>", "[INST]", "[BEGIN_AUDIO]", "[AUDIO]", "[/INST]", "[TRANSCRIBE]"
        found = [tokenizer.token_to_id(name) for name in names]
        if None in found:
            raise ModelError(f"the tokenizer has no token {names[found.index(None)]}, which asks this model")
        self._marks = [each for each in found if each is not None]

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        *asks, writes = self._marks
        said = "" if asked.language is None else f"lang:{asked.language}"
        return [*asks, *self._tokenizer.encode(said, add_special_tokens=False), writes]


class VoxtralRealtimeTranscriber(PromptedTranscriber):
    """It does nothing else, and is asked by nothing but the sound. What it writes is as long as that."""

    is_told = ()

    def __init__(self, processor: VoxtralRealtime, tokenizer: Tokenizer, max_model_len: int) -> None:
        self.longest_s = processor.longest_s
        super().__init__(processor, tokenizer, max_model_len)
        room_s = (max_model_len - processor.around) / processor.rows_per_s
        self._seconds = max(1.0, min(self.longest_s, room_s))
        found = [tokenizer.token_to_id(name) for name in ("<s>", processor.placeholder)]
        if None in found:
            raise ModelError("the tokenizer lacks <s>, or [AUDIO], which ask this model")
        self._marks = [each for each in found if each is not None]

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        return list(self._marks)
