"""PlacedProgram: one program in device memory, and what its steps launch.

Owned by model.py, which says what runs when; programs that share its weights and KV cache have one each. Has all that a
step needs beside these: activations, scratch, staging, endings. Does not know what is recorded, nor how results reach
the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.adapters import CudaAdapters
from albireo.backends.cuda.bind import bind
from albireo.backends.cuda.buckets import NO_ENDING, Ending
from albireo.backends.cuda.call_args import Launch, Memory
from albireo.backends.cuda.capture import Launches
from albireo.backends.cuda.drawing import tail_words
from albireo.backends.cuda.endings import ENDING_COLUMNS, Endings
from albireo.backends.cuda.hidden_states import HEAD_COLUMNS, DeviceHiddenStates, head_rows_of, is_told, taps_of
from albireo.backends.cuda.joined_head import JoinedHead
from albireo.backends.cuda.kernels.build_work_list import build_work_list
from albireo.backends.cuda.kernels.feed_drawn import feed_drawn
from albireo.backends.cuda.kv import TORCH_DTYPES, DeviceKV
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.peers import Seat
from albireo.backends.cuda.scratch import Scratch
from albireo.backends.cuda.staging import (
    ADAPTER_COLUMNS,
    HEARD_COLUMNS,
    ROPE_COLUMNS,
    TYPE_COLUMNS,
    Columns,
    Staging,
)
from albireo.backends.cuda.states import DeviceStates
from albireo.backends.cuda.step import DeviceStep
from albireo.backends.cuda.step_rows import brings_rows, with_empty_rows, with_rows
from albireo.backends.cuda.tokens import numbers_of
from albireo.backends.step_inputs import StepInputs
from albireo.dtypes import FP8_TOKEN, ROW_CODES, TOKEN
from albireo.errors import InvariantError
from albireo.graph.program import Buffer, Call, Program
from albireo.graph.program_spec import buffer_bytes


class PlacedProgram:
    """Invariant: all of it is allocated before anything is recorded, and stays where it is.

    Fields:
        maxima: sizes of the largest step, padding included.
        arena: all activations; buffers: each by its name, in its largest shape.
        adapters: slots, where the program has adapters.
        head_rows: what a head's steps read and leave; None: it is none.
        launches: of each call, in order; none before bind().

    Args:
        max_positions: longest sequence in tokens.
        has_axes, seat: see CudaModel.
        arena, scratch, head: those of a program whose steps these take turns with; None, or too small an arena: its
            own.
    """

    def __init__(
        self,
        program: Program,
        device: torch.device,
        max_positions: int,
        *,
        has_axes: bool = False,
        seat: Seat | None = None,
        adapters: CudaAdapters | None = None,
        arena: torch.Tensor | None = None,
        scratch: Scratch | None = None,
        head: JoinedHead | None = None,
    ) -> None:
        self.program, self._device = program, device
        self._max_positions, self._has_axes, self._seat, self.adapters = max_positions, has_axes, seat, adapters
        self._listens = any("num_keys" in call.attrs for call in program.calls)
        if arena is None or len(arena) < program.arena_bytes:
            arena = torch.zeros(program.arena_bytes, dtype=torch.uint8, device=device)
        self.arena = arena
        vocab = program.buffers[program.outputs["logits"]].cols if self.draws else 0
        if seat is not None and self.draws:
            vocab = seat.vocab_size
        tasks = program.maxima["R"] if vocab else 0
        self.maxima = {**program.maxima, "B": program.maxima["G"], "D": tasks, "L": 2 * tasks}
        self.buffers = {name: self._view(buffer) for name, buffer in program.buffers.items()}
        self.head_rows = head_rows_of(program, device)
        size, units = program.kv.block_size, program.kv.units
        tail = tail_words(tasks, vocab) if vocab else 0
        self.staging = Staging(self.maxima, -(-max_positions // size), size, device, self._columns(), tail, units)
        self.scratch = scratch or Scratch.of(program, self.maxima, max_positions, device, seat)
        self._head = None
        if seat is not None:
            self._head = JoinedHead(program, self.buffers, self.maxima, seat, self.scratch.parts, device, head)
        self._endings: Endings | None = None
        self.launches: list[tuple[Call, Launch]] = []

    def beside(self, program: Program, adapters: CudaAdapters | None, *, is_alike: bool) -> PlacedProgram:
        """Another program, whose steps take turns with those of this one and are no longer; not bound yet.

        Args: is_alike: but for adapters it has this one's calls, and its tokens are drawn where this one's are, so that
            either finds what the other drew; else none are drawn.
        """
        other = PlacedProgram(
            program,
            self._device,
            self._max_positions,
            has_axes=self._has_axes,
            seat=self._seat,
            adapters=adapters,
            arena=self.arena,
            scratch=self.scratch.with_linears(program, self._device) if is_alike else None,
            head=self._head,
        )
        if is_alike:
            other.let_draw(self.endings)
        return other

    def bind(
        self,
        matrices: Mapping[str, DeviceMatrix],
        vectors: Mapping[str, torch.Tensor],
        kv: DeviceKV,
        states: DeviceStates,
    ) -> None:
        """Have launches that read and write these."""
        specs = self.program.buffers
        memory = Memory(self.buffers, specs, matrices, vectors, kv, states, self.scratch, self.adapters)
        self.launches = [(call, bind(call, memory)) for call in self.program.calls]

    # -- what it gives -------------------------------------------------------------------------------------------------

    @property
    def draws(self) -> bool:
        """Whether the program has logits, from which tokens are drawn."""
        return "logits" in self.program.outputs

    def let_draw(self, lender: Endings | None = None) -> None:
        """Have endings. Args: lender: see Endings."""
        self._endings = Endings(self.maxima, self.output, self.staging, self._device, lender)

    @property
    def endings(self) -> Endings:
        """Raises: InvariantError where there is nothing to draw from."""
        if self._endings is None:
            raise InvariantError("tokens are to be drawn by a program that has no logits")
        return self._endings

    @property
    def found(self) -> dict[str, torch.Tensor]:
        """All that a step may give, in its largest shape."""
        drawn = {} if self._endings is None else self._endings.found
        return {name: self.output(name) for name in self.program.outputs} | drawn

    def output(self, name: str, rows: int | None = None) -> torch.Tensor:
        """The first rows of an output, of all ranks together; None: all there is room for."""
        if self._head is not None and name in self._head.outputs:
            return self._head.outputs[name][:rows]
        return self.buffers[self.program.outputs[name]][:rows]

    def told(self, inputs: StepInputs) -> dict[str, torch.Tensor]:
        """The outputs of a step that go to the host."""
        num_rows, num_top = len(inputs.logit_rows), len(inputs.top_rows)
        names = [name for name in self.program.outputs if is_told(name)]
        return {name: self.output(name, num_top if name.startswith("top_") else num_rows) for name in names}

    def value(self, name: str, inputs: StepInputs) -> NDArray[Any]:
        """[rows, cols] a copy of what a buffer holds now, as float32 (ids as int32); as many rows as this step has."""
        buffer = self.program.buffers[name]
        rows = self.program.sizes(inputs.sizes)[buffer.rows] if isinstance(buffer.rows, str) else buffer.rows
        stored = self.buffers[name][:rows].to("cpu", copy=True)
        if buffer.dtype in ROW_CODES:
            return np.asarray(numbers_of(stored, buffer.cols).numpy(), np.float32)
        return np.asarray((stored if buffer.dtype == "int32" else stored.float()).numpy())

    # -- its steps -----------------------------------------------------------------------------------------------------

    def check_size(self, inputs: StepInputs) -> None:
        """Raises: InvariantError when the step is larger than the program was planned for, or has what it has not."""
        if inputs.adapter_slots is not None and self.adapters is None:
            raise InvariantError("a row has an adapter, and the program that is to run knows none")
        for symbol, size in {**inputs.sizes, "B": inputs.num_sequences}.items():
            planned = self.maxima[symbol]
            if size > planned:
                raise InvariantError(f"a step with {symbol}={size}; memory is planned for {planned}")

    def brings_rows(self, inputs: StepInputs) -> bool:
        """Whether a step has what staging has no place for, so that it is not recorded."""
        return brings_rows(inputs, self._has_axes, self._listens)

    def own_step(self, sizes: Mapping[str, int], inputs: StepInputs) -> DeviceStep:
        """A step that is not padded, with what it brings; staging was filled with it."""
        step = self._step(sizes)
        return with_rows(step, inputs, self._device) if self.brings_rows(inputs) else step

    def ends_of(self, inputs: StepInputs) -> bytes:
        """What other ranks are told of a step beside what is staged: int32, up to where rows see; else nothing.

        Raises: InvariantError where a step brings more, which they would compute without.
        """
        if brings_rows(replace(inputs, row_ends=None), self._has_axes, self._listens):
            raise InvariantError("a step of several ranks brings rows or rotations, of which the others are not told")
        return inputs.row_ends.tobytes() if inputs.row_ends is not None and not self._listens else b""

    def step_of_rank(self, sizes: Mapping[str, int], ends: bytes) -> DeviceStep:
        """own_step() of another rank. Args: ends: of ends_of()."""
        row_ends = torch.frombuffer(bytearray(ends), dtype=torch.int32).to(self._device)
        return replace(self._step(sizes), row_ends=row_ends)

    def run_some(self, inputs: StepInputs, launches: Sequence[tuple[Call, Launch]]) -> None:
        """Some calls of a step, at its own size."""
        sizes = {**inputs.sizes, "B": inputs.num_sequences, "D": 0, "L": 0}
        self.staging.fill(inputs, sizes)
        self.launch(self.own_step(sizes, inputs), launches)

    def launch(self, step: DeviceStep, launches: Sequence[tuple[Call, Launch]] | None = None) -> None:
        """launches: of some calls of the program; None: of all."""
        for work in self.scratch.work.values():
            build_work_list(step, work)
        for call, launch in self.launches if launches is None else launches:
            if step.sizes[call.rows]:
                launch(step)

    def whole(
        self,
        sizes: Mapping[str, int],
        ending: Ending,
        feeds: bool,
        own: DeviceStep | None = None,
        states: DeviceHiddenStates | None = None,
    ) -> Launches:
        """All launches of a step.

        Args: feeds: tokens of the step before may be among its own. own: the step itself, where it is not that of a
            bucket. states: where its hidden states are kept; None: nowhere.
        """
        step = self._step(sizes) if own is None else own
        sources = self.staging.tensors(sizes, ("sources",))["sources"]
        end = None if ending == NO_ENDING else self.endings.launches(sizes, ending)
        head, joined = self.head_rows, self._head
        columns = {} if head is None else self.staging.tensors(sizes, HEAD_COLUMNS)

        def launches() -> None:
            if feeds:
                feed_drawn(step.token_ids, sources, self.endings.tokens)
            if head is not None:
                head.read(columns)
            self.launch(step)
            if joined is not None:
                joined.launch(sizes["R"], step.top_counts)
            if head is not None:
                head.leave(columns, self.output, sizes["R"])
            if states is not None and not states.is_combined:
                self.keep(states, sizes, sizes["T"])
            if end is not None:
                end()

        return launches

    def keep(self, states: DeviceHiddenStates, sizes: Mapping[str, int], num_tokens: int) -> None:
        """Hidden states of a step of these sizes, of so many rows."""
        taps = [self.output(name, num_tokens) for name in taps_of(self.program)]
        states.keep(taps, self.staging.slots(sizes, states.group)[:num_tokens])

    def fill_with_padding(self, sizes: Mapping[str, int]) -> None:
        """A step of padding alone: it computes, reads and writes the null block, and means nothing."""
        none, empty = np.zeros(0, np.int32), np.zeros((0, 1), np.int32)
        padding = StepInputs(none, none, none, np.zeros(1, np.int32), none, empty, none, none)
        write = self.endings.wish((), (), (), is_top=False, ahead=0).write if self.draws else None
        self.staging.fill(padding, sizes, write=write)

    def run_padding(self, sizes: Mapping[str, int], ending: Ending, states: DeviceHiddenStates | None = None) -> None:
        """Launch a step of padding, call by call, with as much beside its tokens as there can be."""
        self.fill_with_padding(sizes)
        step = self._step(sizes)
        own = step if self.head_rows is not None else with_empty_rows(step, self.program, self._device)
        self.whole(sizes, ending, False, own, states)()

    def _step(self, sizes: Mapping[str, int]) -> DeviceStep:
        step = self.staging.step(self.program.sizes(sizes))
        return step if self.head_rows is None else replace(step, given=(self.head_rows.given[: sizes["T"]],))

    def _columns(self) -> Columns:
        """Arrays of its steps beside those of all."""
        reads_types = any("token_types" in call.args.values() for call in self.program.calls)
        return {
            **(ENDING_COLUMNS if self.draws else {}),
            **(TYPE_COLUMNS if reads_types else {}),
            **(ROPE_COLUMNS if self._has_axes else {}),
            **(HEARD_COLUMNS if self._listens else {}),
            **(HEAD_COLUMNS if self.head_rows is not None else {}),
            **(ADAPTER_COLUMNS if self.adapters is not None else {}),
        }

    def _view(self, buffer: Buffer) -> torch.Tensor:
        rows = buffer.rows if isinstance(buffer.rows, int) else self.maxima[buffer.rows]
        num_bytes = buffer_bytes(buffer, self.maxima)
        stored = self.arena[buffer.offset : buffer.offset + num_bytes]
        if buffer.dtype == TOKEN:
            return stored.view(rows, buffer.stride)
        if buffer.dtype == FP8_TOKEN:
            return stored.view(torch.float8_e4m3fn).view(rows, buffer.stride)
        numbers = stored.view(TORCH_DTYPES[buffer.dtype])
        return numbers.as_strided((rows, buffer.cols), (buffer.stride, 1))
