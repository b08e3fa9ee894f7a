"""Record: an object of a JSON file nobody vouches for, read key by key with its type and range.

Used by the files of this room that read. Every key must be there and no other may be: what is not understood is
refused. Does not know which keys exist.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from albireo.errors import Corrupt, EngineError, InvariantError, VersionMismatch, short

#: Above any size, offset or count that occurs; products of two stay far from trouble in Python's integers.
MAX_COUNT = 2**50
MAX_SLOPES = 2**12
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Record:
    """Checked access to one JSON object. done() refuses what was not read.

    Raises: Corrupt, naming the file, the key and the value.
    """

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise Corrupt(f"{where}: is {short(value)}, wanted an object")
        self.where = where
        self._data = value
        self._read: set[str] = set()

    def raw(self, key: str) -> Any:
        """The unchecked value."""
        if key not in self._data:
            raise Corrupt(f"{self.where}: {key} is missing")
        self._read.add(key)
        return self._data[key]

    def count(self, key: str, low: int = 0, high: int = MAX_COUNT) -> int:
        """A whole number in low..high."""
        value = self.raw(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.fail(key, value, f"must be a whole number from {low} to {high}")
        return value

    def text(self, key: str) -> str:
        value = self.raw(key)
        if not isinstance(value, str):
            self.fail(key, value, "must be a string")
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in allowed:
            self.fail(key, value, f"must be one of {', '.join(allowed)}")
        return value

    def flag(self, key: str) -> bool:
        value = self.raw(key)
        if not isinstance(value, bool):
            self.fail(key, value, "must be true or false")
        return value

    def digest(self, key: str) -> str:
        """A sha256 in lower-case hexadecimal."""
        value = self.text(key)
        if not _SHA256.fullmatch(value):
            self.fail(key, value, "must be 64 hexadecimal digits")
        return value

    def record(self, key: str) -> Record:
        return Record(self.raw(key), f"{self.where}: {key}")

    def items(self, key: str) -> list[Any]:
        value = self.raw(key)
        if not isinstance(value, list):
            self.fail(key, value, "must be a list")
        return value

    def records(self, key: str) -> Iterator[Record]:
        """The objects of a list."""
        for i, item in enumerate(self.items(key)):
            yield Record(item, f"{self.where}: {key}[{i}]")

    def pairs(self, key: str) -> dict[str, str]:
        """A list of objects of name and value, whose order means something."""
        found: dict[str, str] = {}
        for record in self.records(key):
            name, value = record.text("name"), record.text("value")
            record.done()
            if name in found:
                self.fail(key, name, "appears twice")
            found[name] = value
        return found

    def texts(self, key: str) -> dict[str, str]:
        """An object of strings."""
        value = self.raw(key)
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            self.fail(key, value, "must be an object of strings")
        return value

    def has(self, key: str) -> bool:
        return key in self._data

    def keys(self) -> list[str]:
        return list(self._data)

    def done(self) -> None:
        """Raises: Corrupt when a key was not read."""
        extra = sorted(self._data.keys() - self._read)
        if extra:
            raise Corrupt(f"{self.where}: unknown key {short(extra[0])}; this version does not know what it means")

    def fail(self, key: str, value: Any, rule: str) -> NoReturn:
        raise Corrupt(f"{self.where}: {key}={short(value)} {rule}")


def number(value: Any, where: str) -> float:
    """A finite number, its type kept. Raises: Corrupt."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise Corrupt(f"{where}: {short(value)} must be a finite number")
    return value


def scalar(value: Any, where: str) -> str | float | None:
    """Null, a string, true or false, or a number that is not too large, its type kept. Raises: Corrupt."""
    if value is None or isinstance(value, (str, bool)):
        return value
    found = number(value, where)
    if abs(found) > MAX_COUNT:
        raise Corrupt(f"{where}: {short(value)} is too large a number")
    return found


def slopes(value: Any, where: str) -> tuple[float, ...]:
    """Of heads. Raises: Corrupt for anything but numbers above 0."""
    if not isinstance(value, list) or len(value) > MAX_SLOPES:
        raise Corrupt(f"{where}: {short(value)} must be a list of at most {MAX_SLOPES} numbers")
    found = tuple(number(each, where) for each in value)
    if not all(0 < each <= 1 for each in found):
        raise Corrupt(f"{where}: {short(value)} must be numbers above 0, and at most 1")
    return found


def read_version(record: Record, name: str, major: int, minor: int, what: str) -> int:
    """Which version of a format was written.

    Args: name, major, minor: of the newest that is read; what: has the format, in a word.
    Returns: the minor version. Raises: Corrupt; VersionMismatch for another major, or a newer minor.
    """
    found = record.text("name")
    if found != name:
        record.fail("name", found, f"is not {name}: this is another kind of {what}")
    here = record.count("major"), record.count("minor")
    if here[0] != major or here[1] > minor:
        raise VersionMismatch(
            f"{record.where}: is version {here[0]}.{here[1]}, this albireo reads {major}.0 to {major}.{minor}"
        )
    record.done()
    return here[1]


@contextmanager
def guarded(where: str) -> Iterator[None]:
    """Code that was written for graphs and programs of our own runs on one from a file: what it trips over is Corrupt.

    Errors raised on purpose pass, with InvariantError, which says that the file breaks a rule, made Corrupt too.
    """
    try:
        yield
    except InvariantError as error:
        raise Corrupt(f"{where}: {error}") from error
    except EngineError:
        raise
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise Corrupt(f"{where}: does not make sense: {type(error).__name__}: {short(str(error))}") from error
