"""Types of projectors, as llama.cpp calls them: the file that reads each, and what a file's towers are.

Called by file.py and told.py. Sources: tools/mtmd/clip.cpp and conversion/*.py of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from albireo.errors import ModelError, UnsupportedModel, short
from albireo.json_file import Fields
from albireo.models.gguf.header import Header
from albireo.models.gguf.projectors.family import Family
from albireo.models.gguf.projectors.said import AUDIO, VISION, Said

#: Type -> the file that is imported where such a tower is met, and the Family in it.
SEEING: Mapping[str, str] = {
    "gemma3": "siglips.GEMMA3",
    "gemma4v": "gemma4.SEES",
    "idefics3": "siglips.IDEFICS3",
    "internvl": "internvl.INTERNVL",
    "lfm2": "siglips.LFM2",
    "llama4": "llama4.LLAMA4",
    "minicpmv4_6": "minicpm.MINICPM_V4_6",
    "pixtral": "pixtral.PIXTRAL",
    "qwen2vl_merger": "qwen.QWEN2_VL",
    "qwen2.5vl_merger": "qwen.QWEN2_5_VL",
    "qwen3vl_merger": "qwen.QWEN3_VL",
}
HEARING: Mapping[str, str] = {
    "gemma4a": "gemma4.HEARS",
}
#: Types of files that see and hear by one name.
_BOTH: Mapping[str, tuple[str, str]] = {}


class Projector(NamedTuple):
    """A tower of a file. Fields: name: type of its projector."""

    name: str
    family: Family
    said: Said


def towers_of(
    header: Header, where: str, text: Mapping[str, Any] | None = None, model: Mapping[str, Any] | None = None
) -> dict[bool, Projector]:
    """Whether it hears -> a tower, of each that a file holds. Args: text, model: see Said.

    Raises: ModelError for a file that is none of projectors, or says nonsense; UnsupportedModel naming a type that is
        not read.
    """
    settings = {key: _plain(value) for key, value in header.settings.items()}
    name = settings.get("general.architecture")
    if name != "clip":
        raise ModelError(
            f"{where}: general.architecture={short(name)}: it is a model, and no projector (clip); give the file whose "
            "name begins with mmproj"
        )
    whole = _within(settings, "clip.", where)
    found: dict[bool, Projector] = {}
    for part, hears in ((VISION, False), (AUDIO, True)):
        if not whole.flag(f"has_{part}_encoder", False):
            continue
        own = _within(settings, f"clip.{part}.", where)
        kind = whole.text("projector_type", "") or own.text("projector_type", "")
        kind = _BOTH.get(kind, (kind, kind))[hears]
        family = _family(kind, hears, where)
        entries = {each: entry for each, entry in header.entries.items() if _hears(each) == hears}
        found[hears] = Projector(kind, family, Said(own, whole, entries, where, text or {}, model or {}))
    if not found:
        raise ModelError(f"{where}: holds nothing that sees, and nothing that hears (clip.has_vision_encoder)")
    return found


def _hears(name: str) -> bool:
    """Whether a tensor is of the tower that does."""
    return name.startswith(("a.", "mm.a."))


def _family(kind: str, hears: bool, where: str) -> Family:
    known = HEARING if hears else SEEING
    if kind not in known:
        raise UnsupportedModel(
            f"{where}: a tower that {'hears' if hears else 'sees'} with clip.projector_type={short(kind)} is not read; "
            f"of these types they are: {', '.join(known) or 'none'}"
        )
    file, _, name = known[kind].partition(".")
    family = getattr(import_module(f"{__package__}.{file}"), name)
    assert isinstance(family, Family)
    return family


def _within(settings: Mapping[str, Any], prefix: str, where: str) -> Fields:
    """Settings that begin so, without what they begin with."""
    inner = {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}
    return Fields(inner, f"{where}: {prefix.removesuffix('.')}")


def _plain(value: Any) -> Any:
    """Arrays of numbers as lists."""
    return value.tolist() if isinstance(value, np.ndarray) else value
