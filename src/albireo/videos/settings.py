"""What the files of a model directory say of videos, as settings of images that a family reads.

Called by processor.py. A key is honoured, or changes nothing, or is refused by name; an absent one means what
transformers' class of the family has. Where nothing is said of videos, colours and patches are those of pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import ModelError
from albireo.images.pixels import Pixels, array
from albireo.images.settings import BICUBIC, IMAGE_FILE, MAX_STEP, PROCESSOR_FILE, Settings
from albireo.json_file import Fields, keys, read_json

if TYPE_CHECKING:
    from PIL import Image

VIDEO_FILE = "video_preprocessor_config.json"
MAX_FRAMES = 2**16
#: Frames of a video where no file says how many: as vLLM reads of any.
USUAL_FRAMES = 32
#: What becomes of colours.
_COLOURS = ("image_mean", "image_std", "rescale_factor")
#: Far above any video.
_MAX_PIXELS = 2**40
#: Of the pictures' settings what is true of frames, too; and of SmolVLM what is said of videos there.
_SHARED = (
    *("image_mean", "image_std", "rescale_factor", "resample", "patch_size", "merge_size", "temporal_patch_size"),
    *("max_image_size", "video_sampling"),
)
#: By which a file of pictures says how large frames are, too.
_SAYS_SIZE = "video_sampling"
#: What changes nothing: who it is, what is done always, and how frames become one array.
_IGNORABLE = keys(
    "processor_class auto_map do_convert_rgb data_format input_data_format return_tensors return_metadata device",
    "do_sample_frames default_to_square crop_size do_pad pad_size max_image_size use_token_compression",
)
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {"do_resize": (True,), "do_rescale": (True,), "do_normalize": (True,)}


@dataclass(frozen=True, slots=True, eq=False)
class VideoSettings:
    """What families read alike.

    Fields:
        pixels: of frames. patch: side of what the tower begins with. merge: that many patches in either direction
            become a row. frames: that the tower reads at once.
        fewest, most: pixels, of what is the family's. max_tokens: see the family; None: there is no such bound.
        fps: frames a second that are read, between fewest_frames and most_frames of them.
    """

    pixels: Pixels
    patch: int
    merge: int
    frames: int
    fewest: int
    most: int
    fps: float
    fewest_frames: int
    most_frames: int
    max_tokens: int | None

    @property
    def step(self) -> int:
        """Pixels on a side of what becomes a row."""
        return self.patch * self.merge

    def rows(self, height: int, width: int) -> tuple[int, int]:
        """Lines and columns that a tile's rows are."""
        return height // self.step, width // self.step

    def num_rows(self, num_frames: int, height: int, width: int) -> int:
        """Of so many frames of a size."""
        lines, columns = self.rows(height, width)
        return -(-num_frames // self.frames) * lines * columns

    def tiles(self, images: Sequence[Image.Image], height: int, width: int) -> tuple[NDArray[np.uint8], ...]:
        """Of frames one behind another, of which the last is there again where they are too few."""
        shown = [array(self.pixels.resized(image, height, width)) for image in images]
        shown += shown[-1:] * (-len(shown) % self.frames)
        cuts = range(0, len(shown), self.frames)
        return tuple(np.concatenate(shown[first : first + self.frames], axis=2) for first in cuts)


class HasSettings:
    """Of a processor whose settings say how many rows there are, and what becomes of colours."""

    __slots__ = ()
    settings: VideoSettings

    def num_rows(self, num_frames: int, height: int, width: int) -> int:
        return self.settings.num_rows(num_frames, height, width)

    def normalized(self, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.settings.pixels.normalized(tile)


def read_video_settings(directory: Path, config: Mapping[str, Any]) -> Settings:
    """The files of a directory; .image of them is what is said of videos. Raises: ModelError for damaged ones."""
    path, processor_path = directory / VIDEO_FILE, directory / PROCESSOR_FILE
    processor = Fields(read_json(processor_path) if processor_path.exists() else {}, str(processor_path))
    said = processor.table("video_processor")
    where = str(processor_path)
    if said is None and path.exists():
        said, where = read_json(path), str(path)
    if said is None:
        pictures, where = processor.table("image_processor"), str(directory / IMAGE_FILE)
        if pictures is None and Path(where).exists():
            pictures = read_json(Path(where))
        shared = (*_SHARED, "size") if _SAYS_SIZE in (pictures or {}) else _SHARED
        said = {key: value for key, value in (pictures or {}).items() if key in shared}
    model = Fields(config, str(directory / "config.json"))
    tower = Fields(model.table("vision_config") or {}, f"{model.where}: vision_config")
    return Settings(processor, Fields(said, where), model, tower)


def parse_video_settings(
    settings: Settings,
    kind: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    defaults: Mapping[str, int],
    ignorable: Iterable[str] = (),
) -> VideoSettings:
    """Args: kind: what video_processor_type may be. defaults: of patch_size, shortest_edge, longest_edge,
    max_video_tokens. ignorable: the family's own keys.

    Raises: ModelError, UnsupportedModel.
    """
    said, tower = settings.image, settings.tower
    edges = ("shortest_edge", "longest_edge")
    max_tokens = said.integer("max_video_tokens", 1, _MAX_PIXELS, defaults["max_video_tokens"])
    size = Fields(said.table("size") or {name: defaults[name] for name in edges}, f"{said.where}: size")
    found = VideoSettings(
        settings.pixels((kind,), BICUBIC, mean, std, type_key="video_processor_type"),
        patch=said.integer("patch_size", 1, MAX_STEP, defaults["patch_size"]),
        merge=said.integer("merge_size", 1, MAX_STEP, 2),
        # one would be a picture
        frames=said.integer("temporal_patch_size", 2, MAX_STEP, 2),
        fewest=said.optional_integer("min_pixels", 1, _MAX_PIXELS) or size.integer(edges[0], 1, _MAX_PIXELS),
        most=said.optional_integer("max_pixels", 1, _MAX_PIXELS) or size.integer(edges[1], 1, _MAX_PIXELS),
        fps=said.optional_number("fps", 1e-3, 1e3) or 2.0,
        fewest_frames=said.integer("min_frames", 1, MAX_FRAMES, 4),
        most_frames=said.integer("max_frames", 1, MAX_FRAMES, 768),
        max_tokens=max_tokens if said.flag("cap_pixels_per_frame", True) else None,
    )
    if found.most_frames < max(found.frames, found.fewest_frames):
        raise ModelError(f"{said.where}: max_frames={found.most_frames} is less than are read at least")
    settings.require_agreement(said, "patch_size", found.patch, tower, "patch_size")
    settings.require_agreement(said, "merge_size", found.merge, tower, "spatial_merge_size")
    settings.require_agreement(said, "temporal_patch_size", found.frames, tower, "temporal_patch_size")
    size.refuse_unread(edges, {})
    refuse_unread(said, ignorable)
    return found


def check_colours(settings: Settings) -> None:
    """Raises: UnsupportedModel where frames have not the colours of pictures, which nothing tells apart behind here."""
    path = Path(settings.model.where).parent / IMAGE_FILE
    pictures: Any = settings.processor.table("image_processor")
    if pictures is None and path.exists():
        pictures = read_json(path)
    for key in _COLOURS:
        of_frames, of_pictures = settings.image.raw(key), (pictures or {}).get(key)
        if of_frames != of_pictures:
            settings.image.unsupported(key, of_frames, f"as of pictures, which have {of_pictures}")


def refuse_unread(said: Fields, ignorable: Iterable[str], neutral: Mapping[str, tuple[Any, ...]] | None = None) -> None:
    """Raises: UnsupportedModel naming keys that are not supported; ignorable and neutral are the family's own."""
    said.refuse_unread(_IGNORABLE.union(ignorable), {**_NEUTRAL, **(neutral or {})})
