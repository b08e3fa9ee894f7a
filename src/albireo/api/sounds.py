"""The sound of a prompt -> what stands for it in front of the text, and what the encoder hears.

Called by admission.py. How sounds are read, and what is made of them, is albireo.sounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from albireo.errors import InvalidParams, ModelError
from albireo.image_input import GivenSound, ImageInput, Tile, key_of
from albireo.json_file import read_json
from albireo.media_limits import MAX_SOUND_SECONDS
from albireo.models import load_config
from albireo.models.vision.tower import listens
from albireo.sounds.decode import as_sound
from albireo.sounds.features import LogMel, open_log_mel
from albireo.sounds.resample import resampled

#: A prompt with its sound in front.
Heard = tuple[list[int], tuple[ImageInput, ...]]


class SoundReader:
    """Puts sounds in front of prompts. Threads may share it."""

    def __init__(
        self,
        directory: Path,
        spectra: LogMel,
        num_positions: int,
        num_text_positions: int,
        start: int,
        most: int | None = None,
        max_seconds: float = MAX_SOUND_SECONDS,
    ) -> None:
        """Args:
        directory: of the model's files.
        num_positions: of a sequence that stand for its sound. num_text_positions: that are left.
        start: the id that an output begins behind, which stands for the sound, too: it is never written.
        most: sounds of a prompt; None: any number. max_seconds: of a file, before it is decoded.
        """
        self.directory, self.spectra = directory, spectra
        self.num_positions, self.num_text_positions = num_positions, num_text_positions
        self._start, self._most, self._max_seconds = start, most, max_seconds

    def placed(self, token_ids: Sequence[int], sounds: Sequence[GivenSound]) -> Heard:
        """The prompt behind its sound; one without tokens is what outputs begin behind.

        Raises: InvalidParams when there is not one sound, it cannot be read, or it is too long to be heard at once.
        """
        if self._most is not None and len(sounds) > self._most:
            raise InvalidParams(
                f"the prompt has {len(sounds)} sounds; limit_mm_per_prompt allows {self._most}; raise it"
            )
        if len(sounds) != 1:
            raise InvalidParams(
                f"the prompt has {len(sounds)} sounds, and this model writes down what it hears in one: give it as "
                'multi_modal_data={"audio": (samples, rate)}'
            )
        tile = self._heard(sounds[0])
        spans = ((0, self.num_positions),)
        ids = [self._start] * self.num_positions + (list(token_ids) or [self._start])
        return ids, (ImageInput(key_of([tile]), (tile,), spans, kind="sound"),)

    def _heard(self, given: GivenSound) -> Tile:
        spectra, sound = self.spectra, as_sound(given.value, self._max_seconds)
        if sound.seconds > spectra.seconds:
            raise InvalidParams(
                f"the sound takes {sound.seconds:.2f} s, and this model hears {spectra.seconds:g} s at a time; cut it, "
                "or transcribe it, which does so"
            )
        samples = resampled(sound.samples, sound.rate, spectra.rate)
        frames = spectra.features(samples[: spectra.num_samples])
        return Tile(spectra.num_frames, spectra.num_mels, frames.tobytes(), self.num_positions)


def open_sound_reader(config_directory: Path, most: int | None, max_seconds: float) -> SoundReader | None:
    """What reads the sounds of a model that is loaded; None where it hears none. Args: see SoundReader.

    Raises: ModelError.
    """
    path = config_directory / "config.json"
    data = read_json(path) if path.is_file() else {}
    if not listens(data):
        return None
    start = data.get("decoder_start_token_id")
    config = load_config(config_directory, "float32")
    if type(start) is not int or not 0 <= start < config.vocab_size:
        raise ModelError(f"{path}: decoder_start_token_id={start} must be a token of {config.vocab_size}")
    heard = config.blocks.sound_positions
    left = config.max_position_embeddings - heard
    return SoundReader(config_directory, open_log_mel(config_directory), heard, left, start, most, max_seconds)
