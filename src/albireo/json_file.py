"""Strict reading of the JSON files of a model directory, and of the values in them.

Called by models, quantization/formats, artifact and text. Everything in such a file is hostile until
checked. Does not know which keys exist.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from albireo.errors import ModelError, UnsupportedModel, short

#: A config.json with long quantization lists has 36 KB; a sharded index of 200,000 tensors about 20 MB.
MAX_JSON_BYTES = 64 * 2**20
#: As Python has them some hundred MB; tens of MB of brackets would be many GB. A header of 400,000 tensors has as many.
MAX_VALUES = 2**22
#: What pointers of Git LFS begin with; they have a few lines.
_POINTER, MAX_POINTER_BYTES = b"version https://git-lfs", 1024


def keys(*lines: str) -> frozenset[str]:
    """The words of some lines: names of keys."""
    return frozenset(word for line in lines for word in line.split())


def require_regular_file(path: Path) -> None:
    """Raises: ModelError when path is missing, unreadable, or a pipe, device or directory."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        link = f" (a link to {path.readlink()})" if path.is_symlink() else ""
        raise ModelError(f"{path}: cannot be read: {error.strerror}{link}") from error
    if not stat.S_ISREG(mode):
        raise ModelError(f"{path}: is not a regular file")
    refuse_pointer(path)


def refuse_pointer(path: Path) -> None:
    """Raises: ModelError when a file is what git leaves in its place where Git LFS is not installed."""
    try:
        if path.stat().st_size > MAX_POINTER_BYTES:
            return
        with path.open("rb") as file:
            beginning = file.read(len(_POINTER))
    except OSError:
        return  # who reads it says so
    if beginning == _POINTER:
        raise ModelError(f"{path}: is a pointer of Git LFS in place of the file; install git-lfs, then: git lfs pull")


def read_bytes(path: Path, most: int) -> bytes:
    """Raises: ModelError, as require_regular_file(), and for a file of more than most bytes."""
    require_regular_file(path)
    size = path.stat().st_size
    if size > most:
        raise ModelError(f"{path}: has {size} bytes; at most {most} are read")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def read_text(path: Path, most: int) -> str:
    """Raises: ModelError, as read_bytes(), and for a file that is not UTF-8."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: is not UTF-8 (byte {error.start})") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises: ModelError naming the file for anything but one UTF-8 object without duplicate keys.
    """
    data = read_bytes(path, MAX_JSON_BYTES)
    require_few_values(data, str(path))
    return parse_json(data, str(path))


def require_few_values(data: bytes, where: str) -> None:
    """Raises: ModelError for JSON that would take far more memory than its bytes do."""
    count = data.count(b",") + 1
    if count > MAX_VALUES:
        raise ModelError(f"{where}: has {count} values; at most {MAX_VALUES} are read")


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """The object in data; where names it in errors. Raises: as read_json."""
    try:
        # NaN and Infinity pass here, as real files hold them in keys of no interest; Fields refuses them in others.
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise ModelError(f"{where}: is nested too deeply to be a real file") from None
    except UnicodeDecodeError as error:
        raise ModelError(f"{where}: is not UTF-8 (byte {error.start})") from None
    except ValueError as error:
        raise ModelError(f"{where}: is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{where}: holds a {type(value).__name__}, not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {short(key)} appears twice")
            seen.add(key)
    return result


