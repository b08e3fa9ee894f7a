"""Pictures of a prompt, put in their places.

Called by media.py. How they are cut is albireo.images, where they come from albireo.media.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from albireo.api.media.places import Place, Placed, Places, Standing
from albireo.config import EngineConfig
from albireo.errors import InvalidParams
from albireo.image_input import GivenImage, ImageInput, MediaKind, Tile, key_of
from albireo.images.decode import as_image
from albireo.images.prepared import BeginsAgain, IsSpelled, IsWrittenWhole, OpensChats, SharesMarks, row_tokens
from albireo.images.processor import ImageProcessor, open_processor, written_mark
from albireo.json_file import read_json
from albireo.media.medium import PICTURE
from albireo.media.sources import MediaSources
from albireo.models.settings.text_part import inner, sees_prompts_both_ways
from albireo.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from PIL import Image

#: Pixels on the longer side of a picture of which few will do, as OpenAI has it.
SMALL_SIDE = 512


class ImagePlace(Place):
    """See Place."""

    kind: MediaKind = "image"

    def __init__(self, processor: ImageProcessor, opened: Callable[[Any], Any], most: int | None = None) -> None:
        """Args: opened: what a caller means by an address; the bytes of a picture, or itself, stay as they are."""
        super().__init__(processor.placeholder, processor.image_token, most)
        self._processor, self._opened = processor, opened
        self.row_marks = row_tokens(processor)[1:]
        self._shared_mark = processor.shared_mark if isinstance(processor, SharesMarks) else ""
        self._begins_again = isinstance(processor, BeginsAgain) and processor.begins_again
        self._written_rows = processor.written_rows if isinstance(processor, IsWrittenWhole) else 1

    def marked(self, text: str) -> str:
        return self._processor.marked(text) if isinstance(self._processor, IsSpelled) else text

    def arranged(self, token_ids: Sequence[int], tokenizer: Tokenizer) -> Sequence[int]:
        """Where a template wrote all rows of a picture, one mark of them; and a text begins where it does."""
        if self._begins_again:
            return self._beginning(token_ids, tokenizer)
        if self._written_rows == 1:
            return token_ids
        found: list[int] = []
        for token, run in groupby(token_ids):
            count = len(list(run))
            is_whole = token == tokenizer.token_to_id(self.mark) and count % self._written_rows == 0
            found += [token] * (count // self._written_rows if is_whole else count)
        return found

    def _beginning(self, token_ids: Sequence[int], tokenizer: Tokenizer) -> list[int]:
        begin, mark = tokenizer.encode(""), tokenizer.token_to_id(self.mark)
        first = [] if list(token_ids[: len(begin)]) == begin else begin
        return [*first, *(each for token in token_ids for each in (token, *(begin if token == mark else ())))]

    def standing(self, given: GivenImage) -> Standing:
        image: Image.Image = as_image(self._opened(given.value))
        if given.is_small:
            image.thumbnail((SMALL_SIDE, SMALL_SIDE))
        prepared = self._processor.prepare(image)
        tiles = tuple(self._tile(tile) for tile in prepared.tiles)
        return Standing(prepared.text, tiles, prepared.grid, numbered=prepared.numbered, shared_mark=self._shared_mark)

    def _tile(self, pixels: NDArray[np.uint8]) -> Tile:
        height, width, _ = pixels.shape
        return Tile(height, width, pixels.tobytes(), self._processor.rows(height, width))


class PrefixPlace(ImagePlace):
    """Of a model whose prompts are pictures, then what is asked of them, of which each token sees all others: as its
    processor has it, a text begins behind the pictures, and ends with a line break."""

    sees_prompt = True
    _BEGIN, _END = "<bos>", "\n"

    def arranged(self, token_ids: Sequence[int], tokenizer: Tokenizer) -> Sequence[int]:
        begin, mark = tokenizer.token_to_id(self._BEGIN), tokenizer.token_to_id(self.mark)
        ids, end = list(token_ids), tokenizer.encode(self._END, add_special_tokens=False)
        if begin is not None and mark in ids:
            # where tokenizers put it
            if ids[0] == begin:
                del ids[0]
            behind = len(ids) - ids[::-1].index(mark)
            if ids[behind : behind + 1] != [begin]:
                ids.insert(behind, begin)
        return ids if ids[-len(end) :] == end else [*ids, *end]


class PictureAlone(Places):
    """Of a model whose prompts are a text or a picture, which its tokenizer has no token for."""

    def __init__(self, tokenizer: Tokenizer, *kinds: Place) -> None:
        self._tokenizer, self.problems = tokenizer, {}
        self.kinds = {place.kind: place for place in kinds}

    def placed(self, token_ids: Sequence[int], media: Mapping[MediaKind, Sequence[Any]]) -> Placed:
        """The picture as a prompt of one token, which stands for no text. Raises: InvalidParams where there is a text,
        too, or there are several."""
        pictures = media.get("image", ())
        if len(pictures) != 1 or not self._tokenizer.special_ids.issuperset(token_ids):
            told = f"{len(pictures)} pictures" if len(pictures) != 1 else "a text beside its picture"
            raise InvalidParams(
                f"the prompt has {told}, and this model embeds a text or a picture by itself; give each as a prompt of "
                "its own, that of a picture with an empty text"
            )
        tiles = self.kinds["image"].standing(pictures[0]).tiles
        return [0], (ImageInput(key_of(tiles), tiles, ((0, 1),)),)


def open_image_place(config: EngineConfig, config_directory: Path) -> ImagePlace:
    """What reads the pictures of a model that is loaded."""
    data = inner(read_json(config_directory / "config.json"))
    processor = open_processor(config_directory, data)
    kind = PrefixPlace if sees_prompts_both_ways(data) else ImagePlace
    folder = config.allowed_local_media_path
    sources = MediaSources(PICTURE, None if folder is None else Path(folder), config.allowed_media_domains)
    place = kind(processor, sources.opened, config.limit_mm_per_prompt.image)
    place.written = written_mark(data)
    place.opening = processor.opening if isinstance(processor, OpensChats) else ""
    return place
