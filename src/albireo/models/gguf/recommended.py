"""What a GGUF file recommends for sampling, as the keys that generation_config.json has.

Called by the front doors, and by whoever writes a file's settings into a directory. Does not know what samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albireo.json_file import Fields
from albireo.models.gguf.tensors import read_settings
from albireo.models.settings.generation import GenerationDefaults, defaults_of

_PREFIX = "general.sampling."
#: Behind it -> of generation_config.json, where not the same.
_NAMES = {"temp": "temperature", "penalty_repeat": "repetition_penalty"}
#: What says how something is done that is not done: how many tokens back a penalty looks, and in which order.
_BESIDE = ("penalty_last_n", "sequence", "mirostat_tau", "mirostat_eta", "xtc_threshold")
#: Ways to sample that a file turns off.
_OFF = {"mirostat": 0, "xtc_probability": 0.0}


def read_recommended(path: Path) -> GenerationDefaults:
    """Of a GGUF file; all defaults are None where it says nothing. Raises: ModelError for an impossible value."""
    return defaults_of(Fields(generation_of(read_settings(path)), f"{path}: general.sampling"))


def generation_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Args: settings: of the file. What is not known keeps its name."""
    found = {key.removeprefix(_PREFIX): _plain(value) for key, value in settings.items() if key.startswith(_PREFIX)}
    if found.get("penalty_last_n") == 0:  # tokens that it looks back at
        found.pop("penalty_repeat", None)
    kept = {key: value for key, value in found.items() if key not in _BESIDE and _OFF.get(key) != value}
    return {_NAMES.get(key, key): value for key, value in kept.items()}


def _plain(value: Any) -> Any:
    """A float32 of the file as it was written down: 0.6, not 0.6000000238; arrays, which none should be, as lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return float(str(np.float32(value))) if isinstance(value, float) else value
