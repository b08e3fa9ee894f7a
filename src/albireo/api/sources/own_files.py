"""Files of our own in the user's cache, beside links to those of a model.

Called by overrides.py and projector_place.py.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def put(place: Path, contents: Mapping[str, bytes], links: Mapping[str, Path]) -> None:
    """Contents by name, and links by name, and nothing else in a directory; what is right stays untouched, so that
    others may read there. Raises: OSError."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in place.iterdir():
        if path.name not in contents and path.name not in links and (path.is_symlink() or path.is_file()):
            path.unlink(missing_ok=True)
    for name, target in links.items():
        path = place / name
        if _target(path) != target:
            _replace(path, lambda temporary, target=target: os.symlink(target, temporary))
    for name, content in contents.items():
        path = place / name
        if path.is_symlink() or not path.is_file() or path.read_bytes() != content:
            _replace(path, lambda temporary, content=content: temporary.write_bytes(content))


def _target(path: Path) -> Path | None:
    """Where a link leads; None: it is none, or another process has just removed it."""
    try:
        return path.readlink()
    except OSError:
        return None


def _replace(path: Path, make: Any) -> None:
    """Make a file or link beside its place and put it there in one step."""
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as folder:
        temporary = Path(folder) / path.name
        make(temporary)
        os.replace(temporary, path)
