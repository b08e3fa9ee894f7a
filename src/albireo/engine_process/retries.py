"""Whether the engine process is started again after a death, and how soon.

Asked by client.py. Does not know processes or requests.
"""

from __future__ import annotations

from albireo.engine_process.blame import FROM_OUTSIDE

#: Deaths in a row, without a step between them, after which another try is pointless. One that came from outside while
#: the model was there counts a tenth: what killed it is hardly its own doing.
MAX_DEATHS = 4
#: Seconds between one such death and the next try, times their number.
PAUSE_S = 0.2


class Retries:
    """Counts deaths until something is better."""

    def __init__(self) -> None:
        self._num_deaths = 0.0

    def died(self, status: int, was_ready: bool) -> float | None:
        """Args: status: of the process; was_ready: it had loaded. Returns: seconds until the next try; None: no more"""
        self._num_deaths += 0.1 if was_ready and status in FROM_OUTSIDE else 1.0
        return None if self._num_deaths >= MAX_DEATHS else PAUSE_S * max(0.0, self._num_deaths - 1)

    def mended(self) -> None:
        """A step was made, or what ended the process is not run again."""
        self._num_deaths = 0.0
