"""CpuModel: a program bound to addresses on this machine, its weights packed, its KV cache reserved.

Made by api/load, run by execution/runner. Does not know requests, scheduling or sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.cpu.pack import Weights, constant_offsets, pack_constants
from albireo.backends.cpu.stored import StoredWeights
from albireo.backends.step_inputs import StepInputs
from albireo.errors import InvariantError
from albireo.graph.ops import TOP_LOGITS
from albireo.graph.program import Buffer, Call, KVLayout, Program
from albireo.graph.program_spec import STEP_ARRAYS
from albireo.graph.tuning import Tuning

#: What a role is to the native core: what it reads rows of, or what it writes.
_SIDES = {("", "x"): "x", ("", "out"): "out", ("qkv_rope_kv", "q"): "out", ("attention", "q"): "x"}
_ACTS = {"none": 0, "silu_mul": 1, "gelu_tanh_mul": 2}
#: Roles whose name in the native core differs.
_NATIVE_ROLES = {("embed", "table"): "weight", ("qkv_rope_kv", "q"): "out", ("attention", "q"): "x"}
#: What an array of rows picks from, as the native core numbers it; it knows the arrays themselves.
_GATHERS = {"T": 1, "S": 2}
#: As a byte: 0.0115 in float32 and bfloat16, 1.06 in float16.
_SMALL_NUMBERS = 0x3C


@dataclass(frozen=True, slots=True)
class StepOutputs:
    """What a step computed; views that the next step overwrites.

    Fields:
        logits: [R, V] float32, rows as in logit_rows.
        top_ids, top_values: [G, TOP_LOGITS] best logits, rows as in top_rows; -1 and -inf behind the last one wanted.
    """

    logits: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top_values: NDArray[np.float32]


def kv_block_bytes(kv: KVLayout) -> int:
    """Bytes of one block over all layers."""
    return kv.num_layers * _native.block_bytes(kv.dtype, kv.num_kv_heads, kv.head_dim, kv.block_size)


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
    ) -> None:
        self.program = program
        self.num_blocks = num_blocks
        self.pool = pool
        self._layer_block_bytes = kv_block_bytes(program.kv) // program.kv.num_layers
        offsets, num_bytes = constant_offsets(program.constants)
        self._weights = _native.Memory(num_bytes)
        self._arena = _native.Memory(program.arena_bytes)
        self._kv = _native.Memory(num_blocks * kv_block_bytes(program.kv))
        self._constants = {name: self._weights.address + offset for name, offset in offsets.items()}
        if isinstance(weights, StoredWeights):
            weights.read_into(program.constants, self._weights, offsets, progress)
        else:
            pack_constants(pool, program.constants, weights, self._weights, offsets, progress)
        self._native = self._bind(program.calls)
        self._top_ids = np.zeros((program.maxima["G"], TOP_LOGITS), np.int32)
        self._top_values = np.zeros((program.maxima["G"], TOP_LOGITS), np.float32)
        self._logits = self._view(program.buffers[program.outputs["logits"]])

    def run(self, inputs: StepInputs) -> StepOutputs:
        """Compute one step, the GIL released.

        Raises: InvariantError when the step is larger than the program was planned for; nothing is computed then.
        """
        for symbol, size in inputs.sizes.items():
            planned = self.program.maxima[symbol]
            if size > planned:
                raise InvariantError(f"a step with {symbol}={size}; memory is planned for {planned}")
        self._walk(self._native, inputs)
        num_logits, num_top = len(inputs.logit_rows), len(inputs.top_rows)
        return StepOutputs(self._logits[:num_logits], self._top_ids[:num_top], self._top_values[:num_top])

    def runner(self, calls: Sequence[Call]) -> Callable[[StepInputs], None]:
        """Some calls as a program of their own, on these weights and activations; for measuring them.

        What they compute means nothing: they read what happens to be there. The model must outlive the runner.
        """
        native = self._bind(calls)
        return lambda inputs: self._walk(native, inputs)

    def fill_with_numbers(self, num_blocks: int) -> None:
        """Put small finite numbers of every type into activations and the first KV blocks, for calls run alone.

        Pages that were never written are all one page, which is in a cache.
        """
        self._arena.view()[:] = _SMALL_NUMBERS
        layers = self._kv.view().reshape(self.program.kv.num_layers, self.num_blocks, self._layer_block_bytes)
        layers[:, :num_blocks] = _SMALL_NUMBERS

    def _bind(self, calls: Sequence[Call]) -> _native.Program:
        native = _native.Program(self.pool, self.program.maxima["G"])
        for call in calls:
            _, dtype, level = call.kernel.split(".")[:3]
            native.add(call.family, level, dtype, self._args(call), _native_tunings(call.tuning))
        return native

    def _walk(self, native: _native.Program, inputs: StepInputs) -> None:
        native.run(
            inputs.token_ids,
            inputs.positions,
            inputs.slots,
            inputs.query_start,
            inputs.context_len,
            inputs.block_table,
            inputs.logit_rows,
            inputs.top_rows,
            inputs.top_counts,
            self._top_ids,
            self._top_values,
        )

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks (source, target) in every layer, in order."""
        size = self._layer_block_bytes
        for layer in range(self.program.kv.num_layers):
            base = self._kv.address + layer * self.num_blocks * size
            for source, target in pairs:
                _native.copy(base + target * size, base + source * size, size)

    def profile(self, inputs: StepInputs) -> list[tuple[Call, float]]:
        """Run one step and return each call with the seconds it took; for finding where time goes."""
        self._native.profile(True)
        self.run(inputs)
        return list(zip(self.program.calls, self._native.profile(False), strict=True))

    def _view(self, buffer: Buffer) -> NDArray[np.float32]:
        rows = buffer.rows if isinstance(buffer.rows, int) else self.program.maxima[buffer.rows]
        data = self._arena.view()[buffer.offset : buffer.offset + rows * buffer.stride * 4]
        return data.view(np.float32).reshape(rows, buffer.stride)[:, : buffer.cols]

    def _address(self, name: str) -> int:
        if name in self.program.buffers:
            return self._arena.address + self.program.buffers[name].offset
        return self._constants[name]

    def _args(self, call: Call) -> dict[str, object]:
        """Arguments of the native call: addresses by role, element types, numbers."""
        program, attrs = self.program, call.attrs
        args: dict[str, object] = {"rows": call.rows, "barrier": int(call.barrier)}
        for role, name in call.args.items():
            if role in ("ids", "values") or name in STEP_ARRAYS:
                continue
            args[_NATIVE_ROLES.get((call.family, role), role)] = self._address(name)
        for role, name in call.args.items():
            side = _SIDES.get((call.family, role), _SIDES.get(("", role)))
            if side is not None and name in program.buffers:
                args[f"{side}_dtype"] = program.buffers[name].dtype
                args[f"{side}_stride"] = program.buffers[name].stride
        weight = call.args.get("weight", call.args.get("table"))
        if weight is not None:
            kind, _, args["w_dtype"] = program.constants[weight].packing.partition(".")
            args["packed"] = int(kind == "p64")
        if "rows" in call.args:
            _, source = STEP_ARRAYS[call.args["rows"]]
            args["gather"] = _GATHERS[source or ""]
        if call.family in ("norm", "gather"):
            args["k"] = program.buffers[call.args["x"]].cols
        elif call.family == "embed":
            args["k"] = attrs["width"]
        elif call.family == "qkv_rope_kv":
            args["n"] = (attrs["num_heads"] + 2 * attrs["num_kv_heads"]) * attrs["head_dim"]
            args["k"] = program.buffers[call.args["x"]].cols
        for key in ("n", "k", "eps", "num_heads", "window", "scale", "softcap"):
            if key in attrs:
                args[key] = attrs[key]
        if "act" in attrs:
            args["act"] = _ACTS[attrs["act"]]
        if "layer" in attrs:
            layer_bytes = self.num_blocks * self._layer_block_bytes
            args |= {"kv": self._kv.address + attrs["layer"] * layer_bytes, "kv_dtype": program.kv.dtype}
            args |= {key: attrs[key] for key in ("num_kv_heads", "head_dim")} | {"block_size": program.kv.block_size}
        return args


@cache
def _native_tunings(tunings: tuple[Tuning, ...]) -> list[dict[str, int]]:
    """As the native core takes them; the calls of all layers share a few."""
    return [asdict(tuning) for tuning in tunings]
