"""What the tokenizers library raises where it cannot go on, as an error of ours: its panics are no Exceptions.

Used by whoever calls it. A damaged file makes it panic while it is read; a pattern of a tokenizer.json that goes back
ten million times in some text ("(a+)+$"), when it is asked to encode or decode that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from albireo.errors import EngineError

#: Characters of what the library says.
_MAX_TOLD = 300


def is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"


def told(error: BaseException) -> str:
    """What the library says of a file, cut to a few lines: it repeats the value it does not take, however long."""
    words = str(error)
    return words if len(words) <= _MAX_TOLD else f"{words[:_MAX_TOLD]}…"


@contextmanager
def panics_as(kind: type[EngineError], what: str) -> Iterator[None]:
    """Args: kind: raised in place of a panic. what: was to be done."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise kind(
            f"the tokenizer gave up when it was to {what}: {told(error)}; a pattern of the model's tokenizer.json goes "
            "back too often in it"
        ) from None
