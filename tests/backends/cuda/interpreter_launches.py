"""Launches of interpreted kernels: what a function's arguments are is found out once, and nothing is copied."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import Parameter, signature
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

from backends.cuda.interpreter_tapes import Tape, Trust


def plan_launches() -> None:
    """Arguments are in the memory where a GPU's would be copied to, and are not copied."""
    launch, build = interpreter.GridExecutor.__call__, interpreter.GridExecutor.__init__
    convert, taped = interpreter._implicit_cvt, _plan_tapes()
    types: dict[Any, Any] = {}
    constants: dict[Any, Any] = {}

    @cache
    def parameters_of(function: Any) -> tuple[list[str], dict[str, Any]] | None:
        found = signature(function).parameters.values()
        if any(each.kind is not Parameter.POSITIONAL_OR_KEYWORD for each in found):
            return None
        return [each.name for each in found], {e.name: e.default for e in found if e.default is not Parameter.empty}

    def executor(self: Any, fn: Any, arg_names: Any, grid: Any, pre_run_hooks: Any = ()) -> None:
        if fn not in constants:
            build(self, fn, arg_names, grid, pre_run_hooks)
            constants[fn] = self.constexprs
        self.fn, self.arg_names, self.grid, self.pre_run_hooks = fn, arg_names, grid, pre_run_hooks
        self.constexprs = constants[fn]

    def converted(argument: Any) -> Any:
        is_tensor = isinstance(argument, torch.Tensor)
        if not is_tensor and type(argument) is not int:
            return convert(argument)
        if is_tensor:
            key, number = argument.dtype, np.array([argument.data_ptr()], np.uint64)
        elif -(2**31) <= argument < 2**31:
            key, number = int, np.array([argument], np.int32)
        else:
            return convert(argument)
        if key not in types:
            types[key] = convert(argument).type
        return tl.tensor(interpreter.TensorHandle(number, types[key]), types[key])

    def launched(self: Any, *args: Any, **named: Any) -> None:
        parameters = parameters_of(self.fn)
        tensors = [each for each in (*args, *named.values()) if hasattr(each, "data_ptr")]
        if parameters is None or self.pre_run_hooks or any(each.data_ptr and not _is_here(each) for each in tensors):
            return launch(self, *args, **named)
        names, defaults = parameters
        given = dict(zip(names, args, strict=False)) | {name: named[name] for name in names if name in named}
        if len(args) > len(names) or len(args) + sum(name in named for name in names) != len(given):
            return launch(self, *args, **named)
        if not given.keys() | defaults.keys() >= set(names):
            return launch(self, *args, **named)
        values = {name: given[name] if name in given else defaults[name] for name in names}
        interpreter._patch_lang(self.fn)
        constexprs = self.constexprs
        told = tuple([(type(each), each) if name in constexprs else _kind(each) for name, each in values.items()])
        values = {name: each if name in constexprs else converted(each) for name, each in values.items()}
        grid = self.grid(values) if callable(self.grid) else self.grid
        x, y, z = (*grid, 1, 1)[:3]
        builder, fn = interpreter.interpreter_builder, self.fn
        builder.set_grid_dim(x, y, z)
        try:
            run = taped(fn, told, values)
            for i in range(x):
                for j in range(y):
                    for k in range(z):
                        builder.set_grid_idx(i, j, k)
                        run(i, j, k)
        except Exception as error:
            raise interpreter.InterpreterError(repr(error)) from error

    interpreter.GridExecutor.__init__, interpreter.GridExecutor.__call__ = executor, launched


def _plan_tapes() -> Callable[..., Callable[[int, int, int], None]]:
    """What gives what runs a program: of a function, what is told it (_kind), and its arguments as tensors."""
    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    program_id, num_programs = builder.create_get_program_id, builder.create_get_num_programs
    tapes: dict[Any, Tape] = {}
    trusts: dict[Any, Trust] = {}
    #: Of the program that is interpreted: its place, and how many there are.
    place: list[Any] = []

    def create_get_program_id(self: Any, axis: int) -> Any:
        return handle(place[axis], tl.int32) if place else program_id(self, axis)

    def create_get_num_programs(self: Any, axis: int) -> Any:
        return handle(place[3 + axis], tl.int32) if place else num_programs(self, axis)

    def tape_of(fn: Any, *key: Any) -> Tape:
        try:
            found = tapes.get((fn, *key))
        except TypeError:  # a descriptor of a tensor
            found = Tape()
            found.leave()
            return found
        if found is None:
            found = tapes[fn, *key] = Tape(trusts.setdefault(fn, Trust()))
        return found

    def taped(fn: Any, told: Any, values: dict[str, Any]) -> Callable[[int, int, int], None]:
        tape = tape_of(fn, told, builder.create_dot, *[where.get(name) for where, name in _constants_of(fn)])
        names = [name for name, each in values.items() if type(each) is tl.tensor]
        inputs = [_number(each) for each in interpreter.interpreter_builder.grid_dim]
        inputs += [values[name].handle.data for name in names]

        def interpret(inputs: list[Any]) -> None:
            place[:] = inputs[:6]
            given = {
                name: tl.tensor(handle(data, values[name].handle.dtype), values[name].type)
                for name, data in zip(names, inputs[6:], strict=True)
            }
            try:
                fn(**{**values, **given})
            finally:
                place.clear()

        return lambda *program: tape.run([*[_number(each) for each in program], *inputs], interpret)

    builder.create_get_program_id, builder.create_get_num_programs = create_get_program_id, create_get_num_programs
    return taped


@cache
def _number(value: int) -> Any:
    return np.array([value], np.int32)


def _kind(argument: Any) -> Any:
    """What a program is told of an argument: all but its address, or which number of 32 bits it is."""
    if isinstance(argument, torch.Tensor):
        return argument.dtype
    if hasattr(argument, "data_ptr"):
        return "tensor", str(argument.dtype)
    if type(argument) is int and -(2**31) <= argument < 2**31:
        return int
    return type(argument), str(argument) if type(argument) is float else argument


@cache
def _constants_of(function: Any) -> list[tuple[dict[str, Any], str]]:
    """That a kernel, and what it calls, finds in modules: tests change some."""
    found, seen, left = [], set(), [function]
    while left:
        each = left.pop()
        seen.add(each)
        for name in each.__code__.co_names:
            value = each.__globals__.get(name)
            if isinstance(value, (int, float, str, tl.constexpr)):
                found.append((each.__globals__, name))
            elif isinstance(value, interpreter.InterpretedFunction) and value.fn not in seen:
                left.append(value.fn)
    return found


def _is_here(tensor: Any) -> bool:
    return bool(getattr(tensor, "base", tensor).device.type == "cpu")
