"""Pictures of a prompt -> what stands for them in it, and what the vision tower reads.

Called by admission.py. Where pictures come from, and how they are cut, is albireo.images; where a prompt has places for
them is its token ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from albireo.config import EngineConfig
from albireo.engine.settings import EngineSettings
from albireo.errors import InvalidParams
from albireo.image_input import GivenImage, ImageInput, Tile, key_of
from albireo.images.decode import as_image
from albireo.images.processor import ImageProcessor, open_processor
from albireo.images.sources import UrlFetcher, read_base64, read_data_url, read_local
from albireo.json_file import read_json
from albireo.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from PIL import Image

#: Pixels on the longer side of a picture of which few will do, as OpenAI has it.
SMALL_SIDE = 512
#: Seconds that a host has for a picture.
FETCH_TIMEOUT_S = 10.0
#: A prompt with its pictures in place.
Placed = tuple[list[int], tuple[ImageInput, ...]]


class ImageReader:
    """Puts pictures in their places. Threads may share it."""

    def __init__(
        self,
        processor: ImageProcessor,
        tokenizer: Tokenizer,
        opened: Callable[[Any], Image.Image],
        most: int | None = None,
    ) -> None:
        """Args:
        opened: the picture that a caller means: an address, a file, or the picture itself.
        most: pictures of a prompt; None: any number.
        """
        self._processor, self._tokenizer, self._opened, self._most = processor, tokenizer, opened, most
        self._place = _id(tokenizer, processor.placeholder)
        self._row = _id(tokenizer, processor.image_token)

    @property
    def mark(self) -> str:
        """What a text says where a picture is."""
        return self._processor.placeholder

    def placed(self, token_ids: Sequence[int], pictures: Sequence[GivenImage]) -> Placed:
        """The prompt with what stands for each picture in place of its mark.

        Raises: InvalidParams when there are more of the one than of the other, or a picture cannot be read.
        """
        if self._most is not None and len(pictures) > self._most:
            raise InvalidParams(
                f"the prompt has {len(pictures)} images; limit_mm_per_prompt allows {self._most}; give fewer, or raise "
                "it"
            )
        places = [at for at, token in enumerate(token_ids) if token == self._place]
        if len(places) != len(pictures):
            raise InvalidParams(
                f"the prompt has {len(places)} places for images ({self._processor.placeholder}) and {len(pictures)} "
                "images; give one each"
            )
        ids: list[int] = []
        images: list[ImageInput] = []
        start = 0
        for number, (at, picture) in enumerate(zip(places, pictures, strict=True), 1):
            ids += token_ids[start:at]
            try:
                images.append(self._put(ids, picture))
            except InvalidParams as error:
                raise InvalidParams(f"the prompt's image {number} of {len(places)}: {error}") from None
            start = at + 1
        return [*ids, *token_ids[start:]], tuple(images)

    def _put(self, ids: list[int], picture: GivenImage) -> ImageInput:
        """What stands for one picture, at the end of ids."""
        image = self._opened(picture.value)
        if picture.is_small:
            image.thumbnail((SMALL_SIDE, SMALL_SIDE))
        prepared = self._processor.prepare(image)
        text = prepared.text
        while ids and text[:1].isspace() and (before := self._blank(ids[-1])):
            text = before + text  # blanks side by side are one token, as where a text is encoded whole
            ids.pop()
        first = len(ids)
        ids += self._tokenizer.encode(text, add_special_tokens=False)
        spans = _runs(ids, first, self._row)
        tiles = tuple(self._tile(tile) for tile in prepared.tiles)
        there, wanted = sum(end - start for start, end in spans), sum(tile.num_rows for tile in tiles)
        if there != wanted:
            raise InvalidParams(
                f"the tokenizer writes {there} tokens {self._processor.image_token} for it, the tower gives {wanted} "
                "rows: tokenizer and processor are of different models"
            )
        return ImageInput(key_of(tiles), tiles, spans, prepared.grid)

    def _tile(self, pixels: NDArray[np.uint8]) -> Tile:
        height, width, _ = pixels.shape
        return Tile(height, width, pixels.tobytes(), self._processor.rows(height, width))

    def _blank(self, token_id: int) -> str:
        """The text of a token that is nothing but blanks; empty for any other."""
        if token_id in self._tokenizer.special_ids:
            return ""
        text = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return text if text.isspace() else ""


def open_image_reader(
    config: EngineConfig, config_directory: Path, settings: EngineSettings, tokenizer: Tokenizer
) -> ImageReader | None:
    """What reads the pictures of a model that is loaded; None where it reads none."""
    if settings.image_problem:
        return None
    processor = open_processor(config_directory, read_json(config_directory / "config.json"))
    folder = config.allowed_local_media_path
    sources = ImageSources(None if folder is None else Path(folder), config.allowed_media_domains)
    return ImageReader(processor, tokenizer, sources.opened, config.limit_mm_per_prompt.image)


class ImageSources:
    """Finds the pictures that requests name. Threads may share it."""

    def __init__(self, folder: Path | None, hosts: Sequence[str]) -> None:
        """Args: folder: whose files may be read; None: none may. hosts: that may be asked."""
        self._folder, self._fetcher = folder, UrlFetcher(hosts, FETCH_TIMEOUT_S)

    def opened(self, value: Any) -> Image.Image:
        """The picture in RGB. Args: value: a URL (data:, http:, https:, file:), base64, bytes, an array, a PIL image.

        Raises: InvalidParams saying what is wrong with it, or what may not be read.
        """
        if not isinstance(value, str):
            return as_image(value)
        scheme = value[:8].partition(":")[0].lower() if ":" in value[:8] else ""
        if scheme == "data":
            return as_image(read_data_url(value))
        if scheme in ("http", "https"):
            return as_image(self._fetcher.fetch(value))
        if scheme == "file":
            return as_image(read_local(value, self._folder))
        return as_image(read_base64(value))


def _id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise InvalidParams(f"the tokenizer has no token {token!r}, which stands for images in this model")
    return found


def _runs(ids: Sequence[int], first: int, row: int) -> tuple[tuple[int, int], ...]:
    """Positions, from first on, at which a token stands, as runs."""
    found: list[tuple[int, int]] = []
    for at in range(first, len(ids)):
        if ids[at] != row:
            continue
        if found and found[-1][1] == at:
            found[-1] = (found[-1][0], at + 1)
        else:
            found.append((at, at + 1))
    return tuple(found)
