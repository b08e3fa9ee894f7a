"""Where tiles of a picture are in a prompt, and what sets blocks with pictures apart."""

from __future__ import annotations

from albireo.image_input import ImageInput, Tile, key_of, keys_within


def tile(num_rows: int) -> Tile:
    return Tile(1, 1, b"abc", num_rows)


def test_tiles_are_found_where_their_rows_are() -> None:
    # two tiles of three rows in lines of two, with a mark between lines; one of two rows
    image = ImageInput(b"k" * 32, (tile(3), tile(3), tile(2)), ((10, 12), (13, 15), (16, 18), (19, 21)))
    assert image.num_rows == 8
    assert image.tiles_within(0, 100) == [(0, 10), (1, 14), (2, 19)]
    assert image.tiles_within(0, 10) == [] == image.tiles_within(21, 30) == image.tiles_within(12, 13)
    assert image.tiles_within(11, 14) == [(0, 11)]
    assert image.tiles_within(13, 17) == [(0, 13), (1, 14)]
    assert image.tiles_within(17, 20) == [(1, 17), (2, 19)]
    assert image.tiles_within(20, 21) == [(2, 20)]


def test_blocks_know_the_pictures_that_they_have_tokens_of() -> None:
    first, second = (ImageInput(bytes([n]) * 32, (tile(2),), ((at, at + 2),)) for n, at in ((1, 4), (2, 9)))
    assert keys_within([first, second], 0, 4) == b""
    assert keys_within([first, second], 0, 5) == first.key
    assert keys_within([first, second], 5, 10) == first.key + second.key
    assert keys_within([first, second], 6, 9) == b""


def test_keys_tell_tiles_apart() -> None:
    tiles = [Tile(1, 2, b"abcdef", 1), Tile(2, 1, b"abcdef", 1), Tile(1, 2, b"abcdeg", 1)]
    assert len({key_of([each]) for each in tiles} | {key_of(tiles), key_of(tiles[:2])}) == 5
