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
#: Routes of which the document says what a message needs, so that one without it has to be refused.
_TYPED = ("/v1/messages", "/v1/messages/count_tokens")


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
    for name in ("messages", "input"):
        turns = changed.get(name)
        is_list = isinstance(turns, list) and 0 < len(turns) <= 4096 and all(isinstance(turn, dict) for turn in turns)
        if is_list and context.operation.path not in _TYPED:
            changed[name] = [{"role": "user", "content": "Once", **turn} for turn in turns[:8]]
    return changed


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """The model that there is."""
    if isinstance(query, dict) and isinstance(query.get("model"), str):
        return {**query, "model": MODEL}
    return query
