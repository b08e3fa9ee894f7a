"""JoinedHead: the logits and the best few of all ranks' parts of the vocabulary, whole on every rank.

Owned by placed_program.py where a model has several ranks. Every rank has all of what it draws from, so all draw the
same, and the next step is fed on each device as where there is one. Launched behind a program; recorded with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from albireo.backends.cuda.kernels.join_columns import join_columns, joined_ids
from albireo.backends.cuda.kernels.top import top, top_workspace
from albireo.backends.cuda.peers import Seat
from albireo.backends.cuda.turns import GatherSpace
from albireo.graph.op_numbers import TOP_LOGITS
from albireo.graph.program import Program, row_stride


class JoinedHead:
    """Args:
        buffers: the program's activations, by name, in their largest shapes. maxima: most R and G.
        lender: of another program of the same model with steps as large, whose steps these take turns with: all is
            joined where its is.

    Fields: outputs: by name, in their largest shapes, in place of the program's own.
    """

    def __init__(
        self,
        program: Program,
        buffers: Mapping[str, torch.Tensor],
        maxima: Mapping[str, int],
        seat: Seat,
        space: GatherSpace,
        device: torch.device,
        lender: JoinedHead | None = None,
    ) -> None:
        self._space, self._seat = space, seat
        self._parts = {name: buffers[where] for name, where in program.outputs.items() if name in _JOINED}
        self._rooms: _Rooms = lender._rooms if lender else _Rooms.of(set(self._parts), maxima, seat, device)
        self.outputs = {name: room for name, room in self._rooms.outputs.items() if name in self._parts}

    def launch(self, num_rows: int, top_counts: torch.Tensor) -> None:
        """Of a step with so many rows of logits, and best few of len(top_counts)."""
        if num_rows and "logits" in self._parts:
            own = self._rooms.own[:num_rows]
            own[:, : self._parts["logits"].shape[1]].copy_(self._parts["logits"][:num_rows])
            whole = self.outputs["logits"]
            for rows, gathered in self._space.gather(own):
                join_columns(gathered, whole[rows])
        count = len(top_counts)
        if count and "top_ids" in self._parts:
            rooms = self._rooms
            ids, values = rooms.few_ids[:count], rooms.few_values[:count]
            ids.copy_(self._parts["top_ids"][:count])
            values.copy_(self._parts["top_values"][:count])
            all_ids = rooms.all_ids.view(-1)[: self._seat.peers.size * count * TOP_LOGITS].view(-1, count, TOP_LOGITS)
            self._seat.peers.gather(all_ids, ids)
            candidates = rooms.candidates[:count]
            for rows, gathered in self._space.gather(values):
                join_columns(gathered, candidates[rows])
            found = self.outputs["top_ids"][:count]
            top(candidates, top_counts, found, self.outputs["top_values"][:count], rooms.keys)
            joined_ids(found, all_ids, self._seat.vocab_size)


_JOINED = ("logits", "top_ids", "top_values")


@dataclass(frozen=True, slots=True)
class _Rooms:
    """Fields:
    own: rows as long as those of the widest part, for whom they are not anyway.
    few_ids, few_values: without gaps, as gather() wants rows. all_ids: of all ranks. candidates, keys: among which
        the best are.
    """

    own: torch.Tensor
    few_ids: torch.Tensor
    few_values: torch.Tensor
    all_ids: torch.Tensor
    candidates: torch.Tensor
    keys: torch.Tensor
    outputs: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, names: Collection[str], maxima: Mapping[str, int], seat: Seat, device: torch.device) -> _Rooms:
        """For outputs of these names; what has none of them takes no room."""

        def zeros(*sizes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(sizes, dtype=dtype, device=device)

        vocab, size = seat.vocab_size, seat.peers.size
        rows, most = maxima["R"] if "logits" in names else 0, maxima["G"] if "top_ids" in names else 0
        shapes = {
            "logits": (rows, vocab, torch.float32),
            "top_ids": (most, TOP_LOGITS, torch.int32),
            "top_values": (most, TOP_LOGITS, torch.float32),
        }
        return cls(
            own=zeros(rows, row_stride("float32", -(-vocab // size))),
            few_ids=zeros(most, TOP_LOGITS, dtype=torch.int32),
            few_values=zeros(most, TOP_LOGITS),
            all_ids=zeros(size, most, TOP_LOGITS, dtype=torch.int32),
            candidates=zeros(most, size * TOP_LOGITS),
            keys=zeros(top_workspace(most, size * TOP_LOGITS), dtype=torch.int64),
            outputs={name: zeros(*shapes[name][:2], dtype=shapes[name][2]) for name in shapes if name in names},
        )
