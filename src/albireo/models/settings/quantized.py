"""Which way the weights of a model directory are quantized, from its config.json or a file beside it.

Called by opening.py, weights.py and api/sources/config_only.py. Does not know the formats themselves:
quantization/formats does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from albireo.errors import ModelError, short
from albireo.json_file import read_json
from albireo.quantization.formats import read_format
from albireo.quantization.formats.matrix import Format

#: Keys of config.json; the second is what compressed-tensors wrote at first.
KEYS = ("quantization_config", "compression_config")
#: What some have beside that key (DeepSeek V4), and transformers writes within it.
_BESIDE = ("expert_dtype",)
#: Parts of a config.json that may have the key in place of the whole: of models that see or hear.
_PARTS = ("text_config", "llm_config", "thinker_config")
#: Parts within parts that are looked into: of a thinker the text.
_DEPTH = 2
#: Written by some programs beside a config.json that does not itself say that the weights are quantized: the file, what
#: it is about, and the key its settings lie under (none: at the top).
SIDE_FILES = (
    ("hf_quant_config.json", "modelopt", "quantization"),
    ("quantize_config.json", "gptq", None),
    ("quant_config.json", "awq", None),
)


def quantization_format(directory: Path, config: Mapping[str, Any] | None = None) -> Format | None:
    """The format of the weights; None: they are numbers.

    Args: config: what config.json holds; read here when it is not given, and need not exist then.
    Raises: ModelError for an impossible value; UnsupportedModel naming the key and value that are not read.
    """
    said = _said(directory, config)
    return None if said is None else read_format(*said)


def quantization_method(directory: Path) -> str | None:
    """What the files call the way their weights are quantized (quant_method); None: they are numbers.

    Raises: ModelError for a damaged file.
    """
    said = _said(directory, None)
    if said is None:
        return None
    method = said[0].get("quant_method", "modelopt" if "quant_algo" in said[0] else None)
    return method if isinstance(method, str) else None


def _said(directory: Path, config: Mapping[str, Any] | None) -> tuple[dict[str, Any], str] | None:
    """What is said of how weights are quantized, and where; None: nothing."""
    path = directory / "config.json"
    if config is None:
        config = read_json(path) if path.exists() else {}
    for prefix, settings in _places(config):
        for key in KEYS:
            value = settings.get(key)
            if value is not None:
                if not isinstance(value, dict):
                    raise ModelError(f"{path}: {prefix}{key}={short(value)} must be an object")
                beside = {name: settings[name] for name in _BESIDE if settings.get(name) is not None}
                return {**beside, **value}, f"{path}: {prefix}{key}"
    for name, method, place in SIDE_FILES:
        side = directory / name
        if side.exists():
            value = read_json(side) if place is None else read_json(side).get(place)
            if not isinstance(value, dict):
                raise ModelError(f"{side}: {place}={short(value)} must be an object")
            return {"quant_method": method, **value}, f"{side}" if place is None else f"{side}: {place}"
    return None


def without_quantization(config: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """What a config.json says of the model itself, its parts included. Args: depth: parts that config is within."""
    left = {key: value for key, value in config.items() if key not in (*KEYS, *_BESIDE)}
    if depth == _DEPTH:
        return left
    return {key: without_quantization(part, depth + 1) if _is_part(key, part) else part for key, part in left.items()}


def _is_part(key: str, value: Any) -> bool:
    return key in _PARTS and isinstance(value, Mapping)


def _places(config: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What may say how weights are quantized, with what its keys are called in errors; the whole first."""
    yield prefix, config
    for key, value in config.items() if depth < _DEPTH else ():
        if _is_part(key, value):
            yield from _places(value, f"{prefix}{key}.", depth + 1)
