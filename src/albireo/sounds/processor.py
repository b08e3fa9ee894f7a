"""open_sound_processor: what prepares the sounds of a model, by its model_type.

Called by the front doors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from albireo.errors import UnsupportedModel, short
from albireo.json_file import Fields
from albireo.sounds.features import log_mel_fields
from albireo.sounds.glmasr import GlmAsr
from albireo.sounds.prepared import PreparedSound, SoundProcessor
from albireo.sounds.qwen2_audio import Qwen2Audio
from albireo.sounds.qwen3_asr import Qwen3Asr
from albireo.sounds.settings import SoundSettings
from albireo.sounds.voxtral import Voxtral

__all__ = ["PreparedSound", "SoundProcessor", "open_sound_processor"]

#: By model_type.
_FAMILIES: Mapping[str, Callable[[SoundSettings], SoundProcessor]] = {
    "glmasr": GlmAsr.read,
    "qwen2_audio": Qwen2Audio.read,
    "qwen3_asr": Qwen3Asr.read,
    "voxtral": Voxtral.read,
}


def open_sound_processor(directory: Path, config: Mapping[str, Any]) -> SoundProcessor:
    """What prepares sounds as a directory says; config is what its config.json holds, of the whole that hears.

    Raises: ModelError for missing or damaged files and for values that contradict config.json; UnsupportedModel for
    another model, and for settings that are not computed.
    """
    family = _FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise UnsupportedModel(
            f"{directory}: of model_type={short(config.get('model_type'))} no sounds are heard; of these they are: "
            f"{', '.join(_FAMILIES)}"
        )
    model = Fields(config, str(directory / "config.json"))
    tower = Fields(model.table("audio_config") or {}, f"{model.where}: audio_config")
    return family(SoundSettings(directory, log_mel_fields(directory), tower))
