"""CpuModel: a program bound to addresses on this machine, its weights packed, its KV cache reserved.

Made by api/load, run by execution/runner. Does not know requests, scheduling or sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.backend import identity_parts
from albireo.backends.cpu.adapters import CpuAdapters
from albireo.backends.cpu.arguments import Arguments
from albireo.backends.cpu.choosing import first_positions, score_bytes
from albireo.backends.cpu.kv_memory import KVMemory
from albireo.backends.cpu.kv_view import token_numbers, widen
from albireo.backends.cpu.nodes import Near
from albireo.backends.cpu.pack import constant_offsets, pack_constants, pack_rows
from albireo.backends.cpu.runner import Runner, native_tunings
from albireo.backends.cpu.stored import read_stored
from albireo.backends.layer_runs import layer_runs
from albireo.backends.step_inputs import StepArrays, StepInputs
from albireo.backends.step_outputs import NOTHING, StepOutputs
from albireo.backends.stored_weights import StoredWeights
from albireo.backends.weights import Weights
from albireo.dtypes import TOKEN, itemsize
from albireo.errors import InvariantError
from albireo.graph.node import ConstantDef, RowSegment
from albireo.graph.op_numbers import TOP_LOGITS
from albireo.graph.outputs import NEXT_OF_LOGITS, NEXT_OF_TOP, TAP
from albireo.graph.private_norms import private_norms
from albireo.graph.program import PANEL, Buffer, Call, Program

#: Chosen positions lie in the arena.
NO_LISTS: Mapping[str, NDArray[np.int32]] = MappingProxyType({})
#: As a byte: 0.0115 in float32 and bfloat16, 1.06 in float16.
_SMALL_NUMBERS = 0x3C


@dataclass(frozen=True, slots=True)
class Peers:
    """The ranks that a model is one of.

    Fields:
        programs, arenas: of all ranks, in order.
        first, threads: of the pool's threads, those that are this rank's.
    """

    rank: int
    programs: tuple[Program, ...]
    arenas: Sequence[_native.Memory]
    first: int
    threads: int

    def addresses(self, index: int) -> list[int]:
        """Where each rank has what its call of this index reads."""
        found = []
        for program, arena in zip(self.programs, self.arenas, strict=True):
            found.append(arena.address + program.buffers[program.calls[index].args["x"]].offset)
        return found


class CpuModel:
    """Weights, KV cache and arena of one program, ready to run steps.

    Invariants: 1. every address in the native program points into memory owned by this object;
    2. a step's result depends on its inputs and on the KV cache only, not on the number of threads.
    """

    def __init__(
        self,
        program: Program,
        weights: Weights | StoredWeights,
        pool: _native.ThreadPool,
        num_blocks: int,
        progress: Callable[[int], None] = lambda _: None,
        peers: Peers | None = None,
        num_state_slots: int = 0,
        lender: CpuModel | None = None,
        borrowed: Sequence[str] = (),
        reads_cache: bool = False,
        max_positions: int | None = None,
    ) -> None:
        """Args:
        num_state_slots: sequences that can keep states at once, where the program keeps any.
        borrowed: constants that are lender's, which has the same by these names.
        reads_cache: its KV cache is lender's.
        max_positions: of the longest sequence; None: of one that has the whole KV cache.
        """
        pooled = num_blocks * program.kv.block_size
        self.max_positions = pooled if max_positions is None else min(max_positions, pooled)
        self.num_blocks = num_blocks
        self.num_state_slots = num_state_slots
        if program.states and num_state_slots < 1:
            raise InvariantError("a program that keeps states of sequences has no slots for them")
        self.pool = pool
        own = {name: constant for name, constant in program.constants.items() if name not in borrowed}
        offsets, num_bytes = constant_offsets(own)
        self._weights, self._lender = _native.Memory(max(1, num_bytes)), lender
        self._arena = _native.Memory(program.arena_bytes) if peers is None else peers.arenas[peers.rank]
        self._kv: KVMemory = lender._kv if reads_cache and lender is not None else KVMemory(program.kv, num_blocks)
        self._states = _native.Memory(max(1, num_state_slots * program.states.slot_bytes))
        near = Near(pool) if peers is None else Near(pool, peers.first, peers.threads)
        near.take(self._weights, [(offset, own[name].num_bytes) for name, offset in offsets.items()])
        for shared in (self._states, self._kv.memory):
            near.spread(shared)
        self._constants = {name: self._weights.address + offset for name, offset in offsets.items()}
        if lender is not None:
            self._constants |= {name: lender._lent(name, program) for name in borrowed}
        if isinstance(weights, StoredWeights):
            read_stored(weights, own, self._weights, offsets, progress)
        else:
            pack_constants(pool, own, weights, self._weights, offsets, progress)
        self._adapters: CpuAdapters | None = None
        self._take(program, peers)

    def sharing(self, program: Program, peers: Peers | None = None, adapters: CpuAdapters | None = None) -> CpuModel:
        """Another program of the same constants on the memory of this one, KV cache included; they run in turn.

        Activations are shared where there is room. Args: adapters: slots of the linears that have any.
        Raises: InvariantError when it has other constants.
        """
        if program.constants != self.program.constants:
            raise InvariantError("a program that is to share a model's weights has other constants")
        if program.kv != self.program.kv:
            raise InvariantError("a program that is to share a model's KV cache has another layout of it")
        other = copy(self)
        if peers is not None:
            other._arena = peers.arenas[peers.rank]
        elif program.arena_bytes > self._arena.num_bytes:
            other._arena = _native.Memory(program.arena_bytes)
        if program.states != self.program.states:
            raise InvariantError("a program that is to share a model's states keeps others")
        other._adapters = adapters
        other._take(program, peers)
        return other

    def put_rows(self, name: str, first: int, segments: Sequence[RowSegment], weights: Weights) -> None:
        """Make rows of a matrix others than it was loaded with: whole panels, from row first on.

        Args: segments: of tensors of the type that its own are of.
        """
        constant, rows = self.program.constants[name], sum(map(len, segments))
        panel_bytes = constant.num_bytes // -(-constant.rows // PANEL)
        at = self._constants[name] + first // PANEL * panel_bytes
        definition = ConstantDef(tuple(segments))
        part = replace(constant, rows=rows, num_bytes=rows // PANEL * panel_bytes, definition=definition)
        pack_rows(self.pool, part, weights, at)

    def _lent(self, name: str, program: Program) -> int:
        """Where a constant is that another program has, too."""
        if program.constants[name] != self.program.constants.get(name):
            raise InvariantError(f"a program that is to borrow {name} has another one")
        return self._constants[name]

    def _take(self, program: Program, peers: Peers | None) -> None:
        self.program, self._peers = program, peers
        self._is_choosing = score_bytes(program, 1) > 0
        self._arguments = Arguments(
            program,
            self._arena.address,
            self._constants,
            self._kv,
            self._states.address,
            self.num_state_slots,
            self.max_positions,
            self._adapters,
        )
        self.native = self._bind(program.calls)
        self._layer_runs: list[tuple[int, _native.Program, bool]] = []
        self.top_ids = np.zeros((program.maxima["G"], TOP_LOGITS), np.int32)
        self.top_values = np.zeros((program.maxima["G"], TOP_LOGITS), np.float32)
        self._rows = {
            name: self._view(program.buffers[buffer])
            for name, buffer in program.outputs.items()
            if not name.startswith("top_")
        }
        self._taps = [rows for name, rows in self._rows.items() if name.startswith(TAP)]

    def run(self, inputs: StepInputs) -> StepOutputs:
        """Compute one step, the GIL released.

        Raises: InvariantError when the step is larger than the program was planned for; nothing is computed then.
        """
        self.check_size(inputs)
        self._run(self.native, inputs)
        return self.outputs(inputs)

    def run_layers(self, steps: Sequence[StepInputs]) -> StepOutputs:
        """See execution.vision.TowerModel."""
        for inputs in steps:
            self.check_size(inputs)
        if not self._layer_runs:
            calls = self.program.calls
            for layer, run in layer_runs(calls):
                there = calls[run.start : run.stop]
                turns = any(call.family in ("rope", "qkv_rope_kv") for call in there)
                self._layer_runs.append((layer, self._bind(there), turns))
        for layer, native, turns in self._layer_runs:
            # calls that rotate nothing know no width of rotations
            self._run(native, steps[layer] if turns else replace(steps[layer], rope_rows=None))
        return self.outputs(steps[0])

    def _run(self, native: _native.Program, inputs: StepInputs) -> None:
        arrays = self.step_arrays(inputs)
        states = inputs.state_slots, inputs.snapshot_slots, inputs.snapshot_rows
        native.run(
            *arrays,
            self.top_ids,
            self.top_values,
            self.adapter_slots(inputs),
            *states,
            inputs.token_types,
            list(inputs.given),
            inputs.given_rows,
            inputs.rope_rows,
            inputs.row_ends,
            inputs.rope_positions,
        )

    def step_arrays(self, inputs: StepInputs) -> StepArrays:
        """All that every program reads of a step, as the native core takes it."""
        slots, tables = self._kv.tables(inputs)
        given = inputs.arrays
        return (*given[:2], slots, *given[3:5], tables, *given[6:])

    def check_size(self, inputs: StepInputs) -> None:
        """Raises: InvariantError when the step is larger than the program was planned for, or is of positions beyond
        those whose scores there is room for.
        """
        last = int(inputs.positions.max(initial=0)) if self._is_choosing else 0
        if last >= self.max_positions and self._is_choosing:
            raise InvariantError(f"a step at position {last}; memory is planned for {self.max_positions} positions")
        for symbol, size in inputs.sizes.items():
            planned = self.program.maxima[symbol]
            if size > planned:
                raise InvariantError(f"a step with {symbol}={size}; memory is planned for {planned}")

    def run_call(self, index: int, inputs: StepInputs) -> StepOutputs:
        """Compute one call of a step on what the arena and the KV cache hold; for whoever looks at each call alone.

        The step must not be larger than the program was planned for. Returns: logits only mean something behind the
        call that writes them, the best logits behind head_top.
        """
        native = self._bind(self.program.calls[index : index + 1])
        self._run(native, inputs)
        return self.outputs(inputs)

    def adapter_slots(self, inputs: StepInputs) -> NDArray[np.int32] | None:
        """The slot of each row, for a program with adapters; it also runs steps in which no row has one."""
        if self._adapters is None:
            return None
        return np.full(inputs.num_tokens, -1, np.int32) if inputs.adapter_slots is None else inputs.adapter_slots

    def value(self, name: str, inputs: StepInputs) -> NDArray[Any]:
        """[rows, cols] a copy of what a buffer holds now, as float32 (ids as int32); as many rows as this step has."""
        buffer = self.program.buffers[name]
        rows = self.program.sizes(inputs.sizes)[buffer.rows] if isinstance(buffer.rows, str) else buffer.rows
        size = itemsize(buffer.dtype)
        stored = self._arena.view()[buffer.offset : buffer.offset + rows * buffer.stride * size]
        if buffer.dtype == TOKEN:
            return token_numbers(stored.reshape(rows, buffer.stride), buffer.cols)
        numbers = stored.view(np.int32) if buffer.dtype == "int32" else widen(stored, buffer.dtype)
        return numbers.reshape(rows, buffer.stride)[:, : buffer.cols].copy()

    def cached(self, layer: int, slots: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """k, v: [len(slots), K, D] copies of what a layer's KV cache holds in slots of a step with one block table."""
        return self._kv.cached(layer, slots)

    def outputs(self, inputs: StepInputs) -> StepOutputs:
        """What the step that ran last left for these inputs."""
        num_rows, num_top = len(inputs.logit_rows), len(inputs.top_rows)
        logits, hidden = (self._rows.get(name, NOTHING)[:num_rows] for name in ("logits", "hidden"))
        taps = _side_by_side([rows[: inputs.num_tokens] for rows in self._taps])
        following = NOTHING
        if NEXT_OF_TOP in self._rows:
            parts = self._rows[NEXT_OF_LOGITS][:num_rows], self._rows[NEXT_OF_TOP][:num_top]
            following = np.concatenate(parts)
        return StepOutputs(logits, self.top_ids[:num_top], self.top_values[:num_top], hidden, taps, following)

    def runner(self, calls: Sequence[Call]) -> Runner:
        """Some calls as a program of their own, on these weights and activations; for measuring them.

        What they compute means nothing: they read what happens to be there. But attention to chosen positions without
        what chooses them sees the first ones: others may be nowhere. The model must outlive the runner.
        """
        lists = first_positions(self.program, calls)
        return Runner(self._bind(calls, lists), self.step_arrays, self.top_ids, self.top_values, tuple(lists.values()))

    def fill_with_numbers(self, num_blocks: int) -> None:
        """Put small finite numbers of every type into activations and the first KV blocks, for calls run alone.

        Pages that were never written are all one page, which is in a cache.
        """
        self._arena.view()[:] = _SMALL_NUMBERS
        self._kv.fill(num_blocks, _SMALL_NUMBERS)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks (source, target), in order."""
        self._kv.copy_blocks(pairs)

    def block_content(self, block: int) -> list[memoryview]:
        """All bytes of a block of the KV cache, in parts, to be read or written between steps."""
        return self._kv.content(block)

    def state_content(self, slot: int) -> list[memoryview]:
        """The same of what a sequence keeps in a slot; nothing where layers keep no states."""
        size = self.program.states.slot_bytes if self.program.states else 0
        return [self._states.view().data[slot * size : (slot + 1) * size]] if size else []

    def copy_states(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy what sequences keep, of whole slots (source, target), in order. A slot's states are side by side."""
        size = self.program.states.slot_bytes
        for source, target in pairs:
            _native.copy(self._states.address + target * size, self._states.address + source * size, size)

    def state(self, index: int, slot: int) -> NDArray[np.float32]:
        """A copy of state number index of a slot."""
        states = self.program.states
        start = slot * states.slot_bytes + sum(states.sizes[:index])
        stored = self._states.view()[start : start + states.sizes[index]]
        return stored.view(np.float32).reshape(states.shapes[index]).copy()

    def profile(self, inputs: StepInputs) -> list[tuple[Call, float]]:
        """Run one step and return each call with the seconds it took; for finding where time goes."""
        self.native.profile(True)
        self.run(inputs)
        return list(zip(self.program.calls, self.native.profile(False), strict=True))

    def _bind(self, calls: Sequence[Call], lists: Mapping[str, NDArray[np.int32]] = NO_LISTS) -> _native.Program:
        """Calls ready to run. Args: lists: of chosen positions, in place of buffers.

        Raises: InvariantError for one that needs other ranks, where there are none.
        """
        native = _native.Program(self.pool, self.program.maxima["G"], self._peers.threads if self._peers else 0)
        private = private_norms(calls, self.program.buffers, self.program.maxima)
        for i, call in enumerate(calls):
            _, dtype, level = identity_parts(call.kernel)
            args = self._arguments.of(call) | {"is_private": int(i in private)}
            if call.args.get("chosen") in lists:
                args["ids"] = lists[call.args["chosen"]].ctypes.data
            if call.family == "all_reduce":
                if self._peers is None:
                    raise InvariantError(f"{call.origin}: {call.attrs['ranks']} ranks run together or not at all")
                args["parts"] = self._peers.addresses(self.program.calls.index(call))
            native.add(call.family, level, dtype, args, native_tunings(call.tuning))
        return native

    def _view(self, buffer: Buffer) -> NDArray[np.float32]:
        rows = buffer.rows if isinstance(buffer.rows, int) else self.program.maxima[buffer.rows]
        data = self._arena.view()[buffer.offset : buffer.offset + rows * buffer.stride * 4]
        return data.view(np.float32).reshape(rows, buffer.stride)[:, : buffer.cols]


def _side_by_side(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    if len(arrays) < 2:
        return arrays[0] if arrays else NOTHING
    return np.concatenate(arrays, axis=1)
