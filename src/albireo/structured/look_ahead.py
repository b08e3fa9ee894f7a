"""Look-ahead at the beginning of a regular expression -> several expressions, all of which a text has to match.

^(?=.*[A-Z])(?=.*[0-9]).{8,}$ is what passwords look like, and the pattern that pydantic 2.12 has
of a Decimal begins with (?!^[-+.]*$).
No backend knows look-ahead, since no automaton has to: a text that has to match two expressions, or may not match one,
is as regular as one. Look-ahead anywhere else, and look-behind, stay as they are, to be refused. Used by llguidance's
backend; does not know it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from albireo.structured.subschemas import with_each

#: Any text: a dot leaves out line ends.
_ALL = r"(?:.|\n)*"
_LOOKS = ("(?=", "(?!", "(?<=", "(?<!")
#: Most times that a pattern looks ahead; one that does so more often is left to be refused.
_MOST = 16
_CLASS = r"\[\^?\]?(?:\\.|[^\]\\])*\]"
#: One letter of some: a class, an escape of letters, or a letter that stands for itself.
_LETTER = re.compile(rf"{_CLASS}|\\(?:[dDwWsStnrfv]|[^A-Za-z0-9])|[^\\\[\](){{}}|*+?.^$]", re.DOTALL)
_TOKEN = re.compile(rf"{_CLASS}|\\.|.", re.DOTALL)
_NEGATED = {r"\d": r"\D", r"\D": r"\d", r"\w": r"\W", r"\W": r"\w", r"\s": r"\S", r"\S": r"\s"}


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a text has to begin with, or may not. is_whole: it is all of the text."""

    body: str
    is_whole: bool
    is_negative: bool

    @property
    def whole(self) -> str:
        """An expression that the whole of a text matches which begins so."""
        return f"(?:{self.body})" if self.is_whole else f"(?:{self.body}){_ALL}"


def split(pattern: str) -> tuple[list[Ahead], str]:
    """What a pattern looks for ahead at its beginning, and the rest of it; nothing, and all, where that is not all of
    the look-around there is."""
    rest = pattern.removeprefix("^")
    found: list[Ahead] = []
    while rest.startswith(("(?=", "(?!")) and len(found) <= _MOST:
        end = _end_of_group(rest)
        if end is None:
            return [], pattern
        body = rest[3 : end - 1].removeprefix("^")
        ends = [place for place, token in _tokens(body) if token == "$"]
        is_whole = ends == [len(body) - 1]
        if (ends and not is_whole) or any(look in body for look in _LOOKS):
            return [], pattern
        body = body[: len(body) - is_whole]
        found.append(Ahead(body, is_whole, rest.startswith("(?!")))
        rest = rest[end:].removeprefix("^")
    if not found or len(found) > _MOST or any(look in rest for look in _LOOKS) or _has_alternatives(rest):
        return [], pattern
    return found, rest


def without_look_ahead(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A JSON schema whose patterns look ahead nowhere, where several patterns say the same."""

    def plain(each: Any) -> Any:
        if not isinstance(each, Mapping):
            return each
        out = with_each(each, plain)
        pattern = out.get("pattern")
        if not isinstance(pattern, str) or not pattern.startswith("^"):
            return out  # one that may match anywhere looks ahead from there
        found, rest = split(pattern)
        others = [_pattern_of(ahead) for ahead in found]
        if not found or None in others:
            return out
        return {**out, "pattern": f"^{rest}", "allOf": [*out.get("allOf", ()), *({"pattern": each} for each in others)]}

    made: Mapping[str, Any] = plain(schema)
    return made


def _pattern_of(ahead: Ahead) -> str | None:
    """A pattern, which may match anywhere, for what is looked for; None where what may not be has none."""
    body = ahead.body
    if not ahead.is_negative:
        return f"^(?:{body}){'$' if ahead.is_whole else ''}"
    if body.startswith(".*") and not ahead.is_whole and _LETTER.fullmatch(body, 2):
        return f"^{_other(body[2:])}*$"
    letter = _LETTER.match(body)
    if letter is None:
        return None
    other, quantifier = _other(letter[0]), body[letter.end() :]
    if ahead.is_whole and quantifier == "*":
        return other
    if (ahead.is_whole and quantifier == "+") or (not ahead.is_whole and not quantifier):
        inner = f"{_ALL}{other}{_ALL}" if quantifier else f"{other}{_ALL}"
        return f"^(?:{inner})?$"
    return None


def _other(letter: str) -> str:
    """Any letter but these."""
    if letter in _NEGATED:
        return _NEGATED[letter]
    if letter.startswith("[^"):
        return f"[{letter[2:]}"
    return f"[^{letter[1:]}" if letter.startswith("[") else f"[^{letter}]"


def _end_of_group(pattern: str) -> int | None:
    """The place behind the group that a pattern begins with."""
    depth = 0
    for place, token in _tokens(pattern):
        depth += (token == "(") - (token == ")")
        if depth == 0:
            return place + 1
    return None


def _has_alternatives(pattern: str) -> bool:
    """Whether a pattern is one of several outside of all groups: look-ahead belongs to the first of them then."""
    depth = 0
    for _, token in _tokens(pattern):
        depth += (token == "(") - (token == ")")
        if depth == 0 and token == "|":
            return True
    return False


def _tokens(pattern: str) -> Iterator[tuple[int, str]]:
    """Letters of a pattern with their places; an escape, or a class, is one."""
    return ((match.start(), match[0]) for match in _TOKEN.finditer(pattern))
