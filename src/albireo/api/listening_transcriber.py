"""MoonshineTranscriber: what is said, by a decoder that listens and does nothing else.

Opened by transcribers.py. Source: Jeffries et al. 2024, Moonshine.
"""

from __future__ import annotations

import math

from albireo.api.prompted_transcriber import PromptedTranscriber, refuse_told
from albireo.api.prompts import Prompt
from albireo.api.sounds import SoundReader
from albireo.params import SamplingParams
from albireo.sounds.windows import Window
from albireo.text.tokenizer import Tokenizer
from albireo.transcription_params import TranscriptionParams

#: Nobody says more; of what is not speech the model would go on and on. Its authors' number.
_TOKENS_PER_S = 6.5


class MoonshineTranscriber(PromptedTranscriber):
    """It is told nothing, and writes one language."""

    def __init__(self, reader: SoundReader, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._start = tokenizer, reader.start
        self.rate, self._seconds = reader.sounds.rate, float(reader.sounds.seconds)

    def check(self, asked: TranscriptionParams, sampling: SamplingParams) -> None:
        super().check(asked, sampling)
        refuse_told(asked)

    def prompt(
        self, window: Window, asked: TranscriptionParams, sampling: SamplingParams
    ) -> tuple[Prompt, SamplingParams]:
        prompt, params = super().prompt(window, asked, sampling)
        most = max(1, math.ceil(_TOKENS_PER_S * len(window.samples) / self.rate))
        return prompt, params if params.max_tokens is not None else params.clone(max_tokens=most)

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        return [self._start]
