"""Opened: the checkpoint of a directory for several who read it one after another, opened by the first of them.

Used by opening.py and by whoever reads weights afterwards: headers of many tensors take a while to check, and a file
that is replaced meanwhile would not be the one that was checked.
"""

from __future__ import annotations

from pathlib import Path

from albireo.models.checkpoint.weights import Checkpoint


class Opened:
    """Nothing is opened until get() or take(); who made it closes it. Not for several threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._checkpoint: Checkpoint | None = None

    def get(self) -> Checkpoint:
        """It, for whoever leaves it open. Raises: ModelError, as Checkpoint."""
        if self._checkpoint is None:
            self._checkpoint = Checkpoint(self._directory)
        return self._checkpoint

    def take(self) -> Checkpoint:
        """It, for whoever closes it; the next who asks opens it anew. Raises: ModelError, as Checkpoint."""
        found, self._checkpoint = self.get(), None
        return found

    def close(self) -> None:
        if self._checkpoint is not None:
            self._checkpoint.close()
            self._checkpoint = None
