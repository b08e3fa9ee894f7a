"""open_processor: what prepares the pictures of a model, by its model_type.

Called by the front doors. Needs no Pillow until a picture comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from albireo.errors import UnsupportedModel, short
from albireo.images.gemma3 import Gemma3
from albireo.images.gemma4 import Gemma4
from albireo.images.idefics3 import Idefics3
from albireo.images.internvl import InternVL
from albireo.images.lfm2_vl import Lfm2Vl
from albireo.images.llava import Llava
from albireo.images.mistral3 import Mistral3
from albireo.images.prepared import ImageProcessor, PreparedImage
from albireo.images.qwen2_vl import Qwen2VL
from albireo.images.settings import Settings, read_settings

__all__ = ["ImageProcessor", "PreparedImage", "open_processor"]

#: By model_type.
_FAMILIES: Mapping[str, Callable[[Settings], ImageProcessor]] = {
    "gemma3": Gemma3.read,
    "gemma4": Gemma4.read,
    "idefics3": Idefics3.read,
    "internvl": InternVL.read,
    "llava": Llava.read,
    "lfm2_vl": Lfm2Vl.read,
    # as it was first published
    "lfm2-vl": Lfm2Vl.read,
    "mistral3": Mistral3.read,
    "qwen2_5_vl": Qwen2VL.read,
    "qwen2_vl": Qwen2VL.read,
    "qwen3_5": Qwen2VL.read,
    "qwen3_5_moe": Qwen2VL.read,
    "qwen3_vl": Qwen2VL.read,
    "qwen3_vl_moe": Qwen2VL.read,
    "smolvlm": Idefics3.read,
}


def open_processor(directory: Path, config: Mapping[str, Any]) -> ImageProcessor:
    """What prepares pictures as a directory says; config is what its config.json holds.

    Raises: ModelError for missing or damaged files and for values that contradict config.json; UnsupportedModel for
    another model, and for settings that are not computed.
    """
    family = _FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise UnsupportedModel(
            f"{directory}: of model_type={short(config.get('model_type'))} no pictures are read; of these they are: "
            f"{', '.join(_FAMILIES)}"
        )
    return family(read_settings(directory, config))
