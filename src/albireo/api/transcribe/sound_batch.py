"""Several sounds at once: which of their windows are asked for together, and which are asked for again.

Used by llm.py, which runs the requests that are made here. Where each window is asked for on its own: async_llm.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from albireo.api.requests.admission import Admission
from albireo.api.requests.submission import Submission
from albireo.api.transcribe.transcription import Written, temperatures, written_of
from albireo.outputs import RequestOutput, Transcript
from albireo.params import SamplingParams
from albireo.sounds.decode import as_sound
from albireo.sounds.windows import Window
from albireo.transcription_params import TranscriptionParams

#: Of several sounds the windows, and what was written of them.
_Windows = Sequence[Sequence[Window]]
_Texts = list[list[Written]]


class SoundBatch:
    """Writes down sounds in as few runs as there can be.

    Args: run: requests to finished outputs, in order.
    Raises: UnsupportedFeature for a model that writes down none.
    """

    def __init__(self, admission: Admission, run: Callable[[list[Submission]], list[RequestOutput]]) -> None:
        self._admission, self._transcriber, self._run = admission, admission.transcriber, run

    def transcripts(
        self, sounds: Sequence[Any], asked: TranscriptionParams, sampling: SamplingParams
    ) -> list[Transcript]:
        """Of each sound one, in order. Args, raises: as those of LLM.transcribe()."""
        transcriber = self._transcriber
        transcriber.check(asked, sampling)
        parts = [transcriber.windows(as_sound(sound)) for sound in sounds]
        of_each = [asked] * len(parts)
        # what is spoken in the first window is in the others
        is_left_open = asked.language is None and transcriber.finds_language_first
        written = self._write(of_each, sampling, [windows[: 1 if is_left_open else None] for windows in parts])
        if is_left_open:
            of_each = [replace(asked, language=transcriber.language(each[0].token_ids)) for each in written]
            rest = self._write(of_each, sampling, [windows[1:] for windows in parts])
            written = [each + others for each, others in zip(written, rest, strict=True)]
        for hotter in itertools.islice(temperatures(asked, sampling), 1, None):
            if not self._write_doubtful(of_each, hotter, parts, written):
                break
        return [transcriber.transcript(*each) for each in zip(parts, written, of_each, strict=True)]

    def _write_doubtful(
        self, of_each: Sequence[TranscriptionParams], sampling: SamplingParams, parts: _Windows, written: _Texts
    ) -> bool:
        """Ask again for windows whose texts are doubtful, and put the new ones in their places. Returns: whether there
        were such."""
        texts = ((i, j, text) for i, each in enumerate(written) for j, text in enumerate(each))
        doubtful = [(i, j) for i, j, text in texts if self._transcriber.is_doubtful(text)]
        if not doubtful:
            return False
        again = self._write([of_each[i] for i, _ in doubtful], sampling, [[parts[i][j]] for i, j in doubtful])
        for (i, j), (text,) in zip(doubtful, again, strict=True):
            written[i][j] = text
        return True

    def _write(self, of_each: Sequence[TranscriptionParams], sampling: SamplingParams, parts: _Windows) -> _Texts:
        """What is said in windows of several sounds, in one run."""
        admission, transcriber = self._admission, self._transcriber
        submissions = []
        for windows, each in zip(parts, of_each, strict=True):
            for window in windows:
                prompt, params = transcriber.prompt(window, each, sampling)
                submissions.append(admission.submission(prompt, admission.prepare(params)))
        outputs = [output.outputs[0] for output in self._run(submissions)]
        following = iter([written_of(transcriber, output, sampling.temperature) for output in outputs])
        return [list(itertools.islice(following, len(windows))) for windows in parts]
