"""CudaModel: a program on one GPU, with its weights, activations and KV cache.

Made by api/machine/cuda_device.py, run by execution/runner.py. Behind the same interface as CpuModel. A decoding step
is padded to a bucket and replayed as one recorded graph; any other is launched call by call at its own size:
placed_program.py knows what that is. On CPU tensors, under Triton's interpreter, the same code computes the same
numbers, which is how it is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.adapters import CudaAdapters
from albireo.backends.cuda.buckets import NO_ENDING, Bucket, Buckets
from albireo.backends.cuda.capture import CudaGraphs, DirectLaunches, NotRecorded, Recorder
from albireo.backends.cuda.endings import WHOLE, Wish
from albireo.backends.cuda.fitting import blocks_that_fit
from albireo.backends.cuda.hidden_states import DeviceHiddenStates
from albireo.backends.cuda.kernels.copy_blocks import copy_blocks
from albireo.backends.cuda.kernels.swap_blocks import HostKV, swap_in, swap_out
from albireo.backends.cuda.kv import DeviceKV, most_blocks
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.orders import OBEYED, Leader, StagedStep
from albireo.backends.cuda.peers import Seat
from albireo.backends.cuda.placed_program import PlacedProgram
from albireo.backends.cuda.recordings import Recordings
from albireo.backends.cuda.reporting import Reports
from albireo.backends.cuda.results import Results, Ticket
from albireo.backends.cuda.shortage import frees_cache, note_holder
from albireo.backends.cuda.states import DeviceStates
from albireo.backends.cuda.step import DeviceStep
from albireo.backends.layer_runs import layer_runs
from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import NOTHING, DrawnTokens, StepOutputs
from albireo.errors import DeviceLost, InvariantError
from albireo.graph.program import Program
from albireo.step import SampleTask

#: Blocks on their way to or from host memory at once.
_STAGED = 16
#: What stands for outputs that a program has not.
_MISSING = {"logits": NOTHING, "top_ids": NOTHING.astype(np.int32), "top_values": NOTHING}


@dataclass(frozen=True, slots=True)
class Submitted:
    """A step under way: where its results will be, and what is to be told of them."""

    ticket: Ticket
    reports: Reports


class Beside(Protocol):
    """What has blocks of the same numbers as a model, out of the same memory."""

    @property
    def block_bytes(self) -> int: ...

    def take_blocks(self, num_blocks: int) -> None: ...


class CudaModel:
    """One program, ready to run steps.

    Invariants: 1. everything a launch reads or writes is allocated before the first one is recorded, and stays where it
    is; 2. a step's result depends on its inputs, on the KV cache and on states only: neither on padding nor on whether
    it was recorded.

    Fields:
        max_positions: of the longest sequence, in tokens.
        placed: the program as it is on the device.
        hidden_states: where those of each step are kept that a head reads; None: nowhere.
        leader: of rank 0 of several, once all have a model; number: of this one, see sharing().

    Args:
        matrices, vectors: the program's constants, on the device.
        num_blocks: KV blocks wanted.
        max_positions: longest sequence in tokens.
        reserve_bytes: of device memory, to leave free; where less is left after a trial step, there are fewer blocks.
        num_host_blocks: of host memory, to swap blocks to.
        num_state_slots: sequences that can keep states at once, where the program keeps any.
        is_tower: what each step gives is read before the next one begins, so that there is room for one.
        has_axes: positions have three axes, so that recorded steps say by which one rows are rotated.
        beside: makes, when weights and room for steps are there, what is to have blocks of the same numbers.
        lender: a model whose KV cache this one reads, and has none of its own.
        max_num_seqs: of a step; None: as many as rows whose best logits it may want; the others are for drafts.
        recorder: None: CUDA graphs where there is a GPU.
        seat: of one of several ranks, each of which has a model of its own and runs the same steps; None: it is alone.
    """

    def __init__(
        self,
        program: Program,
        matrices: Mapping[str, DeviceMatrix],
        vectors: Mapping[str, torch.Tensor],
        *,
        num_blocks: int,
        max_positions: int,
        device: torch.device,
        reserve_bytes: int = 0,
        num_host_blocks: int = 0,
        num_state_slots: int = 0,
        max_num_seqs: int | None = None,
        has_axes: bool = False,
        is_tower: bool = False,
        recorder: Recorder | None = None,
        beside: Callable[[CudaModel], Beside] | None = None,
        lender: CudaModel | None = None,
        seat: Seat | None = None,
    ) -> None:
        note_holder(self)
        self.leader: Leader | None = None
        self.number = 0
        self.device, self.max_positions = device, max_positions
        most_tokens, most_rows = program.maxima["T"], min(program.maxima["G"], program.maxima["T"])
        self._buckets = Buckets(min(max_num_seqs or most_rows, most_rows), most_tokens, most_rows)
        self._matrices, self._vectors = matrices, vectors
        self._states = DeviceStates(program.states, num_state_slots, device)
        self.placed = PlacedProgram(program, device, max_positions, has_axes=has_axes, seat=seat)
        if self.placed.draws:
            self.placed.let_draw()
        self._is_one_of_several = seat is not None
        self._recorder = recorder or (CudaGraphs() if device.type == "cuda" else DirectLaunches())
        self._recordings = Recordings(self._buckets, self._recorder)
        self._results = Results(self.placed.found, is_tower)
        self._lender = lender
        self.hidden_states: DeviceHiddenStates | None = None
        self._kv = self._bind(2)
        staged = min(_STAGED, num_host_blocks)
        self._try_largest()
        others = None if beside is None else beside(self)
        block_bytes = self.block_bytes + (0 if others is None else others.block_bytes)
        reserve_bytes += staged * self.block_bytes
        least = 1 + program.kv.num_groups
        wanted = min(num_blocks, most_blocks(program.kv))
        fitting = blocks_that_fit(wanted, block_bytes, reserve_bytes, least, device)
        self.take_blocks(fitting if seat is None else seat.least(fitting))
        if others is not None:
            others.take_blocks(self.num_blocks)
        self._host = HostKV(self._kv, num_host_blocks, staged) if num_host_blocks else None

    def take_blocks(self, num_blocks: int) -> None:
        """Have a KV cache of so many blocks, in place of the one there was: its own, or its lender's new one. No step
        was recorded before."""
        # the old one goes first
        del self._kv
        self.placed.launches = []
        self.num_blocks = num_blocks
        self._kv = self._bind(num_blocks)

    @frees_cache
    def run(self, inputs: StepInputs) -> StepOutputs:
        """Compute one step and wait for it.

        Raises: InvariantError when the step is larger than the program was planned for; nothing is computed then.
        """
        self._begin(inputs)
        return self._outputs_of(inputs)

    @frees_cache
    def output_there(self, inputs: StepInputs, name: str) -> torch.Tensor:
        """Compute one step. Returns: an output [R, any] where it lies, which the next step overwrites."""
        self._begin(inputs)
        return self.placed.output(name, len(inputs.logit_rows))

    @frees_cache
    def run_layers(self, steps: Sequence[StepInputs]) -> StepOutputs:
        """See execution.vision.TowerModel. Each run of layers is launched behind the copy of its own step."""
        for inputs in steps:
            self.placed.check_size(inputs)
        for layer, run in layer_runs(self.program.calls):
            launches = self.placed.launches[run.start : run.stop]
            is_given = any(call.family == "given" for call, _ in launches)
            self.placed.run_some(steps[layer] if is_given else replace(steps[layer], given=()), launches)
        return self._outputs_of(steps[0])

    def run_call(self, index: int, inputs: StepInputs) -> StepOutputs:
        """One call of a step on what arena and KV cache hold; for whoever looks at each call alone, as CpuModel's."""
        self.placed.check_size(inputs)
        self.placed.run_some(inputs, self.placed.launches[index : index + 1])
        return self._outputs_of(inputs)

    def _outputs_of(self, inputs: StepInputs) -> StepOutputs:
        ticket = self._results.send(self.placed.told(inputs))
        return StepOutputs(**(_MISSING | self._receive(ticket)))

    def _receive(self, ticket: Ticket) -> dict[str, NDArray[Any]]:
        found = self._results.receive(ticket)
        if self.leader is not None:
            self.leader.check()
        return found

    @frees_cache
    def sharing(self, program: Program, adapters: CudaAdapters | None = None) -> CudaModel:
        """Another program of the same constants on the weights and KV cache of this one; they run in turn.

        It gives hidden states, draws nothing, and is launched call by call. Activations are shared where there is room.
        Args: adapters: slots, where the program has adapters.
        Raises: InvariantError when it has other constants.
        """
        return self._sharing(program, adapters, is_alike=False)

    @frees_cache
    def with_adapters(self, program: Program, adapters: CudaAdapters) -> CudaModel:
        """This model's program with adapters, on its weights, its KV cache and all else that a step needs.

        It draws and is recorded as this one, and either is fed what the other drew.
        Raises: as sharing().
        """
        return self._sharing(program, adapters, is_alike=True)

    def _sharing(self, program: Program, adapters: CudaAdapters | None, *, is_alike: bool) -> CudaModel:
        if program.constants != self.program.constants:
            raise InvariantError("a program that is to share a model's weights has other constants")
        if program.kv != self.program.kv:
            raise InvariantError("a program that is to share a model's KV cache has another layout of it")
        if program.states != self.program.states:
            raise InvariantError("a program that is to share a model's states keeps others")
        other = copy(self)
        note_holder(other)
        other.placed = self.placed.beside(program, adapters, is_alike=is_alike)
        other.placed.bind(self._matrices, self._vectors, self._kv, self._states)
        other._recordings = Recordings(self._buckets, self._recorder if is_alike else DirectLaunches())
        other._results = Results(other.placed.found)
        return other

    @property
    def program(self) -> Program:
        """What it computes."""
        return self.placed.program

    def can_draw(self, tasks: Sequence[SampleTask]) -> bool:
        """See execution.ahead.AheadDevice."""
        return self.placed.draws and self.placed.endings.can_draw(tasks)

    @frees_cache
    def submit(
        self,
        inputs: StepInputs,
        tasks: Sequence[SampleTask],
        rows: Sequence[int],
        sources: NDArray[np.int32] | None = None,
        targets: Sequence[tuple[int, int, int]] = (),
        has_drafts: bool = False,
    ) -> Submitted:
        """Start one step behind those before it; see execution.ahead.AheadDevice. Raises: as run()."""
        num_rows, ahead, endings = len(inputs.logit_rows), int(sources is not None), self.placed.endings
        wish = endings.wish(tasks, rows, targets, is_top=not num_rows, ahead=ahead)
        sizes = self._begin(inputs, wish, sources)
        if has_drafts:
            endings.judge(sizes, inputs.num_sequences)
        return Submitted(self._results.send(endings.results(wish, num_rows)), wish.reports)

    @frees_cache
    def collect(self, submitted: Submitted) -> DrawnTokens:
        """Wait for a step; see execution.ahead.AheadDevice."""
        return self.placed.endings.told(submitted.reports, self._receive(submitted.ticket))

    def _begin(
        self, inputs: StepInputs, wish: Wish | None = None, sources: NDArray[np.int32] | None = None
    ) -> Mapping[str, int]:
        """Start a step. Args: wish: None: it ends in its outputs. Returns: its sizes, padding included."""
        placed = self.placed
        placed.check_size(inputs)
        ending, counts, write = (NO_ENDING, {}, None) if wish is None else (wish.ending, wish.counts, wish.write)
        sizes = {**inputs.sizes, "B": inputs.num_sequences, "D": 0, "L": 0, **counts}
        is_alike = self._recordings.are_made and not placed.brings_rows(inputs)
        bucket = self._buckets.of(sizes, ending) if is_alike else None
        sizes = sizes if bucket is None else bucket.sizes
        placed.staging.fill(inputs, sizes, sources, write)
        words, ends = (b"", b"") if self.leader is None else (placed.staging.sent(), placed.ends_of(inputs))
        staged = StagedStep(sizes, bucket, ending, sources is not None, words, ends)
        with self._together("follow", staged):
            self._go(staged, placed.own_step(sizes, inputs) if bucket is None else None)
        if self.hidden_states is not None and self.hidden_states.is_combined:
            placed.keep(self.hidden_states, sizes, inputs.num_tokens)
        return sizes

    def _go(self, staged: StagedStep, own: DeviceStep | None = None) -> None:
        """Launch what lies in staging."""
        if staged.bucket is not None:
            self._run(staged.bucket)
        else:
            self.placed.whole(staged.sizes, staged.ending, staged.feeds, own, self.hidden_states)()

    def _together(self, name: str, arg: Any) -> AbstractContextManager[None]:
        """What every rank does at once: see orders.Leader."""
        return nullcontext() if self.leader is None else self.leader.together(self.number, name, arg)

    def obey(self, name: str, arg: Any) -> None:
        """Do what rank 0 does. Raises: InvariantError for what no rank is told."""
        if name not in OBEYED:
            raise InvariantError(f"a rank is told to {name}")
        getattr(self, name)(arg)

    def follow(self, staged: StagedStep) -> None:
        """Start the step that rank 0 starts; what it gives stays here."""
        self.placed.staging.put(staged.words)
        self._go(staged, self.placed.step_of_rank(staged.sizes, staged.ends) if staged.ends else None)

    def record_next(self) -> bool:
        """See execution.ahead.AheadDevice. A step of padding is recorded, which means nothing."""
        # what draws nothing has steps of prompts alone, of any length
        bucket = self._recordings.next() if self.placed.draws else None
        if bucket is None:
            return False
        num_before = len(self._recordings)
        try:
            with self._together("record", bucket):
                self.record(bucket)
        except DeviceLost:
            raise
        except Exception as error:
            self._recordings.give_up(bucket, error)
        return len(self._recordings) > num_before

    @frees_cache
    def record(self, bucket: Bucket) -> None:
        """Of a bucket that is not recorded yet. Ranks record the same at once: what exchanges rows asks for that."""
        self._recordings.met(bucket)
        self.placed.fill_with_padding(bucket.sizes)
        self._run(bucket)

    def value(self, name: str, inputs: StepInputs) -> NDArray[Any]:
        """[rows, cols] a copy of what a buffer holds now, as float32 (ids as int32); as many rows as this step has."""
        return self.placed.value(name, inputs)

    def cached(self, layer: int, slots: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """k, v: [len(slots), K, D] copies of what a layer's KV cache holds, as float32."""
        return self._kv.read(layer, slots)

    @frees_cache
    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks (source, target) in every layer, in order."""
        with self._together("copy_blocks", pairs):
            copy_blocks(self._kv, pairs)
        if self.hidden_states is not None:
            self.hidden_states.copy_blocks(pairs)

    @frees_cache
    def copy_states(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See execution.runner.StateTier. Behind what is under way, which may write the slots that are copied to."""
        with self._together("copy_states", pairs):
            self._states.copy(pairs)

    @frees_cache
    def swap_out(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See execution.runner.HostTier."""
        host = self._host_kv()
        with self._together("swap_out", pairs):
            swap_out(self._kv, host, pairs)

    @frees_cache
    def swap_in(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See execution.runner.HostTier."""
        host = self._host_kv()
        with self._together("swap_in", pairs):
            swap_in(self._kv, host, pairs)

    def _host_kv(self) -> HostKV:
        if self._host is None:
            raise InvariantError("blocks are swapped, and there is no host memory for them")
        return self._host

    def _bind(self, num_blocks: int) -> DeviceKV:
        kv = DeviceKV(self.program.kv, num_blocks, self.device) if self._lender is None else self._lender._kv
        self.placed.bind(self._matrices, self._vectors, kv, self._states)
        return kv

    def _run(self, bucket: Bucket) -> None:
        placed, feeds = self.placed, bucket.ending.draws and bucket.tokens is None
        states = self.hidden_states
        try:
            self._recordings.run(bucket, lambda: placed.whole(bucket.sizes, bucket.ending, feeds, states=states))
        except NotRecorded as error:
            # Ranks record the same at once, and cannot go on in different ways. Another step would meet it again.
            if self._is_one_of_several:
                raise
            self._recordings.give_up(bucket, error)

    def _try_largest(self) -> None:
        """Run the largest step, so that all it needs is loaded."""
        if self.device.type != "cuda":
            return
        placed, draws = self.placed, self.placed.draws
        placed.run_padding(placed.maxima, WHOLE if draws else NO_ENDING, self.hidden_states)
        if draws:
            placed.endings.judge(placed.maxima, 1)
        torch.cuda.synchronize(self.device)

    @property
    def block_bytes(self) -> int:
        """Of one KV block over all layers; 0 where a lender has it."""
        return self.program.kv.block_bytes if self._lender is None else 0

    def lend(self, names: Sequence[str]) -> tuple[dict[str, DeviceMatrix], dict[str, torch.Tensor]]:
        """Constants by name, where they lie: matrices, and vectors."""
        matrices, vectors = self._matrices, self._vectors
        return {n: matrices[n] for n in names if n in matrices}, {n: vectors[n] for n in names if n in vectors}
