"""What the scripts of the clients have in common: where the server is, which model, and what its answer must be.

Environment: ALBIREO_URL, without /v1; ALBIREO_MODEL; ALBIREO_TEXT: the greedy answer to PROMPT of MAX_TOKENS tokens, as
the server gave it to a plain request; ALBIREO_EMBEDDING: PROMPT's embedding, likewise, as JSON; ALBIREO_CHECKPOINT:
where the model's files are; ALBIREO_HAS_SCHEMAS: whether the server takes JSON schemas.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

URL = os.environ["ALBIREO_URL"]
MODEL = os.environ["ALBIREO_MODEL"]
TEXT = os.environ["ALBIREO_TEXT"]
EMBEDDING: list[float] = json.loads(os.environ["ALBIREO_EMBEDDING"])
KEY = os.environ["ALBIREO_KEY"]
CHECKPOINT = os.environ["ALBIREO_CHECKPOINT"]
#: Exit status of a script that tried nothing.
SKIPPED = 77
PROMPT, MAX_TOKENS = "Once upon a time", 12
MESSAGES: list[Any] = [{"role": "user", "content": PROMPT}]
#: For answers in JSON: a model of stories likes blank lines, which JSON allows between its parts.
BRIEF: dict[str, Any] = {"temperature": 0, "max_tokens": 200, "frequency_penalty": 2.0}
COLOURS = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
#: A tool whose calls a model of stories can write within its context.
TOOL, TOOL_SAYS = "paint", "Paint the fence."


def is_colour(arguments: Any) -> bool:
    """Whether arguments of a call fit COLOURS."""
    return isinstance(arguments, dict) and set(arguments) == {"colour"} and arguments["colour"] in ("red", "blue")


def same(got: str | None, what: str) -> None:
    """Fails unless a client came by the answer that is known."""
    assert got == TEXT, f"{what}: {got!r} is not {TEXT!r}"


def raises(kind: type[Exception], call: Any, what: str) -> Exception:
    """The exception of this kind that a call raises. Fails when it raises none, or another."""
    try:
        call()
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__} is not {kind.__name__}") from error
    raise AssertionError(f"{what}: nothing was raised")


def end_without_schemas(is_all: bool = False) -> None:
    """End here, and say so, when the server takes no JSON schemas; what follows needs them.

    Args: is_all: nothing was tried before.
    """
    if not os.environ["ALBIREO_HAS_SCHEMAS"]:
        print("without structured outputs")
        sys.exit(SKIPPED if is_all else 0)
