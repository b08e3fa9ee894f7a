"""Models that other programs have fetched: Ollama's store, LM Studio's folder, and the hub's cache where nothing can
fetch from the hub.

Called by locate.py. Ollama keeps files by their hashes and says in a manifest which of them a model is: links by names
lie in the user's cache, so that a model is told by its suffix, and its projector by its name, as anywhere else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from albireo import devflags
from albireo.api.sources.own_files import put
from albireo.errors import ConfigError, ModelError

_LOG = logging.getLogger(__name__)

#: A model is named by these in front of what the program calls it.
OLLAMA, LM_STUDIO = "ollama:", "lmstudio:"
_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_NAME = re.compile(r"(?:(?:([\w.:-]+)/)?([\w.-]+)/)?([\w.-]+)(?::([\w.-]+))?", re.ASCII)
_LAYER = "application/vnd.ollama.image."
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
#: A manifest has a kilobyte, parameters less.
_MAX_BYTES = 1 << 20
#: Most names that an error lists.
_NUM_LISTED = 10


def stored_model(name: str) -> Path | None:
    """Where a model lies that is named as `ollama:llama3.2` or `lmstudio:publisher/model`, or by the path of a manifest
    or a file of Ollama's store; None: the name is none of these. Raises: ModelError, ConfigError."""
    if name.startswith(OLLAMA):
        return _of_ollama(name.removeprefix(OLLAMA))
    if name.startswith(LM_STUDIO):
        return _of_lm_studio(name.removeprefix(LM_STUDIO))
    path = of_home(name)
    if not path.is_file():
        return None
    if _DIGEST.fullmatch(path.name) and path.parent.name == "blobs":
        return _linked(path.name[:19], path, [])
    stores = [parent.parent for parent in path.absolute().parents if parent.name == "manifests"]
    return _of_manifest(stores[0], path) if stores and (stores[0] / "blobs").is_dir() else None


def elsewhere(name: str) -> str:
    """The end of a sentence that says there is no such model: where another program has one of that name."""
    if _NAME.fullmatch(name) and any(_is_file(_manifest(store, name)) for store in _ollama_stores()):
        return f"; Ollama has one: {OLLAMA}{name}"
    return ""


def cached_of_hub(name: str) -> Path | None:
    """The snapshot of a hub's model in its cache, without asking the hub. Args: name: owner/model."""
    cache = _hub_cache()
    if cache is None:
        return None
    place = cache / f"models--{name.replace('/', '--')}"
    try:
        revision = (place / "refs" / "main").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    found = place / "snapshots" / revision
    return found if re.fullmatch(r"[0-9a-f]{4,64}", revision) and found.is_dir() else None


def _hub_cache() -> Path | None:
    """None: there is no home that it could be in."""
    given = devflags.variables()
    if place := given.get("HF_HUB_CACHE") or given.get("HUGGINGFACE_HUB_CACHE"):
        return of_home(place)
    if home := given.get("HF_HOME"):
        return of_home(home) / "hub"
    caches = devflags.cache_home()
    return None if caches is None else caches / "huggingface" / "hub"


def of_home(path: str) -> Path:
    """A path that may begin with ~. Where there is no home, as of a container's user without an entry in passwd, it
    stays as it is, and nothing is found there."""
    return Path(os.path.expanduser(path))


# -- Ollama ------------------------------------------------------------------------------------------------------------


def _ollama_stores() -> list[Path]:
    """Those that there are: the user's, or what OLLAMA_MODELS names in its place, and that of the service."""
    given = devflags.variables().get("OLLAMA_MODELS")
    own = of_home(given or "~/.ollama/models")
    services = [Path("/usr/share/ollama/.ollama/models"), Path("/var/lib/ollama/models")]
    return [store for store in (own, *services) if _is_dir(store / "manifests")]


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a home that others may not enter
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _manifest(store: Path, name: str) -> Path:
    match = _NAME.fullmatch(name)
    assert match is not None, "the caller has looked"
    host, namespace, model, tag = match.groups()
    return store / "manifests" / (host or _HOST) / (namespace or _NAMESPACE) / model / (tag or _TAG)


def _of_ollama(name: str) -> Path:
    match, stores = _NAME.fullmatch(name), _ollama_stores()
    if match is None or any(part in (".", "..") for part in re.split("[/:]", name)):
        raise ModelError(f"{OLLAMA}{name} is no name of a model of Ollama's; write it as `ollama list` does")
    if not stores:
        raise ModelError(
            f"{OLLAMA}{name}: Ollama has no models here, neither in ~/.ollama/models nor where OLLAMA_MODELS says; "
            "give a directory or a GGUF file"
        )
    for store in stores:
        # a user's model may have been taken from the hub of another host
        for path in (_manifest(store, name), store / "manifests" / name.replace(":", "/")):
            if _is_file(path):
                return _of_manifest(store, path)
    known = sorted({found for store in stores for found in _names(store)})
    listed = ", ".join(known[:_NUM_LISTED]) + (", …" if len(known) > _NUM_LISTED else "")
    raise ModelError(f"Ollama has no model {name} here; it has {listed or 'none'}; fetch it there: ollama pull {name}")


