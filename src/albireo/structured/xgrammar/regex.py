"""Regular expressions -> the ones that xgrammar keeps; what it would misread or ignore is refused by name.

Called by request.py, keywords.py and tags.py. xgrammar ignores ^ and $ in the middle, takes an escape that it does not
know for a letter, lets "." match a line break, and lets a pattern of JSON write a quote into its string. So an
expression is read here and written anew out of characters, classes of ranges, groups and repetitions. Does not know
JSON schemas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from albireo.errors import InvalidParams, UnsupportedFeature

Ranges = list[tuple[int, int]]

MAX_DEPTH = 100
_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
#: What stands in no JSON string as itself.
_NOT_JSON: Ranges = [(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C)]
#: And "", which ends a name.
_ESCAPED = frozenset(["", '"', "\\", *map(chr, range(0x20))])
_DIGITS: Ranges = [(0x30, 0x39)]
_WORDS: Ranges = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACES: Ranges = [(0x09, 0x0D), (0x20, 0x20)]
_WIDE_SPACES: Ranges = [
    *_SPACES,
    *((0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029)),
    *((0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
]
#: What a shorthand means at least, and at most: readers of patterns differ beyond ASCII, and what is allowed to match
#: is what matches for all of them.
_SHORT = {"d": (_DIGITS, _DIGITS), "w": (_WORDS, [*_WORDS, (0x80, _LAST)]), "s": (_SPACES, _WIDE_SPACES)}
_NAMED = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11}
_HEX = re.compile(r"x\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|u\{([0-9A-Fa-f]{1,6})\}|u([0-9A-Fa-f]{4})")
_REPEAT = re.compile(r"\{(\d{1,9})(,?)(\d{0,9})\}")
_GROUP = re.compile(r"\(\?(?::|P?<[A-Za-z_]\w*>)")


def whole(regex: str, field: str) -> str:
    """An expression that matches what the given one matches from beginning to end.

    Args: field: what it is called in errors.
    Raises: InvalidParams, UnsupportedFeature naming the construct.
    """
    return "|".join(each.body for each in _Reader(regex, field, is_json=False).top())


def in_json(pattern: str, field: str) -> str:
    """The contents of JSON strings, without escapes, in which the pattern is found.

    Raises: InvalidParams, UnsupportedFeature naming the construct.
    """
    free = f"{char_class([], is_json=True, is_negative=True)}*"
    parts = []
    for each in _Reader(pattern, field, is_json=True).top():
        begin, end = "" if each.begins else free, "" if each.ends else free
        parts.append(f"{begin}(?:{each.body}){end}")
    return "|".join(parts)


def other_names(names: Iterable[str]) -> str:
    """Contents of JSON strings, without escapes, that are none of these. Raises: UnsupportedFeature for long ones."""
    root: dict[str, Any] = {}
    for name in names:
        if len(name) > MAX_DEPTH:
            raise UnsupportedFeature(f"xgrammar keeps names beyond ASCII of at most {MAX_DEPTH} characters")
        node = root
        for one in name:
            node = node.setdefault(one, {})
        node[""] = {}
    rest = f"{char_class([], is_json=True, is_negative=True)}*"

    def outside(node: dict[str, Any]) -> str:
        ones = [(ord(one), ord(one)) for one in node if one]
        parts = [f"{char_class(ones, is_json=True, is_negative=True)}{rest}"]
        parts += [f"{_char(ord(one))}(?:{outside(node[one])})" for one in node if one not in _ESCAPED]
        return "|".join(parts if "" in node else ["", *parts])

    return outside(root)


def literal(text: str) -> str:
    """An expression that matches this text."""
    return "".join(map(_char, map(ord, text)))


def char_class(ranges: Ranges, *, is_json: bool, is_negative: bool = False) -> str:
    """One character of, or outside of, these ranges; of those that JSON strings may hold as themselves."""
    wanted = _outside(ranges) if is_negative else ranges
    wanted = _outside([*_outside(wanted), _SURROGATES, *(_NOT_JSON if is_json else [])])
    if not wanted:
        return ""
    return f"[{''.join(_char(low) if low == high else f'{_char(low)}-{_char(high)}' for low, high in wanted)}]"


@dataclass(frozen=True, slots=True)
class _Alternative:
    """begins, ends: it has a ^ in front, a $ behind."""

    begins: bool
    body: str
    ends: bool


class _Reader:
    """Reads one expression, writes it anew."""

    def __init__(self, text: str, field: str, *, is_json: bool) -> None:
        self._text, self._field, self._is_json = text, field, is_json
        self._at = 0

    def top(self) -> list[_Alternative]:
        found = self._alternatives(0)
        if self._at < len(self._text):
            raise self._wrong("a ) without its (")
        return found

    def _alternatives(self, depth: int) -> list[_Alternative]:
        if depth > MAX_DEPTH:
            raise InvalidParams(f"{self._field} is nested more than {MAX_DEPTH} deep; make it simpler")
        found = [self._alternative(depth)]
        while self._take("|"):
            found.append(self._alternative(depth))
        return found

    def _alternative(self, depth: int) -> _Alternative:
        begins, ends, parts = depth == 0 and self._take("^"), False, []
        while (next_one := self._peek()) and next_one not in "|)":
            if ends or next_one == "^":
                raise self._unsupported("^ or $ elsewhere than at its beginning and its end")
            if next_one == "$":
                if depth:
                    raise self._unsupported("^ or $ elsewhere than at its beginning and its end")
                ends = self._take("$")
                continue
            atom = self._atom(depth)
            parts.append(atom + self._repetition())
        return _Alternative(begins, "".join(parts), ends)

    def _atom(self, depth: int) -> str:
        one = self._text[self._at]
        self._at += 1
        if one == "(":
            return self._group(depth)
        if one == "[":
            return self._class()
        if one == ".":
            return char_class([(10, 10)], is_json=self._is_json, is_negative=True)
        if one == "\\":
            ranges = self._escape()
            if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
                return self._literal(ranges[0][0])
            return self._not_empty(char_class(ranges, is_json=self._is_json))
        if one in "*+?{":
            raise self._wrong(f"{one} with nothing to repeat")
        return self._literal(ord(one))

    def _group(self, depth: int) -> str:
        if self._peek() == "?":
            match = _GROUP.match(self._text, self._at - 1)
            if match is None:
                raise self._unsupported(f"{self._text[self._at - 1 : self._at + 3]!r}: look-around, flags and the like")
            self._at = match.end()
        inner = "|".join(each.body for each in self._alternatives(depth + 1))
        if not self._take(")"):
            raise self._wrong("a ( without its )")
        return f"(?:{inner})"

    def _repetition(self) -> str:
        sign = self._peek()
        if sign == "{":
            match = _REPEAT.match(self._text, self._at)
            if match is None:
                raise self._wrong("a { that is no {m}, {m,} or {m,n}")
            self._at = match.end()
            least, comma, most = match.groups()
            if most and int(most) < int(least):
                raise self._wrong(f"{match[0]}, whose numbers are the wrong way round")
            found = f"{{{int(least)}{comma}{most and int(most)}}}"
        elif sign and sign in "*+?":
            self._at += 1
            found = sign
        else:
            return ""
        self._take("?")  # how eagerly it repeats does not change what it matches
        if (more := self._peek()) and more in "*+?{":
            raise self._wrong(f"two repetitions in a row: {found}{more}")
        return found

    def _class(self) -> str:
        is_negative = self._take("^")
        ranges: Ranges = []
        while not self._take("]"):
            low = self._class_item(ranges, is_negative)
            if low is None:
                continue
            high: int | None = low
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._class_item([], is_negative)
            if high is None or high < low:
                raise self._wrong("a range in [ ] that is none")
            ranges.append((low, high))
        if not ranges:
            raise self._wrong("an empty [ ]")
        return self._not_empty(char_class(ranges, is_json=self._is_json, is_negative=is_negative))

    def _class_item(self, into: Ranges, is_negative: bool) -> int | None:
        """A character; or None, and a shorthand's ranges are in `into`."""
        one = self._peek()
        if one is None:
            raise self._wrong("a [ without its ]")
        if one == "[" or self._text[self._at : self._at + 2] in ("&&", "--", "~~"):
            raise self._unsupported(f"{self._text[self._at : self._at + 2]!r} within [ ]; write \\ before it")
        self._at += 1
        if one != "\\":
            return ord(one)
        ranges = self._escape(is_negative)
        if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
            return ranges[0][0]
        into += ranges
        return None

    def _escape(self, is_excluded: bool = False) -> Ranges:
        """Ranges of the escape behind a backslash. Args: is_excluded: it says what shall not match."""
        match = _HEX.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
            point = int(next(group for group in match.groups() if group), 16)
            if point > _LAST or _SURROGATES[0] <= point <= _SURROGATES[1]:
                raise self._wrong(f"\\{match[0]}, which is no character")
            return [(point, point)]
        one = self._peek()
        if one is None:
            raise self._wrong("a \\ at its end")
        self._at += 1
        if one.lower() in _SHORT:
            least, most = _SHORT[one.lower()]
            return (most if is_excluded else least) if one.islower() else _outside(least if is_excluded else most)
        if one in _NAMED:
            return [(_NAMED[one], _NAMED[one])]
        if one.isascii() and not one.isalnum():
            return [(ord(one), ord(one))]
        raise self._unsupported(f"\\{one}")

    def _literal(self, point: int) -> str:
        if self._is_json and any(low <= point <= high for low, high in _NOT_JSON):
            raise self._unsupported(f"{chr(point)!r}, which a JSON string holds as an escape only")
        return _char(point)

    def _not_empty(self, written: str) -> str:
        if not written:
            raise self._wrong("a [ ] that no character is in")
        return written

    def _peek(self) -> str | None:
        return self._text[self._at] if self._at < len(self._text) else None

    def _take(self, one: str) -> bool:
        is_there = self._peek() == one
        self._at += is_there
        return is_there

    def _wrong(self, what: str) -> InvalidParams:
        return InvalidParams(f"{self._field} has {what} (at character {self._at})")

    def _unsupported(self, what: str) -> UnsupportedFeature:
        return UnsupportedFeature(f"{self._field}: xgrammar does not keep {what} (at character {self._at})")


def _char(point: int) -> str:
    one = chr(point)
    return one if one.isascii() and one.isalnum() else f"\\u{{{point:x}}}"


def _outside(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """All characters that are in none of them, in order."""
    found, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    if start <= _LAST:
        found.append((start, _LAST))
    return found
