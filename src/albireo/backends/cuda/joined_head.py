"""JoinedHead: the logits and the best few of all ranks' parts of the vocabulary, whole on every rank.

Owned by placed_program.py where a model has several ranks. Every rank has all of what it draws from, so all draw the
same, and the next step is fed on each device as where there is one. Launched behind a program; recorded with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from albireo.backends.cuda.kernels.join_columns import join_columns, joined_ids
from albireo.backends.cuda.kernels.top import top, top_workspace
from albireo.backends.cuda.peers import Seat
from albireo.backends.cuda.turns import GatherSpace
from albireo.graph.ops import TOP_LOGITS
from albireo.graph.program import Program, row_stride


class JoinedHead:
    """Args: buffers: the program's activations, by name, in their largest shapes. maxima: most R and G.

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
    ) -> None:
        self._space, self._seat = space, seat
        self._parts = {name: buffers[where] for name, where in program.outputs.items() if name in _JOINED}
        most, vocab, size = maxima["G"], seat.vocab_size, seat.peers.size
        width = row_stride("float32", -(-vocab // size))
        #: Rows as long as those of the widest part, for whom they are not anyway.
        self._own = torch.zeros(maxima["R"], width, dtype=torch.float32, device=device)
        # without gaps, as gather() wants rows
        self._few_ids = torch.zeros(most, TOP_LOGITS, dtype=torch.int32, device=device)
        self._few_values = torch.zeros(most, TOP_LOGITS, dtype=torch.float32, device=device)
        self._all_ids = torch.zeros(size, most, TOP_LOGITS, dtype=torch.int32, device=device)
        self._candidates = torch.zeros(most, size * TOP_LOGITS, dtype=torch.float32, device=device)
        self._keys = torch.zeros(top_workspace(most, size * TOP_LOGITS), dtype=torch.int64, device=device)
        shapes = {
            "logits": (maxima["R"], vocab, torch.float32),
            "top_ids": (most, TOP_LOGITS, torch.int32),
            "top_values": (most, TOP_LOGITS, torch.float32),
        }
        self.outputs = {
            name: torch.zeros(rows, cols, dtype=dtype, device=device)
            for name, (rows, cols, dtype) in shapes.items()
            if name in self._parts
        }

    def launch(self, num_rows: int, top_counts: torch.Tensor) -> None:
        """Of a step with so many rows of logits, and best few of len(top_counts)."""
        if num_rows and "logits" in self._parts:
            own = self._own[:num_rows]
            own[:, : self._parts["logits"].shape[1]].copy_(self._parts["logits"][:num_rows])
            whole = self.outputs["logits"]
            for rows, gathered in self._space.gather(own):
                join_columns(gathered, whole[rows])
        count = len(top_counts)
        if count and "top_ids" in self._parts:
            ids, values = self._few_ids[:count], self._few_values[:count]
            ids.copy_(self._parts["top_ids"][:count])
            values.copy_(self._parts["top_values"][:count])
            all_ids = self._all_ids.view(-1)[: self._seat.peers.size * count * TOP_LOGITS].view(-1, count, TOP_LOGITS)
            self._seat.peers.gather(all_ids, ids)
            candidates = self._candidates[:count]
            for rows, gathered in self._space.gather(values):
                join_columns(gathered, candidates[rows])
            found = self.outputs["top_ids"][:count]
            top(candidates, top_counts, found, self.outputs["top_values"][:count], self._keys)
            joined_ids(found, all_ids, self._seat.vocab_size)


_JOINED = ("logits", "top_ids", "top_values")
