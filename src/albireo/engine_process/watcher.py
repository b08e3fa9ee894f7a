"""When the KV blocks are shown to somebody who watches, and what they are then.

Called by worker.py after each step and before each rest. Does not know who watches.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from albireo.engine.engine import Engine
from albireo.engine_process.messages import Blocks, SequenceBlocks

#: Pictures of the KV blocks take at most one part in so many of the time, however large the pool.
PICTURE_SHARE = 50


class Watcher:
    """Attributes:
    interval_s: shortest time between two pictures; None: nobody watches.
    """

    def __init__(self, engine: Engine, tell: Callable[[Blocks], None]) -> None:
        self.interval_s: float | None = None
        self._engine = engine
        self._tell = tell
        self._next_s = 0.0

    def show_if_due(self) -> None:
        """Tell of the KV blocks, if somebody watches and it is time."""
        if self.interval_s is not None and time.monotonic() >= self._next_s:
            self.show()

    def show(self) -> None:
        """Tell of the KV blocks, if somebody watches."""
        if self.interval_s is None:
            return
        now_s, began_s = time.monotonic(), time.thread_time()
        holders, cached = self._engine.blocks()
        sequences = [
            SequenceBlocks(
                int(seq.request.request_id),
                seq.index,
                len(seq.request.prompt_token_ids),
                seq.num_tokens,
                seq.num_computed_tokens,
                seq.request.progress.num_cached_tokens,
                list(seq.block_tables[0]),
                [list(table) for table in seq.block_tables[1:]],
            )
            for seq in holders
        ]
        self._tell(Blocks(now_s, sequences, cached, self._engine.state_slots()))
        self._next_s = now_s + max(self.interval_s, (time.thread_time() - began_s) * PICTURE_SHARE)
