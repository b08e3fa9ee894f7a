"""What is one operation to a tape, of what Triton's interpreter does, and loops whose turns are alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

from backends.cuda.interpreter_tapes import alone, filled, of_kept, whole


def tell_tapes() -> None:
    """From here on, in this process; before anyone takes functions of the interpreter."""
    native = interpreter._interpreter
    functions = {name: each for name, each in vars(native).items() if not name.startswith("_")}
    for name in ("load", "store", "atomic_cas", "atomic_rmw", "fma_fp32", "fma_fp64"):
        if name in functions:
            functions[name] = whole(functions[name], has_effect=name in ("store", "atomic_cas", "atomic_rmw"))
    interpreter._interpreter = SimpleNamespace(**functions)
    for name in ("np_erf_fp32", "np_erf_fp64", "np_umulhi_u64"):
        if hasattr(interpreter, name):
            setattr(interpreter, name, whole(getattr(interpreter, name)))
    for owner, name in ((interpreter.ReduceOps, "generic_reduce"), (interpreter.ScanOps, "generic_scan")):
        setattr(owner, name, alone(getattr(owner, name)))
    builder, reduce = interpreter.InterpreterBuilder, interpreter.ReduceScanOpInterface
    splat, to_tensor = builder.create_splat, reduce.to_tensor

    def create_splat(self: Any, type: Any, arg: Any) -> Any:
        if arg.data.shape != (1,):
            return splat(self, type, arg)
        dtype = interpreter._get_np_dtype(arg.dtype)
        return interpreter.TensorHandle(_filled(arg.data, tuple(type.shape), dtype), arg.dtype.scalar)

    def create_store(self: Any, ptrs: Any, value: Any, *rest: Any) -> Any:
        everywhere = interpreter.TensorHandle(filled(ptrs.data.shape, np.dtype(bool), 1), tl.int1)
        return self.create_masked_store(ptrs, value, everywhere, *rest)

    def made_tensor(self: Any, data: Any, dtype: Any) -> Any:
        if np.shape(data):
            return to_tensor(self, data, dtype)
        data = _one(data, interpreter._get_np_dtype(dtype))
        return tl.tensor(interpreter.TensorHandle(data, dtype.scalar), dtype)

    builder.create_store = create_store
    builder.create_splat, reduce.to_tensor = create_splat, made_tensor
    for name in [each for each in vars(builder) if each.startswith(("get_int", "get_uint", "get_fp", "get_bf"))]:
        setattr(builder, name, _kept(getattr(builder, name)))
    for name in ("create_idiv", "create_sdiv", "create_udiv", "create_srem", "create_urem"):
        setattr(builder, name, _kept(getattr(builder, name)))


def _kept(method: Any) -> Any:
    """What makes a constant of a number, or of constants."""

    def constant(self: Any, *args: Any) -> Any:
        made = method(self, *args)
        if isinstance(made, interpreter.TensorHandle):
            of_kept(made.data, *[each.data for each in args if isinstance(each, interpreter.TensorHandle)])
        return made

    return constant


def turns(first: Any, end: Any = None, step: Any = 1) -> Any:
    """range(). Of tensors, as a GPU has it: its numbers are tensors too, and a program is asked how many there are."""
    start, end = (0, first) if end is None else (first, end)
    given = [each.value if type(each) is tl.constexpr else each for each in (start, end, step)]
    if not any(type(each) is tl.tensor for each in given):
        return range(*given)
    start, end, step = [each.handle.data if type(each) is tl.tensor else each for each in given]
    count = int(_num_turns(start, end, step))
    if type(start) is int and type(step) is int:
        return range(start, start + count * step, step)
    return [tl.tensor(interpreter.TensorHandle(_turn(start, step, i), tl.int32), tl.int32) for i in range(count)]


@whole
def _num_turns(start: Any, end: Any, step: Any) -> Any:
    return np.array(len(range(*[each if type(each) is int else int(each.item()) for each in (start, end, step)])))


@whole
def _turn(start: Any, step: Any, i: int) -> Any:
    turn = start + i * step
    return turn if type(turn) is np.ndarray and turn.dtype == np.int32 else np.reshape(turn, (1,)).astype(np.int32)


@whole
def _one(number: Any, dtype: Any) -> Any:
    return np.asarray(number).reshape(1).astype(dtype)


@whole
def _filled(data: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    return np.full(shape, data, dtype)
