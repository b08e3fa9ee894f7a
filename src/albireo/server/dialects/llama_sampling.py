"""What llama.cpp calls the parameters that choose tokens, which Ollama hands on.

Used by llama_cpp.py and ollama_options.py beside it, and by intake.py: chats and completions may have `samplers`, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.server.errors import HttpError

#: Their name -> the same of a request here.
SAMPLING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
#: Penalties, and what of each asks for nothing.
PENALTIES = {"repeat_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}

#: Tokens that penalties look at in llama.cpp, where nothing is said; and as many as there may be.
DEFAULT_WINDOW, MOST = 64, 2**31 - 1
#: llama.cpp's letters of samplers -> their names.
_SAMPLERS = {
    "e": "penalties", "d": "dry", "s": "top_n_sigma", "k": "top_k", "y": "typ_p", "p": "top_p", "m": "min_p",
    "x": "xtc", "t": "temperature", "i": "infill",
}  # fmt: skip
_KNOWN = {*_SAMPLERS.values(), "typical_p", "typical", "top-k", "top-p", "min-p", "typ-p", "top-n-sigma"}
#: Sampler -> what of a request asks for it not to be used.
_UNUSED: dict[str, dict[str, Any]] = {
    "penalties": {SAMPLING[name]: value for name, value in PENALTIES.items()},
    "top_k": {"top_k": 0},
    "top_p": {"top_p": 1.0},
    "min_p": {"min_p": 0.0},
    "temperature": {"temperature": 1.0},
}


def left_out(samplers: str | list[str] | None) -> dict[str, Any]:
    """What is asked for by a list of samplers, names or letters, that leaves some out: that they do nothing.

    Raises: HttpError 400.
    """
    if samplers is None:
        return {}
    named = [_SAMPLERS.get(each, each) for each in samplers] if isinstance(samplers, str) else samplers
    for name in named:
        if name not in _KNOWN:
            known = ", ".join(_SAMPLERS.values())
            raise HttpError(400, f"samplers has {name!r:.40}, which is not known; there are {known}", param="samplers")
    used = {name.replace("-", "_") for name in named}
    return {field: value for name in _UNUSED if name not in used for field, value in _UNUSED[name].items()}


def window_of(last_n: int | None) -> dict[str, Any]:
    """What is asked for by repeat_last_n: that penalties look at the last so many tokens; 0: that they do nothing; -1:
    that they look at all there are. None: nothing is."""
    if last_n is None:
        return {}
    if last_n == 0:
        return dict(_UNUSED["penalties"])
    return {"penalty_window": MOST if last_n < 0 else last_n}


def window_of_theirs(last_n: int | None, wants: Mapping[str, Any]) -> dict[str, Any]:
    """The same in the protocols of llama.cpp and Ollama, which look at 64 unless they are told. Args: wants: what is
    asked for, by names here."""
    is_asked = any(wants.get(SAMPLING[name]) is not None for name in PENALTIES)
    return window_of(DEFAULT_WINDOW if last_n is None and is_asked else last_n)
