"""What is read of pictures, sounds and videos: their types, and how large they may be.

Used by sources.py, and by whoever decodes. Apart from it, so that an engine process, which asks no host for anything,
does not import what asks them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Medium:
    """What is read. Fields: name: in errors. types: what its media types begin with. max_bytes: of one. less: what to
    send where one is too large."""

    name: str
    types: tuple[str, ...]
    max_bytes: int
    less: str

    @property
    def data_url(self) -> str:
        return f"data:{self.types[0]}...;base64,... is wanted"


PICTURE = Medium("picture", ("image/",), 64 * 2**20, "a smaller picture")
#: Ogg is of no kind.
SOUND = Medium("sound", ("audio/", "application/ogg"), 256 * 2**20, "a shorter sound")
#: Animations have types of pictures; an APNG is often called a PNG.
VIDEO = Medium(
    "video", ("video/", "image/gif", "image/webp", "image/apng", "image/png"), 512 * 2**20, "a shorter video"
)
