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
from albireo.structured_params import MAX_REGEX_CHARS

#: Any text: a dot leaves out line ends.
_ALL = r"(?:.|\n)*"
_LOOKS = ("(?=", "(?!", "(?<=", "(?<!")
#: Most times that a pattern looks ahead, and most patterns in its place; what takes more is left to be refused.
_MOST = 16
_CLASS = r"\[\^?\]?(?:\\.|[^\]\\])*\]"
#: One letter of some: a class, an escape of letters, or a letter that stands for itself.
_LETTER = re.compile(rf"{_CLASS}|\\(?:[dDwWsStnrfv]|[^A-Za-z0-9])|[^\\\[\](){{}}|*+?.^$]", re.DOTALL)
_TOKEN = re.compile(rf"{_CLASS}|\\.|.", re.DOTALL)
_FLAGS = re.compile(r"\(\?[A-Za-z-]+\)")
#: The beginning of a class that has another one in it, or so the backends read it.
_NESTED = re.compile(r"\[(?:\\.|[^\\\[])*\[", re.DOTALL)
_QUANTIFIER = re.compile(r"[*+?]|\{[0-9,]")
_NEGATED = {r"\d": r"\D", r"\D": r"\d", r"\w": r"\W", r"\W": r"\w", r"\s": r"\S", r"\S": r"\s"}


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a text has to begin with, or be, or may not: any of these.

    Fields:
        begins: expressions that a text begins with.
        wholes: those that all of it matches; they ended in $.
    """

    begins: tuple[str, ...]
    wholes: tuple[str, ...]
    is_negative: bool

    @property
    def whole(self) -> str:
        """An expression that the whole of a text matches which begins with, or is, one of them."""
        begin = [f"(?:{'|'.join(self.begins)}){_ALL}"] if self.begins else []
        return f"(?:{'|'.join([*begin, *self.wholes])})"


def split(pattern: str) -> tuple[list[Ahead], str]:
    """What a pattern looks for ahead at its beginning, and the rest of it; nothing, and all, where that is not all of
    the look-around there is, and where the pattern is longer than a regular expression may be."""
    if len(pattern) > MAX_REGEX_CHARS:
        return [], pattern
    rest = pattern.removeprefix("^")
    found: list[Ahead] = []
    while rest.startswith(("(?=", "(?!")) and len(found) <= _MOST:
        end = _end_of_group(rest)
        if end is None or _QUANTIFIER.match(rest, end):
            return [], pattern
        ahead = _ahead(rest[3 : end - 1], rest.startswith("(?!"))
        if ahead is None:
            return [], pattern
        found.append(ahead)
        rest = rest[end:].removeprefix("^")
    if not found or len(found) > _MOST or any(look in rest for look in _LOOKS) or len(_alternatives(rest)) > 1:
        return [], pattern
    return found, rest


def _ahead(body: str, is_negative: bool) -> Ahead | None:
    """What is looked for by what is inside of such a group; None where it looks around itself, or has a $ that ends
    none of its alternatives."""
    if any(look in body for look in _LOOKS):
        return None
    alternatives = _alternatives(body)
    tokens = list(_tokens(body))
    ends = {place for place, token in tokens if token == "$"}
    if (ends or len(alternatives) > 1) and (_FLAGS.search(body) or any(_NESTED.match(token) for _, token in tokens)):
        return None  # flags hold in the alternatives that follow, too
    begins: list[str] = []
    wholes: list[str] = []
    last = -1
    for each in alternatives:
        last += len(each)
        is_whole = last in ends
        ends.discard(last)
        last += 1  # the |
        (wholes if is_whole else begins).append(each[: len(each) - is_whole].removeprefix("^"))
    return Ahead(tuple(begins), tuple(wholes), is_negative) if not ends else None


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
        others = [each for ahead in found for each in _patterns_of(ahead)]
        besides = out.get("allOf", [])
        if not found or None in others or len(others) > _MOST or not isinstance(besides, list):
            return out
        return {**out, "pattern": f"^{rest}", "allOf": [*besides, *({"pattern": each} for each in others)]}

    made: Mapping[str, Any] = plain(schema)
    return made


def _patterns_of(ahead: Ahead) -> list[str | None]:
    """Patterns for what is looked for, all of which have to match; None for each that has none."""
    if not ahead.is_negative:
        return [f"^{ahead.whole}$"]
    if len(ahead.begins) + len(ahead.wholes) > _MOST:
        return [None]
    return [*(_never(each, False) for each in ahead.begins), *(_never(each, True) for each in ahead.wholes)]


def _never(body: str, is_whole: bool) -> str | None:
    """A pattern of the texts that do not begin with, or are not, what an expression matches; None where it is none of
    the few that are turned around here. A dot before a letter is any here: line ends hide none."""
    if body.startswith(".*") and (last := _LETTER.fullmatch(body, 2)) is not None:
        return f"^(?:{_ALL}{_other(last[0])})?$" if is_whole else f"^{_other(last[0])}*$"
    letter = _LETTER.match(body)
    if letter is None:
        return None
    other, quantifier = _other(letter[0]), body[letter.end() :]
    if is_whole and quantifier == "*":
        return other
    if (is_whole and quantifier == "+") or (not is_whole and not quantifier):
        inner = f"{_ALL}{other}{_ALL}" if quantifier else f"{other}{_ALL}"
        return f"^(?:{inner})?$"
    return None


def _other(letter: str) -> str:
    """Any letter but these."""
    if letter in _NEGATED:
        return _NEGATED[letter]
    if letter.startswith("[^"):
        inside = letter[2:]
        # a ^ that comes first now would turn the class around again
        return rf"[\{inside}" if inside.startswith("^") else f"[{inside}"
    return f"[^{letter[1:]}" if letter.startswith("[") else f"[^{letter}]"


def _end_of_group(pattern: str) -> int | None:
    """The place behind the group that a pattern begins with."""
    depth = 0
    for place, token in _tokens(pattern):
        depth += (token == "(") - (token == ")")
        if depth == 0:
            return place + 1
    return None


def _alternatives(pattern: str) -> list[str]:
    """What a pattern is one of, outside of all groups: itself, if it has no such |."""
    depth, start = 0, 0
    found: list[str] = []
    for place, token in _tokens(pattern):
        depth += (token == "(") - (token == ")")
        if depth == 0 and token == "|":
            found.append(pattern[start:place])
            start = place + 1
    return [*found, pattern[start:]]


def _tokens(pattern: str) -> Iterator[tuple[int, str]]:
    """Letters of a pattern with their places; an escape, or a class, is one. They end at a class that does not."""
    for match in _TOKEN.finditer(pattern):
        if match[0] == "[":
            return  # to look for the end of each further one is quadratic
        yield match.start(), match[0]
