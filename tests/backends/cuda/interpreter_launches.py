"""Launches of interpreted kernels: what a function's arguments are is found out once, and nothing is copied."""

from __future__ import annotations

from functools import cache
from inspect import Parameter, signature
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter


def plan_launches() -> None:
    """Arguments are in the memory where a GPU's would be copied to, and are not copied."""
    launch, build = interpreter.GridExecutor.__call__, interpreter.GridExecutor.__init__
    convert = interpreter._implicit_cvt
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
        values = {name: each if name in constexprs else converted(each) for name, each in values.items()}
        grid = self.grid(values) if callable(self.grid) else self.grid
        x, y, z = (*grid, 1, 1)[:3]
        builder, fn = interpreter.interpreter_builder, self.fn
        builder.set_grid_dim(x, y, z)
        try:
            for i in range(x):
                for j in range(y):
                    for k in range(z):
                        builder.set_grid_idx(i, j, k)
                        fn(**values)
        except Exception as error:
            raise interpreter.InterpreterError(repr(error)) from error

    interpreter.GridExecutor.__init__, interpreter.GridExecutor.__call__ = executor, launched


def _is_here(tensor: Any) -> bool:
    return bool(getattr(tensor, "base", tensor).device.type == "cpu")
