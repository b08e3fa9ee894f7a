"""SoundSettings: what the files of a model say of how its sounds are prepared, for the families.

Called by processor.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from albireo.json_file import Fields, keys, read_json
from albireo.sounds.features import PROCESSOR_FILE, WHISPER, LogMel, open_log_mel

#: Keys of pictures, which lie among those of sounds where one file has both.
OF_PICTURES = keys(
    "image_processor_type do_convert_rgb do_normalize do_rescale do_resize image_mean image_std max_pixels min_pixels",
    "merge_size patch_size temporal_patch_size resample rescale_factor size crop_size data_format image_seq_length",
    "dynamic_hd",
)
#: Frames that become a position of Whisper's encoder, and of those that have its convolutions.
STRIDE = 2


@dataclass(frozen=True, slots=True)
class SoundSettings:
    """Fields: sounds: of the file that says how sounds are prepared. tower: of audio_config."""

    directory: Path
    sounds: Fields
    tower: Fields

    @property
    def processor(self) -> Fields:
        """Of the processor's file, where there is one."""
        path = self.directory / PROCESSOR_FILE
        return Fields(read_json(path) if path.is_file() else {}, str(path))

    def log_mel(self, names: Sequence[str] = WHISPER, *, ignorable: Iterable[str] = ()) -> LogMel:
        """See open_log_mel(). Raises: also ModelError where the tower hears other bands."""
        found = open_log_mel(self.directory, names, frozenset(ignorable))
        bands = self.tower.integer("num_mel_bins", 1, 2**16, 128)
        if bands != found.num_mels:
            self.sounds.fail(
                "feature_size", found.num_mels, f"must be num_mel_bins={bands} of config.json: they are of two models"
            )
        return found

    def window(self, positions: str) -> LogMel:
        """log_mel() of a tower that hears one window at once. Args: positions: the tower's key for how many it has.

        Raises: also ModelError for a window of another length.
        """
        found, count = self.log_mel(), self.tower.integer(positions, 1, 2**16, 1500)
        if found.num_frames != STRIDE * count:
            self.sounds.fail(
                "chunk_length",
                found.seconds,
                f"makes {found.num_frames:,} frames, {positions}={count:,} of config.json hears {STRIDE * count:,}: "
                "they are of two models",
            )
        return found
