"""Settings: what the files of a model directory say of pictures, and what all families read of it.

Called by processor.py and the families. A key is honoured, or changes nothing, or is refused by name; an absent one
means what transformers' class of the family has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import ModelError
from albireo.images.pixels import Pixels, scaled_first
from albireo.json_file import Fields, keys, read_json

PROCESSOR_FILE, IMAGE_FILE = "processor_config.json", "preprocessor_config.json"
#: Far above any: a side in pixels; what divides a side; a number of rows of the tower.
MAX_SIDE, MAX_STEP, MAX_ROWS = 2**14, 2**10, 2**16
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
#: Filters as Pillow numbers them, 0 to _MAX_FILTER.
LANCZOS, BILINEAR, BICUBIC, _MAX_FILTER = 1, 2, 3, 5

#: Of the processor: who it is, and parts that are read elsewhere or not at all.
_OTHER_PARTS = keys("processor_class auto_map image_processor video_processor tokenizer_class chat_template")
#: Of the image processor: who it is, what it is given, and how several pictures become one array.
_IGNORABLE = keys(
    "processor_class auto_map do_convert_rgb input_data_format _valid_processor_keys model_input_names",
    "do_pad pad_size data_format return_tensors disable_grouping device return_row_col_info",
    # of sizes that are one number, and of a crop that is not made
    "default_to_square crop_size",
)
#: Of sounds, whose keys lie among those of pictures where one file has both.
OF_SOUNDS = keys(
    "feature_extractor_type feature_size sampling_rate chunk_length hop_length n_fft n_samples nb_max_frames",
    "padding_side padding_value return_attention_mask dither",
)
#: What is done to every picture.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {"do_resize": (True,), "do_rescale": (True,), "do_normalize": (True,)}
#: What names of classes end with, by the library that they resize with.
_ENDINGS = ("Fast", "Pil")


@dataclass(frozen=True, slots=True)
class Settings:
    """Fields: of the processor, of its image processor, of the model, and of the model's vision tower."""

    processor: Fields
    image: Fields
    model: Fields
    tower: Fields

    def pixels(
        self,
        classes: Iterable[str],
        filter: int,
        mean: Sequence[float],
        std: Sequence[float],
        table: Callable[[float, Sequence[float], Sequence[float]], NDArray[np.float32]] = scaled_first,
        type_key: str = "image_processor_type",
    ) -> Pixels:
        """How pictures are resized and what becomes of colours; the arguments are what absent keys mean.

        Args: classes: what type_key may be.
        Raises: ModelError for a bad value; UnsupportedModel for another class.
        """
        image = self.image
        given = image.text(type_key, next(iter(classes)))
        name = given
        for ending in _ENDINGS:
            name = name.removesuffix(ending)
        if name not in classes:
            image.unsupported(type_key, given, f"for this model: {', '.join(classes)}")
        mean, std = self._of_channels("image_mean", -1e3, mean), self._of_channels("image_std", 1e-6, std)
        factor = image.number("rescale_factor", 1e-6, 1.0, 1 / 255)
        return Pixels(image.integer("resample", 0, _MAX_FILTER, filter), table(factor, mean, std))

    def size(self, *names: str, default: int, key: str = "size") -> tuple[int, ...]:
        """Numbers of pixels that a table has by these names, and no others; where it is absent, all are default.

        Raises: ModelError for another value; UnsupportedModel for other names.
        """
        table = self.image.table(key)
        size = Fields(dict.fromkeys(names, default) if table is None else table, f"{self.image.where}: {key}")
        found = tuple(size.integer(name, 1, MAX_SIDE) for name in names)
        size.refuse_unread((), {})
        return found

    def square(self, default: int) -> int:
        """A tile's side. Raises: as size(); UnsupportedModel for a tile that is no square."""
        high, wide = self.size("height", "width", default=default)
        if high != wide:
            self.image.unsupported("size", self.image.raw("size"), "tiles are squares")
        return high

    def require_agreement(self, fields: Fields, key: str, value: int, of_model: Fields, model_key: str) -> None:
        """Raises: ModelError when config.json says another number than value, which fields says or means."""
        stated = of_model.optional_integer(model_key, 1, 2**31)
        if stated not in (None, value):
            raise ModelError(
                f"{fields.where}: {key} is {value}, but {of_model.where} has {model_key}={stated}; both must be of one "
                "checkpoint"
            )

    def require_rows(self, fields: Fields, key: str, default: int, num_rows: int, side: int) -> None:
        """Raises: ModelError when fields say another number of rows than the tower gives of a square tile.

        Args: default: what an absent key means. side: of the tile."""
        said = fields.integer(key, 1, MAX_ROWS, default)
        if said != num_rows:
            raise ModelError(
                f"{fields.where}: {key} is {said}, but of a tile of {side} x {side} pixels the tower of config.json "
                f"gives {num_rows} rows; both must be of one checkpoint"
            )

    def refuse_unread(
        self, ignorable: Iterable[str] = (), neutral: Mapping[str, tuple[Any, ...]] | None = None
    ) -> None:
        """Raises: UnsupportedModel naming keys that are not supported; ignorable and neutral are the family's own."""
        self.processor.refuse_unread(_OTHER_PARTS.union(ignorable), neutral or {})
        self.image.refuse_unread(_IGNORABLE.union(ignorable), {**_NEUTRAL, **(neutral or {})})

    def _of_channels(self, key: str, low: float, default: Sequence[float]) -> Sequence[float]:
        if self.image.raw(key) is None:
            return default
        given = self.image.numbers(key, low, 1e3)
        if len(given) != 3:
            self.image.fail(key, list(given), "must have one number a channel, which are 3")
        return given


def read_settings(directory: Path, config: Mapping[str, Any]) -> Settings:
    """What the files of a directory say; config is what its config.json holds.

    Raises: ModelError for damaged files, and where none says how pictures are prepared.
    """
    path, image_path = directory / PROCESSOR_FILE, directory / IMAGE_FILE
    processor = Fields(read_json(path) if path.exists() else {}, str(path))
    image = processor.table("image_processor")
    if image is not None:
        image_path = path
    elif image_path.exists():
        image = read_json(image_path)
    elif processor.has("image_mean"):
        # one file for both, as of DeepSeek-OCR
        image, image_path, processor = read_json(path), path, Fields({}, str(path))
    else:
        raise ModelError(
            f"{directory}: has no {IMAGE_FILE}, and no {PROCESSOR_FILE} with an image_processor; how pictures are "
            "prepared is not known: copy the files from where the checkpoint is from"
        )
    model = Fields(config, str(directory / "config.json"))
    tower = Fields(model.table("vision_config") or {}, f"{model.where}: vision_config")
    return Settings(processor, Fields(image, str(image_path)), model, tower)
