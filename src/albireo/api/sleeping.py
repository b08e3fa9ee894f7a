"""What LLM and AsyncLLM take of vLLM's sleep: its levels and tags, which say what is kept there, and what comes first.

Here all goes and all comes: weights lie in files, which the system keeps in memory as long as nobody else wants it.
"""

from __future__ import annotations

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
