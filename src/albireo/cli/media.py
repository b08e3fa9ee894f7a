"""Pictures, sounds and videos of a command line -> parts of a message.

Used by generate.py and chat.py. What reads files is imported where one is named. A file that is named here is one of
whoever runs the command, so it is read whatever --allowed-local-media-path says; URLs go through the engine's rules.
Does not know models.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from albireo.errors import InvalidParams
from albireo.media.medium import PICTURE, SOUND, VIDEO, Medium

if TYPE_CHECKING:
    from PIL import Image

    from albireo.sounds.decode import Sound

Decoded = TypeVar("Decoded")
_URL = re.compile(r"(https?|file|data):", re.IGNORECASE)
_MAY_BE_SEVERAL = "may be given several times. Hosts of URLs are those of --allowed-media-domains."


def media_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--image, --audio and --video, as images, sounds and videos: names of what goes with a prompt."""
    video = click.option(
        "--video",
        "videos",
        multiple=True,
        metavar="FILE|URL",
        help=f"A video for a model that reads them; {_MAY_BE_SEVERAL}",
    )
    audio = click.option(
        "--audio",
        "sounds",
        multiple=True,
        metavar="FILE|URL",
        help=f"A sound for a model that hears; {_MAY_BE_SEVERAL}",
    )
    image = click.option(
        "--image",
        "images",
        multiple=True,
        metavar="FILE|URL",
        help=f"A picture for a model that reads them; {_MAY_BE_SEVERAL}",
    )
    return image(audio(video(command)))


@dataclass(slots=True)
class Shown:
    """What goes with a prompt: each is a URL, or opened; of a video a file's bytes, since what is read of it the model
    says. It is true where there is any."""

    images: list[str | Image.Image] = field(default_factory=list)
    sounds: list[str | Sound] = field(default_factory=list)
    videos: list[str | bytes] = field(default_factory=list)

    @classmethod
    def named(cls, images: Sequence[str], sounds: Sequence[str], videos: Sequence[str] = ()) -> Shown:
        """Raises: InvalidParams for a file that cannot be read, or holds none."""
        return cls(list(map(open_picture, images)), list(map(open_sound, sounds)), list(map(open_video, videos)))

    def __bool__(self) -> bool:
        return bool(self.images or self.sounds or self.videos)

    def __str__(self) -> str:
        several = (("picture", len(self.images)), ("sound", len(self.sounds)), ("video", len(self.videos)))
        return " and ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in several if count)

    @property
    def data(self) -> dict[str, list[Any]]:
        """As prompts have it, for places that they mark."""
        given: dict[str, list[Any]] = {"image": [*self.images], "audio": [*self.sounds], "video": [*self.videos]}
        return {kind: each for kind, each in given.items() if each}

    def message(self, text: str) -> dict[str, Any]:
        """A turn: pictures, sounds, videos, then the text; the text alone where there are none."""
        if not self:
            return {"role": "user", "content": text}
        parts = [_part(kind, each) for kind, several in self.data.items() for each in several]
        return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def _part(kind: str, given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        return {"type": f"{kind}_url", f"{kind}_url": {"url": given}}
    return {"type": kind, kind: given}


def open_picture(name: str) -> str | Image.Image:
    """The picture in a file, decoded; a URL (http:, https:, file:, data:) as it is.

    Raises: InvalidParams for a file that cannot be read, or holds no picture.
    """
    from albireo.images.decode import decode_image

    data = _bytes(name, PICTURE)
    return name if data is None else _decoded(name, data, decode_image)


def open_sound(name: str) -> str | Sound:
    """The sound in a file, decoded; a URL as it is. Raises: as open_picture()."""
    from albireo.sounds.decode import decoded

    data = _bytes(name, SOUND)
    return name if data is None else _decoded(name, data, decoded)


def open_video(name: str) -> str | bytes:
    """The bytes of a file; a URL as it is. Raises: InvalidParams for a file that cannot be read."""
    data = _bytes(name, VIDEO)
    return name if data is None else data


def _bytes(name: str, medium: Medium) -> bytes | None:
    """What a file holds; None of a URL."""
    if _URL.match(name):
        return None
    from albireo.media.sources import read_local

    try:
        path = Path(name).expanduser()
    except RuntimeError:  # a home that there is not
        path = Path(name)
    # an absolute path is below the root, so that all that a path may be wrong about is said in one place
    return read_local(str(path.absolute()), Path("/"), medium)


def _decoded(name: str, data: bytes, decode: Callable[[bytes], Decoded]) -> Decoded:
    try:
        return decode(data)
    except InvalidParams as error:
        raise InvalidParams(f"{name}: {error}") from None


def typed_name(words: str) -> str:
    """A file's name as somebody types it, or as a terminal writes a file that is dropped on it: with quotes or
    backslashes, or just as it is."""
    try:
        found = shlex.split(words)
    except ValueError:
        found = []
    return found[0] if len(found) == 1 else words
