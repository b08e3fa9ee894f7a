"""What the files of a model directory would say of a model in a GGUF file and a projector beside it.

Called by api/sources/projector_place.py. The text part's settings are those of gguf/config.py, under the names that a
text part has in a whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albireo.errors import ModelError, UnsupportedModel, short
from albireo.models.gguf.config import config_of
from albireo.models.gguf.files import is_gguf
from albireo.models.gguf.header import Header
from albireo.models.gguf.projectors.table import Projector, towers_of
from albireo.models.gguf.recommended import generation_of
from albireo.models.gguf.split import open_parts
from albireo.models.gguf.tensors import GgufFile
from albireo.models.settings.wholes import WHOLES

#: Of a text GGUF, behind its architecture: pairs that turn by each axis.
_SECTIONS = "rope.dimension_sections"


def told_together(model: Path, projector: Path) -> dict[str, dict[str, Any]]:
    """Name of a file -> what it holds: config.json, processor_config.json and, where the model's file recommends how to
    sample, generation_config.json.

    Raises: ModelError for a file that cannot be read, or one that is for another model; UnsupportedModel for a tower
        that is not read.
    """
    if not is_gguf(projector):
        raise ModelError(f"{projector}: is no .gguf file; give the one whose name begins with mmproj")
    with contextlib.closing(GgufFile(model)) as file:
        text, settings = config_of(file), file.settings
    towers = towers_of(_header(projector), str(projector), text, settings)
    config: dict[str, Any] = {}
    prepared: dict[str, Any] = {}
    for tower in towers.values():
        kind = _whole_of(tower, text, model)
        _check_width(tower, text, model)
        config |= {"model_type": kind, **tower.family.config(tower.said)}
        prepared |= tower.family.prepared(tower.said)
    whole = WHOLES[config["model_type"]]
    of_text = {**_text(text, settings, config["model_type"]), **config.get("text_config", {})}
    config |= {"architectures": [whole.class_name], "text_config": of_text}
    files = {"config.json": config, "processor_config.json": prepared}
    generation = generation_of(settings)
    return {**files, "generation_config.json": generation} if generation else files


def _header(path: Path) -> Header:
    files, header = open_parts(path)
    for file in files:
        file.close()
    return header


def _whole_of(tower: Projector, text: Mapping[str, Any], model: Path) -> str:
    """The model_type of both together."""
    kind = tower.family.kinds.get(str(text["model_type"]))
    if kind is None:
        raise UnsupportedModel(
            f"{tower.said.where}: a projector of type {tower.name} is for a model whose text part is one of "
            f"{', '.join(tower.family.kinds)}; {model.name} is a {text['model_type']}: give the projector that was "
            "published with it"
        )
    return kind


def _check_width(tower: Projector, text: Mapping[str, Any], model: Path) -> None:
    """Raises: ModelError where rows of the tower are not as wide as embeddings of the model."""
    wide = tower.said.own.optional_integer("projection_dim", 1, 2**20)
    if wide not in (None, text["hidden_size"]):
        raise ModelError(
            f"{tower.said.where}: its rows have {wide} numbers (projection_dim), embeddings of {model.name} have "
            f"{text['hidden_size']}: it is the projector of another model"
        )


def _text(text: Mapping[str, Any], settings: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """text_config."""
    whole = WHOLES[kind]
    part = next(part for part, architecture in whole.parts.items() if architecture == text["model_type"])
    pad = settings.get("tokenizer.ggml.padding_token_id")
    if type(pad) is int:
        text = {**text, "pad_token_id": pad}
    sections = settings.get(f"{settings.get('general.architecture')}.{_SECTIONS}")
    if whole.sections is None or not isinstance(sections, np.ndarray):
        return {**text, "model_type": part}
    counts = sections.tolist() if sections.dtype.kind in "iu" else None
    axes = (counts or [])[: len(whole.sections)]
    if counts is None or sum(axes) != sum(counts):
        raise UnsupportedModel(f"{_SECTIONS}={short(sections.tolist())} of a {kind} is not supported")
    return {
        **text,
        "model_type": part,
        "rope_parameters": {**(text.get("rope_parameters") or {}), "mrope_section": axes},
    }
