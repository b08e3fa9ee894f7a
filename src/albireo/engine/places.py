"""Who waits, who runs, and what those that run hold: seats, blocks, states, slots of adapters.

Used by scheduler.py, which decides who comes and who has to go; here it comes and goes, so that nothing is left behind
or taken twice. Does not know steps.
"""

from __future__ import annotations

from albireo.engine.adapter_slots import AdapterSlots
from albireo.engine.block_tables import BlockTables
from albireo.engine.books import check_books
from albireo.engine.drafting import Drafting
from albireo.engine.host_pool import HostPool
from albireo.engine.kept_prefixes import BlockFiles, Kept, KeptPrefixes
from albireo.engine.prefix_cache import Hit, PrefixCache
from albireo.engine.queue import Line
from albireo.engine.request import Request, Sequence, Status
from albireo.engine.settings import EngineSettings
from albireo.engine.state_slots import StateSlots
from albireo.engine.stats import Counters
from albireo.errors import InvariantError
from albireo.speculative.proposer import Method


class Places:
    """The two lines, and the pools that sequences hold parts of."""

    def __init__(
        self, settings: EngineSettings, counters: Counters, method: Method | None, files: BlockFiles | None
    ) -> None:
        """Args: files: where blocks of sequences that are over are kept; None: nowhere."""
        self.waiting = Line()
        #: Of those that wait the ones without an adapter, where there are adapters.
        self.plain = Line()
        self.running = Line()
        self.tables = BlockTables(settings.num_blocks, settings.block_size, settings.windows, settings.groups_in_chunks)
        self.states = StateSlots(
            settings.num_state_slots,
            settings.max_num_seqs,
            settings.block_size,
            lookahead=settings.lookahead,
            takes_snapshots=settings.enable_prefix_caching,
        )
        self.cache = PrefixCache(self.tables, self.states, settings.enable_prefix_caching)
        self.kept = None if files is None else KeptPrefixes(files, self.cache, self.tables, self.states)
        self.adapters = AdapterSlots(settings.num_adapter_slots)
        self.host = HostPool(settings.num_host_blocks, self.tables)
        #: None where there are no drafts.
        self.drafting: Drafting | None = None
        if settings.speculative is not None:
            self.drafting = Drafting(
                settings.speculative, settings, self.tables, self.cache, self.states, counters, method
            )
        self._settings = settings

    # -- in ------------------------------------------------------------------------------------------------------------

    def add(self, seq: Sequence) -> None:
        """Put a sequence in the waiting line."""
        seq.status = Status.WAITING
        self.waiting.add(seq)
        if self._is_plain(seq):
            self.plain.add(seq)

    def fork(self, leader: Sequence) -> list[Sequence]:
        """The prompt is computed: let the request's other sequences go on from it, sharing its blocks.

        Those that find no seat wait without blocks, like preempted ones.

        Returns: all unfinished sequences of the request, in order of index.
        """
        siblings = leader.request.unfinished()
        for seq in siblings:
            if seq is not leader:
                self._follow(leader, seq)
        return siblings

    def branch(self, parent: Sequence, seq: Sequence) -> None:
        """A beam is gone on with twice: the second time by a sequence that no beam has, or none any more."""
        self.park(seq)
        self._follow(parent, seq)

    def go_on(self, seq: Sequence) -> None:
        """A beam has a token more. One that gave its blocks up before waits to compute all anew."""
        seq.quiet_until = 0
        if seq.status is Status.UNFORKED:
            self.add(seq)

    def slot(self, seq: Sequence) -> int | None:
        """Where the adapter of a sequence that waits may be; None: nowhere yet."""
        return self.adapters.find(seq.request.adapter, self.running)

    def has_room(self, seq: Sequence, hit: Hit) -> bool:
        """Whether all that is known of a sequence that waits finds blocks."""
        return self.tables.has_room(hit.blocks, seq.num_tokens, self._settings.max_num_batched_tokens)

    def enter(self, seq: Sequence, hit: Hit, kept: Kept, slot: int) -> None:
        """Let a sequence that waits run. To be followed by share()."""
        self._leave_line(seq)
        self.adapters.enter(slot, seq)
        is_snapshot = hit.num_tokens > 0 and kept.state is None
        self.states.enter(seq, self.cache.key_at(seq, hit.num_tokens) if is_snapshot else None)
        seq.branch_at = hit.branch_at
        seq.status = Status.RUNNING
        self.running.add(seq)

    def share(self, seq: Sequence, hit: Hit, kept: Kept) -> None:
        """It begins with what is found of it: in the cache, among what is kept, or swapped out."""
        self.tables.share(hit.blocks, seq.block_tables, hit.num_tokens)
        seq.num_computed_tokens = max(kept.num_tokens, seq.num_swapped_tokens)
        self.tables.let_go(seq.block_tables, seq.num_computed_tokens)

    def _follow(self, leader: Sequence, seq: Sequence) -> None:
        """Let a sequence that holds nothing go on from where the leader is."""
        seq.block_keys = leader.block_keys.copy()
        if leader.status is not Status.RUNNING or len(self.running) >= self._settings.max_num_seqs:
            self.add(seq)
            return
        self.tables.share(leader.block_tables, seq.block_tables, leader.num_computed_tokens)
        seq.num_computed_tokens = leader.num_computed_tokens
        self.adapters.enter(leader.work.adapter_slot, seq)
        self.states.enter(seq)
        self.states.fork(leader, seq)
        leader.quiet_until = 0  # its last block may be shared now
        seq.preempted_at_s = None
        seq.status = Status.RUNNING
        self.running.add(seq)

    # -- out -----------------------------------------------------------------------------------------------------------

    def remove(self, seq: Sequence) -> None:
        """Take a sequence out for good, wherever it is, and free what it holds. Only between plans."""
        if seq.status is Status.WAITING:
            self._leave_line(seq)
        elif seq.status is Status.RUNNING:
            if self.kept is not None:
                self.kept.keep(seq)
            self._vacate(seq)
        self.host.forget(seq)
        if self.drafting is not None:
            self.drafting.forget(seq)
        seq.status = Status.FINISHED

    def park(self, seq: Sequence) -> None:
        """There is nothing to compute of a sequence of a beam search now: free what it holds."""
        if seq.status is Status.RUNNING:
            self._vacate(seq)
        seq.status = Status.UNFORKED

    def give_up(self, seq: Sequence) -> None:
        """Take back what a running sequence holds; it waits to go on, if it has anything to compute."""
        if seq.is_held:
            self.park(seq)
        else:
            self._vacate(seq)
            self.add(seq)

    def let_go(self, seq: Sequence) -> None:
        """Free the blocks of a running sequence that its windows have left."""
        if self.kept is not None:
            self.kept.leave(seq)
        self.tables.let_go(seq.block_tables, seq.num_computed_tokens)

    def _vacate(self, seq: Sequence) -> None:
        self.running.remove(seq)
        self.adapters.leave(seq)
        self.states.leave(seq)
        if self.drafting is not None:
            self.drafting.left(seq)
        self.tables.release(seq.block_tables)
        seq.num_computed_tokens = 0
        seq.quiet_until = 0

    def _leave_line(self, seq: Sequence) -> None:
        self.waiting.remove(seq)
        if self._is_plain(seq):
            self.plain.remove(seq)

    def _is_plain(self, seq: Sequence) -> bool:
        return self._settings.num_adapter_slots > 0 and seq.request.adapter is None

    def check_invariants(self, requests: list[Request]) -> None:
        """Args: requests: all unfinished ones. Raises: InvariantError. Cost: O(everything); for tests."""
        with_adapters = sum(seq.request.adapter is not None for seq in self.running)
        if with_adapters != self.adapters.num_running:
            raise InvariantError(f"{with_adapters} run with adapters, {self.adapters.num_running} are counted")
        plain = [seq for seq in self.waiting if seq.request.adapter is None]
        if self._settings.num_adapter_slots and list(self.plain) != plain:
            raise InvariantError(f"{list(self.plain)} are to be those that wait without an adapter")
        self.states.check_invariants(list(self.running))
        check_books(self.waiting, self.running, self.tables, self.host, requests, self._settings)
