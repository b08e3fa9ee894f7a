"""A conversation that may be cut: without as few of its oldest turns as make it fit.

Used by the endpoints whose protocols have conversations cut. Does not know protocols.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from albireo.server.errors import HttpError

T = TypeVar("T")
Messages = list[dict[str, Any]]

#: Code of the refusal of what is too long.
TOO_LONG = "context_length_exceeded"


async def fitted(messages: Messages, shorter: Sequence[Messages], take: Callable[[Messages, bool], Awaitable[T]]) -> T:
    """What is made of the conversation, or of the longest that fits.

    Args:
        shorter: the same without its oldest turns, one more left out each time; none: it may not be cut.
        take: admits a conversation; the truth beside it says whether it has to leave the room that is asked for, too.
    Raises: what take() raises: of the shortest where that does not fit.
    """
    try:
        return await take(messages, bool(shorter))
    except HttpError as error:
        if error.code != TOO_LONG or not shorter:
            raise
    # That without most of them first: where it does not fit, none does, and its refusal is the answer.
    *longer, shortest = shorter
    found = await take(shortest, False)
    begin, end = 0, len(longer)
    while begin < end:
        middle = (begin + end) // 2
        try:
            found, end = await take(longer[middle], True), middle
        except HttpError as error:
            if error.code != TOO_LONG:
                raise
            begin = middle + 1
    return found


def without_oldest(messages: Messages) -> list[Messages]:
    """The conversation without its oldest turns, one more left out each time; the last one is left.

    Turns begin with a message of the user, so that no result of a tool is left without its call. What the system says
    in front of them stays.
    """
    start = next((place for place, each in enumerate(messages) if each["role"] != "system"), len(messages))
    turns = [place for place in range(start + 1, len(messages)) if _begins_turn(messages, place)]
    return [messages[:start] + messages[place:] for place in turns]


def _begins_turn(messages: Messages, place: int) -> bool:
    roles: list[str] = [messages[each]["role"] for each in (place - 1, place)]
    return roles[1] == "user" and roles[0] != "user"
