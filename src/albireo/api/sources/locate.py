"""Model name -> where it lies: nothing (the bundled model), a directory, a GGUF file, a hub name, or what another
program has fetched (other_stores.py).

Called by load.py and by commands that only look at a model. Does not read what is in the directory.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from albireo.api.sources.other_stores import cached_of_hub, elsewhere, of_home, stored_model
from albireo.errors import ModelError
from albireo.models.gguf.files import is_beside_a_model, is_gguf, part_paths

BUNDLED = Path(__file__).resolve().parents[2] / "models" / "bundled" / "story"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*")
#: What a model needs, and nothing that could be code or another format.
_HUB_FILES = [
    *("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja"),
    *("merges.txt", "vocab.txt", "*.model", "*.tiktoken"),
]


def is_hub_name(name: str) -> bool:
    """Whether a name has the form owner/name."""
    return _HUB_NAME.fullmatch(name) is not None


def locate_model(name: str | Path | None) -> Path:
    """The directory, or the GGUF file, that a model is loaded from: of a file in parts the first of them.

    Raises: ModelError when there is no such directory and the name cannot be fetched, saying what to do.
    """
    if name is None:
        return BUNDLED
    name = str(name)
    if not name.strip():
        raise ModelError("the model's name is empty; give a model directory or a hub name, or none: the bundled model")
    path = stored_model(name) or of_home(name)
    if path.is_dir():
        return _gguf_in(path) or path
    if is_gguf(path) and path.exists():
        return _first_part(path)
    if path.exists():
        raise ModelError(
            f"{name} is a file; give the directory that holds config.json and model.safetensors, or a .gguf file"
        )
    if not is_hub_name(name):
        hint = elsewhere(name)
        raise ModelError(
            f"there is no directory {name}; give a model directory, or a hub name such as Qwen/Qwen3-0.6B{hint}"
        )
    fetched = _fetch(name)
    return _gguf_in(fetched) or fetched


def _gguf_in(directory: Path) -> Path | None:
    """The GGUF file, or the first of its parts, of a directory that holds nothing else to run. What lies beside a model
    by custom, and is none, does not count.

    Raises: ModelError when there are several.
    """
    found = sorted(path for path in directory.iterdir() if is_gguf(path))
    found = [path for path in found if not is_beside_a_model(path)] or found
    if not found or any((directory / name).exists() for name in ("config.json", "manifest.json")):
        return None
    models: dict[Path, Path] = {}
    for path in found:
        models.setdefault(part_paths(path)[0], _first_part(path))
    if len(models) > 1:
        listed = ", ".join(path.name for path in list(models.values())[:5])
        what = "GGUF files" if len(models) == len(found) else "models in GGUF files"
        raise ModelError(f"{directory}: holds {len(models)} {what}; give one of them: {listed}")
    return next(iter(models.values()))


def _first_part(path: Path) -> Path:
    """Of a model in several files, if it is there; whoever opens one says what is missing."""
    first = part_paths(path)[0]
    return first if first.exists() else path


def _fetch(name: str) -> Path:
    if find_spec("huggingface_hub") is None:
        if (cached := cached_of_hub(name)) is not None:
            return cached
        raise ModelError(
            f"there is no directory {name}. If it is a hub name: downloading needs huggingface_hub; "
            "install it with  pip install 'albireo[hub]'"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, RuntimeError) as error:  # the last: there is no home
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"there is no directory {name}, and fetching it from the hub failed: {reason}. "
            "When offline, download it elsewhere and give its directory"
        ) from error
