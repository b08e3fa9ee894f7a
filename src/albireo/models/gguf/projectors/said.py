"""Said: what a projector's file and its model's say, for the families.

Made by told.py and file.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from albireo.errors import WeightMismatch
from albireo.json_file import Fields
from albireo.models.gguf.header import Entry
from albireo.models.gguf.stored import MAX
from albireo.models.settings.layer_kinds import MAX_LAYERS

#: Sections of keys that a projector's file has.
VISION, AUDIO = "vision", "audio"


@dataclass(frozen=True, slots=True)
class Said:
    """Fields: own: keys of the tower, without what they begin with. whole: those of all towers. entries: of tensors, by
    the names of the file. text: what config.json would hold of the model that it is for; empty, where nobody asks.
    model: settings of that model's file. where: names the file in errors."""

    own: Fields
    whole: Fields
    entries: Mapping[str, Entry]
    where: str
    text: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    def shape(self, name: str, dims: int | None = None) -> tuple[int, ...]:
        """Args: dims: how many numbers it has; None: one at least. Raises: WeightMismatch where there is no such
        tensor."""
        if name not in self.entries:
            raise WeightMismatch(f"{self.where}: there is no tensor {name}")
        shape = self.entries[name].shape
        if dims not in (None, len(shape)):
            raise WeightMismatch(f"{self.where}: tensor {name} has shape {list(shape)}; wanted are {dims} dimensions")
        return shape

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number of the tower. Raises: ModelError."""
        return self.own.integer(key, 1, MAX, default)

    @property
    def width(self) -> int:
        return self.number("embedding_length")

    @property
    def layers(self) -> int:
        return self.own.integer("block_count", 1, MAX_LAYERS)

    @property
    def eps(self) -> float:
        """Of norms."""
        return _plain(self.own.number("attention.layer_norm_epsilon", 1e-30, 1.0))

    @property
    def colours(self) -> dict[str, list[float]]:
        """Mean and deviation of each, as files have them that prepare pictures."""
        keys = "image_mean", "image_std"
        return {key: [_plain(number) for number in self.own.numbers(key, -1e3, 1e3)] for key in keys}

    @property
    def text_width(self) -> int:
        return Fields(self.text, self.where).integer("hidden_size", 1, MAX)

    def token(self, *texts: str) -> int | None:
        """Id of the first of these that the model has."""
        tokens = self.model.get("tokenizer.ggml.tokens")
        known = tokens if isinstance(tokens, list) else []
        return next((known.index(text) for text in texts if text in known), None)

    def tokens(self, **texts: str) -> dict[str, int]:
        """Key of config.json -> id, of those that the model has. Args: texts: key -> token."""
        found = {key: self.token(text) for key, text in texts.items()}
        return {key: number for key, number in found.items() if number is not None}

    def encoder(self, ffn: str = "ffn_up") -> dict[str, Any]:
        """Sizes of layers, as most config.jsons call them. Args: ffn: the tensor of a layer that widens."""
        return {
            "hidden_size": self.width,
            "intermediate_size": self.wide(ffn),
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.number("attention.head_count"),
        }

    def rows(self, name: str, default: int = 0) -> int:
        """Of a tensor, where it is there."""
        return self.entries[name].shape[0] if name in self.entries else default

    def wide(self, ffn: str = "ffn_up", prefix: str = "v") -> int:
        """Of FFNs: files may say it wrongly, tensors do not."""
        return max(self.shape(f"{prefix}.blk.0.{ffn}.weight"))

    def act(self, plain: str) -> str:
        """Of FFNs. Args: plain: what the authors' gelu is, where a file says gelu.

        Where it says nothing it is OpenAI's approximation."""
        says = [key for key in ("use_gelu", "use_silu") if self.whole.flag(key, False)]
        if len(says) > 1:
            self.whole.fail("use_silu", True, "contradicts use_gelu=True")
        return {"use_gelu": plain, "use_silu": "silu"}[says[0]] if says else "quick_gelu"


def _plain(number: float) -> float:
    """A float32 as it was written down: 0.48145466, not 0.4814546704."""
    return float(str(np.float32(number)))
