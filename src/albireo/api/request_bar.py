"""RequestBar: a bar over requests while they run, where stderr is a terminal.

Used by llm.py. Over bytes there is another, in progress.py.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from albireo.api.requests.request_record import RequestRecord
from albireo.api.terminal import is_terminal


class RequestBar:
    """A bar over finished requests with the tokens per second so far; nothing where stderr is no terminal."""

    def __init__(self, total: int, wanted: bool, title: str) -> None:
        is_shown = wanted and total > 0 and is_terminal()
        self._bar: Any = None
        if is_shown:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=title, unit="prompt", dynamic_ncols=True)
        self._num_in = self._num_out = 0

    def __enter__(self) -> RequestBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def note(self, record: RequestRecord) -> None:
        """A request is finished."""
        if self._bar is None:
            return
        self._num_in += len(record.submission.prompt_token_ids)
        self._num_out += record.num_output_tokens
        elapsed_s = self._bar.format_dict["elapsed"]
        if elapsed_s > 0:
            speeds = f"in {self._num_in / elapsed_s:.0f} tok/s, out {self._num_out / elapsed_s:.0f} tok/s"
            self._bar.set_postfix_str(speeds, refresh=False)
        self._bar.update(1)
