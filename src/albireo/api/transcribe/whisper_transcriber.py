"""WhisperTranscriber: what is said, by a model whose tokens say which language is spoken, what to do, and when.

Opened by transcribers.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from albireo.api.media.sounds import SoundReader
from albireo.api.requests.prompts import Prompt
from albireo.api.transcribe.transcription import Written, compression, joined
from albireo.errors import InvalidParams, ModelError, UnsupportedFeature
from albireo.image_input import GivenSound
from albireo.json_file import Fields, read_json
from albireo.outputs import Segment, Transcript
from albireo.params import SamplingParams
from albireo.sounds.decode import Sound
from albireo.sounds.resample import resampled
from albireo.sounds.windows import Window, windows
from albireo.speech_rules import SpeechRules
from albireo.text.tokenizer import Tokenizer
from albireo.transcription_params import TASKS, TranscriptionParams

#: How late the first text of a window may begin, in steps, where files do not say.
_LAST_FIRST_TIME = 50
_MAX_IDS = 2**16
#: Below this mean log-probability, and above this compression, a text is doubtful; Whisper's own numbers.
_UNLIKELY, _REPEATED = -1.0, 2.4
#: Of the models that know English alone, whose tokenizers have tokens of other languages all the same.
_ENGLISH_VOCAB = 51864


class WhisperTranscriber:
    """Implements transcription.Transcriber."""

    def __init__(self, reader: SoundReader, tokenizer: Tokenizer, vocab_size: int) -> None:
        """Raises: ModelError where its files lack a token that is needed, or say nonsense."""
        path = reader.directory / "generation_config.json"
        fields = Fields(read_json(path) if path.is_file() else {}, str(path))
        self._reader, self._tokenizer = reader, tokenizer
        self._rate, self._seconds = reader.sounds.rate, float(reader.sounds.seconds)
        self._step_s = self._seconds / reader.num_positions

        def token(name: str) -> int | None:
            found = tokenizer.token_to_id(name)
            return found if found is not None and found < vocab_size else None

        def needed(name: str) -> int:
            found = token(name)
            if found is None:
                raise ModelError(f"{reader.directory}: the tokenizer has no token {name}, which models of speech have")
            return found

        def ids(key: str) -> tuple[int, ...]:
            given = fields.raw(key) or []
            is_list = isinstance(given, list) and len(given) <= _MAX_IDS
            if not is_list or not all(type(each) is int and each >= 0 for each in given):
                fields.fail(key, given, "must be a list of token ids")
            return tuple(each for each in given if each < vocab_size)

        self._start, self._end = needed("<|startoftranscript|>"), needed("<|endoftext|>")
        self._without_times = needed("<|notimestamps|>")
        self._before = token("<|startofprev|>")
        silence = token("<|nospeech|>")
        self._silence = token("<|nocaptions|>") if silence is None else silence
        self._times = self._without_times + 1
        self._has_times = self._times < vocab_size
        tasks = {task: token(f"<|{task}|>") for task in TASKS}
        is_multilingual = fields.flag("is_multilingual", vocab_size != _ENGLISH_VOCAB)
        self._languages: dict[str, int] = {}
        if is_multilingual and None not in tasks.values():
            self._languages = _languages(tokenizer, vocab_size)
        self._tasks = {task: found for task, found in tasks.items() if found is not None}
        self._never, self._never_first = ids("suppress_tokens"), ids("begin_suppress_tokens")
        last = fields.optional_integer("max_initial_timestamp_index", 0, _MAX_IDS)
        self._last_first_time = _LAST_FIRST_TIME if last is None else last

    @property
    def rate(self) -> int:
        return self._rate

    @property
    def has_times(self) -> bool:
        return self._has_times

    @property
    def has_word_times(self) -> bool:
        return False

    @property
    def finds_language_first(self) -> bool:
        return bool(self._languages)

    def windows(self, sound: Sound) -> list[Window]:
        return windows(resampled(sound.samples, sound.rate, self._rate), self._rate, self._seconds)

    def check(self, asked: TranscriptionParams, sampling: SamplingParams) -> None:
        if asked.language is not None and self._languages and asked.language not in self._languages:
            raise InvalidParams(
                f"language={asked.language} is none that this model knows: {', '.join(sorted(self._languages))}"
            )
        if not self._languages and (asked.language not in (None, "en") or asked.task != "transcribe"):
            raise UnsupportedFeature(
                f"language={asked.language} and task={asked.task}: this model writes down English alone"
            )
        if asked.timestamps and not self._has_times:
            raise UnsupportedFeature("timestamps: this model has no tokens of times; leave them out")
        if asked.words:
            raise UnsupportedFeature("words: this model tells times of segments; leave words out")
        if sampling.n != 1:
            raise UnsupportedFeature(f"n={sampling.n}: a sound has one transcript; leave it out")

    def prompt(
        self, window: Window, asked: TranscriptionParams, sampling: SamplingParams
    ) -> tuple[Prompt, SamplingParams]:
        opening = self._opening(asked)
        rules = SpeechRules(
            opening=opening,
            never=tuple(sorted({*self._never, self._without_times, self._start})),
            never_first=self._never_first,
            times=self._times,
            text_end=self._end,
            is_timed=asked.timestamps,
            silence=self._silence,
            last_first_time=self._last_first_time,
        )
        most = None if sampling.max_tokens is None else sampling.max_tokens + len(opening)
        heard = GivenSound(Sound(window.samples, self._rate))
        params = sampling.clone(speech_rules=rules, max_tokens=most, logprobs=sampling.logprobs or 0)
        return Prompt(None, [*self._earlier(asked.prompt), self._start], sounds=[heard]), params

    def _opening(self, asked: TranscriptionParams) -> tuple[tuple[int, ...], ...]:
        """What an output begins with. It is written, not given, so that its first token is drawn where the model says
        which language is spoken, and whether anything is said."""
        says_how = () if asked.timestamps else ((self._without_times,),)
        if not self._languages:
            return says_how
        every = tuple(self._languages.values())
        spoken = every if asked.language is None else (self._languages[asked.language],)
        return spoken, (self._tasks[asked.task],), *says_how

    def written(self, token_ids: Sequence[int], logprobs: Sequence[Mapping[int, float]]) -> Written:
        first = logprobs[0] if logprobs else {}
        silence = 0.0 if self._silence is None or self._silence not in first else math.exp(first[self._silence])
        own = [place[token] for token, place in zip(token_ids, logprobs, strict=True)][self._num_opening(token_ids) :]
        return Written(token_ids, sum(own) / max(1, len(own)), silence)

    def _num_opening(self, token_ids: Sequence[int]) -> int:
        """How many of an output's tokens say how it is written."""
        says_how = (*self._languages.values(), *self._tasks.values(), self._without_times)
        return next((place for place, each in enumerate(token_ids) if each not in says_how), len(token_ids))

    def _earlier(self, text: str) -> list[int]:
        """Half of the context at most, of the end."""
        text = text.strip()
        if not text or self._before is None:
            return []
        ids = self._tokenizer.encode(f" {text}", add_special_tokens=False)
        room = self._reader.num_text_positions // 2 - 1
        return [self._before, *[each for each in ids if each < self._end][-room:]] if room > 0 else []

    def language(self, token_ids: Sequence[int]) -> str | None:
        first = token_ids[0] if token_ids else None
        return next((code for code, each in self._languages.items() if each == first), None)

    def text(self, token_ids: Sequence[int]) -> str:
        """As it is written: it may begin with a blank."""
        return self._tokenizer.decode([each for each in token_ids if each < self._end], skip_special_tokens=True)

    def is_doubtful(self, written: Written) -> bool:
        if written.is_silence:
            return False
        return written.avg_logprob < _UNLIKELY or compression(self.text(written.token_ids)) > _REPEATED

    def spoken(self, text: str, is_over: bool, asked: TranscriptionParams) -> str:
        return text

    def transcript(
        self,
        parts: Sequence[Window],
        written: Sequence[Written],
        asked: TranscriptionParams,
    ) -> Transcript:
        language = asked.language or (self.language(written[0].token_ids) if self._languages else "en") or ""
        texts = ["" if each.is_silence else self.text(each.token_ids) for each in written]
        text = joined(texts, "en" if asked.task == "translate" else language)
        last = parts[-1]
        duration = last.start_s + len(last.samples) / self._rate
        segments: list[Segment] = []
        if asked.timestamps:
            for window, each in zip(parts, written, strict=True):
                if not each.is_silence:
                    segments += self._segments(window, each, len(segments))
        return Transcript(text=text, language=language, duration=duration, segments=segments, task=asked.task)

    def _segments(self, window: Window, written: Written, first: int) -> list[Segment]:
        """What stands between times; what has no end ends with the window."""
        length = len(window.samples) / self._rate
        found: list[Segment] = []
        begin, ids = 0.0, list[int]()

        def close(end: float) -> None:
            text = self.text(ids)
            if not text.strip():
                return
            found.append(
                Segment(
                    id=first + len(found),
                    start=window.start_s + min(begin, length),
                    end=window.start_s + min(end, length),
                    text=text,
                    token_ids=list(ids),
                    temperature=written.temperature,
                    avg_logprob=written.avg_logprob,
                    compression_ratio=compression(text),
                    no_speech_prob=written.no_speech,
                )
            )

        for token in written.token_ids:
            if token >= self._times:
                at = (token - self._times) * self._step_s
                close(at)
                begin, ids = at, []
            elif token < self._end:
                ids.append(token)
        close(length)
        return found


def _languages(tokenizer: Tokenizer, vocab_size: int) -> dict[str, int]:
    """By its code, the token of each: those between the start and the tasks."""
    first, last = (tokenizer.token_to_id(name) for name in ("<|startoftranscript|>", "<|translate|>"))
    assert first is not None and last is not None, "asked for"
    found = {}
    for name, each in tokenizer.added_tokens().items():
        code = name.removeprefix("<|").removesuffix("|>")
        if first < each < last and len(name) == len(code) + 4 and 2 <= len(code) <= 3 and each < vocab_size:
            found[code] = each
    return found
