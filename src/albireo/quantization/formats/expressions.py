"""Expression: a regular expression of a checkpoint, matched in steps that can be counted and without ever going back.

Used by left_out.py. Python's re goes back where a repeated part may end at several places, and "(a+)+$" or
".*.*.*.*.*x" make it do so for hours. Here all places at which a part may end are kept at once, as the bits of one
number; bit p is the place before character p. A part turns the places where it may begin into those where it may end,
so that nothing is tried twice.

Known is what such patterns are made of: letters, classes, groups, alternatives, repetition, anchors, look-around, (?i)
at the beginning. References to groups, possessive and atomic parts and other flags are refused.
Source of a repeated letter: MatchStar of Cameron et al., Bitwise Data Parallelism in Regular Expression Matching, 2014.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from albireo.errors import ModelError, short

#: Published patterns have up to 200 characters and three groups within each other.
MAX_CHARS, MAX_DEPTH = 2**11, 32
#: Of all expressions together for one name. A hundred usual ones take 3,000.
MAX_STEPS = 2**15

_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*+\]", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]*\}|0[0-7]{0,2}|[^0-9])", re.DOTALL)
_TIMES = re.compile(r"\{(?=[0-9,])([0-9]*)(?:(,)([0-9]*))?\}")
_GROUP = re.compile(r"\((?:\?:|\?P<\w+>|(\?<?[=!])|(?!\?))")
_FLAG = "(?i)"


class Text:
    """A name that is looked at. Attributes: length, in characters; steps_left, of all that is done with it."""

    def __init__(self, text: str, max_steps: int = MAX_STEPS) -> None:
        self.text, self.length, self.steps_left = text, len(text), max_steps
        self._places: dict[str, int] = {}
        for place, letter in enumerate(text):
            self._places[letter] = self._places.get(letter, 0) | 1 << place

    @property
    def everywhere(self) -> int:
        return (1 << self.length + 1) - 1

    def spend(self) -> None:
        """Raises: ModelError when all is spent."""
        self.steps_left -= 1
        if self.steps_left < 0:
            raise ModelError(
                f"quantization_config: its regular expressions (re:…) take more than {MAX_STEPS} steps for the module "
                f"{short(self.text)}; write fewer or simpler ones, or the names themselves"
            )

    def places(self, letters: _Letters) -> int:
        """Where a letter of some kind stands."""
        found = 0
        for letter, places in self._places.items():
            if letters.has(letter):
                found |= places
        return found


class _Part(Protocol):
    def ends(self, starts: int, text: Text) -> int: ...


@dataclass(frozen=True, slots=True)
class _Letters:
    """One character of some: a letter, an escape or a class, of which Python's re says what it has."""

    pattern: re.Pattern[str]
    known: dict[str, bool] = field(default_factory=dict, compare=False)

    def has(self, letter: str) -> bool:
        found = self.known.get(letter)
        if found is None:
            found = self.known[letter] = self.pattern.fullmatch(letter) is not None
        return found

    def ends(self, starts: int, text: Text) -> int:
        text.spend()
        return (starts & text.places(self)) << 1

    def repeated(self, starts: int, text: Text) -> int:
        """Ends of any number of them: a sum carries a bit through a run of ones."""
        text.spend()
        run = text.places(self)
        return (((starts & run) + run) ^ run) | starts


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: Sequence[_Part]

    def ends(self, starts: int, text: Text) -> int:
        text.spend()  # also where there are no parts: nothing, repeated within repetitions, would never be done
        for part in self.parts:
            if not starts:
                break
            starts = part.ends(starts, text)
        return starts


@dataclass(frozen=True, slots=True)
class _Either:
    parts: Sequence[_Part]

    def ends(self, starts: int, text: Text) -> int:
        text.spend()
        found = 0
        for part in self.parts:
            found |= part.ends(starts, text)
        return found


@dataclass(frozen=True, slots=True)
class _Repeat:
    """A part low to high times; high None: any number of times. Whether it takes as much or as little as it can changes
    which end is found first, not which there are."""

    part: _Part
    low: int
    high: int | None

    def ends(self, starts: int, text: Text) -> int:
        text.spend()
        # more often than there are places a part is only there again and again without letters
        most = text.length + 2
        for _ in range(min(self.low, most)):
            if not starts:
                return 0
            starts = self.part.ends(starts, text)
        if self.high is None and isinstance(self.part, _Letters):
            return self.part.repeated(starts, text)
        fresh = starts
        for _ in range(most if self.high is None else min(self.high - self.low, most)):
            fresh = self.part.ends(fresh, text) & ~starts
            if not fresh:
                break
            starts |= fresh
        return starts


