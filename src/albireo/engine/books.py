"""Whether the scheduler's books balance: lines, tables, host blocks and sequences, one against the other.

Called by scheduler.py for tests. Changes nothing.
"""

from __future__ import annotations

from albireo.engine.block_tables import BlockTables
from albireo.engine.host_pool import HostPool
from albireo.engine.queue import Line
from albireo.engine.request import Request, Sequence, Status
from albireo.engine.settings import EngineSettings
from albireo.errors import InvariantError


def check_books(
    waiting: Line,
    running: Line,
    tables: BlockTables,
    host: HostPool,
    requests: list[Request],
    settings: EngineSettings,
) -> None:
    """Args: requests: all unfinished ones. Raises: InvariantError. Cost: O(everything)."""
    waiting.check_invariants()
    running.check_invariants()
    for status, line in ((Status.WAITING, waiting), (Status.RUNNING, running)):
        expected = {seq.seq_id for request in requests for seq in request.sequences if seq.status is status}
        if expected != {seq.seq_id for seq in line}:
            raise InvariantError(f"{status.name}: the line holds {[s.seq_id for s in line]}, not {expected}")
    if len(running) > settings.max_num_seqs:
        raise InvariantError(f"{len(running)} running, max_num_seqs={settings.max_num_seqs}")
    for request in requests:
        for seq in request.sequences:
            _check_sequence(seq, settings.block_size)
    host.check_invariants(seq for request in requests for seq in request.sequences)
    tables.check_invariants([seq.block_tables for request in requests for seq in request.sequences])


def _check_sequence(seq: Sequence, block_size: int) -> None:
    has_blocks = any(seq.block_tables)
    if seq.status is not Status.RUNNING:
        if has_blocks or seq.num_computed_tokens:
            raise InvariantError(f"sequence {seq.seq_id} is {seq.status.name} and holds {seq.block_tables}")
        return
    covered = min(map(len, seq.block_tables)) * block_size
    beams = seq.request.beams
    is_held = seq.is_held and beams is not None and beams.has_offer(seq.index)
    if not seq.num_computed_tokens <= min(covered, seq.num_tokens - (not is_held)):
        raise InvariantError(
            f"sequence {seq.seq_id}: {seq.num_computed_tokens} of {seq.num_tokens} computed, {covered} covered"
        )
    if seq.num_tokens != len(seq.request.prompt_token_ids) + len(seq.output_token_ids):
        raise InvariantError(f"sequence {seq.seq_id} miscounts its tokens: {seq.num_tokens}")
