"""What a family of tiny models that hear is described by. Used by tiny_hearers.py, and where families are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
RATE = 16000


@dataclass(frozen=True)
class Family:
    """A tiny model.

    Fields:
        class_name: of transformers. mark: what the template writes for a sound. row: of it, the token of rows.
        config: keys of config.json, given the ids of tokens.
        extractor: of transformers.
        heard: extractor, sounds -> what transformers' model is given beside ids, and how many rows each is.
        longest: seconds of the longest sound it hears. tokens: special ones, beside those of turns and of the mark.
        sights: what the template writes for a picture, and for a video; empty: it sees none. images: how pictures are
            prepared, in the file that says how sounds are. model_type: of what is saved, where it is a part.
        around: what stands around the rows of a sound, which the template does not write. parts: of a file that says
            how everything is prepared, beside sounds; None: there is none. asked: what generate() is told. ended:
            transformers' model, rows that it makes of what is heard -> all that stand in the prompt. rows: its model,
            and what that is given -> rows, where it has no method for that.
    """

    class_name: str
    mark: str
    row: str
    config: Callable[[Mapping[str, int]], dict[str, Any]]
    extractor: Callable[[], Any]
    heard: Callable[[Any, Sequence[F32]], tuple[dict[str, Any], list[int]]]
    longest: float
    tokens: tuple[str, ...] = ()
    sights: tuple[str, ...] = ()
    images: Mapping[str, Any] | None = None
    model_type: str | None = None
    around: tuple[str, str] = ("", "")
    parts: Mapping[str, Any] | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    ended: Callable[[Any, Any], Any] | None = None
    rows: Callable[[Any, Mapping[str, Any]], Any] | None = None
