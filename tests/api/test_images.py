"""ImageReader: pictures put in their places in a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.images import ImageReader
from albireo.errors import InvalidParams
from albireo.image_input import GivenImage
from albireo.images.decode import as_image
from albireo.images.prepared import PreparedImage
from albireo.media.sources import PICTURE, MediaSources
from albireo.text.tokenizer import Tokenizer
from tiny_sights import picture, save


class Processor:
    """A tile of three rows for each picture. Fields: text: what stands for it."""

    image_token, placeholder = "<image_soft_token>", "<start_of_image>"

    def __init__(self, text: str) -> None:
        self.text = text

    def prepare(self, image: Any) -> PreparedImage:
        return PreparedImage((np.full((2, 4, 3), image.width, np.uint8),), self.text)

    def rows(self, height: int, width: int) -> int:
        return 3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_directory(save(tmp_path_factory.mktemp("gemma"), "gemma3"))


def reader(tokenizer: Tokenizer, text: str) -> ImageReader:
    opened = MediaSources(PICTURE, None, ()).opened
    processor: Any = Processor(text)
    return ImageReader(processor, tokenizer, opened)


ROW = "<image_soft_token>"


def test_places_are_those_of_marks_and_rows_those_of_tokens(tokenizer: Tokenizer) -> None:
    given = [GivenImage(picture(9, 5)), GivenImage(picture(7, 5))]
    ids, images = reader(tokenizer, f"[{ROW}{ROW}|{ROW}]").placed(
        tokenizer.encode("a<start_of_image>b<start_of_image>"), given
    )
    assert tokenizer.decode(ids, skip_special_tokens=False) == f"a[{ROW}{ROW}|{ROW}]b[{ROW}{ROW}|{ROW}]"
    assert [image.spans for image in images] == [((2, 4), (5, 6)), ((9, 11), (12, 13))]
    assert images[0].key != images[1].key and images[0].tiles[0].num_rows == 3


def test_blanks_before_a_picture_are_encoded_with_it(tokenizer: Tokenizer) -> None:
    """As where a text is encoded whole: they may be one token with those that the picture begins with."""
    text = f"\n\n<start_of_image>{ROW * 3}"
    ids, images = reader(tokenizer, text).placed(tokenizer.encode("a \n<start_of_image>"), [GivenImage(picture(3, 3))])
    assert ids == tokenizer.encode(f"a \n{text}")
    ((start, end),) = images[0].spans
    assert set(ids[start:end]) == {tokenizer.token_to_id(ROW)} and end == len(ids)


def test_files_of_different_models_are_told_apart(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidParams, match=r"image 1 of 1: the tokenizer writes 2 tokens .* gives 3 rows"):
        reader(tokenizer, ROW * 2).placed(tokenizer.encode("<start_of_image>"), [GivenImage(picture(3, 3))])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("/etc/passwd", "not base64"),
        ("file:///etc/passwd", "allowed-local-media-path"),
        ("https://example.org/a.png", "allowed-media-domains"),
        ("ftp://example.org/a.png", "not base64"),
        ("data:image/png;base64,====", "base64"),
        (3, "no picture"),
    ],
)
def test_where_pictures_may_come_from(value: Any, words: str) -> None:
    with pytest.raises(InvalidParams, match=words):
        as_image(MediaSources(PICTURE, None, ()).opened(value))


def test_files_below_the_folder_are_read(tmp_path: Path) -> None:
    picture(6, 4).save(tmp_path / "a.png")
    sources = MediaSources(PICTURE, tmp_path, ())
    for name in (f"file://{tmp_path}/a.png", "file:a.png"):
        assert as_image(sources.opened(name)).size == (6, 4)
    with pytest.raises(InvalidParams, match="not below the folder"):
        sources.opened("file:../a.png")
