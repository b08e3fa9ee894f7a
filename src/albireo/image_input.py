"""ImageInput: a picture, a sound or a video, as the engine carries it, from the front door to the step that reads it.

Made by api/media/images.py; a part of requests, of messages to other processes and of plans. Integers and bytes only.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

MediaKind = Literal["image", "sound", "video"]
MEDIA_KINDS: tuple[MediaKind, ...] = ("image", "sound", "video")


class GivenSound(NamedTuple):
    """A sound as a caller gave it: the bytes of a file, or samples and how many are a second. told: of the numbers that
    some models know, such as of languages, the one that goes with it; None: the model's own."""

    value: Any
    told: int | None = None


class GivenVideo(NamedTuple):
    """A video as a caller gave it: an address, the bytes of a file, or its frames."""

    value: Any


class GivenImage(NamedTuple):
    """A picture as a caller gave it: an address, its bytes, or itself. is_small: few pixels of it will do."""

    value: Any
    is_small: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a picture, or all of it, as the vision tower reads it: [height, width, 3] uint8, row by row. Of a video
    frames that it reads at once: [height, width, 3 of each]. Of a sound all, as its encoder hears it: [frames, bands]
    float32.

    Fields: num_rows: that the tower gives of it.
    """

    height: int
    width: int
    pixels: bytes
    num_rows: int


@dataclass(frozen=True, slots=True)
class ImageInput:
    """A picture, a sound or a video of a prompt.

    Fields:
        key: 32 bytes that stand for its tiles.
        tiles: what the tower reads, in order.
        spans: positions [start, end) of the prompt whose tokens are rows that the tower gives, in order; together as
            many as the tiles have rows.
        grid: rows and columns that the rows of a tile are, where positions of the model have three axes; else None.
        kind: what it is.
        times: of each tile, how much later its rows are than those of the first, on the axis of time; empty: each tile
            is a span, and begins where that stands.
        prefix: so many first tokens of the prompt see each other, whatever they are. prefix_key: 32 bytes that stand
            for those tokens, and all pictures among them; empty where prefix is 0.
        is_beside: rows are added to the embeddings of the tokens of its span, which goes on where the prompt ends: no
            sequence is longer.
    """

    key: bytes
    tiles: tuple[Tile, ...]
    spans: tuple[tuple[int, int], ...]
    grid: tuple[int, int] | None = None
    kind: MediaKind = "image"
    times: tuple[int, ...] = ()
    prefix: int = 0
    prefix_key: bytes = b""
    is_beside: bool = False

    @property
    def num_rows(self) -> int:
        """Of its tokens those that are rows of the tower."""
        return sum(end - start for start, end in self.spans)

    def tiles_within(self, start: int, end: int) -> list[tuple[int, int]]:
        """Of each tile that has rows among the tokens at positions start .. end-1: its number, and where they begin."""
        found: list[tuple[int, int]] = []
        number, left = 0, self.tiles[0].num_rows
        for first, last in self.spans:
            while first < last:
                stop = min(last, first + left)
                if first < end and start < stop and (not found or found[-1][0] != number):
                    found.append((number, max(first, start)))
                left -= stop - first
                first = stop
                if left == 0 and number + 1 < len(self.tiles):
                    number += 1
                    left = self.tiles[number].num_rows
        return found


def key_of(tiles: Sequence[Tile], times: Sequence[int] = ()) -> bytes:
    """SHA-256 of what the tower reads, and of when that is."""
    digest = hashlib.sha256(struct.pack(f"<{len(times)}q", *times))
    for tile in tiles:
        digest.update(struct.pack("<II", tile.height, tile.width))
        digest.update(tile.pixels)
    return digest.digest()


def keys_within(images: Sequence[ImageInput], start: int, end: int) -> bytes:
    """What sets the tokens at positions start .. end-1 apart from others of the same ids: the pictures they are of, and
    what they see of a prompt behind them."""
    of_spans = (image.key for image in images if any(first < end and start < last for first, last in image.spans))
    return b"".join((*of_spans, *(image.prefix_key for image in images[:1] if start < image.prefix)))


def seen_both_ways(images: Sequence[ImageInput], prompt: Sequence[int]) -> tuple[ImageInput, ...]:
    """The same images of a prompt of which each token sees all others."""
    key = prompt_key(prompt, b"".join(image.key for image in images))
    return tuple(replace(image, prefix=len(prompt), prefix_key=key) for image in images)


def prompt_key(prompt: Sequence[int], of_images: bytes = b"") -> bytes:
    """32 bytes that stand for a prompt whose tokens see each other."""
    return hashlib.sha256(struct.pack(f"<{len(prompt)}I", *prompt) + of_images).digest()
