"""What reads that in prompts which is no text: pictures and videos, or sounds.

Called by whoever makes an Admission. What a kind takes is imported where a model reads it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from albireo.api.media.places import Place, Places
from albireo.config import EngineConfig
from albireo.engine.settings import EngineSettings
from albireo.media_limits import MAX_SOUND_SECONDS
from albireo.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from albireo.api.media.sounds import SoundReader

    MediaReader = Places | SoundReader

_LOG = logging.getLogger(__name__)


def open_reader(
    config: EngineConfig,
    config_directory: Path,
    settings: EngineSettings,
    tokenizer: Tokenizer | None,
    max_audio_seconds: float = MAX_SOUND_SECONDS,
) -> MediaReader | None:
    """Of a model that is loaded; None where its prompts are text. Places need a tokenizer, a sound in front none. What
    the tokenizer has no tokens for is told in a warning, and text is served all the same.

    Args: max_audio_seconds: of a file of sound.
    Raises: ModelError for files that say nonsense.
    """
    if settings.sound_positions:
        from albireo.api.media.sounds import open_sound_reader

        return open_sound_reader(config_directory, config.limit_mm_per_prompt.audio, max_audio_seconds)
    if tokenizer is None:
        return None
    kinds: list[Place] = []
    if not settings.image_problem:
        from albireo.api.media.images import open_image_place

        kinds.append(open_image_place(config, config_directory))
    if not settings.video_problem:
        from albireo.api.media.video_places import open_video_place

        kinds.append(open_video_place(config, config_directory, settings.max_model_len))
    if not settings.sound_problem:
        from albireo.api.media.sound_places import open_sound_place

        kinds.append(open_sound_place(config, config_directory, settings.max_model_len, max_audio_seconds))
    if not kinds:
        return None
    if settings.pooling_rule.is_of_pictures:
        from albireo.api.media.images import PictureAlone

        return PictureAlone(tokenizer, *kinds)
    places = Places(tokenizer, *kinds)
    for kind, problem in places.problems.items():
        _LOG.warning("%s: %ss are not read: %s", config_directory, kind, problem)
    return places
