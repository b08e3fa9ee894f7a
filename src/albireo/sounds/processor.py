"""open_sound_processor: what prepares the sounds of a model, by its model_type.

Called by the front doors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from albireo.errors import UnsupportedModel, short
from albireo.json_file import Fields
from albireo.sounds.features import log_mel_fields
from albireo.sounds.prepared import PreparedSound, SoundProcessor
from albireo.sounds.settings import SoundSettings

__all__ = ["PreparedSound", "SoundProcessor", "open_sound_processor"]

#: By model_type: the file that is imported where such a model is opened, and the class in it that reads settings.
_FAMILIES: Mapping[str, str] = {
    "audioflamingo3": "audioflamingo3.AudioFlamingo3",
    "fun_asr_nano": "fun_asr_nano.FunAsrNano",
    "gemma3n": "gemma3n.Gemma3n",
    "gemma4": "gemma4.Gemma4",
    "gemma4_unified": "gemma4.Gemma4Unified",
    "granite_speech": "granite_speech.GraniteSpeech",
    "granite_speech_plus": "granite_speech.GraniteSpeech",
    "glmasr": "glmasr.GlmAsr",
    "musicflamingo": "musicflamingo.MusicFlamingo",
    "phi4_multimodal": "phi4_multimodal.Phi4Multimodal",
    "qwen2_5_omni": "qwen2_5_omni.Qwen25Omni",
    "qwen2_audio": "qwen2_audio.Qwen2Audio",
    "qwen3_asr": "qwen3_asr.Qwen3Asr",
    "qwen3_omni_moe": "qwen3_asr.Qwen3Omni",
    "voxtral": "voxtral.Voxtral",
    "voxtral_realtime": "voxtral_realtime.VoxtralRealtime",
}


def open_sound_processor(directory: Path, config: Mapping[str, Any]) -> SoundProcessor:
    """What prepares sounds as a directory says; config is what its config.json holds, of the whole that hears.

    Raises: ModelError for missing or damaged files and for values that contradict config.json; UnsupportedModel for
    another model, and for settings that are not computed.
    """
    place = _FAMILIES.get(str(config.get("model_type")))
    if place is None:
        raise UnsupportedModel(
            f"{directory}: of model_type={short(config.get('model_type'))} no sounds are heard; of these they are: "
            f"{', '.join(_FAMILIES)}"
        )
    model = Fields(config, str(directory / "config.json"))
    part = next((key for key in ("audio_config", "encoder_config") if model.table(key)), "audio_config")
    tower = Fields(model.table(part) or {}, f"{model.where}: {part}")
    file, _, name = place.partition(".")
    read: Callable[[SoundSettings], SoundProcessor] = getattr(import_module(f"{__package__}.{file}"), name).read
    return read(SoundSettings(directory, log_mel_fields(directory), tower))
