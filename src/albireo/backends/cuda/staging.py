"""Staging: all that a step needs from the host goes to the device in one copy out of one buffer.

Owned by placed_program.py. Arrays whose lengths follow from the sizes of a step come first; where they lie follows from
these sizes too, so that a recorded step finds them again. What is as long as it happens to be (block tables, masks,
changes of single logits) lies behind them, at places that arrays of the first part name. Only what is used is copied.
Host memory is page-locked where there is a GPU, so that the copy is asynchronous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.page_locked import page_locked
from albireo.backends.cuda.step import DeviceStep
from albireo.backends.step_inputs import StepInputs
from albireo.errors import InvariantError
from albireo.step import NULL_BLOCK

#: Array of a step -> what counts its entries; sampling.py, reporting.py and hidden_states.py add theirs,
#: placed_program.py TYPE_COLUMNS, ROPE_COLUMNS, HEARD_COLUMNS and ADAPTER_COLUMNS.
_STEP_ARRAYS = {
    "token_ids": "T",
    "positions": "T",
    "sources": "B",
    "query_start": "B",  # and one more
    "context_len": "B",
    "state_slots": "B",
    "snapshot_slots": "B",
    "snapshot_rows": "B",
    "logit_rows": "R",
    "top_rows": "G",
    "out_rows": "S",
    "logit_pos": "R",
    "top_pos": "G",
    "top_counts": "G",
}
_ROWS = ("logit_rows", "top_rows", "out_rows", "logit_pos", "top_pos")
#: Of each block group, the group's number behind the name.
_GROUP_ARRAYS = {"slots": "T", "table_start": "B"}
#: Arrays begin at multiples of so many words of 4 bytes: 64 bytes.
_ALIGN = 16
#: Steps whose arrays may be on their way at once.
_HOSTS = 3
#: Sizes whose places are remembered.
_KEPT = 512
#: Symbols that count entries: those of a program's steps, D tasks and L reports.
_SYMBOLS = "TBRGSDL"

_NONE = np.zeros(0, np.int32)

#: Array -> what counts its entries, and their type.
Columns = Mapping[str, tuple[str, type[np.generic]]]
Arrays = Mapping[str, NDArray[Any]]
#: Of programs that read types of tokens; a step that says nothing of them has zeros.
TYPE_COLUMNS: Columns = {"token_types": ("T", np.int32)}
#: Of programs with adapters: the slots of those that rows have, -1 where a row has none.
ADAPTER_COLUMNS: Columns = {"adapter_slots": ("T", np.int32), "out_adapter_slots": ("S", np.int32)}
#: Of models whose positions have three axes: what rows are rotated by where it is one number.
ROPE_COLUMNS: Columns = {"rope_positions": ("T", np.int32)}
#: Of models that listen to the first positions of their sequences: how many of those are heard, 0: all.
HEARD_COLUMNS: Columns = {"heard": ("T", np.int32)}
_TORCH = {np.int32: torch.int32, np.float32: torch.float32, np.int64: torch.int64, np.float64: torch.float64}


class Tail:
    """What is behind the arrays of one step: written from front to back. Fields: end: words that are used."""

    def __init__(self, words: NDArray[np.int32], end: int) -> None:
        self._words, self.end = words, end

    def put(self, values: NDArray[np.int32]) -> int:
        """Returns: where they begin. Raises: InvariantError when there is no room."""
        start, end = self.end, self.end + values.size
        if end > len(self._words):
            raise InvariantError(f"a step takes {end} words of staging; memory is planned for {len(self._words)}")
        self._words[start:end].reshape(values.shape)[...] = values
        self.end = end
        return start


Writer = Callable[[Arrays, Tail], None]


def _zeros(length: int, device: torch.device, is_pinned: bool = False) -> torch.Tensor:
    """int32. Most are never touched, and are then no memory where there is no GPU."""
    if device.type == "cpu" and not is_pinned:
        return torch.from_numpy(np.zeros(length, np.int32))
    if is_pinned:
        return page_locked((length,), torch.int32)
    return torch.zeros(length, dtype=torch.int32, device=device)


class _Host:
    """Host memory of one step under way."""

    def __init__(self, length: int, is_pinned: bool) -> None:
        self.tensor = _zeros(length, torch.device("cpu"), is_pinned)
        self.words: NDArray[np.int32] = self.tensor.numpy()
        #: Views of it, by the sizes of a step.
        self.arrays: dict[tuple[int, ...], dict[str, NDArray[Any]]] = {}
        self._event = torch.cuda.Event() if is_pinned else None

    def sent(self) -> None:
        """Its copy was begun."""
        if self._event is not None:
            self._event.record()

    def wait(self) -> None:
        """Until its last copy is done."""
        if self._event is not None:
            self._event.synchronize()


class Staging:
    """Room for the largest step.

    Args:
        maxima: most T, B, R, G, S, D and L. columns: arrays beside those of a StepInputs.
        block_size: positions of a block. max_blocks: of a sequence. tail: words behind the arrays, beside block tables.
        units: see KVLayout.units; one a block group.
    """

    def __init__(
        self,
        maxima: Mapping[str, int],
        max_blocks: int,
        block_size: int,
        device: torch.device,
        columns: Columns | None = None,
        tail: int = 0,
        units: tuple[int, ...] = (1,),
    ) -> None:
        steps: Columns = {name: (symbol, np.int32) for name, symbol in _STEP_ARRAYS.items()}
        groups: Columns = {
            _of_group(name, group): (symbol, np.int32)
            for name, symbol in _GROUP_ARRAYS.items()
            for group in range(len(units))
        }
        self._columns = {**steps, **groups, **(columns or {})}
        self._block_size, self._units = block_size, units
        self._places = lru_cache(maxsize=_KEPT)(self._find_places)
        length = self._places(_counts(maxima))[1] + len(units) * maxima["B"] * max_blocks + tail
        self._hosts = [_Host(length, device.type == "cuda") for _ in range(_HOSTS)]
        self._turn = self._end = 0
        self._device = _zeros(length, device)

    @property
    def words(self) -> torch.Tensor:
        """The whole buffer on the device, int32: what places in it refer to."""
        return self._device

    def fill(
        self,
        inputs: StepInputs,
        sizes: Mapping[str, int],
        sources: NDArray[np.int32] | None = None,
        write: Writer | None = None,
    ) -> None:
        """Copy a step to the device, padded to sizes, behind what is under way there; returns before it is done.

        Args: sources: see kernels/feed_drawn.py; None: all tokens are in inputs. write: fills the other columns.
        """
        self._turn = (self._turn + 1) % _HOSTS
        host = self._hosts[self._turn]
        host.wait()
        arrays, end = self._arrays(host, _counts(sizes))
        tail = Tail(host.words, end)
        for name in ("token_ids", "positions", "context_len", "logit_rows", "top_rows"):
            _put(arrays[name], getattr(inputs, name))
        _put(arrays["sources"], _NONE if sources is None else sources, padding=-1)
        _put(arrays["query_start"], inputs.query_start, padding=inputs.num_tokens)
        _put(arrays["top_counts"], inputs.top_counts, padding=1)
        for name in ("state_slots", "snapshot_slots", "snapshot_rows"):
            given = getattr(inputs, name)
            _put(arrays[name], _NONE if given is None else given)
        if "token_types" in arrays:
            _put(arrays["token_types"], _NONE if inputs.token_types is None else inputs.token_types)
        if "rope_positions" in arrays:
            turns = inputs.rope_positions
            _put(arrays["rope_positions"], inputs.positions if turns is None else turns)
        if "heard" in arrays:
            _put(arrays["heard"], _NONE if inputs.row_ends is None else inputs.row_ends)
        for name in ("read_slots", "leave_slots"):
            if name in arrays:
                slots = getattr(inputs, name)
                _put(arrays[name], _NONE if slots is None else slots)
        num_logits, rows = sizes["R"], arrays["out_rows"]
        rows[:num_logits], rows[num_logits:] = arrays["logit_rows"], arrays["top_rows"]
        arrays["logit_pos"][:] = np.arange(num_logits)
        arrays["top_pos"][:] = np.arange(num_logits, len(rows))
        if "adapter_slots" in arrays:
            adapters = arrays["adapter_slots"]
            _put(adapters, _NONE if inputs.adapter_slots is None else inputs.adapter_slots, padding=-1)
            arrays["out_adapter_slots"][:] = adapters[rows]
        self._put_groups(arrays, inputs, tail)
        if write is not None:
            write(arrays, tail)
        self._send(host, tail.end)

    def sent(self) -> bytes:
        """The words of the step that was filled last."""
        return self._hosts[self._turn].words[: self._end].tobytes()

    def put(self, words: bytes) -> None:
        """As fill(), of what another's sent() gave, who has room for the same steps."""
        self._turn = (self._turn + 1) % _HOSTS
        host = self._hosts[self._turn]
        host.wait()
        found = np.frombuffer(words, np.int32)
        host.words[: len(found)] = found
        self._send(host, len(found))

    def _send(self, host: _Host, end: int) -> None:
        self._end = end
        self._device[:end].copy_(host.tensor[:end], non_blocking=True)
        host.sent()

    def step(self, sizes: Mapping[str, int]) -> DeviceStep:
        """The arrays as a step of these sizes sees them."""
        names = {name: [_of_group(name, group) for group in range(len(self._units))] for name in _GROUP_ARRAYS}
        more = [
            name for name in (*TYPE_COLUMNS, *ROPE_COLUMNS, *HEARD_COLUMNS, *ADAPTER_COLUMNS) if name in self._columns
        ]
        found = self.tensors(sizes, [*_STEP_ARRAYS, *more, *chain.from_iterable(names.values())])
        return DeviceStep(
            token_ids=found["token_ids"],
            positions=found["positions"],
            slots=tuple(found[name] for name in names["slots"]),
            query_start=found["query_start"],
            context_len=found["context_len"],
            block_table=self._device,
            table_start=tuple(found[name] for name in names["table_start"]),
            rows={name: found[name] for name in (*_ROWS, *ADAPTER_COLUMNS) if name in found},
            top_counts=found["top_counts"],
            state_slots=found["state_slots"],
            snapshot_slots=found["snapshot_slots"],
            snapshot_rows=found["snapshot_rows"],
            sizes=dict(sizes),
            token_types=found.get("token_types"),
            rope_positions=found.get("rope_positions"),
            heard=found.get("heard"),
        )

    def slots(self, sizes: Mapping[str, int], group: int) -> torch.Tensor:
        """[T] of a block group, on the device, as kernels count them."""
        name = _of_group("slots", group)
        return self.tensors(sizes, (name,))[name]

    def tensors(self, sizes: Mapping[str, int], names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Arrays on the device, as a step of these sizes sees them; they stay there for good."""
        places, _ = self._places(_counts(sizes))
        found = {}
        for name in names:
            where, kind = places[name]
            found[name] = self._device[where].view(_TORCH[kind])
        return found

    def _arrays(self, host: _Host, counts: tuple[int, ...]) -> tuple[Arrays, int]:
        places, end = self._places(counts)
        if counts not in host.arrays:
            if len(host.arrays) >= _KEPT:
                host.arrays.clear()
            host.arrays[counts] = {name: host.words[where].view(kind) for name, (where, kind) in places.items()}
        return host.arrays[counts], end

    def _find_places(self, counts: tuple[int, ...]) -> tuple[dict[str, tuple[slice, type[np.generic]]], int]:
        """Where each array lies, in words, and where all end."""
        sizes = dict(zip(_SYMBOLS, counts, strict=True))
        places, end = {}, 0
        for name, (symbol, kind) in self._columns.items():
            length = (sizes[symbol] + (name == "query_start")) * np.dtype(kind).itemsize // 4
            places[name] = (slice(end, end + length), kind)
            end += -(-length // _ALIGN) * _ALIGN
        return places, end

    def _put_groups(self, arrays: Arrays, inputs: StepInputs, tail: Tail) -> None:
        """Slots and block tables of each group, blocks as kernels count them."""
        for group, (slots, table) in enumerate(zip(*inputs.of_groups(self._units, self._block_size), strict=True)):
            if not table[:, 0].all():
                # padding writes the null block: a kernel that begins before its window meets its sequence's numbers
                first = table[np.arange(len(table)), (table != NULL_BLOCK).argmax(axis=1)]
                table = np.where(table == NULL_BLOCK, first[:, None], table)
            _put(arrays[_of_group("slots", group)], slots)
            self._put_tables(arrays[_of_group("table_start", group)], table, inputs.context_len, tail)

    def _put_tables(
        self, starts: NDArray[np.int32], table: NDArray[np.int32], context_len: NDArray[np.int32], tail: Tail
    ) -> None:
        """Each sequence's blocks, as many as its context takes, or a few more where that is less work."""
        counts = -(-context_len // self._block_size)
        num_sequences, longest = len(counts), int(counts.max(initial=0))
        if 2 * int(counts.sum()) >= num_sequences * longest:
            starts[:num_sequences] = tail.put(table[:, :longest]) + np.arange(num_sequences) * longest
        else:
            for i, count in enumerate(counts.tolist()):
                starts[i] = tail.put(table[i, :count])
        starts[num_sequences:] = 0


def _of_group(name: str, group: int) -> str:
    return f"{name}.{group}"


def _counts(sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes.get(symbol, 0) for symbol in _SYMBOLS)


def _put(room: NDArray[Any], values: NDArray[Any], padding: int = 0) -> None:
    room[: len(values)] = values
    room[len(values) :] = padding
