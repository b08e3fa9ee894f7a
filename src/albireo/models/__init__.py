"""What a model directory is: its architecture, its config, its graph and its weights.

Called by the front doors. What opens one (opening.py) is imported when first used: whoever asks for what needs neither
graphs nor arrays does not wait for them.
Does not know devices, nor how weights are packed.
"""

from __future__ import annotations

import functools
import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from albireo.models.opening import Architecture, build_graph, load_architecture, load_config, open_checkpoint

__all__ = [
    "Architecture",
    "architectures",
    "build_graph",
    "encoder_types",
    "load_architecture",
    "load_config",
    "open_checkpoint",
    "speech_types",
]

_OPENING = ("Architecture", "build_graph", "load_architecture", "load_config", "open_checkpoint")


def architectures() -> tuple[str, ...]:
    """Every model_type that writes text: the file names of the folder decoders."""
    return _files_of("decoders")


def encoder_types() -> tuple[str, ...]:
    """Every model_type whose tokens see what comes behind them, too: the file names of the folder encoders."""
    return _files_of("encoders")


def speech_types() -> tuple[str, ...]:
    """Every model_type that writes down what is said: the file names of the folder speech."""
    return _files_of("speech")


@functools.cache
def _files_of(folder: str) -> tuple[str, ...]:
    """Read once."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules([f"{path}/{folder}" for path in __path__])))


def __getattr__(name: str) -> Any:
    if name not in _OPENING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.opening"), name)
    globals()[name] = value  # the next look-up does not come here
    return value