def _names(store: Path) -> Iterator[str]:
    """As `ollama list` writes them."""
    for path in (store / "manifests").glob("*/*/*/*"):
        host, namespace, model, tag = path.relative_to(store / "manifests").parts
        place = "" if (host, namespace) == (_HOST, _NAMESPACE) else f"{namespace}/"
        yield f"{'' if host == _HOST else f'{host}/'}{place}{model}:{tag}"


def _of_manifest(store: Path, path: Path) -> Path:
    """Raises: ModelError for a model that is in no GGUF file, or has what is not read."""
    layers = _layers(path)
    found: dict[str, list[Path]] = {}
    for layer in layers:
        kind, digest = str(layer.get("mediaType", "")), _DIGEST.fullmatch(str(layer.get("digest", "")))
        if digest is None:
            raise ModelError(
                f"{path}: a layer has the digest {layer.get('digest')!r:.60}, which is none; fetch it again"
            )
        blob = store / "blobs" / f"sha256-{digest[1]}"
        found.setdefault(kind.partition(";")[0].strip().removeprefix(_LAYER), []).append(blob)
    models, projectors = found.get("model", []), found.get("projector", [])
    if "tensor" in found:
        raise ModelError(f"{path}: its weights are single tensors in Ollama's own format; take one that is a GGUF file")
    if "adapter" in found:
        raise ModelError(
            f"{path}: it is a model with an adapter; serve the model it was made from, with --enable-lora "
            "--lora-modules NAME=ADAPTER"
        )
    if len(models) != 1:
        raise ModelError(
            f"{path}: it has {len(models)} files of weights, and one is read; give the GGUF files themselves"
        )
    for blob in (*models, *projectors):
        if not _is_file(blob):
            raise ModelError(f"{path}: its file {blob.name} is not there, or may not be read; fetch it again")
    name = "-".join(path.parts[-2:])
    _tell(name, found)
    return _linked(name, models[0], projectors)


def _layers(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_MAX_BYTES))
    except OSError as error:
        raise ModelError(f"{path}: the manifest cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        told = None
    layers = told.get("layers") if isinstance(told, dict) else None
    if not isinstance(layers, list) or not all(isinstance(each, dict) for each in layers):
        raise ModelError(f"{path} is no manifest of Ollama's: it has no layers")
    return layers


def _linked(name: str, model: Path, projectors: list[Path]) -> Path:
    """A link to the model that is named after it, beside those to its projectors. Raises: ModelError, ConfigError."""
    try:
        with model.open("rb") as file:
            begin = file.read(4)
    except OSError as error:
        raise ModelError(f"{model} cannot be read ({error.strerror}); let this user read it") from None
    if begin != b"GGUF":
        raise ModelError(f"{model} is no GGUF file; here those of Ollama's models are read that are one")
    home = devflags.cache_home()
    if home is None:
        raise ConfigError(f"{name}: there is no home directory for links to its files; name one by XDG_CACHE_HOME")
    links = {f"{name}.gguf": model.absolute()}
    links |= {f"mmproj-{number}.gguf": each.absolute() for number, each in enumerate(projectors)}
    # one of its own for each version, so that a server that runs keeps the files that it has
    key = hashlib.sha256(repr(sorted(links.items())).encode()).hexdigest()[:16]
    place = home / "albireo" / "ollama" / key
    try:
        put(place, {}, links)
    except OSError as error:
        raise ConfigError(
            f"{name}: {place}, where links to its files are to lie, cannot be written ({error.strerror}); name "
            "another directory for caches by XDG_CACHE_HOME"
        ) from error
    return place / f"{name}.gguf"


def _tell(name: str, found: dict[str, list[Path]]) -> None:
    """What Ollama would add to requests for it, and what says it here."""
    said = []
    for blob in found.get("params", []):
        try:
            with blob.open("rb") as file:  # whatever the manifest calls so: weights have gigabytes
                params = json.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            continue
        named = [f"{key}={value}" for key, value in params.items() if key != "stop"] if isinstance(params, dict) else []
        if named:
            said.append(f"{', '.join(named)[:200]} (--override-generation-config says it)")
    if "system" in found:
        said.append("a SYSTEM message (requests say it)")
    if said:
        _LOG.warning("%s: what Ollama's model has beside its file is not read: %s", name, "; ".join(said))


# -- LM Studio ---------------------------------------------------------------------------------------------------------


def _of_lm_studio(name: str) -> Path:
    """Its folder of a model, which locate.py looks into, or a file of one."""
    folders = [of_home(each) for each in ("~/.lmstudio/models", "~/.cache/lm-studio/models")]
    parts = Path(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise ModelError(f"{LM_STUDIO}{name} is no model of LM Studio's; write it as publisher/model")
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    there = sorted(
        str(path.relative_to(folder)) for folder in folders if _is_dir(folder) for path in folder.glob("*/*/")
    )
    listed = ", ".join(there[:_NUM_LISTED]) + (", …" if len(there) > _NUM_LISTED else "")
    raise ModelError(f"LM Studio has no model {name} here; it has {listed or 'none'}")
