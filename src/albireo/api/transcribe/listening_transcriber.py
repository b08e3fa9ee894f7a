"""What is said, by decoders that listen and do nothing else: Moonshine's, Cohere Transcribe's, Canary's.

Opened by transcribers.py. Sources: Jeffries et al. 2024, Moonshine; Cohere 2026, Cohere Transcribe; Sekoyan et al.
2025, Canary-1B-v2 & Parakeet-TDT-0.6B-v3.
"""

from __future__ import annotations

import math
from dataclasses import replace

from albireo.api.media.sounds import SoundReader
from albireo.api.requests.prompts import Prompt
from albireo.api.transcribe.prompted_transcriber import PromptedTranscriber
from albireo.errors import ModelError
from albireo.params import SamplingParams
from albireo.sounds.windows import Window
from albireo.text.tokenizer import Tokenizer
from albireo.transcription_params import TranscriptionParams

#: Nobody says more; of what is not speech the model would go on and on. Its authors' number.
_TOKENS_PER_S = 6.5


class MoonshineTranscriber(PromptedTranscriber):
    """It is told nothing, and writes one language."""

    is_told = ()

    def __init__(self, reader: SoundReader, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._start = tokenizer, reader.start
        self.rate, self._seconds = reader.sounds.rate, float(reader.sounds.seconds)

    def prompt(
        self, window: Window, asked: TranscriptionParams, sampling: SamplingParams
    ) -> tuple[Prompt, SamplingParams]:
        prompt, params = super().prompt(window, asked, sampling)
        most = max(1, math.ceil(_TOKENS_PER_S * len(window.samples) / self.rate))
        return prompt, params if params.max_tokens is not None else params.clone(max_tokens=most)

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        return [self._start]


class CohereTranscriber(PromptedTranscriber):
    """It is told which language is spoken, by tokens; English where nobody says."""

    is_told = ("language",)
    languages: tuple[str, ...] = ("ar", "de", "el", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "vi", "zh")
    _BEFORE: tuple[str, ...] = ("▁", "<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>")
    #: With punctuation, numbers in words, without times and without who speaks.
    _BEHIND = ("<|pnc|>", "<|noitn|>", "<|notimestamp|>", "<|nodiarize|>")

    def __init__(self, reader: SoundReader, tokenizer: Tokenizer) -> None:
        """Raises: ModelError where the tokenizer lacks a token that asks it."""
        self._tokenizer = tokenizer
        self.rate, self._seconds = reader.sounds.rate, float(reader.sounds.seconds)
        spoken = [f"<|{code}|>" for code in self.languages]
        found = {name: tokenizer.token_to_id(name) for name in (*self._BEFORE, *spoken, *self._BEHIND)}
        lacking = [name for name, each in found.items() if each is None]
        if lacking:
            raise ModelError(f"{reader.directory}: the tokenizer has no token {lacking[0]}, which asks this model")
        self._marks = {name: each for name, each in found.items() if each is not None}

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        spoken = f"<|{asked.language or 'en'}|>"
        return [self._marks[name] for name in (*self._BEFORE, spoken, spoken, *self._BEHIND)]


class CanaryTranscriber(CohereTranscriber):
    """It is told which language is spoken, and which to write; English where nobody says."""

    languages = (
        *("bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "hr", "hu", "it", "lt", "lv", "mt", "nl"),
        *("pl", "pt", "ro", "ru", "sk", "sl", "sv", "uk"),
    )
    _BEFORE = ("<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>")

    def check(self, asked: TranscriptionParams, sampling: SamplingParams) -> None:
        super().check(replace(asked, task="transcribe"), sampling)

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        spoken, written = asked.language or "en", "en" if asked.task == "translate" else asked.language or "en"
        names = (*self._BEFORE, f"<|{spoken}|>", f"<|{written}|>", *self._BEHIND)
        return [self._marks[name] for name in names]
