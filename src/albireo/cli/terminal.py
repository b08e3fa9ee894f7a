"""What goes to the terminal, and what does not when there is none: progress bars, sizes and durations as text.

Used by the command files. Does not know models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from albireo.api.terminal import is_terminal

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def progress(rounds: range, what: str) -> Iterable[int]:
    """The rounds, with a bar on stderr while they go by; without one when stderr is no terminal."""
    if not is_terminal():
        return rounds
    from tqdm import tqdm

    bar: Iterable[int] = tqdm(rounds, desc=what, leave=False)
    return bar


@contextmanager
def amount_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while parts of an amount are done, where that is a terminal; total 0: not known."""
    if not is_terminal():
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=total or None, desc=what, leave=False, unit_scale=True) as bar:

        def advance(done: int) -> None:
            bar.update(done)

        yield advance


class Bar:
    """A bar over things that finish one by one; nothing for a single thing, and where stderr is no terminal."""

    def __init__(self, total: int, what: str) -> None:
        self._bar: Any = None
        if total > 1 and is_terminal():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=what, leave=False)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self) -> None:
        """One more is finished."""
        if self._bar is not None:
            self._bar.update()

    def step_aside(self) -> None:
        """Leave the line, because text is about to be printed."""
        if self._bar is not None:
            self._bar.clear()


def size(num_bytes: float) -> str:
    """Bytes for reading: 11.2 MiB."""
    unit = 0
    while num_bytes >= 1024 and unit < len(_UNITS) - 1:
        num_bytes /= 1024
        unit += 1
    return f"{num_bytes:.0f} B" if unit == 0 else f"{num_bytes:.1f} {_UNITS[unit]}"


def count(number: int) -> str:
    """A large number for reading: 5.5 M."""
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)


def duration(seconds: float) -> str:
    """Seconds for reading: 1.25 s, 41 ms."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def plain(text: str) -> str:
    """Text without control characters but newlines: names from model files may hold what a terminal would obey."""
    return "".join(c if c == "\n" or c.isprintable() else "\ufffd" for c in text)


def row(name: str, text: str) -> str:
    """One line of a report: a name, and what there is to say."""
    return f"{name:<14}{text}"
