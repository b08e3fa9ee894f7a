"""What conversations of other protocols have in common.

Used by the dialects beside it. Does not know protocols.
"""

from __future__ import annotations

from typing import Any


def merged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages of one role in a row as one: many templates want roles that alternate."""
    found: list[dict[str, Any]] = []
    for message in messages:
        if found and found[-1]["role"] == message["role"]:
            found[-1] = {**found[-1], "content": f"{found[-1]['content']}\n{message['content']}"}
        else:
            found.append(message)
    return found
