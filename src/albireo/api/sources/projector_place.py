"""A GGUF file and the projector beside it (mmproj): which one it is, and a directory that says of both together what a
model's own would.

Called by checkpoint_source.py and source.py. What prepares pictures and opens towers reads files of a directory, in
other processes, too: so there is one, in the user's cache. Tensors stay where they lie.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from albireo import devflags
from albireo.api.sources.own_files import put
from albireo.artifact.reader import is_engine_directory
from albireo.errors import ConfigError, ModelError
from albireo.models.gguf.files import MODEL_LINK, is_gguf, is_projector


class Beside(NamedTuple):
    """What lies beside a model. Fields: projector: the file; None: there is none, or it is not read. place: the
    directory that says of both what they are. problem: why pictures and sounds are not read, as the end of a sentence;
    empty: nothing lies there."""

    projector: Path | None = None
    place: Path | None = None
    problem: str = ""


def beside(model: Path, asked: str | None) -> Beside:
    """The projector of a model. Args: model: where it lies. asked: the file that somebody named; None: the one in its
    directory, where it is the only one.

    Raises: ConfigError, ModelError, UnsupportedModel for one that somebody named; text is served beside others.
    """
    if asked is not None:
        return _asked(model, Path(asked).expanduser())
    if not is_gguf(model):
        return Beside()
    try:
        found = sorted(path for path in model.parent.iterdir() if is_projector(path) and path != model)
    except OSError as error:  # a directory may be entered, and not listed
        return Beside(problem=f"{model.parent} cannot be listed ({error.strerror}); name the projector by mmproj")
    if len(found) > 1:
        listed = ", ".join(path.name for path in found[:5]) + (", …" if len(found) > 5 else "")
        return Beside(problem=f"there are {len(found)} projectors beside {model.name}: {listed}; name one by mmproj")
    if not found:
        return Beside()
    try:
        return Beside(found[0], _place(model, found[0]))
    except (ModelError, ConfigError) as error:
        return Beside(problem=f"of {found[0].name}, which lies beside {model.name}: {error}")


def _asked(model: Path, projector: Path) -> Beside:
    if not is_gguf(model):
        what = (
            "is an engine directory, which is built with it: albireo build MODEL.gguf --mmproj FILE -o DIR"
            if is_engine_directory(model)
            else "is no GGUF file; what it sees with is among its own files"
        )
        raise ConfigError(f"mmproj={projector.name}: {model} {what}; leave it out")
    if not projector.is_file():
        raise ModelError(f"mmproj: there is no file {projector}; give the one whose name begins with mmproj")
    return Beside(projector, _place(model, projector))


def _place(model: Path, projector: Path) -> Path:
    """Raises: ModelError, UnsupportedModel; ConfigError where there is no cache to write to."""
    from albireo.models.gguf.projectors.told import told_together

    files = told_together(model, projector)
    home = devflags.cache_home()
    if home is None:
        raise ConfigError(
            "mmproj: there is no home directory for what is said of a model and its projector; name a directory for "
            "caches by XDG_CACHE_HOME"
        )
    both = b"\0".join(os.fsencode(path.absolute()) for path in (model, projector))
    place = home / "albireo" / "projectors" / hashlib.sha256(both).hexdigest()[:16] / model.stem
    contents = {name: json.dumps(data, indent=2, sort_keys=True).encode() for name, data in files.items()}
    try:
        put(place, contents, {MODEL_LINK: model.absolute()})
    except OSError as error:
        raise ConfigError(
            f"mmproj: {place}, where is to lie what is said of both, cannot be written ({error.strerror}); name "
            "another directory for caches by XDG_CACHE_HOME"
        ) from error
    return place
