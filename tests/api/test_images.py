"""Places: pictures, and what else there is, put in their places in a prompt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.media.images import ImagePlace, PrefixPlace, open_image_place
from albireo.api.media.places import Place, Places, Standing
from albireo.config import EngineConfig
from albireo.errors import InvalidParams
from albireo.image_input import GivenImage, MediaKind, Tile
from albireo.images.decode import as_image
from albireo.images.prepared import PreparedImage
from albireo.media.medium import PICTURE
from albireo.media.sources import MediaSources
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


def reader(tokenizer: Tokenizer, text: str, *others: Place) -> Places:
    opened = MediaSources(PICTURE, None, ()).opened
    processor: Any = Processor(text)
    return Places(tokenizer, ImagePlace(processor, opened), *others)


ROW = "<image_soft_token>"


def test_places_are_those_of_marks_and_rows_those_of_tokens(tokenizer: Tokenizer) -> None:
    given = {"image": [GivenImage(picture(9, 5)), GivenImage(picture(7, 5))]}
    ids, images = reader(tokenizer, f"[{ROW}{ROW}|{ROW}]").placed(
        tokenizer.encode("a<start_of_image>b<start_of_image>"), given
    )
    assert tokenizer.decode(ids, skip_special_tokens=False) == f"a[{ROW}{ROW}|{ROW}]b[{ROW}{ROW}|{ROW}]"
    assert [image.spans for image in images] == [((2, 4), (5, 6)), ((9, 11), (12, 13))]
    assert images[0].key != images[1].key and images[0].tiles[0].num_rows == 3


def test_blanks_before_a_picture_are_encoded_with_it(tokenizer: Tokenizer) -> None:
    """As where a text is encoded whole: they may be one token with those that the picture begins with."""
    text = f"\n\n<start_of_image>{ROW * 3}"
    ids, images = reader(tokenizer, text).placed(
        tokenizer.encode("a \n<start_of_image>"), {"image": [GivenImage(picture(3, 3))]}
    )
    assert ids == tokenizer.encode(f"a \n{text}")
    ((start, end),) = images[0].spans
    assert set(ids[start:end]) == {tokenizer.token_to_id(ROW)} and end == len(ids)


def test_words_behind_a_picture_are_read_by_their_ends(tmp_path: Path) -> None:
    """With a blank before them: an endless one, one that ends with a blank of several bytes, and one that is spelled as
    a special token is and was none, which stays what it was."""
    folder = save(tmp_path, "idefics2")
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    number = max(each["id"] for each in data["added_tokens"]) + 1
    token = {"id": number, "content": "[END]", "special": True, "normalized": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    path.write_text(json.dumps({**data, "added_tokens": [*data["added_tokens"], token | flags]}))
    tokenizer, decoded = Tokenizer.from_directory(folder), [0]
    assert tokenizer.encode("[END]", add_special_tokens=False) == [number]
    processor: Any = Processor("<image>" * 3)
    processor.image_token = processor.placeholder = "<image>"
    processor.shared_mark = "<fake_token_around_image>"
    places = Places(tokenizer, ImagePlace(processor, lambda value: value))
    plain, decode = tokenizer.plain_encoder(["[END]"]), tokenizer.decode

    def counted(ids: Any, **ways: Any) -> str:
        decoded[0] += len(ids)
        return decode(ids, **ways)

    tokenizer.decode = counted  # type: ignore[method-assign]
    mark = tokenizer.encode("<image>", add_special_tokens=False)
    for text, wanted in (("ab" * 500, " " + "ab" * 500), ("ab\u2009c", " ab\u2009c"), ("[END]", "[END]")):
        ids, _ = places.placed([*mark, *plain.encode(text)], {"image": [GivenImage(picture(3, 3))]})
        assert ids == [*mark * 3, *plain.encode(wanted)]
    assert decoded[0] < 10_000


class Film(Place):
    """Two rows in brackets, in place of a mark and of what stands around it."""

    kind: MediaKind = "video"
    around = ("<|im_start|>", "<|im_end|>")

    def standing(self, given: Any) -> Standing:
        return Standing(f"({ROW}{ROW})", (Tile(1, 1, bytes([given]), 2),), (1, 2), (0,))


def test_kinds_beside_each_other_are_in_their_own_places(tokenizer: Tokenizer) -> None:
    """In the order of the prompt, whoever is first; what goes with a mark goes only where all of it is there."""
    placed = reader(tokenizer, f"[{ROW * 3}]", Film("<end_of_image>", ROW, 2))
    text = "<end_of_image>a<|im_start|><end_of_image><|im_end|><start_of_image><|im_end|>"
    shown, films = GivenImage(picture(9, 5)), [1, 2]
    ids, found = placed.placed(tokenizer.encode(text), {"image": [shown], "video": films, "sound": []})
    told = f"({ROW}{ROW})a({ROW}{ROW})[{ROW * 3}]<|im_end|>"
    assert tokenizer.decode(ids, skip_special_tokens=False) == told
    assert [each.kind for each in found] == ["video", "video", "image"]
    assert [each.spans for each in found] == [((1, 3),), ((6, 8),), ((10, 13),)]
    assert [each.tiles[0].pixels for each in found[:2]] == [b"\1", b"\2"]
    assert found[0].times == (0,) and found[2].times == () and found[0].key != found[1].key
    with pytest.raises(InvalidParams, match="has 3 videos; limit_mm_per_prompt allows 2"):
        placed.placed(tokenizer.encode(text), {"video": [1, 2, 3]})
    with pytest.raises(InvalidParams, match=r"has 2 places for videos \(<end_of_image>\) and 1 videos"):
        placed.placed(tokenizer.encode(text), {"image": [shown], "video": [1]})


def test_pictures_of_some_models_are_numbered(tokenizer: Tokenizer) -> None:
    processor: Any = Processor(f"[{ROW * 3}]")
    prepare = processor.prepare
    processor.prepare = lambda image: replace(prepare(image), numbered=("<", ">"))
    given = {"image": [GivenImage(picture(9, 5)), GivenImage(picture(7, 5))]}
    ids, images = Places(tokenizer, ImagePlace(processor, lambda value: value)).placed(
        tokenizer.encode("a<start_of_image>b<start_of_image>"), given
    )
    assert tokenizer.decode(ids, skip_special_tokens=False) == f"a<0>[{ROW * 3}]b<1>[{ROW * 3}]"
    assert [image.spans for image in images] == [((5, 8),), ((14, 17),)]


def test_a_prompt_that_sees_itself_has_a_text_behind_its_pictures(tmp_path: Path) -> None:
    """As PaliGemma's processor has it, however the prompt is written: pictures, a beginning, what is asked, a break."""
    tokenizer = Tokenizer.from_directory(save(tmp_path, "paligemma"))
    processor: Any = Processor("<image>" * 3)
    processor.image_token = processor.placeholder = "<image>"
    places, given = (
        Places(tokenizer, PrefixPlace(processor, lambda value: value)),
        {"image": [GivenImage(picture(9, 5))]},
    )
    found = set()
    for text in ("<image>ask", "<bos><image>ask\n", "<image><bos>ask", "<bos><image><bos>ask\n"):
        ids, images = places.placed(tokenizer.encode(text, add_special_tokens=False), given)
        assert tokenizer.decode(ids, skip_special_tokens=False) == f"{'<image>' * 3}<bos>ask\n"
        found.add(images)
    ((one,),) = found
    assert one.prefix == 3 + 1 + 4 and len(one.prefix_key) == 32
    ids, (other,) = places.placed(tokenizer.encode("<image>ask it", add_special_tokens=False), given)
    assert other.key == one.key and other.prefix_key != one.prefix_key and other.prefix == len(ids)
    text = tokenizer.encode("ask", add_special_tokens=False)
    assert places.placed(text, {"image": []}) == (text, ())


