"""Ctrl-C that waits for the end of a step, so that it never meets the engine half-way through its books.

Called by llm.py. Does not know engines.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class DelayedInterrupt:
    """While entered, SIGINT only sets a mark; check() raises it. Elsewhere than in the main thread, or where the
    program has a handler of its own, nothing is changed."""

    def __init__(self) -> None:
        self._is_pending = False
        self._is_installed = False

    def __enter__(self) -> DelayedInterrupt:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._is_installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._is_installed = False
        if error is None:
            self.check()

    def check(self) -> None:
        """Raises: KeyboardInterrupt if SIGINT came since the last check."""
        if self._is_pending:
            self._is_pending = False
            raise KeyboardInterrupt

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._is_pending = True
