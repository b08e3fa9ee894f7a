"""StateSlots: where on the device each running sequence keeps what its recurrent layers carry from token to token, and
which slots hold what others may go on from.

Called by scheduler.py and prefix_cache.py. Does not know what is kept there, nor how a snapshot is taken.

A slot is one sequence's from when it begins to run until it stops, and what it holds is changed by every step that the
sequence is in. So of a beginning that sequences share, KV blocks alone are of no use. The device leaves a snapshot
behind the tokens that it is told, in a slot where nobody runs: it goes by the prefix-cache key of the block that ends
there, as blocks do, until its slot is wanted. Slots that no snapshot and no sequence has are taken first, then that of
the snapshot unused for longest.
"""

from __future__ import annotations

from collections import OrderedDict

from albireo.engine.request import Sequence
from albireo.errors import InvariantError
from albireo.step import SequenceWork

#: A prompt's snapshot is so many tokens before its end, or more: a chat template ends prompts with what it does not
#: write again once there is an answer, such as a thought that is opened.
TAIL = 8


class StateSlots:
    """Invariants, checked by check_invariants():
    1. a slot is free, a running sequence's, held for the snapshot it takes next, or has a snapshot;
    2. whoever may still begin to run finds one: there are as many that are free or have snapshots as free seats.
    With no slots at all, sequences keep nothing.
    """

    def __init__(
        self, num_slots: int, num_seats: int, block_size: int, *, lookahead: int, takes_snapshots: bool
    ) -> None:
        self.is_used = num_slots > 0
        self._num_slots, self._num_seats = num_slots, num_seats
        self._block_size, self._lookahead = block_size, lookahead
        self._takes_snapshots = self.is_used and takes_snapshots
        self._free = list(range(num_slots - 1, -1, -1))
        #: Key -> slot, the one to be given up first in front.
        self._snapshots: OrderedDict[bytes, int] = OrderedDict()
        #: Taken in the planned step: whose, behind how many tokens, and whether it stays when a later one comes.
        self._due: list[tuple[Sequence, int, bool]] = []
        #: (source, target) to be copied before the next step computes anything, in this order.
        self.copies: list[tuple[int, int]] = []

    # -- sequences -----------------------------------------------------------------------------------------------------

    def enter(self, seq: Sequence, key: bytes | None = None) -> None:
        """A sequence runs from now on. There is a slot for each that may. key: of the snapshot that it goes on from."""
        if not self.is_used:
            return
        source = None
        if key is not None:
            source = self._snapshots[key]
            self._snapshots.move_to_end(key)
        seq.work.state_slot = self._take()
        self._num_seats -= 1
        # The only snapshot there was may have had to go, and is where it is wanted.
        if source is not None and source != seq.work.state_slot:
            self.copies.append((source, seq.work.state_slot))

    def leave(self, seq: Sequence) -> None:
        """A sequence runs no more; what it left for others stays."""
        if not self.is_used:
            return
        work = seq.work
        self._free += [slot for slot in (work.snapshot_slot, work.state_slot) if slot != NO_SLOT]
        work.state_slot = work.snapshot_slot = NO_SLOT
        seq.branch_at, seq.rolling_key = 0, None
        self._num_seats += 1

    def fork(self, leader: Sequence, seq: Sequence) -> None:
        """seq, which has entered, goes on from where leader is."""
        if self.is_used:
            self.copies.append((leader.work.state_slot, seq.work.state_slot))

    def take_copies(self) -> list[tuple[int, int]]:
        """What the next plan is to copy first; it is asked for once."""
        copies, self.copies = self.copies, []
        return copies

    def _take(self) -> int:
        return self._free.pop() if self._free else self._snapshots.popitem(last=False)[1]

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def has(self, key: bytes) -> bool:
        """Whether a sequence whose blocks so far go by this key could go on from a snapshot."""
        return key in self._snapshots

    def find(self, key: bytes) -> int | None:
        """The slot of a snapshot."""
        return self._snapshots.get(key)

    def order(self, seq: Sequence, work: SequenceWork) -> None:
        """Have a snapshot taken of a sequence that is being planned: where others left its way, as near to the end of a
        prompt as is of use, and where its newest block ends, each in place of the one before it."""
        if not self._takes_snapshots:
            return
        start, num_new = work.num_computed_tokens, len(work.token_ids)
        at, stays = self._place(seq, start, num_new)
        if stays and at <= start:
            seq.rolling_key = None  # the end of the last chunk was near enough to that of the prompt
        is_due = start < at <= start + num_new
        # A device that has begun this step without the order would have changed the state for good.
        stands = seq.work.snapshot_slot != NO_SLOT and seq.work.snapshot_at == at
        is_late = self._lookahead and num_new == 1 and is_due and not stands
        if at <= start or is_late or not self._hold(seq):
            seq.work.snapshot_at = 0
            return
        seq.work.snapshot_at = at
        work.snapshot_slot, work.snapshot_at = seq.work.snapshot_slot, at
        if is_due:
            self._due.append((seq, at, stays))

    def _place(self, seq: Sequence, start: int, num_new: int) -> tuple[int, bool]:
        """Behind how many of its tokens; 0: nowhere. And whether the snapshot stays when the next is taken."""
        end, size = start + num_new, self._block_size
        if start < seq.branch_at <= end:
            return seq.branch_at, True
        if num_new == 1:
            return -(-end // size) * size, False
        if end < seq.num_tokens or seq.request.is_prompt_done:
            return end // size * size, False
        return max(0, end - TAIL) // size * size, True

    def _hold(self, seq: Sequence) -> bool:
        """Find a slot for a sequence's next snapshot, leaving one for each that may begin to run."""
        if seq.work.snapshot_slot == NO_SLOT:
            if len(self._free) + len(self._snapshots) <= self._num_seats:
                return False
            seq.work.snapshot_slot = self._take()
        return True

    def guard(self, seq: Sequence, work: SequenceWork) -> bool:
        """Have a snapshot taken behind all tokens of work, to which drafts are to be added. False: there is no slot for
        it, or it has one to take for others."""
        if not self.is_used:
            return True
        if work.snapshot_rows or not self._hold(seq):
            return False
        seq.work.snapshot_at = work.num_computed_tokens + len(work.token_ids)
        work.snapshot_slot, work.snapshot_at = seq.work.snapshot_slot, seq.work.snapshot_at
        return True

    def take_back(self, seq: Sequence) -> None:
        """A sequence goes on from the snapshot that guard() ordered."""
        work = seq.work
        work.state_slot, work.snapshot_slot = work.snapshot_slot, work.state_slot

    def due(self) -> list[tuple[Sequence, int]]:
        """Snapshots that the planned step takes: whose, and behind how many tokens."""
        return [(seq, at) for seq, at, _ in self._due]

    def commit(self, keys: list[bytes]) -> None:
        """The step was executed. Args: keys: what each that was due() goes by."""
        for (seq, _, stays), key in zip(self._due, keys, strict=True):
            slot, seq.work.snapshot_slot = seq.work.snapshot_slot, NO_SLOT
            if key in self._snapshots:
                self._free.append(slot)
            else:
                self._snapshots[key] = slot
            self._snapshots.move_to_end(key)
            self._replace(seq, key, stays)
        self._due.clear()

    def _replace(self, seq: Sequence, key: bytes, stays: bool) -> None:
        """The one before is of less use: within a prompt to whoever shares its beginning, else to nobody."""
        before, seq.rolling_key = seq.rolling_key, None if stays else key
        if before is None or before == key or before not in self._snapshots:
            return
        if seq.request.is_prompt_done:
            self._free.append(self._snapshots.pop(before))
        else:
            self._snapshots.move_to_end(before, last=False)

    def forget(self) -> None:
        """Give up all snapshots; who runs keeps what it has."""
        self._free += self._snapshots.values()
        self._snapshots.clear()

    def roll_back(self) -> None:
        """The step failed: nobody knows what it wrote, and all that run begin anew."""
        self._due.clear()

    @property
    def usage(self) -> tuple[int, int, int]:
        """Slots that sequences hold, slots with snapshots, all."""
        return self._num_slots - len(self._free) - len(self._snapshots), len(self._snapshots), self._num_slots

    def check_invariants(self, running: list[Sequence]) -> None:
        """Raises: InvariantError. For tests."""
        if not self.is_used:
            return
        held = [slot for seq in running for slot in (seq.work.state_slot, seq.work.snapshot_slot) if slot != NO_SLOT]
        named = list(self._snapshots.values())
        if sorted([*held, *named, *self._free]) != list(range(self._num_slots)):
            raise InvariantError(f"slots {held} are held, {named} have snapshots, {self._free} are free")
        if len(named) + len(self._free) < self._num_seats:
            raise InvariantError(f"{self._num_seats} seats are free, {len(named)} and {len(self._free)} slots")


#: Of a sequence that keeps nothing, or does not run.
NO_SLOT = -1
