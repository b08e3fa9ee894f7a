"""Every exception this package raises on purpose, drawn as a tree.

EngineError
├─ ConfigError          unknown key, impossible combination of settings
│  └─ NoGpu             a GPU is asked for, and none can be used
├─ ModelError           a model directory that cannot be used
│  ├─ UnsupportedModel  an architecture or a config key we do not compute
│  ├─ WeightMismatch    weights missing, extra, misshapen or damaged
│  └─ EngineFileError   an engine directory that cannot be used; names the command that mends it
│     ├─ Corrupt          truncated, altered or inconsistent
│     ├─ VersionMismatch  written in a format this version does not read
│     └─ TargetMismatch   built for something else than is asked for here
├─ RequestError         one request is refused; nothing else is disturbed
│  ├─ InvalidParams     a parameter outside its range
│  ├─ UnsupportedFeature  a parameter that asks for what we cannot do
│  ├─ PromptTooLong     the prompt can never fit
│  └─ TemplateError     the chat template refused, ran too long or is missing
├─ ResourceError        the machine has not enough of something
│  └─ OutOfMemory       predicted or met; carries the numbers
├─ DeviceLost           what computes a model does nothing any more; it is to be loaded again, in a new process
│  └─ RankLost          a process of several that compute a model together is gone; nothing runs there any more
└─ InvariantError       a bug of ours; carries the state

A message says what happened, the value seen (short() cuts it to a line), the limit, and what to do.
"""

from __future__ import annotations

from reprlib import Repr
from typing import Any


class EngineError(Exception):
    """Root of the tree: catch this to catch everything raised on purpose."""


class ConfigError(EngineError):
    """An unknown setting or an impossible combination."""


class ModelError(EngineError):
    """A model directory that cannot be used."""


class UnsupportedModel(ModelError):
    """An architecture, or a config key that changes the arithmetic, that is not implemented."""


class WeightMismatch(ModelError):
    """Weights missing, extra, misshapen, of an unknown dtype or damaged."""


class EngineFileError(ModelError):
    """An engine directory that cannot be used; the message names the command that mends it."""


class Corrupt(EngineFileError):
    """An engine directory that is truncated, altered or contradicts itself."""


class VersionMismatch(EngineFileError):
    """An engine directory in a format this version does not read."""


class TargetMismatch(EngineFileError):
    """An engine directory built for another dtype, layout or machine than is asked for."""


class NoGpu(ConfigError):
    """A GPU is asked for, and there is none that can be used. reason: what is wrong, and what to do about it; empty
    where only the message has come from another process."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class RequestError(EngineError, ValueError):
    """One request is refused, with the reason; a ValueError too, as vLLM's callers expect."""


class InvalidParams(RequestError):
    """A sampling parameter outside its range."""


class UnsupportedFeature(RequestError):
    """A parameter that asks for what this engine cannot do."""


class PromptTooLong(RequestError):
    """The prompt exceeds the context, or can never fit in the KV cache."""


class TemplateError(RequestError):
    """The chat template is missing, refused the messages, or exceeded its limits."""


class ResourceError(EngineError):
    """The machine has not enough of something."""


class OutOfMemory(ResourceError):
    """Memory predicted to be short, or found short; the message carries the numbers."""


class DeviceLost(EngineError):
    """A GPU that answers nothing any more in this process, and with it the model."""


class RankLost(DeviceLost):
    """A process of several that compute a model together is gone, and the model with it."""


class InvariantError(EngineError):
    """A bug of ours: an internal promise does not hold."""


def short(value: Any) -> str:
    """A value for a message, cut to a line."""
    cutter = Repr()
    cutter.maxstring = cutter.maxother = 60
    try:
        return cutter.repr(value)
    except ValueError:  # of whole numbers with thousands of digits Python prints none
        return f"a {type(value).__name__} too long to be shown"
