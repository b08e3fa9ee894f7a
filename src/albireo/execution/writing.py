"""What a sound is written as, where frames say it: all of it is heard, then its frames are read one after another.

Called by runner.py. A step begins with one sound; from then on each step tells a token of what was written of it, so
that streams, limits and preemption know nothing of it. What is written is kept a while, by what the sound is. Does not
know models: it is given programs. Sources: Graves et al. 2006, Connectionist Temporal Classification; Graves 2012,
Sequence Transduction with Recurrent Neural Networks; Xu et al. 2023, Efficient Sequence Transduction.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import StepOutputs
from albireo.errors import InvariantError
from albireo.execution.inputs import step_of
from albireo.frame_marks import FrameMarks
from albireo.image_input import Tile
from albireo.step import SampledToken, StepPlan, StepResult, TokenLogprobs

F32 = NDArray[np.float32]

#: Sounds whose texts are kept: more than run at once, and no more than a few MB.
_KEPT = 1024
_BLOCK_SIZE = 16


class Head(Protocol):
    """A program: given rows -> logits."""

    def run(self, inputs: StepInputs) -> StepOutputs: ...


@dataclass(frozen=True, slots=True)
class Path:
    """What is written of a sound. Fields: token_ids: tokens and marks. logprobs: of each; of marks 0."""

    token_ids: list[int]
    logprobs: list[float]


class ReadsFrames(Protocol):
    """What makes a text of frames."""

    def read(self, rows: F32) -> Path:
        """Args: rows: [n, E] that the encoder gives."""
        ...


def logits_of(head: Head, rows: F32, most: int) -> F32:
    """[n, V] of rows [n, E], of at most so many at once; the caller's own. Raises: InvariantError where one is no
    number."""
    parts = []
    for first in range(0, len(rows), most):
        part = rows[first : first + most]
        parts.append(head.run(step_of((part,), None, (len(part),), _BLOCK_SIZE)).logits.copy())
    found = np.concatenate(parts)
    if not np.isfinite(found).all():
        raise InvariantError("what frames say is no number")
    return found


def _logprobs(logits: F32) -> NDArray[np.float64]:
    """[...] of the greatest of each row."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return np.asarray(-np.log(np.exp(wide).sum(axis=-1)))


class Ctc:
    """Implements ReadsFrames: each frame says its likeliest token; what several in a row say is said once, and blanks
    say nothing. A token's log-probability is that of the frame that is surest of it."""

    def __init__(self, head: Head, marks: FrameMarks, blank: int, most: int) -> None:
        """Args: most: rows of one step of the head."""
        self._head, self._marks, self._blank, self._most = head, marks, blank, most

    def read(self, rows: F32) -> Path:
        logits = logits_of(self._head, rows, self._most)
        best, sure = logits.argmax(axis=-1), _logprobs(logits)
        starts = np.flatnonzero(np.diff(best, prepend=-1))
        path = _Written(self._marks)
        for first, end in zip(starts.tolist(), [*starts[1:].tolist(), len(best)], strict=True):
            token = int(best[first])
            if token != self._blank:
                path.say(token, float(sure[first:end].max()))
            path.pass_by(end - first, is_behind_token=token != self._blank)
        return path.whole()


class Predictor(Protocol):
    """What was said so far, as the head of a transducer reads it."""

    def start(self) -> Any:
        """Before anything was said."""
        ...

    def said(self, token_id: int, states: Any) -> tuple[F32, Any]:
        """[1, E] behind a token, and the states behind it."""
        ...


class Transducer:
    """Implements ReadsFrames: at a frame tokens are said, until none is (RNN-T), or until the frames are over that the
    head says pass with each (TDT)."""

    def __init__(
        self,
        head: Head,
        predictor: Predictor,
        marks: FrameMarks,
        blank: int,
        *,
        has_durations: bool,
        most_symbols: int,
    ) -> None:
        """Args: most_symbols: tokens of one frame, after which it is over; where tokens have durations, of all frames
        together so many a frame."""
        self._head, self._predictor, self._marks, self._blank = head, predictor, marks, blank
        self._has_durations, self._most_symbols = has_durations, most_symbols

    def read(self, rows: F32) -> Path:
        path, frame, at_frame, steps = _Written(self._marks), 0, 0, 0
        before, states = self._predictor.said(self._blank, self._predictor.start())
        # tokens that no frame passes behind could come for ever
        while frame < len(rows) and steps < self._most_symbols * len(rows):
            logits = logits_of(self._head, rows[frame : frame + 1] + before, 1)[0]
            tokens = logits[: self._marks.vocab_size]
            token, steps = int(tokens.argmax()), steps + 1
            is_blank, at_frame = token == self._blank, at_frame + 1
            passed = 1 if is_blank or at_frame >= self._most_symbols else 0
            if self._has_durations:
                passed = max(int(logits[len(tokens) :].argmax()), int(is_blank))
            if not is_blank:
                path.say(token, float(_logprobs(tokens)))
                before, states = self._predictor.said(token, states)
            if passed or self._has_durations:
                path.pass_by(passed, is_behind_token=not is_blank)
            at_frame = 0 if passed else at_frame
            frame += passed
        return path.whole()


class _Written:
    """A path, as it is written: what blanks pass is one mark, where it follows another blank's."""

    def __init__(self, marks: FrameMarks) -> None:
        self._marks, self._ids, self._logprobs = marks, list[int](), list[float]()
        self._passed = 0

    def say(self, token: int, logprob: float) -> None:
        self._flush()
        self._ids.append(token)
        self._logprobs.append(logprob)

    def pass_by(self, count: int, *, is_behind_token: bool) -> None:
        """Args: is_behind_token: for so long the token was said, whatever passes then."""
        if is_behind_token:
            self._mark(count)
        else:
            self._passed += count

    def whole(self) -> Path:
        self._flush()
        self._ids.append(self._marks.end)
        self._logprobs.append(0.0)
        return Path(self._ids, self._logprobs)

    def _flush(self) -> None:
        while self._passed:
            count = min(self._passed, self._marks.most)
            self._mark(count)
            self._passed -= count

    def _mark(self, count: int) -> None:
        self._ids.append(self._marks.passed(min(count, self._marks.most)))
        self._logprobs.append(0.0)


class Writer:
    """Tells of sounds what was written of them.

    Invariant: what is written depends on the sound alone, however often it is heard.
    """

    def __init__(self, encoder: Callable[[Tile], F32], frames: ReadsFrames, kept: int = _KEPT) -> None:
        """Args: encoder: [n, E] of a tile. kept: sounds whose texts are kept."""
        self._encoder, self._frames, self._most = encoder, frames, kept
        self._kept: OrderedDict[bytes, Path] = OrderedDict()

    def execute(self, plan: StepPlan) -> StepResult:
        """Of each task the next token, or mark. Raises: InvariantError naming the sequence whose logits are no
        numbers."""
        found = []
        for work in plan.work:
            for task in work.samples:
                try:
                    path = self._path(work.images[0].key, work.images[0].tiles[0])
                except InvariantError as error:
                    raise InvariantError(f"sequence {work.seq_id}: {error}") from error
                place = min(len(task.output_token_ids), len(path.token_ids) - 1)
                token = path.token_ids[place]
                logprobs = None
                if task.params.logprobs is not None:
                    logprobs = TokenLogprobs([token], [path.logprobs[place]], [1])
                found.append(SampledToken(task.seq_id, token, logprobs))
        return StepResult(found)

    def _path(self, key: bytes, tile: Tile) -> Path:
        known = self._kept.get(key)
        if known is None:
            known = self._kept[key] = self._frames.read(self._encoder(tile))
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return known
