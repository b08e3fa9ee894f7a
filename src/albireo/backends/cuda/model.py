"""CudaModel: a program on one GPU, with its weights, activations and KV cache.

Made by api/cuda_device.py, run by execution/runner.py. Behind the same interface as CpuModel. A decoding step is padded
to a bucket and replayed as one recorded graph; any other is launched call by call at its own size. On CPU tensors,
under Triton's interpreter, the same code computes the same numbers, which is how it is tested.
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
from albireo.backends.cuda.bind import bind
from albireo.backends.cuda.buckets import NO_ENDING, Bucket, Buckets, Ending
from albireo.backends.cuda.call_args import Launch, Memory
from albireo.backends.cuda.capture import CudaGraphs, DirectLaunches, Launches, Recorder
from albireo.backends.cuda.drawing import tail_words
from albireo.backends.cuda.endings import ENDING_COLUMNS, WHOLE, Endings, Wish
from albireo.backends.cuda.fitting import blocks_that_fit
from albireo.backends.cuda.hidden_states import HEAD_COLUMNS, DeviceHiddenStates, head_rows_of, is_told, taps_of
from albireo.backends.cuda.joined_head import JoinedHead
from albireo.backends.cuda.kernels.build_work_list import build_work_list
from albireo.backends.cuda.kernels.copy_blocks import copy_blocks
from albireo.backends.cuda.kernels.feed_drawn import feed_drawn
from albireo.backends.cuda.kernels.swap_blocks import HostKV, swap_in, swap_out
from albireo.backends.cuda.kv import TORCH_DTYPES, DeviceKV
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.orders import OBEYED, Leader, StagedStep
from albireo.backends.cuda.peers import Seat
from albireo.backends.cuda.recordings import Recordings
from albireo.backends.cuda.reporting import Reports
from albireo.backends.cuda.results import Results, Ticket
from albireo.backends.cuda.scratch import Scratch
from albireo.backends.cuda.shortage import frees_cache
from albireo.backends.cuda.staging import ADAPTER_COLUMNS, ROPE_COLUMNS, TYPE_COLUMNS, Staging
from albireo.backends.cuda.states import DeviceStates
from albireo.backends.cuda.step import DeviceStep
from albireo.backends.cuda.step_rows import brings_rows, with_empty_rows, with_rows
from albireo.backends.cuda.tokens import numbers_of
from albireo.backends.layer_runs import layer_runs
from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import NOTHING, DrawnTokens, StepOutputs
from albireo.dtypes import FP8_TOKEN, ROW_CODES, TOKEN, itemsize
from albireo.errors import InvariantError, RankLost
from albireo.graph.program import Buffer, Call, Program
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
        hidden_states: where those of each step are kept that a head reads; None: nowhere.
        head_rows: what a head's steps read and leave; None: it is none.
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
        self._seat, self.number = seat, 0
        self.leader: Leader | None = None
        self.device, self.max_positions, self._has_axes = device, max_positions, has_axes
        most_tokens, most_rows = program.maxima["T"], min(program.maxima["G"], program.maxima["T"])
        self._buckets = Buckets(min(max_num_seqs or most_rows, most_rows), most_tokens, most_rows)
        self._matrices, self._vectors = matrices, vectors
        self._arena = torch.zeros(program.arena_bytes, dtype=torch.uint8, device=device)
        self._states = DeviceStates(program.states, num_state_slots, device)
        self._adapters: CudaAdapters | None = None
        self._make_room(program)
        self._recorder = recorder or (CudaGraphs() if device.type == "cuda" else DirectLaunches())
        self._recordings = Recordings(self._buckets, self._recorder)
        endings = Endings(self._maxima, self._output, self._staging, device) if self.draws else None
        self._made_endings, found = endings, {} if endings is None else endings.found
        self._results = Results({name: self._output(name) for name in program.outputs} | found, is_tower)
        self._lender = lender
        self.hidden_states: DeviceHiddenStates | None = None
        self._kv, self._launches = self._bind(2)
        staged = min(_STAGED, num_host_blocks)
        self._try_largest()
        others = None if beside is None else beside(self)
        block_bytes = self.block_bytes + (0 if others is None else others.block_bytes)
        reserve_bytes += staged * self.block_bytes
        least = 1 + program.kv.num_groups
        fitting = blocks_that_fit(num_blocks, block_bytes, reserve_bytes, least, device)
        self.take_blocks(fitting if seat is None else seat.least(fitting))
        if others is not None:
            others.take_blocks(self.num_blocks)
        self._host = HostKV(self._kv, num_host_blocks, staged) if num_host_blocks else None

    def take_blocks(self, num_blocks: int) -> None:
        """Have a KV cache of so many blocks, in place of the one there was: its own, or its lender's new one. No step
        was recorded before."""
        # the old one goes first
        del self._kv, self._launches
        self.num_blocks = num_blocks
        self._kv, self._launches = self._bind(num_blocks)

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
        return self._output(name, len(inputs.logit_rows))

    @frees_cache
    def run_layers(self, steps: Sequence[StepInputs]) -> StepOutputs:
        """See execution.vision.TowerModel. Each run of layers is launched behind the copy of its own step."""
        for inputs in steps:
            self.check_size(inputs)
        for layer, run in layer_runs(self.program.calls):
            launches = self._launches[run.start : run.stop]
            is_given = any(call.family == "given" for call, _ in launches)
            self._launch_some(steps[layer] if is_given else replace(steps[layer], given=()), launches)
        return self._outputs_of(steps[0])

    def run_call(self, index: int, inputs: StepInputs) -> StepOutputs:
        """One call of a step on what arena and KV cache hold; for whoever looks at each call alone, as CpuModel's."""
        self.check_size(inputs)
        self._launch_some(inputs, self._launches[index : index + 1])
        return self._outputs_of(inputs)

    def _launch_some(self, inputs: StepInputs, launches: Sequence[tuple[Call, Launch]]) -> None:
        """Some calls of a step, at its own size."""
        sizes = {**inputs.sizes, "B": inputs.num_sequences, "D": 0, "L": 0}
        self._staging.fill(inputs, sizes)
        self._launch(self._own_step(sizes, inputs), launches)

    def _outputs_of(self, inputs: StepInputs) -> StepOutputs:
        num_rows, num_top = len(inputs.logit_rows), len(inputs.top_rows)
        told = [name for name in self.program.outputs if is_told(name)]
        counts = {name: num_top if name.startswith("top_") else num_rows for name in told}
        ticket = self._results.send({name: self._output(name, count) for name, count in counts.items()})
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
        return self._sharing(program, adapters, None)

    @frees_cache
    def with_adapters(self, program: Program, adapters: CudaAdapters) -> CudaModel:
        """This model's program with adapters, on its weights, its KV cache and all else that a step needs.

        It draws and is recorded as this one, and either is fed what the other drew.
        Raises: as sharing().
        """
        other = self._sharing(program, adapters, self._scratch.with_linears(program, self.device))
        other._recordings = Recordings(other._buckets, self._recorder)
        other._made_endings = Endings(other._maxima, other._output, other._staging, self.device, self._endings)
        found = {name: other._output(name) for name in program.outputs} | other._made_endings.found
        other._results = Results(found)
        return other

    def _sharing(self, program: Program, adapters: CudaAdapters | None, scratch: Scratch | None) -> CudaModel:
        if program.constants != self.program.constants:
            raise InvariantError("a program that is to share a model's weights has other constants")
        if program.kv != self.program.kv:
            raise InvariantError("a program that is to share a model's KV cache has another layout of it")
        if program.states != self.program.states:
            raise InvariantError("a program that is to share a model's states keeps others")
        other = copy(self)
        other._adapters = adapters
        if program.arena_bytes > len(self._arena):
            other._arena = torch.zeros(program.arena_bytes, dtype=torch.uint8, device=self.device)
        other._recordings = Recordings(self._buckets, DirectLaunches())
        other._make_room(program, scratch)
        other._made_endings = None
        other._results = Results({name: other._output(name) for name in program.outputs})
        other._launches = other._bound(self._kv)
        return other

    def _make_room(self, program: Program, scratch: Scratch | None = None) -> None:
        """For what a program's steps need beside weights, KV cache and arena. Args: scratch: None: its own."""
        self.program = program
        vocab = program.buffers[program.outputs["logits"]].cols if self.draws else 0
        if self._seat is not None and self.draws:
            vocab = self._seat.vocab_size
        tasks = program.maxima["R"] if vocab else 0
        self._maxima = {**program.maxima, "B": program.maxima["G"], "D": tasks, "L": 2 * tasks}
        self._buffers = {name: self._view(buffer) for name, buffer in program.buffers.items()}
        max_blocks = -(-self.max_positions // program.kv.block_size)
        columns, tail = (ENDING_COLUMNS, tail_words(tasks, vocab)) if vocab else ({}, 0)
        if any("token_types" in call.args.values() for call in program.calls):
            columns = {**columns, **TYPE_COLUMNS}
        if self._has_axes:
            columns = {**columns, **ROPE_COLUMNS}
        self.head_rows = head_rows_of(program, self.device)
        if self.head_rows is not None:
            columns = {**columns, **HEAD_COLUMNS}
        if self._adapters is not None:
            columns = {**columns, **ADAPTER_COLUMNS}
        units = program.kv.units
        self._staging = Staging(self._maxima, max_blocks, program.kv.block_size, self.device, columns, tail, units)
        self._scratch = scratch or Scratch.of(program, self._maxima, self.max_positions, self.device, self._seat)
        self._head = None
        if self._seat is not None:
            parts, space = self._buffers, self._scratch.parts
            self._head = JoinedHead(program, parts, self._maxima, self._seat, space, self.device)

    def can_draw(self, tasks: Sequence[SampleTask]) -> bool:
        """See execution.ahead.AheadDevice."""
        return self.draws and self._endings.can_draw(tasks)

    @property
    def draws(self) -> bool:
        """Whether the program has logits, from which tokens are drawn."""
        return "logits" in self.program.outputs

    @property
    def _endings(self) -> Endings:
        """Raises: InvariantError where there is nothing to draw from."""
        if self._made_endings is None:
            raise InvariantError("tokens are to be drawn by a program that has no logits")
        return self._made_endings

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
        num_rows, ahead = len(inputs.logit_rows), int(sources is not None)
        wish = self._endings.wish(tasks, rows, targets, is_top=not num_rows, ahead=ahead)
        sizes = self._begin(inputs, wish, sources)
        if has_drafts:
            self._endings.judge(sizes, inputs.num_sequences)
        return Submitted(self._results.send(self._endings.results(wish, num_rows)), wish.reports)

    @frees_cache
    def collect(self, submitted: Submitted) -> DrawnTokens:
        """Wait for a step; see execution.ahead.AheadDevice."""
        return self._endings.told(submitted.reports, self._receive(submitted.ticket))

    def _begin(
        self, inputs: StepInputs, wish: Wish | None = None, sources: NDArray[np.int32] | None = None
    ) -> Mapping[str, int]:
        """Start a step. Args: wish: None: it ends in its outputs. Returns: its sizes, padding included."""
        self.check_size(inputs)
        ending, counts, write = (NO_ENDING, {}, None) if wish is None else (wish.ending, wish.counts, wish.write)
        sizes = {**inputs.sizes, "B": inputs.num_sequences, "D": 0, "L": 0, **counts}
        is_alike = self._recordings.are_made and not brings_rows(inputs, self._has_axes)
        bucket = self._buckets.of(sizes, ending) if is_alike else None
        sizes = sizes if bucket is None else bucket.sizes
        self._staging.fill(inputs, sizes, sources, write)
        words = b"" if self.leader is None else self._staging.sent()
        staged = StagedStep(sizes, bucket, ending, sources is not None, words)
        with self._together("follow", staged):
            self._go(staged, self._own_step(sizes, inputs) if bucket is None else None)
        if self.hidden_states is not None and self.hidden_states.is_combined:
            self._keep(self.hidden_states, sizes, inputs.num_tokens)
        return sizes

    def _go(self, staged: StagedStep, own: DeviceStep | None = None) -> None:
        """Launch what lies in staging."""
        if staged.bucket is not None:
            self._run(staged.bucket)
        else:
            self._whole(staged.sizes, staged.ending, staged.feeds, own)()

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
        self._staging.put(staged.words)
        self._go(staged)

    def _keep(self, states: DeviceHiddenStates, sizes: Mapping[str, int], num_tokens: int) -> None:
        """Hidden states of a step of these sizes, of so many rows."""
        taps = [self._output(name, num_tokens) for name in taps_of(self.program)]
        states.keep(taps, self._staging.slots(sizes, states.group)[:num_tokens])

    def check_size(self, inputs: StepInputs) -> None:
        """Raises: InvariantError when the step is larger than the program was planned for, or has what it has not."""
        if inputs.adapter_slots is not None and self._adapters is None:
            raise InvariantError("a row has an adapter, and the program that is to run knows none")
        for symbol, size in {**inputs.sizes, "B": inputs.num_sequences}.items():
            planned = self._maxima[symbol]
            if size > planned:
                raise InvariantError(f"a step with {symbol}={size}; memory is planned for {planned}")

    def record_next(self) -> bool:
        """See execution.ahead.AheadDevice. A step of padding is recorded, which means nothing."""
        bucket = self._recordings.next() if self.draws else None  # else steps are of prompts alone, of any length
        if bucket is None:
            return False
        try:
            with self._together("record", bucket):
                self.record(bucket)
        except RankLost:
            raise
        except Exception as error:
            self._recordings.give_up(bucket, error)
            return False
        return True

    @frees_cache
    def record(self, bucket: Bucket) -> None:
        """Of a bucket that is not recorded yet. Ranks record the same at once: what exchanges rows asks for that."""
        self._recordings.met(bucket)
        self._fill_with_padding(bucket.sizes)
        self._run(bucket)

    def value(self, name: str, inputs: StepInputs) -> NDArray[Any]:
        """[rows, cols] a copy of what a buffer holds now, as float32 (ids as int32); as many rows as this step has."""
        buffer = self.program.buffers[name]
        rows = self.program.sizes(inputs.sizes)[buffer.rows] if isinstance(buffer.rows, str) else buffer.rows
        stored = self._buffers[name][:rows].to("cpu", copy=True)
        if buffer.dtype in ROW_CODES:
            return np.asarray(numbers_of(stored, buffer.cols).numpy(), np.float32)
        return np.asarray((stored if buffer.dtype == "int32" else stored.float()).numpy())

    def cached(self, layer: int, slots: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """k, v: [len(slots), K, D] copies of what a layer's KV cache holds, as float32."""
        kv, layout = self._kv.layers[layer], self.program.kv.layers[layer]
        size = layout.block_size
        blocks = torch.from_numpy(self.program.kv.block_of(layer, slots // size)).long()
        offsets = torch.from_numpy(slots % size).long()
        found = []
        for numbers, scales in ((kv.k, kv.k_scale), (kv.v, kv.v_scale)):
            rows = numbers.cpu().float()[blocks, :, offsets]
            if scales is not None:
                rows = rows * scales.cpu()[blocks, :, offsets][..., None]
            found.append(np.asarray(rows[..., : layout.head_dim].numpy(), np.float32))
        return found[0], found[1]

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

    def _bind(self, num_blocks: int) -> tuple[DeviceKV, list[tuple[Call, Launch]]]:
        kv = DeviceKV(self.program.kv, num_blocks, self.device) if self._lender is None else self._lender._kv
        return kv, self._bound(kv)

    def _bound(self, kv: DeviceKV) -> list[tuple[Call, Launch]]:
        program = self.program
        buffers, specs, scratch = self._buffers, program.buffers, self._scratch
        memory = Memory(buffers, specs, self._matrices, self._vectors, kv, self._states, scratch, self._adapters)
        return [(call, bind(call, memory)) for call in program.calls]

    def _step(self, sizes: Mapping[str, int]) -> DeviceStep:
        step = self._staging.step(self.program.sizes(sizes))
        return step if self.head_rows is None else replace(step, given=(self.head_rows.given[: sizes["T"]],))

    def _own_step(self, sizes: Mapping[str, int], inputs: StepInputs) -> DeviceStep:
        """A step that is not padded, with what it brings."""
        step = self._step(sizes)
        return with_rows(step, inputs, self.device) if brings_rows(inputs, self._has_axes) else step

    def _launch(self, step: DeviceStep, launches: Sequence[tuple[Call, Launch]] | None = None) -> None:
        """launches: of some calls of the program; None: of all."""
        for work in self._scratch.work.values():
            build_work_list(step, work)
        for call, launch in self._launches if launches is None else launches:
            if step.sizes[call.rows]:
                launch(step)

    def _run(self, bucket: Bucket) -> None:
        feeds = bucket.ending.draws and bucket.tokens is None
        self._recordings.run(bucket, lambda: self._whole(bucket.sizes, bucket.ending, feeds))

    def _whole(self, sizes: Mapping[str, int], ending: Ending, feeds: bool, own: DeviceStep | None = None) -> Launches:
        """All launches of a step. Args: feeds: tokens of the step before may be among its own. own: the step itself,
        where it is not that of a bucket."""
        step = self._step(sizes) if own is None else own
        sources = self._staging.tensors(sizes, ("sources",))["sources"]
        end = None if ending == NO_ENDING else self._endings.launches(sizes, ending)
        head, states, joined = self.head_rows, self.hidden_states, self._head
        columns = {} if head is None else self._staging.tensors(sizes, HEAD_COLUMNS)

        def launches() -> None:
            if feeds:
                feed_drawn(step.token_ids, sources, self._endings.tokens)
            if head is not None:
                head.read(columns)
            self._launch(step)
            if joined is not None:
                joined.launch(sizes["R"], step.top_counts)
            if head is not None:
                head.leave(columns, self._output, sizes["R"])
            if states is not None and not states.is_combined:
                self._keep(states, sizes, sizes["T"])
            if end is not None:
                end()

        return launches

    def _fill_with_padding(self, sizes: Mapping[str, int]) -> None:
        """A step of padding alone: it computes, reads and writes the null block, and means nothing."""
        none, empty = np.zeros(0, np.int32), np.zeros((0, 1), np.int32)
        padding = StepInputs(none, none, none, np.zeros(1, np.int32), none, empty, none, none)
        write = self._endings.wish((), (), (), is_top=False, ahead=0).write if self.draws else None
        self._staging.fill(padding, sizes, write=write)

    def _try_largest(self) -> None:
        """Run the largest step, so that all it needs is loaded."""
        if self.device.type != "cuda":
            return
        largest = dict(self._maxima)
        self._fill_with_padding(largest)
        step = self._step(largest)
        own = with_empty_rows(step, self.program, self.device) if self.head_rows is None else step
        self._whole(largest, WHOLE if self.draws else NO_ENDING, False, own)()
        if self.draws:
            self._endings.judge(largest, 1)
        torch.cuda.synchronize(self.device)

    @property
    def block_bytes(self) -> int:
        """Of one KV block over all layers; 0 where a lender has it."""
        return self.program.kv.block_bytes if self._lender is None else 0

    def lend(self, names: Sequence[str]) -> tuple[dict[str, DeviceMatrix], dict[str, torch.Tensor]]:
        """Constants by name, where they lie: matrices, and vectors."""
        matrices, vectors = self._matrices, self._vectors
        return {n: matrices[n] for n in names if n in matrices}, {n: vectors[n] for n in names if n in vectors}

    def _view(self, buffer: Buffer) -> torch.Tensor:
        rows = buffer.rows if isinstance(buffer.rows, int) else self._maxima[buffer.rows]
        size = itemsize(buffer.dtype)
        stored = self._arena[buffer.offset : buffer.offset + rows * buffer.stride * size]
        if buffer.dtype == TOKEN:
            return stored.view(rows, buffer.stride)
        if buffer.dtype == FP8_TOKEN:
            return stored.view(torch.float8_e4m3fn).view(rows, buffer.stride)
        return stored.view(TORCH_DTYPES[buffer.dtype]).view(rows, buffer.stride)[:, : buffer.cols]

    def _output(self, name: str, rows: int | None = None) -> torch.Tensor:
        """The first rows of an output, of all ranks together; None: all there is room for."""
        if self._head is not None and name in self._head.outputs:
            return self._head.outputs[name][:rows]
        return self._buffers[self.program.outputs[name]][:rows]
