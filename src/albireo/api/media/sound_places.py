"""Sounds of a prompt, put in their places.

Called by media.py. What is made of them is albireo.sounds, where they come from albireo.media.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from albireo.api.media.places import Place, Standing
from albireo.config import EngineConfig
from albireo.image_input import GivenSound, MediaKind, Tile
from albireo.json_file import read_json
from albireo.media.medium import SOUND
from albireo.media.sources import MediaSources
from albireo.media_limits import MAX_SOUND_SECONDS
from albireo.models.settings.text_part import inner
from albireo.sounds.decode import as_sound
from albireo.sounds.features import F32
from albireo.sounds.prepared import HearsWithoutPictures
from albireo.sounds.processor import SoundProcessor, open_sound_processor
from albireo.sounds.resample import resampled


class SoundPlace(Place):
    """See Place."""

    kind: MediaKind = "sound"

    def __init__(
        self,
        processor: SoundProcessor,
        opened: Callable[[Any], Any],
        most: int | None = None,
        max_seconds: float = MAX_SOUND_SECONDS,
    ) -> None:
        """Args:
        opened: what a caller means by an address; the bytes of a sound, or its samples, stay as they are.
        most: sounds of a prompt; None: any number. max_seconds: of a file, before it is decoded.
        """
        super().__init__(processor.placeholder, processor.row_token, most)
        self.row_marks = processor.row_marks
        self.processor, self._opened, self._max_seconds = processor, opened, max_seconds
        self.without_pictures = processor.without_pictures if isinstance(processor, HearsWithoutPictures) else ""

    def standing(self, given: GivenSound) -> Standing:
        sound, processor = as_sound(self._opened(given.value), self._max_seconds), self.processor
        prepared = processor.prepare(resampled(sound.samples, sound.rate, processor.rate))
        tiles = tuple(self._tile(tile) for tile in prepared.tiles)
        return Standing(prepared.text, tiles, is_beside=prepared.is_beside)

    def _tile(self, heard: F32) -> Tile:
        frames, bands = heard.shape
        return Tile(frames, bands, heard.tobytes(), self.processor.rows(frames, bands))


def open_sound_place(
    config: EngineConfig, config_directory: Path, max_model_len: int, max_seconds: float
) -> SoundPlace:
    """What hears the sounds of a model that is loaded. Args: max_seconds: of a sound; of the context there may be room
    for less."""
    processor = open_sound_processor(config_directory, inner(read_json(config_directory / "config.json")))
    folder = config.allowed_local_media_path
    sources = MediaSources(SOUND, None if folder is None else Path(folder), config.allowed_media_domains)
    max_seconds = min(max_seconds, max_model_len / processor.rows_per_s)
    return SoundPlace(processor, sources.opened, config.limit_mm_per_prompt.audio, max_seconds)
