"""Staging: a step's arrays go to the device in one copy, and its block tables in a second.

Owned by model.py. Host memory is page-locked where there is a GPU, so that the copies are asynchronous. The device
tensors keep their addresses for good: what was recorded reads them again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.step import DeviceStep
from albireo.backends.step_inputs import StepInputs

#: Array of a step -> what counts its entries.
_ARRAYS = {
    "token_ids": "T",
    "positions": "T",
    "slots": "T",
    "query_start": "B",  # and one more
    "context_len": "B",
    "logit_rows": "R",
    "top_rows": "G",
    "out_rows": "S",
    "logit_pos": "R",
    "top_pos": "G",
    "top_counts": "G",
}
_ROWS = ("logit_rows", "top_rows", "out_rows", "logit_pos", "top_pos")
#: Arrays begin at multiples of so many entries: 64 bytes.
_ALIGN = 16
#: Steps whose arrays may be on their way at once.
_HOSTS = 3


class _Host:
    """Host memory of one step under way: its arrays, then a row of another step's results for each sequence."""

    def __init__(self, length: int, rows: int, columns: int, is_pinned: bool) -> None:
        self.tensor = torch.zeros(length + rows, dtype=torch.int32, pin_memory=is_pinned)
        self.table = torch.zeros((rows, columns), dtype=torch.int32, pin_memory=is_pinned)
        self.numpy: NDArray[np.int32] = self.tensor.numpy()
        self.numpy_table: NDArray[np.int32] = self.table.numpy()
        self._event = torch.cuda.Event() if is_pinned else None

    def sent(self) -> None:
        """Its copies were begun."""
        if self._event is not None:
            self._event.record()

    def wait(self) -> None:
        """Until its last copies are done."""
        if self._event is not None:
            self._event.synchronize()


class Staging:
    """Room for the largest step.

    Args: maxima: most T, B, R, G and S. max_blocks: columns of the block table.
    """

    def __init__(self, maxima: Mapping[str, int], max_blocks: int, device: torch.device) -> None:
        self._at: dict[str, int] = {}
        end = 0
        for name, symbol in _ARRAYS.items():
            self._at[name] = end
            end += -(-(maxima[symbol] + 1) // _ALIGN) * _ALIGN
        self._end = end
        self._hosts = [_Host(end, maxima["B"], max_blocks, device.type == "cuda") for _ in range(_HOSTS)]
        self._turn = 0
        self._device = torch.zeros(end + maxima["B"], dtype=torch.int32, device=device)
        self._device_table = torch.zeros((maxima["B"], max_blocks), dtype=torch.int32, device=device)

    def fill(
        self,
        inputs: StepInputs,
        sizes: Mapping[str, int],
        sources: NDArray[np.int32] | None = None,
        drawn: torch.Tensor | None = None,
    ) -> None:
        """Copy a step to the device, padded to sizes, behind what is under way there; returns before it is done.

        Args: sources: [T], in a step of one token a sequence: the token of a row is drawn[i]; -1: it is in inputs.
            drawn: what the step before drew, on the device.
        """
        self._turn = (self._turn + 1) % _HOSTS
        host = self._hosts[self._turn]
        host.wait()
        self._numpy = host.numpy
        num_tokens, num_sequences = inputs.num_tokens, inputs.num_sequences
        self._put("token_ids", inputs.token_ids, sizes["T"])
        self._put("positions", inputs.positions, sizes["T"])
        self._put("slots", inputs.slots, sizes["T"])
        self._put("query_start", inputs.query_start, sizes["B"] + 1, padding=num_tokens)
        self._put("context_len", inputs.context_len, sizes["B"])
        for name in ("logit_rows", "top_rows"):
            self._put(name, getattr(inputs, name), sizes[_ARRAYS[name]])
        self._put("top_counts", inputs.top_counts, sizes["G"], padding=1)
        num_logits, num_top = sizes["R"], sizes["G"]
        rows = self._view("out_rows", num_logits + num_top)
        rows[:num_logits] = self._view("logit_rows", num_logits)
        rows[num_logits:] = self._view("top_rows", num_top)
        self._view("logit_pos", num_logits)[:] = np.arange(num_logits)
        self._view("top_pos", num_top)[:] = np.arange(num_logits, num_logits + num_top)
        if sources is not None and drawn is not None:
            host.numpy[self._end : self._end + num_tokens] = sources
        self._device[: len(host.tensor)].copy_(host.tensor, non_blocking=True)
        columns = inputs.block_table.shape[1]
        host.numpy_table[:num_sequences, :columns] = inputs.block_table
        self._device_table[:num_sequences, :columns].copy_(host.table[:num_sequences, :columns], non_blocking=True)
        host.sent()
        if sources is not None and drawn is not None:
            self._take(num_tokens, drawn)

    def _take(self, num_tokens: int, drawn: torch.Tensor) -> None:
        """Tokens that the step before drew, into their rows; 0 where it could not, which whoever drew is told."""
        rows = self._device[self._end : self._end + num_tokens]
        ids = self._device[self._at["token_ids"] : self._at["token_ids"] + num_tokens]
        ids.copy_(torch.where(rows >= 0, drawn[rows.clamp(min=0).long()].clamp(min=0), ids))

    def step(self, sizes: Mapping[str, int]) -> DeviceStep:
        """The arrays as a step of these sizes sees them. What lies in the block table behind a sequence's context is
        left from steps before, and not read."""

        def view(name: str, extra: int = 0) -> torch.Tensor:
            return self._device[self._at[name] : self._at[name] + sizes[_ARRAYS[name]] + extra]

        return DeviceStep(
            token_ids=view("token_ids"),
            positions=view("positions"),
            slots=view("slots"),
            query_start=view("query_start", 1),
            context_len=view("context_len"),
            block_table=self._device_table[: sizes["B"]],
            rows={name: view(name) for name in _ROWS},
            top_counts=view("top_counts"),
            sizes=dict(sizes),
        )

    def _view(self, name: str, length: int) -> NDArray[np.int32]:
        return self._numpy[self._at[name] : self._at[name] + length]

    def _put(self, name: str, values: NDArray[np.int32], length: int, padding: int = 0) -> None:
        room = self._view(name, length)
        room[: len(values)] = values
        room[len(values) :] = padding