class Fields:
    """Checked access to one object, remembering what was read.

    Invariants: 1. to every reader a null value is the same as an absent key; 2. every value handed out was checked
    for type and range; 3. refuse_unread() accepts a file only when each key was read, is ignorable, or is neutral.

    Args: names: what the file calls some keys; errors name them so, too.
    """

    def __init__(self, data: Mapping[str, Any], where: str, names: Mapping[str, str] | None = None) -> None:
        self._data = data
        self.where = where
        self._names = names or {}
        self._read: set[str] = set()

    def raw(self, key: str) -> Any:
        """The unchecked value, or None."""
        key = self._names.get(key, key)
        self._read.add(key)
        return self._data.get(key)

    def named(self, names: Mapping[str, str]) -> Fields:
        """The same object, of which nothing is read yet. Args: names: what the file calls some keys."""
        return Fields(self._data, self.where, names)

    def has(self, key: str) -> bool:
        """Whether the file has the key, null or not."""
        return self._names.get(key, key) in self._data

    def one_name(self, *names: str) -> str:
        """Which of several names of one key the file has; of those that say the same the first, of none the last.

        Raises: ModelError where two of them say different things.
        """
        given = [name for name in names if self.raw(name) is not None]
        for name in given[1:]:
            if self.raw(name) != self.raw(given[0]):
                self.fail(given[0], self.raw(given[0]), f"contradicts {name}={short(self.raw(name))}; keep one")
        return given[0] if given else names[-1]

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number in low..high. Raises: ModelError; also when it is absent and has no default."""
        value = self._present(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.fail(key, value, f"must be a whole number from {low} to {high}")
        return value

    def optional_integer(self, key: str, low: int, high: int) -> int | None:
        return None if self.raw(key) is None else self.integer(key, low, high)

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """A finite number in low..high. Raises: ModelError; also when it is absent and has no default."""
        value = self._present(key, default)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            self.fail(key, value, f"must be a number from {low:g} to {high:g}")
        return float(value)

    def optional_number(self, key: str, low: float, high: float) -> float | None:
        return None if self.raw(key) is None else self.number(key, low, high)

    def numbers(self, key: str, low: float, high: float) -> tuple[float, ...]:
        """A list of finite numbers in low..high. Raises: ModelError for anything else, absence too."""
        value = self._present(key, None)
        if not isinstance(value, list) or not all(type(n) in (int, float) and low <= n <= high for n in value):
            self.fail(key, value, f"must be a list of numbers from {low:g} to {high:g}")
        return tuple(float(n) for n in value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._present(key, default)
        if not isinstance(value, bool):
            self.fail(key, value, "must be true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._present(key, default)
        if not isinstance(value, str):
            self.fail(key, value, "must be a string")
        return value

    def one_of(self, key: str, known: Collection[str], default: str | None = None) -> str:
        """One of the strings that are known. Raises: ModelError, as text(); UnsupportedModel for another."""
        value = self.text(key, default)
        if value not in known:
            self.unsupported(key, value, f"supported: {', '.join(known)}")
        return value

    def only(self, key: str, known: Any) -> None:
        """Raises: UnsupportedModel for any value but the one that is known."""
        if self.raw(key) not in (None, known):
            self.unsupported(key, self.raw(key), f"supported: {known}")

    def ids(self, key: str, limit: int) -> tuple[int, ...]:
        """Token ids below limit: a number, a list of numbers, or nothing."""
        value = self.raw(key)
        if value is None:
            return ()
        items = value if isinstance(value, list) else [value]
        for item in items:
            if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < limit:
                self.fail(key, value, f"must be a token id, or a list of them, from 0 to {limit - 1}")
        return tuple(dict.fromkeys(items))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, or nothing."""
        value = self.raw(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fail(key, value, "must be a list of strings")
        return tuple(value)

    def table(self, key: str) -> dict[str, Any] | None:
        """An object, or None. Raises: ModelError for anything else."""
        value = self.raw(key)
        if value is not None and not isinstance(value, dict):
            self.fail(key, value, "must be an object or null")
        return value

    def unread(self, ignorable: Iterable[str], neutral: Mapping[str, tuple[Any, ...]]) -> list[str]:
        """Keys nobody read that say something: not ignorable, and not at a value that changes nothing."""
        skip = self._read.union(ignorable)
        return [k for k, v in self._data.items() if k not in skip and not _is_neutral(v, neutral.get(k))]

    def refuse_unread(self, ignorable: Iterable[str], neutral: Mapping[str, tuple[Any, ...]]) -> None:
        """Raises: UnsupportedModel naming every key of unread() and its value."""
        keys = self.unread(ignorable, neutral)
        if keys:
            listed = ", ".join(f"{short(k)}: {short(self._data[k])}" for k in keys[:10])
            raise UnsupportedModel(
                f"{self.where}: {len(keys)} keys are not supported and may change what the model computes: {listed}"
            )

    def fail(self, key: str, value: Any, rule: str) -> NoReturn:
        raise ModelError(f"{self.where}: {self._names.get(key, key)}={short(value)} {rule}")

    def unsupported(self, key: str, value: Any, what: str) -> NoReturn:
        name = self._names.get(key, key)
        raise UnsupportedModel(f"{self.where}: {name}={short(value)} is not supported; {what}")

    def _present(self, key: str, default: Any) -> Any:
        value = self.raw(key)
        if value is not None:
            return value
        if default is None:
            raise ModelError(f"{self.where}: {self._names.get(key, key)} is missing")
        return default


def _is_neutral(value: Any, allowed: tuple[Any, ...] | None) -> bool:
    """A known key has its own list of neutral values; any other key is neutral when null, false, zero or empty."""
    if value is None:
        return True
    if allowed is not None:
        return any(value == item and isinstance(value, bool) == isinstance(item, bool) for item in allowed)
    return not value
