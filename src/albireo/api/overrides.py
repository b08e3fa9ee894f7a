"""hf_overrides: a model directory whose config.json says otherwise, without a change to the one that was given.

Called by source.py, build.py and whoever compares a build with its checkpoint. What it says is read in many places, so
there is a directory that has it: in the user's cache, with links to all other files. Does not know which keys exist:
who reads config.json refuses those it does not know.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albireo import devflags
from albireo.errors import ConfigError
from albireo.json_file import read_json
from albireo.models.gguf.files import is_gguf

_LOG = logging.getLogger(__name__)
_CONFIG = "config.json"


def overridden(directory: Path, overrides: Mapping[str, Any] | None) -> Path:
    """The directory itself without overrides, else one that has its files and another config.json.

    The same directory and overrides give the same place, which is brought up to date by each call.

    Raises: ConfigError for a GGUF file, and where there is no cache to write to; ModelError for a damaged config.json.
    """
    if not overrides:
        return directory
    if is_gguf(directory):
        raise ConfigError(
            f"hf_overrides: {directory.name} is a GGUF file, which has no config.json; leave it out, or give a "
            "directory in Hugging Face layout"
        )
    if not (directory / _CONFIG).is_file():
        return directory  # who opens it says so
    text = json.dumps(merged(read_json(directory / _CONFIG), overrides), indent=2, ensure_ascii=False) + "\n"
    place = _place(directory, overrides)
    try:
        _write(place, directory, text)
    except OSError as error:
        raise ConfigError(
            f"hf_overrides: {place}, where config.json is to lie as overridden, cannot be written ({error.strerror}); "
            "name another directory for caches by XDG_CACHE_HOME"
        ) from error
    _LOG.warning("%s: config.json is read with hf_overrides=%s, as %s", directory, said(overrides), place / _CONFIG)
    return place


def merged(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """An object with values in the place of its own; of what is an object on both sides, key by key, as vLLM has it."""
    found = dict(config)
    for key, value in _rotation_as_in(config, overrides).items():
        old = found.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            found[key] = merged(old, value)
        else:
            found[key] = value
    return found


def _rotation_as_in(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Overrides with what they say of rotations in the form that a config has it since transformers 5: beside
    rope_parameters neither rope_theta nor rope_scaling is read, and an override is to hold."""
    table, scaling = config.get("rope_parameters"), overrides.get("rope_scaling")
    if not isinstance(table, Mapping) or "rope_parameters" in overrides:
        return overrides
    moved = dict(scaling) if isinstance(scaling, Mapping) else {}
    if "type" in moved:
        moved["rope_type"] = moved.pop("type")
    if "rope_theta" in overrides:
        moved["rope_theta"] = overrides["rope_theta"]
    names = ("rope_theta", *(["rope_scaling"] if isinstance(scaling, Mapping) else []))
    return {**{key: value for key, value in overrides.items() if key not in names}, "rope_parameters": moved}


def said(overrides: Mapping[str, Any]) -> str:
    """Overrides as text, the same whatever the order they were given in."""
    return json.dumps(overrides, sort_keys=True, ensure_ascii=False)


def _place(directory: Path, overrides: Mapping[str, Any]) -> Path:
    home = devflags.cache_home()
    if home is None:
        raise ConfigError(
            "hf_overrides: there is no home directory for the config.json that is read in place of the model's; name a "
            "directory for caches by XDG_CACHE_HOME"
        )
    key = hashlib.sha256(f"{directory.absolute()}\0{said(overrides)}".encode()).hexdigest()[:16]
    return home / "albireo" / "overridden" / key / directory.absolute().name


def _write(place: Path, directory: Path, text: str) -> None:
    """Links to what is in directory, and to nothing else, beside the text; what is right stays untouched, so that
    others may read there. Raises: OSError."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = {path.name: path.absolute() for path in directory.iterdir() if path.name != _CONFIG}
    for path in place.iterdir():
        if path.name not in (_CONFIG, *wanted) and path.is_symlink():
            path.unlink(missing_ok=True)
    for name, target in wanted.items():
        path = place / name
        if not path.is_symlink() or path.readlink() != target:
            _replace(path, lambda temporary, target=target: os.symlink(target, temporary))
    path = place / _CONFIG
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        _replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _replace(path: Path, make: Any) -> None:
    """Make a file or link beside its place and put it there in one step."""
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as folder:
        temporary = Path(folder) / path.name
        make(temporary)
        os.replace(temporary, path)
