"""Triton's interpreter in a third of the time: what it looks up and builds anew at each operation is kept.

Triton 3.9 prepares the language for a function whenever one function calls another, tl.sum and tl.zeros included, and
each time looks at every name of the language. At each operation it describes the shapes of tiles anew, and computes
sums of integers a second time to see whether they overflow, a finding that it then drops: it is for kernels in debug
mode. With Triton 3.6, which GPU machines have, it does what 3.9's does: bounds of loops are numbers to numpy 2.4, and a
product and a sum that are one operation round once.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


def hasten() -> None:
    """From here on, in this process. May be called again."""
    if getattr(interpreter, "_is_hastened", False):
        return
    _prepare_once_a_launch()
    _keep_descriptions()
    builder = interpreter.interpreter_builder
    assert not builder.options.debug
    builder.options = replace(builder.options, sanitize_overflow=False)
    if not hasattr(interpreter._interpreter, "fma_fp32"):
        interpreter.InterpreterBuilder.create_fma = _create_fma
    interpreter._is_hastened = True


def _prepare_once_a_launch() -> None:
    prepare, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    prepared: set[int] = set()

    def prepare_new(function: Any) -> Any:
        # what is prepared follows from the module that the function is of
        module = id(function.__globals__)
        if module in prepared:
            return interpreter._LangPatchScope()
        prepared.add(module)
        return prepare(function)

    def launch_anew(self: Any, *args: Any, **kwargs: Any) -> None:
        # what the launch before prepared was undone at its end
        prepared.clear()
        launch(self, *args, **kwargs)

    members: dict[Any, list[tuple[str, Any]]] = {}

    def patch_builtin(package: Any, builder: Any, scope: Any) -> None:
        if package not in members:
            members[package] = [pair for pair in inspect.getmembers(package) if tl.core.is_builtin(pair[1])]
        for name, member in members[package]:
            interpreter._patch_attr(package, name, member, builder, scope)

    def patch_tensor(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

    patch = interpreter._patch_lang_tensor
    interpreter._patch_lang_tensor, interpreter._patch_builtin = patch_tensor, patch_builtin
    interpreter._patch_lang, interpreter.GridExecutor.__call__ = prepare_new, launch_anew


def _keep_descriptions() -> None:
    """Of element types in numpy, of tiles' types, and of tiles' shapes: all three are only read."""
    describe = interpreter._get_np_dtype
    of_element = cache(describe)

    def dtype_of(type: Any) -> Any:
        if type.is_block():
            type = type.element_ty
        return np.dtype(np.uint64) if type.is_ptr() else of_element(type)

    interpreter._get_np_dtype = dtype_of

    build = tl.block_type.__init__
    built: dict[tuple[Any, ...], dict[str, Any]] = {}

    def block_type(self: Any, element_ty: Any, shape: Any) -> None:
        dims = tuple(each if isinstance(each, int) else each.value for each in shape)
        key = (dims, str(element_ty))
        if key not in built:
            build(self, element_ty, shape)
            built[key] = {**self.__dict__, "dims": dims}
        self.__dict__.update(built[key])

    initialize = tl.tensor.__init__
    shapes: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def tensor(self: Any, handle: Any, type: Any) -> None:
        dims = type.dims if type.is_block() else ()
        if dims not in shapes:
            initialize(self, handle, type)
            shapes[dims] = self.shape, self.numel
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = shapes[dims]

    tl.block_type.__init__, tl.tensor.__init__ = block_type, tensor


def _create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
    """Products of float32 are exact in float64; the sum there is rounded so far behind that it hardly ever matters."""
    wide = x.data.astype(np.float64) * y.data + z.data
    return interpreter.TensorHandle(wide.astype(z.data.dtype), z.dtype.scalar)