@dataclass(frozen=True, slots=True)
class _Look:
    """Stays where the part begins (ahead) or ends (behind), or where it does not."""

    part: _Part
    is_ahead: bool
    is_negated: bool

    def ends(self, starts: int, text: Text) -> int:
        text.spend()
        if self.is_ahead:
            each = (1 << place for place in range(text.length + 1) if starts >> place & 1)
            found = sum(place for place in each if self.part.ends(place, text))
        else:
            found = self.part.ends(text.everywhere, text)
        return starts & (~found if self.is_negated else found)


@dataclass(frozen=True, slots=True)
class _Anchor:
    """A place of the text. Fields: kind: ^, $, A, Z, b or B, as they are written, without a backslash."""

    kind: str

    def ends(self, starts: int, text: Text) -> int:
        text.spend()
        if self.kind in "^A":
            return starts & 1
        end = 1 << text.length
        if self.kind in "$Z":
            is_line = self.kind == "$" and text.text.endswith("\n")
            return starts & (end | end >> 1 if is_line else end)
        words = text.places(_WORD)
        edges = words ^ words << 1
        return starts & (edges if self.kind == "b" else ~edges)


_WORD = _Letters(re.compile(r"\w"))


class Expression:
    """A pattern, as re.match takes one. Attributes: pattern."""

    def __init__(self, pattern: str) -> None:
        """Raises: ValueError saying what is wrong with it, or not known."""
        self.pattern = pattern
        if len(pattern) > MAX_CHARS:
            raise ValueError(f"has {len(pattern):,} characters; at most {MAX_CHARS:,} are read")
        try:
            re.compile(pattern)
            self._part = _Parser(pattern).whole()
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        except OverflowError:
            raise ValueError("repeats something too often to be meant") from None
        except RecursionError:
            raise ValueError(f"has groups within each other; at most {MAX_DEPTH} are read") from None

    def begins(self, text: Text) -> bool:
        """Whether the text begins with what is meant. Raises: ModelError where it takes too many steps."""
        return self._part.ends(1, text) != 0


class _Parser:
    """Of a pattern that re.compile takes; so what it says of one that is none is nobody's concern."""

    def __init__(self, pattern: str) -> None:
        self._ignores_case = pattern.startswith(_FLAG)
        self._text = pattern
        self._place = len(_FLAG) if self._ignores_case else 0
        self._depth = 0

    def whole(self) -> _Part:
        found = self._either()
        if self._place < len(self._text):
            self._refuse(self._text[self._place :])
        return found

    def _either(self) -> _Part:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise RecursionError
        parts = [self._sequence()]
        while self._take("|"):
            parts.append(self._sequence())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else _Either(tuple(parts))

    def _sequence(self) -> _Part:
        parts = list[_Part]()
        while self._place < len(self._text) and self._text[self._place] not in "|)":
            parts.append(self._times(self._one()))
        return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))

    def _one(self) -> _Part:
        found = _GROUP.match(self._text, self._place)
        if found:
            self._place = found.end()
            part = self._either()
            self._take(")")
            look = found[1]
            return _Look(part, "<" not in look, "!" in look) if look else part
        for sign in ("^", "$", r"\A", r"\Z", r"\b", r"\B"):
            if self._take(sign):
                return _Anchor(sign[-1])
        for kind in (_CLASS, _ESCAPE):
            found = kind.match(self._text, self._place)
            if found:
                return self._letters(found[0])
        letter = self._text[self._place]
        if letter in "(\\":
            self._refuse(self._text[self._place :])
        return self._letters(letter if letter == "." else re.escape(letter), len(letter))

    def _letters(self, pattern: str, length: int | None = None) -> _Letters:
        self._place += len(pattern) if length is None else length
        return _Letters(re.compile(pattern, re.IGNORECASE if self._ignores_case else 0))

    def _times(self, part: _Part) -> _Part:
        found = _TIMES.match(self._text, self._place)
        start = self._place
        if found:
            self._place = found.end()
            low = int(found[1] or 0)
            high = low if not found[2] else int(found[3]) if found[3] else None
        elif self._take("*"):
            low, high = 0, None
        elif self._take("+"):
            low, high = 1, None
        elif self._take("?"):
            low, high = 0, 1
        else:
            return part
        if self._take("+"):
            self._refuse(self._text[start : self._place])
        self._take("?")
        return _Repeat(part, low, high)

    def _take(self, sign: str) -> bool:
        is_there = self._text.startswith(sign, self._place)
        self._place += len(sign) * is_there
        return is_there

    def _refuse(self, what: str) -> NoReturn:
        raise ValueError(
            f"has {short(what)}, which is not read; read are letters, classes, groups, alternatives, repetition, "
            "anchors, look-around and (?i) at the beginning"
        )
