"""A bar over bytes while a model loads or is built, where stderr is a terminal.

Used by load.py and build.py. Does not know what the bytes are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from albireo.api.terminal import is_terminal


@contextmanager
def bytes_bar(what: str, total: int, *, is_wanted: bool) -> Iterator[Callable[[int], None]]:
    """Yields: what to call with the number of bytes just done; without a terminal it does nothing."""
    if not (is_wanted and is_terminal()):
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="B", unit_scale=True, desc=what, leave=False) as bar:

        def advance(num_bytes: int) -> None:
            bar.update(num_bytes)

        yield advance
