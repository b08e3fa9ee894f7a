"""Compiled grammars that are kept for the next request that asks for the same one.

Used by the backends. Does not know what a grammar is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Spendable(Protocol):
    """A constraint that may be used up."""

    def is_spent(self) -> bool:
        """Whether the next request needs another."""
        ...


C = TypeVar("C", bound=Spendable)


class Kept(Generic[C]):
    """Threads may share it. Invariant: at most max_kept, each given out at most max_shared times."""

    def __init__(self, max_kept: int, max_shared: int | None = None) -> None:
        self._max_kept, self._max_shared = max_kept, max_shared
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[C, int]] = OrderedDict()

    def get(self, key: str) -> C | None:
        """What was compiled for this key, if it may be used once more."""
        with self._lock:
            constraint, num_uses = self._kept.get(key, (None, 0))
            is_worn = self._max_shared is not None and num_uses >= self._max_shared
            if constraint is None or is_worn or constraint.is_spent():
                return None
            self._kept[key] = constraint, num_uses + 1
            self._kept.move_to_end(key)
            return constraint

    def put(self, key: str, constraint: C) -> C:
        """Keep one, which is used now; those unused for longest go. Returns: it."""
        with self._lock:
            self._kept[key] = constraint, 1
            self._kept.move_to_end(key)
            while len(self._kept) > self._max_kept:
                self._kept.popitem(last=False)
        return constraint
