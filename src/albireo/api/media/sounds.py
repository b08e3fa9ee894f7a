"""The sound of a prompt -> what stands for it in front of the text, and what the encoder hears.

Opened by media.py, called by admission.py. How sounds are read, and what is made of them, is albireo.sounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from albireo.errors import InvalidParams, ModelError
from albireo.frame_marks import FrameMarks
from albireo.image_input import GivenSound, ImageInput, Tile, key_of
from albireo.json_file import Fields, read_json
from albireo.media_limits import MAX_SOUND_SECONDS
from albireo.models import load_config
from albireo.models.speech import STREAMING_TYPES
from albireo.models.vision.tower import listens
from albireo.sounds.decode import as_sound
from albireo.sounds.features import LogMel, open_log_mel
from albireo.sounds.resample import resampled

if TYPE_CHECKING:
    from albireo.sounds.bert_mel import BertMel
    from albireo.sounds.lasr import LasrMel
    from albireo.sounds.nemo import NemoMel
    from albireo.sounds.waves import Waves

    Heard = LogMel | NemoMel | Waves | LasrMel | BertMel

#: Of Nemotron 3.5 ASR, where its processor says nothing: the numbers of languages.
LANGUAGES: Mapping[str, int] = {
    **{"en": 0, "es": 3, "zh": 4, "hi": 6, "ar": 7, "fr": 8, "de": 9, "ja": 10, "ru": 11, "pt": 13, "ko": 14, "it": 15},
    **{"nl": 16, "pl": 17, "tr": 18, "uk": 19, "ro": 20, "el": 21, "cs": 22, "hu": 23, "sv": 24, "da": 25, "fi": 26},
    **{"no": 27, "sk": 28, "hr": 29, "bg": 30, "lt": 31, "th": 32, "vi": 33, "he": 64, "et": 60, "lv": 61, "sl": 62},
}
#: A prompt with its sound in front.
Behind = tuple[list[int], tuple[ImageInput, ...]]


class SoundReader:
    """Puts sounds in front of prompts. Threads may share it."""

    def __init__(
        self,
        directory: Path,
        sounds: Heard,
        num_positions: int,
        num_text_positions: int,
        start: int,
        most: int | None = None,
        max_seconds: float = MAX_SOUND_SECONDS,
        marks: FrameMarks | None = None,
        model_type: str = "",
        untold: int | None = None,
    ) -> None:
        """Args:
        directory: of the model's files.
        num_positions: of a sequence that stand for its sound. num_text_positions: that are left.
        start: the id that an output begins behind, which stands for the sound, too: it is never written.
        most: sounds of a prompt; None: any number. max_seconds: of a file, before it is decoded.
        marks: of what frames say; None: no frames do. untold: what stands behind the bands of a sound where nobody told
            anything of it; None: nothing does.
        """
        self.directory, self.sounds, self.start = directory, sounds, start
        self.num_positions, self.num_text_positions = num_positions, num_text_positions
        self._most, self._max_seconds = most, max_seconds
        self.marks, self.model_type, self.untold = marks, model_type, untold

    @property
    def frame_s(self) -> float:
        """Seconds from one frame to the next, where frames say what is written."""
        from albireo.models.blocks.ctc_of_samples import FRAME
        from albireo.sounds.lasr import LasrMel
        from albireo.sounds.nemo import NemoMel

        if isinstance(self.sounds, LasrMel):
            return 4 * self.sounds.hop / self.sounds.rate
        if isinstance(self.sounds, NemoMel):
            return 8 * self.sounds.hop / self.sounds.rate
        return FRAME / self.sounds.rate

    def placed(self, token_ids: Sequence[int], sounds: Sequence[GivenSound]) -> Behind:
        """The prompt behind its sound; one without tokens is what outputs begin behind.

        Raises: InvalidParams when there is not one sound, it cannot be read, or it is too long to be heard at once.
        """
        if self._most is not None and len(sounds) > self._most:
            raise InvalidParams(
                f"the prompt has {len(sounds)} sounds; limit_mm_per_prompt allows {self._most}; raise it"
            )
        if len(sounds) != 1:
            raise InvalidParams(
                f"the prompt has {len(sounds)} sounds, and this model writes down what it hears in one: have "
                "it transcribed (albireo transcribe, LLM.transcribe), or give it as "
                'multi_modal_data={"audio": (samples, rate)}'
            )
        tile = self._heard(sounds[0])
        spans = ((0, self.num_positions),)
        ids = [self.start] * self.num_positions + (list(token_ids) or [self.start])
        return ids, (ImageInput(key_of([tile]), (tile,), spans, kind="sound"),)

    def _heard(self, given: GivenSound) -> Tile:
        heard, sound = self.sounds, as_sound(given.value, self._max_seconds)
        if sound.seconds > heard.seconds:
            raise InvalidParams(
                f"the sound takes {sound.seconds:.2f} s, and this model hears {heard.seconds:g} s at a time; cut it, "
                "or transcribe it, which does so"
            )
        samples = resampled(sound.samples, sound.rate, heard.rate)
        frames = heard.features(samples[: heard.num_samples])
        if self.untold is not None:
            told = self.untold if given.told is None else given.told
            frames = np.pad(frames, ((0, 0), (0, 1)), constant_values=told)
        count, width = frames.shape
        return Tile(count, width, frames.tobytes(), self.num_positions)


def open_sound_reader(config_directory: Path, most: int | None, max_seconds: float) -> SoundReader | None:
    """What reads the sounds of a model that is loaded; None where it hears none. Args: see SoundReader.

    Raises: ModelError.
    """
    path = config_directory / "config.json"
    data = read_json(path) if path.is_file() else {}
    if not listens(data):
        return None
    config = load_config(config_directory, "float32")
    start = data.get("decoder_start_token_id")
    start = data.get("bos_token_id") if start is None else start
    if config.marks is not None:
        # it stands for the sound; a blank is never written
        start = 0
    if type(start) is not int or not 0 <= start < config.vocab_size:
        raise ModelError(f"{path}: decoder_start_token_id={start} must be a token of {config.vocab_size}")
    heard = config.blocks.sound_positions
    left = config.max_position_embeddings - heard
    sounds: Heard
    if data["model_type"] == "moonshine":
        sounds = moonshine_waves(config_directory)
    elif data["model_type"] == "cohere_asr":
        sounds = cohere_mel(config_directory, data)
    elif data["model_type"] == "canary":
        sounds = parakeet_mel(config_directory, data, 128)
    elif data["model_type"].startswith("parakeet_") or data["model_type"] in STREAMING_TYPES:
        sounds = parakeet_mel(config_directory, data)
    elif data["model_type"] == "lasr_ctc":
        sounds = lasr_mel(config_directory, data)
    elif data["model_type"] == "wav2vec2-bert":
        sounds = bert_mel(config_directory, data)
    elif config.marks is not None:
        sounds = normed_waves(config_directory, config.model_type)
    else:
        sounds = open_log_mel(config_directory)
    return SoundReader(
        config_directory,
        sounds,
        heard,
        left,
        start,
        most,
        max_seconds,
        config.marks,
        config.model_type,
        _untold(data, path),
    )


def moonshine_waves(directory: Path) -> Waves:
    """What Moonshine hears of sounds. Raises: ModelError; UnsupportedModel."""
    from albireo.models.speech.moonshine import FEWEST, RATE, SECONDS
    from albireo.sounds.waves import open_waves

    return open_waves(directory, RATE, SECONDS, FEWEST)


def cohere_mel(directory: Path, data: Mapping[str, Any]) -> NemoMel:
    """What Cohere Transcribe hears of sounds. Raises: ModelError; UnsupportedModel."""
    from albireo.models.speech.cohere_asr import SECONDS
    from albireo.sounds.nemo import open_nemo_mel

    encoder = Fields(Fields(data, str(directory / "config.json")).table("encoder_config") or {}, "encoder_config")
    return open_nemo_mel(directory, encoder.integer("num_mel_bins", 1, 2**16, 128), SECONDS)


def parakeet_mel(directory: Path, data: Mapping[str, Any], bands: int = 80) -> NemoMel:
    """What Parakeet and Canary hear of sounds. Args: bands: where encoder_config does not say.

    Raises: ModelError; UnsupportedModel.
    """
    from albireo.models.blocks.frame_heads import SECONDS
    from albireo.sounds.nemo import PARAKEET, STREAMING, open_nemo_mel

    encoder = Fields(Fields(data, str(directory / "config.json")).table("encoder_config") or {}, "encoder_config")
    extractor = STREAMING if data["model_type"] in STREAMING_TYPES else PARAKEET
    return open_nemo_mel(directory, encoder.integer("num_mel_bins", 1, 2**16, bands), SECONDS, extractor)


def normed_waves(directory: Path, model_type: str) -> Waves:
    """What wav2vec 2.0, and what is made as it, hear of sounds. Raises: ModelError; UnsupportedModel."""
    from albireo.models.blocks.ctc_of_samples import FEWEST, RATE, SECONDS
    from albireo.sounds.waves import OMNI, WAV2VEC2, open_waves

    extractor = OMNI if model_type == "omniasr_ctc" else WAV2VEC2
    return open_waves(directory, RATE, SECONDS, FEWEST, extractor, can_norm=True)


def bert_mel(directory: Path, data: Mapping[str, Any]) -> BertMel:
    """What W2v-BERT 2.0 hears of sounds. Raises: ModelError; UnsupportedModel."""
    from albireo.models.speech.wav2vec2_bert import SECONDS
    from albireo.sounds.bert_mel import open_bert_mel

    fields = Fields(data, str(directory / "config.json"))
    return open_bert_mel(directory, fields.integer("feature_projection_input_dim", 1, 2**16, 160), SECONDS)


def lasr_mel(directory: Path, data: Mapping[str, Any]) -> LasrMel:
    """What LASR hears of sounds. Raises: ModelError; UnsupportedModel."""
    from albireo.models.speech.lasr_ctc import FEWEST, SECONDS
    from albireo.sounds.lasr import open_lasr_mel

    encoder = Fields(Fields(data, str(directory / "config.json")).table("encoder_config") or {}, "encoder_config")
    return open_lasr_mel(directory, encoder.integer("num_mel_bins", 1, 2**16, 128), SECONDS, FEWEST)


def _untold(data: Mapping[str, Any], path: Path) -> int | None:
    """Of Nemotron 3.5 ASR the number by which it finds out itself which language is spoken. Raises: ModelError."""
    if data["model_type"] != "nemotron3_5_asr":
        return None
    fields = Fields(data, str(path))
    return fields.integer("default_prompt_id", 0, fields.integer("num_prompts", 1, 2**16, 128) - 1, 101)


def told_languages(directory: Path) -> dict[str, int]:
    """Of Nemotron 3.5 ASR the number of each language, by its code: of its processor, or where that says none, those
    that it was published with. Raises: ModelError for what is no number of them."""
    count = Fields(read_json(directory / "config.json"), "config.json").integer("num_prompts", 1, 2**16, 128)
    path = directory / "processor_config.json"
    table = Fields(read_json(path), str(path)).table("prompt_dictionary") if path.is_file() else None
    if table is None:
        return {code: number for code, number in LANGUAGES.items() if number < count}
    found = dict[str, int]()
    for name, number in table.items():
        if type(number) is not int or not 0 <= number < count:
            raise ModelError(f"{path}: prompt_dictionary has {name!r} as {number!r}; it must be a number below {count}")
        code = name.split("-")[0]
        # a code without a region goes before those with one, of which the first
        if 2 <= len(code) <= 3 and (name == code or code not in found):
            found[code] = number
    return found
