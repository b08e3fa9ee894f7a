"""What schemathesis is told, beside the document, so that its requests get further than to a model of another name.

Loaded by schemathesis, which fuzz.py runs; what is valid stays valid, and what is not stays so.
"""

from __future__ import annotations

from typing import Any

import schemathesis

MODEL = "story"
#: Fields that say how much is computed; any larger number is refused, or takes long, and tells nothing.
_COUNTS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n", "min_tokens")
_MOST = 24


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """The model that there is, conversations that can be one, and short answers."""
    if not isinstance(body, dict):
        return body
    changed = dict(body)
    if isinstance(changed.get("model"), str):
        changed["model"] = MODEL
    for name in _COUNTS:
        value = changed.get(name)
        if type(value) is int and value > _MOST:
            changed[name] = 1 + value % _MOST
    turns = changed.get("input")
    if isinstance(turns, list) and 0 < len(turns) <= 4096 and all(isinstance(turn, dict) for turn in turns):
        changed["input"] = [{"role": "user", "content": "Once", **turn} for turn in turns[:8]]
    turns = changed.get("messages")
    if isinstance(turns, list):
        changed["messages"] = [_by_user(turn) for turn in turns]
    return changed


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """The model that there is."""
    if isinstance(query, dict) and isinstance(query.get("model"), str):
        return {**query, "model": MODEL}
    return query


def _by_user(turn: Any) -> Any:
    """A message of somebody whom templates know; one without a role stays so."""
    return {**turn, "role": "user"} if isinstance(turn, dict) and isinstance(turn.get("role"), str) else turn
