"""Family: one kind of towers of projector files.

Made by the files of families, found by table.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from albireo.models.gguf.projectors.piece import Piece
from albireo.models.gguf.projectors.said import Said

#: The file that says how pictures and sounds are prepared, as the authors' publish it: keys by part.
Prepared = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """Fields:
    kinds: architecture of the text part -> model_type of the whole. Rows of the tower are of no other.
    config: keys of config.json beside the text part's, and of text_config what no file says.
    prepared: what processor_config.json holds.
    tensors: of the tower, by the names that its graph reads.
    """

    kinds: Mapping[str, str]
    config: Callable[[Said], dict[str, Any]]
    prepared: Callable[[Said], Prepared]
    tensors: Callable[[Said], dict[str, Piece]]
