"""The end of a text that may be the beginning of a tag, and therefore has to wait.

Used by the parsers of this room.
"""

from __future__ import annotations


def could_begin(tag: str, buffer: str, pos: int) -> int:
    """Length of the longest end of the buffer, from pos on, that is a beginning of the tag. Cost: O(len(tag)²)."""
    for length in range(min(len(tag) - 1, len(buffer) - pos), 0, -1):
        if tag.startswith(buffer[len(buffer) - length :]):
            return length
    return 0
