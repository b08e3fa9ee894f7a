"""What llama.cpp calls the parameters that choose tokens, which Ollama hands on.

Used by llama_cpp.py and ollama_options.py beside it.
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


def check_window(name: str, window: int | None, wants: Mapping[str, Any], advice: Mapping[str, Any]) -> None:
    """Penalties look at the whole context here.

    Args: name: of the field that says how many of the last tokens they are to look at, which is the window; -1: all.
        wants, advice: what is asked for, and what holds where nothing is, by names here.
    Raises: HttpError 400 where they are to look at fewer.
    """
    if window in (None, -1, 0):
        return
    for theirs, neutral in PENALTIES.items():
        ours = SAMPLING[theirs]
        value = wants[ours] if wants.get(ours) is not None else advice.get(ours)
        if value not in (None, neutral):
            raise HttpError(
                400,
                f"{name}={window} is not supported beside {theirs}={value}: penalties look at the whole context here; "
                "leave it out, or give -1 or 0",
                param=name.partition(".")[0],
            )
