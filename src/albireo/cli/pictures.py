"""Pictures of a command line -> parts of a message.

Used by generate.py and chat.py. A file that is named here is one of whoever runs the command, so it is read whatever
--allowed-local-media-path says; URLs go through the engine's rules. Does not know models.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from albireo.errors import InvalidParams
from albireo.images.decode import decode_image
from albireo.media.sources import PICTURE, read_local

if TYPE_CHECKING:
    from PIL import Image

_URL = re.compile(r"(https?|file|data):", re.IGNORECASE)

image_option = click.option(
    "--image",
    "images",
    multiple=True,
    metavar="FILE|URL",
    help="A picture for a model that reads them; may be given several times. Hosts of URLs are those of "
    "--allowed-media-domains.",
)


def open_picture(name: str) -> str | Image.Image:
    """The picture in a file, decoded; a URL (http:, https:, file:, data:) as it is.

    Raises: InvalidParams for a file that cannot be read, or holds no picture.
    """
    if _URL.match(name):
        return name
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # a home that there is not
        path = Path(name)
    # an absolute path is below the root, so that all that a path may be wrong about is said in one place
    data = read_local(str(path.absolute()), Path("/"), PICTURE)
    try:
        return decode_image(data)
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


def user_message(text: str, pictures: Sequence[str | Image.Image]) -> dict[str, Any]:
    """A turn: the pictures, then the text; the text alone where there are none."""
    if not pictures:
        return {"role": "user", "content": text}
    parts = [*map(_part, pictures), {"type": "text", "text": text}]
    return {"role": "user", "content": parts}


def _part(picture: str | Image.Image) -> dict[str, Any]:
    if isinstance(picture, str):
        return {"type": "image_url", "image_url": {"url": picture}}
    return {"type": "image", "image": picture}
