"""Whether somebody is watching: progress bars are for terminals.

Called by request_bar.py and progress.py, and by commands. Does not know what is shown.
"""

from __future__ import annotations

import sys


def is_terminal() -> bool:
    """Whether stderr is a terminal. A process may be without a stderr."""
    return sys.stderr is not None and sys.stderr.isatty()
