"""FrameTranscriber: what is said, by models that say of each frame what is said there, and so when.

Opened by transcribers.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from albireo.api.media.sounds import SoundReader
from albireo.api.requests.prompts import Prompt
from albireo.api.transcribe.prompted_transcriber import PromptedTranscriber
from albireo.api.transcribe.transcription import Written, compression
from albireo.errors import UnsupportedFeature
from albireo.frame_marks import FrameMarks
from albireo.outputs import Segment, Transcript, Word
from albireo.params import SamplingParams
from albireo.sounds.windows import Window
from albireo.text.tokenizer import Tokenizer
from albireo.transcription_params import TranscriptionParams

#: What ends a sentence; and a pause that ends a segment where nothing does, in seconds.
_ENDS, _PAUSE_S = (".", "?", "!", "。", "？", "！"), 1.0


class _Told(NamedTuple):
    """Tokens that add text, one unless it takes several to: what they add, and when they are said, in seconds of the
    sound."""

    token_ids: list[int]
    text: str
    start: float
    end: float


class FrameTranscriber(PromptedTranscriber):
    """It is told nothing, and draws nothing. Times are those of frames."""

    has_times = has_word_times = True
    #: What some write beside what is said: the language that is spoken. Others have tokens that look like it.
    _SPOKEN = re.compile(r"\s*<(?!unk>|pad>)([a-z]{2,3})(-[A-Z]{2})?>")

    def __init__(
        self,
        reader: SoundReader,
        tokenizer: Tokenizer,
        marks: FrameMarks,
        frame_s: float,
        max_model_len: int,
        *,
        ends_with_marks: bool,
        closed: frozenset[str] = frozenset(),
        languages: Mapping[str, int] | None = None,
    ) -> None:
        """Args:
        frame_s: seconds from one frame to the next. max_model_len: windows are no longer than there is room for a token
            and a mark a frame.
        ends_with_marks: a token is said until the frames have passed that the mark behind it says; else for a frame.
        closed: tokens of punctuation that are said when the token before them ends.
        languages: what it is told of each that it may be told of, by its code; none: it is told nothing.
        """
        self._tokenizer, self._marks, self._frame_s = tokenizer, marks, frame_s
        self._start, self._ends_with_marks, self._closed = reader.start, ends_with_marks, closed
        self._numbers = languages or {}
        self.is_told, self.languages = (("language",), sorted(languages)) if languages else ((), None)
        room_s = (max_model_len - 2) // 2 * frame_s
        self.rate, self._seconds = reader.sounds.rate, max(1.0, min(float(reader.sounds.seconds), room_s))

    def check(self, asked: TranscriptionParams, sampling: SamplingParams) -> None:
        super().check(asked, sampling)
        if not sampling.is_greedy:
            raise UnsupportedFeature(
                f"temperature={sampling.temperature:g}: this model writes what frames say, and draws nothing; leave it "
                "out"
            )

    def prompt(
        self, window: Window, asked: TranscriptionParams, sampling: SamplingParams
    ) -> tuple[Prompt, SamplingParams]:
        prompt, params = super().prompt(window, asked, sampling)
        told = None if asked.language is None else self._numbers[asked.language]
        return replace(prompt, sounds=[each._replace(told=told) for each in prompt.sounds]), params

    def _ids(self, asked: TranscriptionParams) -> list[int]:
        return [self._start]

    def language(self, token_ids: Sequence[int]) -> str | None:
        found = self._SPOKEN.search(self._tokenizer.decode(token_ids, skip_special_tokens=False))
        return found[1] if found else None

    def spoken(self, text: str, is_over: bool, asked: TranscriptionParams) -> str:
        whole = self._SPOKEN.sub("", text)
        # what may become such a mark is held back
        return whole if is_over else whole.partition("<")[0].rstrip()

    def written(self, token_ids: Sequence[int], logprobs: Sequence[Mapping[int, float]]) -> Written:
        own = [
            place[token]
            for token, place in zip(token_ids, logprobs, strict=True)
            if token < self._marks.vocab_size  # marks are certain
        ]
        return Written(token_ids, sum(own) / max(1, len(own)), 0.0)

    def transcript(self, parts: Sequence[Window], written: Sequence[Written], asked: TranscriptionParams) -> Transcript:
        found = PromptedTranscriber.transcript(self, parts, written, asked)
        segments, words = list[Segment](), list[Word]()
        for window, each in zip(parts, written, strict=True):
            if asked.timestamps or asked.words:
                told = list(self._told(window, each.token_ids))
                if asked.words:
                    words += [each for each in _words(told) if not self._SPOKEN.fullmatch(each.word)]
                segments += self._segments(told, each, len(segments)) if asked.timestamps else []
        return Transcript(found.text, found.language, found.duration, segments, words=words)

    def _told(self, window: Window, token_ids: Sequence[int]) -> Iterator[_Told]:
        length = len(window.samples) / self.rate
        ids, text, end, num_told = list[int](), "", 0.0, 0
        start: float | None = None
        for token, place, frame in self._marks.spans(token_ids):
            if token in self._tokenizer.special_ids:
                continue
            ids.append(token)
            whole = self._text(ids)
            start = frame * self._frame_s if start is None else start
            count = self._marks.count(token_ids[place + 1]) if place + 1 < len(token_ids) else None
            after = 1 if not self._ends_with_marks or count is None else count
            new = whole[len(text) :]
            if not new or whole.endswith("\ufffd"):
                continue
            if new in self._closed and end:
                start = end
            else:
                end = (frame + after) * self._frame_s
            yield _Told(ids[num_told:], new, window.start_s + min(start, length), window.start_s + min(end, length))
            text, start, num_told = whole, None, len(ids)

    def _segments(self, told: Sequence[_Told], written: Written, first: int) -> list[Segment]:
        """Sentences, or what is between pauses."""
        found, part = list[Segment](), list[_Told]()

        def close() -> None:
            text = self._SPOKEN.sub("", "".join(each.text for each in part))
            if text.strip():
                found.append(
                    Segment(
                        id=first + len(found),
                        start=part[0].start,
                        end=part[-1].end,
                        text=text,
                        token_ids=[token for each in part for token in each.token_ids],
                        temperature=0.0,
                        avg_logprob=written.avg_logprob,
                        compression_ratio=compression(text),
                    )
                )
            part.clear()

        for each in told:
            begins = each.text[0].isspace()
            if part and (
                (begins and part[-1].text.endswith(_ENDS))
                or part[-1].text.endswith(_ENDS[3:])
                or each.start - part[-1].end >= _PAUSE_S
            ):
                close()
            part.append(each)
        close()
        return found


def _words(told: Sequence[_Told]) -> list[Word]:
    """What is between blanks."""
    found, part = list[Word](), list[tuple[str, _Told]]()

    def close() -> None:
        if part:
            found.append(Word("".join(text for text, _ in part), part[0][1].start, part[-1][1].end))
        part.clear()

    for each in told:
        for place, text in enumerate(each.text.split(" ")):
            if place:
                close()
            if text.strip():
                part.append((text.strip(), each))
    close()
    return found