def test_files_of_different_models_are_told_apart(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidParams, match=r"image 1 of 1: the tokenizer writes 2 tokens .* gives 3 rows"):
        reader(tokenizer, ROW * 2).placed(tokenizer.encode("<start_of_image>"), {"image": [GivenImage(picture(3, 3))]})


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


def test_rows_that_a_template_wrote_are_one_place(tmp_path: Path) -> None:
    """Of each picture all; as many as are not those of whole pictures stay, and are told."""
    folder, given = save(tmp_path, "pp_chart2table"), [GivenImage(picture(40, 30)), GivenImage(picture(30, 40))]
    place = open_image_place(EngineConfig(model=str(folder)), folder)
    tokenizer = Tokenizer.from_directory(folder)
    places, pad = Places(tokenizer, place), "<imgpad>"
    for text in (f"<img>{pad * 4}</img>a{pad}", f"{pad * 8}", f"{pad}a{pad * 4}"):
        ids, found = places.placed(tokenizer.encode(text, add_special_tokens=False), {"image": given})
        (row,) = tokenizer.encode(pad, add_special_tokens=False)
        assert ids.count(row) == 8 and [image.num_rows for image in found] == [4, 4], text
    with pytest.raises(InvalidParams, match=r"has 5 places for images \(<imgpad>\) and 2 images"):
        places.placed(tokenizer.encode(pad * 5, add_special_tokens=False), {"image": given})
