"""Where a picture goes: a file that is there whole, or not at all.

Called by cli/inspect. Does not know what is in it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from albireo.errors import ConfigError, ResourceError

SUFFIXES = (".svg", ".html")


def picture_path(name: str) -> Path:
    """The file that a name given to --graph means. Raises: ConfigError when it is not one that can be written."""
    path = Path(name).expanduser()
    if path.suffix not in SUFFIXES:
        hint = "; MODEL comes before --graph" if path.is_dir() else ""
        raise ConfigError(
            f"--graph {name}: a picture is written into a file that ends in {' or '.join(SUFFIXES)}; without a name "
            f"the graph is printed as text{hint}"
        )
    if path.exists() and not path.is_file():
        raise ConfigError(f"--graph {name} is there and is no file; choose another name")
    if not path.parent.is_dir():
        raise ConfigError(f"--graph {name}: there is no directory {path.parent}; make it, or choose another place")
    return path


def write_picture(path: Path, text: str) -> None:
    """Write beside it, then rename. Raises: ResourceError; an old file is as it was then."""
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror or error}") from error
