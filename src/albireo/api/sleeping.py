"""The sleep of LLM and AsyncLLM: what they take of vLLM's levels and tags, which say what is kept there, and what comes
first; and how memory is given back.

Here all goes and all comes: weights lie in files, which the system keeps in memory as long as nobody else wants it.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

from albireo.errors import InvalidParams, short


def check_level(level: int) -> None:
    """Raises: InvalidParams."""
    if level not in (1, 2):
        raise InvalidParams(f"level={short(level)} is not known; it must be 1 or 2")


def check_tags(tags: Sequence[str] | None) -> None:
    """Raises: InvalidParams."""
    for tag in tags or ():
        if tag not in ("weights", "kv_cache"):
            raise InvalidParams(f"tags={short(tag)} is not known; it must be weights or kv_cache")


def give_back(device: str) -> None:
    """Let the system have what a model took that is let go. Args: device: that it ran on."""
    gc.collect()
    if device == "cuda":
        from albireo.backends.cuda.shortage import empty_cache

        empty_cache()
