"""hf_overrides, mm_processor_kwargs: a model directory whose files say otherwise, without a change to the one that was
given.

Called by source.py, build.py and whoever compares a build with its checkpoint. What it says is read in many places, so
there is a directory that has it: in the user's cache, with links to all other files. Does not know which keys exist:
who reads a file refuses those it does not know.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from albireo import devflags
from albireo.api.sources.own_files import put
from albireo.errors import ConfigError, short
from albireo.json_file import read_json
from albireo.models.gguf.files import is_gguf

_LOG = logging.getLogger(__name__)
_CONFIG = "config.json"
#: Objects of mm_processor_kwargs that are meant for one kind of medium, as transformers' processors take them.
_IMAGES, _VIDEOS = "images_kwargs", "videos_kwargs"


#: What is to be said otherwise, and where.
_FILES = {"hf_overrides": _CONFIG, "mm_processor_kwargs": "what prepares pictures and videos"}
_NAMES = tuple(_FILES)
#: Of rope_parameters what is no scaling: it was beside rope_scaling before.
_UNSCALED = ("rope_theta", "partial_rotary_factor")


class Overrides(Protocol):
    """What files are to say: EngineConfig, BuildConfig, or what an engine directory was built for."""

    @property
    def hf_overrides(self) -> Mapping[str, Any] | None: ...

    @property
    def mm_processor_kwargs(self) -> Mapping[str, Any] | None: ...


def overridden(directory: Path, asked: Overrides) -> Path:
    """The directory itself where nothing is to be said otherwise, else one that has its files and some of its own.

    The same directory and overrides give the same place, which is brought up to date by each call.

    Raises: ConfigError for a GGUF file, for a model whose files say nothing of pictures, and where there is no cache to
        write to; ModelError for a damaged file.
    """
    given = {name: value for name in _NAMES if (value := getattr(asked, name)) is not None}
    if not given:
        return directory
    names = " and ".join(given)
    if is_gguf(directory):
        raise ConfigError(
            f"{names}: {directory.name} is a GGUF file, which has no {_CONFIG}; leave it out, or give a directory in "
            "Hugging Face layout"
        )
    if not (directory / _CONFIG).is_file():
        return directory  # who opens it says so
    files: dict[str, dict[str, Any]] = {}
    if asked.hf_overrides is not None:
        files[_CONFIG] = merged(read_json(directory / _CONFIG), _rotation_as_in(directory, asked.hf_overrides))
    if asked.mm_processor_kwargs is not None:
        files |= _of_media(directory, asked.mm_processor_kwargs)
    contents = {name: _encoded(json.dumps(data, indent=2, ensure_ascii=False) + "\n") for name, data in files.items()}
    place = _place(directory, names, given)
    try:
        links = {path.name: path.absolute() for path in directory.iterdir() if path.name not in contents}
        put(place, contents, links)
    except OSError as error:
        raise ConfigError(
            f"{names}: {place}, where {' and '.join(files)} are to lie as overridden, cannot be written "
            f"({error.strerror}); name another directory for caches by XDG_CACHE_HOME"
        ) from error
    for name, value in given.items():
        _LOG.warning("%s: %s is read with %s=%s, as %s", directory, _FILES[name], name, said(value), place)
    return place


def merged(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """An object with values in the place of its own; of what is an object on both sides, key by key, as vLLM has it."""
    found = dict(config)
    for key, value in overrides.items():
        old = found.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            found[key] = merged(old, value)
        else:
            found[key] = value
    return found


def _of_media(directory: Path, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The files that say how pictures and videos are prepared, as they are to be. What is not meant for one of the two
    is meant for pictures.

    Raises: ConfigError where there are none, and for what is no object.
    """
    from albireo.images.settings import IMAGE_FILE, PROCESSOR_FILE
    from albireo.videos.settings import VIDEO_FILE

    for name in (_IMAGES, _VIDEOS):
        if not isinstance(given.get(name, {}), Mapping):
            raise ConfigError(f"mm_processor_kwargs: {name}={short(given[name])} must be an object")
    images = {key: value for key, value in given.items() if key not in (_IMAGES, _VIDEOS)}
    images |= given.get(_IMAGES, {})
    processor = read_json(directory / PROCESSOR_FILE) if (directory / PROCESSOR_FILE).exists() else {}
    files: dict[str, dict[str, Any]] = {}
    for part, file, changes in (
        ("image_processor", IMAGE_FILE, images),
        ("video_processor", VIDEO_FILE, dict(given.get(_VIDEOS, {}))),
    ):
        if not changes:
            continue
        if isinstance(processor.get(part), Mapping):
            processor = {**processor, part: merged(processor[part], changes)}
            files[PROCESSOR_FILE] = processor
        elif (directory / file).exists():
            files[file] = merged(read_json(directory / file), changes)
        else:
            raise ConfigError(
                f"mm_processor_kwargs={said(given)}: {directory} has no {file}, and no {PROCESSOR_FILE} with a {part}, "
                "which would be read so; leave it out, or copy the file from where the checkpoint is from"
            )
    return files


def _rotation_as_in(directory: Path, overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Overrides with what they say of rotations in the form that config.json has it since transformers 5: beside
    rope_parameters neither rope_theta nor rope_scaling is read, and an override is to hold. So it is in a table of the
    text's own."""
    return _with_rotation(read_json(directory / _CONFIG), overrides)


def _with_rotation(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = {
        key: _with_rotation(config[key], value)
        for key, value in overrides.items()
        if isinstance(value, Mapping) and isinstance(config.get(key), Mapping) and key != "rope_parameters"
    }
    overrides = {**overrides, **inner}
    table, scaling = config.get("rope_parameters"), overrides.get("rope_scaling")
    if not isinstance(table, Mapping) or "rope_parameters" in overrides:
        return overrides
    moved = dict(scaling) if isinstance(scaling, Mapping) else {}
    is_taken_away = "rope_scaling" in overrides and scaling is None
    if is_taken_away:  # all that it would have said, which is what the table says beside the base
        told = (key for key, value in table.items() if key not in _UNSCALED and not isinstance(value, Mapping))
        moved = {**dict.fromkeys(told), "rope_type": "default"}
    if "type" in moved:
        moved["rope_type"] = moved.pop("type")
    if "rope_theta" in overrides:
        moved["rope_theta"] = overrides["rope_theta"]
    names = ("rope_theta", *(["rope_scaling"] if isinstance(scaling, Mapping) or is_taken_away else []))
    return {**{key: value for key, value in overrides.items() if key not in names}, "rope_parameters": moved}


def said(overrides: Mapping[str, Any]) -> str:
    """Overrides as text, the same whatever the order they were given in."""
    return _encoded(json.dumps(overrides, sort_keys=True, ensure_ascii=False)).decode("utf-8")


def _encoded(text: str) -> bytes:
    """JSON as UTF-8; half of a pair of surrogates, which JSON may name and UTF-8 has not, as JSON names it."""
    return text.encode("utf-8", "backslashreplace")


def _place(directory: Path, names: str, given: Mapping[str, Any]) -> Path:
    home = devflags.cache_home()
    if home is None:
        raise ConfigError(
            f"{names}: there is no home directory for the files that are read in place of the model's; name a "
            "directory for caches by XDG_CACHE_HOME"
        )
    # names of files are any bytes
    key = hashlib.sha256(os.fsencode(directory.absolute()) + b"\0" + said(given).encode("utf-8")).hexdigest()[:16]
    # without "..", which is another place; links keep the name that they have
    return home / "albireo" / "overridden" / key / os.path.basename(os.path.abspath(directory))
