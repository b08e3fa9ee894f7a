"""POST /v1/audio/transcriptions and /v1/audio/translations: a sound becomes windows, which run at once, and their text
is joined; as it is written, where a stream is asked for.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from albireo.api.requests.submission import Submission
from albireo.api.transcribe.subtitles import srt, vtt
from albireo.api.transcribe.transcription import SAMPLING, Transcriber, Written, joined, temperatures
from albireo.engine.request import check_request
from albireo.engine_process.tracked import Tracked
from albireo.errors import EngineError
from albireo.outputs import Transcript
from albireo.params import SamplingParams
from albireo.server.body import ClientGone, converted, received_s
from albireo.server.errors import HttpError, cannot, refused, unsupported
from albireo.server.form import Form, read_form
from albireo.server.generation import Generation, answer_id
from albireo.server.protocol.fields import unneutral
from albireo.server.protocol.transcriptions import (
    LISTS,
    NEUTRAL,
    SecondsUsage,
    TextDelta,
    TextDone,
    Transcription,
    TranscriptionRequest,
    TranscriptionSegment,
    TranscriptionWord,
    VerboseTranscription,
)
from albireo.server.protocol.transcriptions import (
    SAMPLING as SAMPLING_FIELDS,
)
from albireo.server.serving import Serving
from albireo.server.streaming import Piece, stream
from albireo.transcription_params import Task, TranscriptionParams

if TYPE_CHECKING:
    from albireo.sounds.windows import Window

_ENCODER = msgspec.json.Encoder()
#: What says when something was said.
_WITH_TIMES = ("srt", "vtt", "verbose_json")
#: What a refusal begins with -> the form's field that asked for it.
_FIELDS = {
    "language: ": "language",
    "prompt: ": "prompt",
    "timestamps: ": "response_format",
    "words: ": "timestamp_granularities",
}


class _Heard(NamedTuple):
    """A sound that is ready to be asked about."""

    windows: list[Window]
    asked: TranscriptionParams
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class Transcriptions:
    """An endpoint, as an ASGI application. Fields: task: what becomes of what is said."""

    serving: Serving
    task: Task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival_s, serving = received_s(scope), self.serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                content_type = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
                form = await serving.in_thread(partial(read_form, content_type, body), True)
                request = _request(form)
                heard = await self._heard(request, form.file)
                del body, form
            name = answer_id(serving, scope, "transcribe", request.request_id)
            run = partial(Generation, serving, scope, receive, priority=request.priority or 0, received_s=arrival_s)
            finds_first = self._transcriber.finds_language_first
            if heard.asked.language is None and finds_first and len(heard.windows) > 1:
                # what is spoken in the first window is in the others
                first = await self._submissions(request, heard._replace(windows=heard.windows[:1]), is_asked=True)
                async with run(f"{name}-language", first, wants_stream=False) as generation:
                    await generation.finished()
                    spoken = self._transcriber.language(generation.requests[0].continuations[0].token_ids)
                heard = heard._replace(asked=replace(heard.asked, language=spoken))
            if request.stream:
                submissions = await self._submissions(request, heard)
                async with run(name, submissions, wants_stream=True) as generation:
                    told = _Told(self._transcriber, heard)
                    await stream(serving, generation, send, told.chunks, tells_tokens=False, last=told.last)
                return
            answer, asking = _Answer(self._transcriber, heard), [*temperatures(heard.asked, heard.sampling)]
            for number, params in enumerate(asking):
                windows = [heard.windows[place] for place in answer.doubtful]
                submissions = await self._submissions(request, heard._replace(windows=windows, sampling=params))
                ran = f"{name}-again-{number}" if number else name
                async with run(ran, submissions, wants_stream=False) as generation:
                    await generation.finished()
                    answer.take(generation.requests, params.temperature)
                    if answer.doubtful and params is not asking[-1]:
                        continue
                    kind, headers = request.response_format or "json", {"x-request-id": name}
                    await generation.answer(_response(kind, answer.transcript(), headers, heard.asked), send)
                    return
        except ClientGone:
            return

    @property
    def _transcriber(self) -> Transcriber:
        return self.serving.admission.transcriber

    async def _heard(self, request: TranscriptionRequest, file: bytes | None) -> _Heard:
        """Raises: HttpError for what is asked for and there is not, and for what is no sound."""
        serving = self.serving
        serving.check_open()
        serving.check_model(request.model)
        try:
            transcriber = self._transcriber
        except EngineError as error:
            raise cannot(error) from None
        asked = _asked(request, self.task)
        if file is None:
            raise HttpError(400, "the form has no file; send the sound in the field file", param="file")
        given = {name: value for name in SAMPLING_FIELDS if (value := getattr(request, name)) is not None}
        try:
            sampling = SAMPLING.clone(**given, max_tokens=request.max_completion_tokens)
            transcriber.check(asked, sampling)
            most = serving.settings.max_audio_seconds
            # What reads sounds is imported when one comes.
            from albireo.sounds.decode import decoded

            windows = await serving.in_thread(lambda: transcriber.windows(decoded(file, most)), True)
        except EngineError as error:
            raise _refused(error) from None
        return _Heard(windows, asked, sampling)

    async def _submissions(
        self, request: TranscriptionRequest, heard: _Heard, is_asked: bool = False
    ) -> list[Submission]:
        """One a window. Args: is_asked: what is spoken, and no more."""
        serving, transcriber = self.serving, self._transcriber

        def prepare(window: Window) -> Submission:
            prompt, params = transcriber.prompt(window, heard.asked, heard.sampling)
            params = params.clone(max_tokens=1) if is_asked else params
            admission = serving.admission
            made = admission.submission(replace(prompt, cache_salt=request.cache_salt), admission.prepare(params))
            check_request(
                made.prompt_token_ids, made.params, request.priority or 0, serving.ready.settings(), images=made.images
            )
            return made

        try:
            found = await asyncio.gather(*(serving.in_thread(partial(prepare, each), True) for each in heard.windows))
        except EngineError as error:
            raise _refused(error) from None
        serving.check_queue(len(found), sum(len(made.prompt_token_ids) for made in found))
        return [*found]


def _request(form: Form) -> TranscriptionRequest:
    """The fields of a form. Raises: HttpError 400 naming the one that is wrong."""
    fields: dict[str, Any] = {}
    for name, values in form.values.items():
        plain = name.removesuffix("[]")
        if plain in LISTS:
            fields[plain] = [*fields.get(plain, []), *(value for value in values if value)]
        elif len(values) > 1:
            raise HttpError(400, f"{name:.80} comes {len(values)} times in the form; give it once", param=name[:80])
        elif values[0] or name == "prompt":  # an empty field asks for nothing
            fields[name] = values[0]
    return converted(fields, TranscriptionRequest)


def _asked(request: TranscriptionRequest, task: Task) -> TranscriptionParams:
    """Raises: HttpError 400."""
    against = unneutral(request, NEUTRAL)
    if against is not None:
        raise unsupported(*against)
    form = request.response_format or "json"
    parts = request.timestamp_granularities or []
    if parts and form != "verbose_json":
        raise HttpError(
            400, f"timestamp_granularities needs response_format=verbose_json, not {form}", param="response_format"
        )
    if request.stream and form in _WITH_TIMES:
        raise unsupported("stream", True, f"response_format={form} is told whole; use json")
    try:
        return TranscriptionParams(
            language=request.language,
            task=task,
            prompt=request.prompt or "",
            timestamps=form in _WITH_TIMES and ("segment" in parts or not parts),
            words="word" in parts,
        )
    except EngineError as error:
        raise refused(error, "language") from None


def _written(transcriber: Transcriber, tracked: Tracked) -> Written:
    (continuation,) = tracked.continuations
    places = [dict(zip(each.token_ids, each.logprobs, strict=True)) for each in continuation.logprobs or ()]
    return transcriber.written(continuation.token_ids, places)


def _usage(transcript_s: float) -> SecondsUsage:
    return SecondsUsage(math.ceil(transcript_s))


class _Answer:
    """What is written of all windows, which may take several times.

    Fields: doubtful: places of the windows that are to be written, first or again.
    """

    def __init__(self, transcriber: Transcriber, heard: _Heard) -> None:
        self._transcriber, self._heard = transcriber, heard
        self._written: dict[int, Written] = {}
        self.doubtful = list(range(len(heard.windows)))

    def take(self, requests: Sequence[Tracked], temperature: float) -> None:
        """What was written of the doubtful."""
        for place, tracked in zip(self.doubtful, requests, strict=True):
            self._written[place] = replace(_written(self._transcriber, tracked), temperature=temperature)
        self.doubtful = [place for place in self.doubtful if self._transcriber.is_doubtful(self._written[place])]

    def transcript(self) -> Transcript:
        """When all is there."""
        written = [self._written[place] for place in range(len(self._written))]
        return self._transcriber.transcript(self._heard.windows, written, self._heard.asked)


class _Told:
    """Makes events. Windows are written at once, and told in order; what is told is not taken back, so that nothing is
    written again."""

    def __init__(self, transcriber: Transcriber, heard: _Heard) -> None:
        self._transcriber, self._heard = transcriber, heard
        self._texts = [""] * len(heard.windows)
        self._are_over, self._are_held = [False] * len(heard.windows), [False] * len(heard.windows)
        self._told, self._language = "", heard.asked.language

    def chunks(self, piece: Piece) -> list[TextDelta]:
        """What can be told since a piece came: as far as all windows before it are over."""
        written, is_over = _written(self._transcriber, piece.tracked), piece.finish_reason is not None
        self._texts[piece.place] += piece.text
        self._are_over[piece.place] = is_over
        # what may be made up of silence is told when it is whole, and found not to be
        is_open = written.is_silence if is_over else written.may_be_silence
        self._are_held[piece.place] = is_open
        num = next((place + 1 for place, is_over in enumerate(self._are_over) if not is_over), len(self._texts))
        asked, tells = self._heard.asked, self._transcriber.spoken
        if self._language is None and piece.place == 0:
            self._language = self._transcriber.language(written.token_ids)
        states = zip(self._texts[:num], self._are_over, self._are_held, strict=False)
        shown = ["" if is_held else tells(text, is_over, asked) for text, is_over, is_held in states]
        text = joined(shown, "en" if asked.task == "translate" else self._language or "")
        new = text[len(self._told) :]
        self._told = text
        return [TextDelta(new)] if new else []

    def last(self) -> list[TextDone]:
        """Behind all pieces."""
        last = self._heard.windows[-1]
        return [TextDone(self._told, _usage(last.start_s + len(last.samples) / self._transcriber.rate))]


def _refused(error: EngineError) -> HttpError:
    """The answer to what is refused. It blames the sound unless it names another field."""
    answer = refused(error, "file")
    if answer.status == 400:
        named = next((field for words, field in _FIELDS.items() if str(error).startswith(words)), None)
        answer.param = named or answer.param or "file"
    return answer


def _response(form: str, transcript: Transcript, headers: dict[str, str], asked: TranscriptionParams) -> Response:
    if form == "text":
        return Response(f"{transcript.text}\n", 200, headers, "text/plain")
    if form == "srt":
        return Response(srt(transcript.segments), 200, headers, "text/plain")
    if form == "vtt":
        return Response(vtt(transcript.segments), 200, headers, "text/vtt")
    usage = _usage(transcript.duration)
    if form == "json":
        return Response(_ENCODER.encode(Transcription(transcript.text, usage)), 200, headers, "application/json")
    segments = [
        TranscriptionSegment(
            each.id,
            0,
            each.start,
            each.end,
            each.text,
            each.token_ids,
            each.temperature,
            each.avg_logprob,
            each.compression_ratio,
            each.no_speech_prob,
        )
        for each in transcript.segments
    ]
    told = VerboseTranscription(transcript.task, transcript.language, transcript.duration, transcript.text, usage)
    if asked.timestamps:
        told.segments = segments
    if asked.words:
        told.words = [TranscriptionWord(each.word, each.start, each.end) for each in transcript.words]
    return Response(_ENCODER.encode(told), 200, headers, "application/json")
