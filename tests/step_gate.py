"""A gate before every step of an engine process, which a test closes: what is to happen while a request runs then does.

Opened and closed by server_process.py, obeyed by server/poisoned_worker.py in its own process; between them is a
directory, whose path is in the environment.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

VARIABLE = "ALBIREO_TEST_GATE"
_LOOK_S = 0.002
_LOADING = "loading"


class Gate:
    """Closed while there is a file `closed`, an order of how many more steps may pass; who waits writes it to
    `holding`. A process counts its steps from when it first saw an order; the next process does so from its begin."""

    def __init__(self, directory: Path) -> None:
        self._closed, self._holding = directory / "closed", directory / "holding"
        self._broken = directory / "broken"
        self._num_orders = self._num_passed = 0
        self._order = ""
        self._waits = False

    # -- the test ------------------------------------------------------------------------------------------------------

    def hold(self, num_steps: int) -> None:
        """Let so many more steps pass, and no other."""
        self._num_orders += 1
        _write(self._closed, f"{self._num_orders} {num_steps}")

    def hold_loading(self) -> None:
        """Let no model be loaded."""
        _write(self._closed, _LOADING)

    def break_one(self) -> None:
        """Let one of the processes that load a model from now on say that it cannot."""
        _write(self._broken, "")

    def open(self) -> None:
        """Let everything pass."""
        self._closed.unlink(missing_ok=True)

    def is_closed(self) -> bool:
        """Whether it holds, or will after some more steps."""
        return self._closed.exists()

    def is_holding(self) -> bool:
        """Whether a step waits."""
        order = _read(self._closed)
        return order != "" and order == _read(self._holding).partition(" by ")[0]

    def holder(self) -> int:
        """Process id of who waits: of several, the last one that began to."""
        return int(_read(self._holding).partition(" by ")[2])

    def forget(self) -> None:
        """Who waited is gone."""
        self._holding.unlink(missing_ok=True)

    # -- the engine process --------------------------------------------------------------------------------------------

    def wait_to_load(self) -> None:
        """Return when the model may be loaded."""
        while _read(self._closed) == _LOADING:
            time.sleep(_LOOK_S)

    def is_broken(self) -> bool:
        """Whether this process is the one that cannot load."""
        try:
            self._broken.unlink()
        except FileNotFoundError:
            return False
        return True

    def wait_to_step(self) -> None:
        """Return when one more step may be made."""
        while not self._may_step():
            time.sleep(_LOOK_S)

    def _may_step(self) -> bool:
        order = _read(self._closed)
        if order != self._order:
            self._order, self._num_passed, self._waits = order, 0, False
        if order and self._num_passed >= int(order.split()[1]):
            if not self._waits:
                _write(self._holding, f"{order} by {os.getpid()}")
            self._waits = True
            return False
        self._num_passed += 1
        self._waits = False
        return True


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _write(path: Path, text: str) -> None:
    """All of it at once."""
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(path)
