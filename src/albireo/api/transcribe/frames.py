"""Frames: how what frames of a sound say becomes a text, by the model's config.json.

Opened by hearing.py, for models that write what frames say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from albireo.execution.inputs import step_of
from albireo.execution.runner import DeviceModel
from albireo.execution.vision import TowerModel
from albireo.execution.writing import F32, Ctc, ReadsFrames, Transducer
from albireo.frame_marks import FrameMarks
from albireo.json_file import Fields
from albireo.models.config import ModelConfig
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.hearing.transducer import Said, States
from albireo.models.settings.layer_kinds import MAX_LAYERS

_MAX_SYMBOLS = 1000
_BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True)
class Frames:
    """Fields:
    marks: what is written beside tokens. blank: the token that says nothing.
    said: what hears what was said so far; None: each frame says by itself what it says.
    most_symbols: tokens of a frame. has_durations: tokens say how many frames pass.
    """

    marks: FrameMarks
    blank: int
    said: Said | None = None
    most_symbols: int = 1
    has_durations: bool = False

    def reader(self, head: DeviceModel, most: int, models: Sequence[TowerModel]) -> ReadsFrames:
        """Ready to run. Args: head: of most rows at once. models: of said.graphs()."""
        if self.said is None:
            return Ctc(head, self.marks, self.blank, most)
        predictor = _Predictor(self.said, models)
        return Transducer(
            head,
            predictor,
            self.marks,
            self.blank,
            has_durations=self.has_durations,
            most_symbols=self.most_symbols,
        )


def ctc_frames(data: dict[str, Any], model: ModelConfig, where: str) -> Frames:
    """Whose blank is what fills texts up. Raises: ModelError for a bad value."""
    assert model.marks is not None, "of a model that writes what frames say"
    fields, last = Fields(data, where), model.vocab_size - 1
    # Omnilingual ASR has both
    key = "blank_token_id" if fields.has("blank_token_id") else "pad_token_id"
    return Frames(model.marks, fields.integer(key, 0, last, last if data["model_type"] == "parakeet_ctc" else 0))


def transducer_frames(data: dict[str, Any], model: ModelConfig, where: str) -> Frames:
    """Raises: ModelError for a bad value."""
    assert model.marks is not None, "of a model that writes what frames say"
    fields, vocab = Fields(data, where), model.vocab_size
    layers = fields.integer("num_decoder_layers", 1, MAX_LAYERS, 2)
    return Frames(
        model.marks,
        fields.integer("blank_token_id", 0, vocab - 1, vocab - 1),
        Said(fields.integer("decoder_hidden_size", 1, MAX_WIDTH, 640), layers, vocab, model.dtype),
        fields.integer("max_symbols_per_step", 1, _MAX_SYMBOLS, 10),
        bool(model.blocks.durations),
    )


class _Predictor:
    """Implements writing.Predictor."""

    def __init__(self, said: Said, models: Sequence[TowerModel]) -> None:
        self._said, self._layers, self._projector = said, models[:-1], models[-1]

    def start(self) -> States:
        return self._said.nothing()

    def said(self, token_id: int, states: States) -> tuple[F32, States]:
        x, hidden, cell = self._said.embedded(token_id), states.hidden.copy(), states.cell.copy()
        for number, model in enumerate(self._layers):
            gates = _run(model, x, hidden[number][None])
            hidden[number], cell[number] = self._said.behind(gates, cell[number])
            x = hidden[number][None]
        # the next token's is written where this lies
        return _run(self._projector, x).copy(), States(hidden, cell)


def _run(model: TowerModel, *rows: F32) -> F32:
    return model.run(step_of(rows, None, (1,), _BLOCK_SIZE)).hidden
