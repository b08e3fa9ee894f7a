"""Triton's interpreter in a fraction of its time: what it looks up and builds anew at each operation is kept, and what
a program does is done by others from a tape (interpreter_tapes.py).

Triton 3.9 prepares the language for a function whenever one function calls another, tl.sum and tl.zeros included, and
each time looks at every name of the language. At each operation it describes the shapes of tiles anew, fills a tile
with each number that one is added to, and computes sums of integers a second time to see whether they overflow, a
finding that it then drops: it is for kernels in debug mode. With Triton 3.6, which GPU machines have, it does what
3.9's does: bounds of loops are numbers to numpy 2.4, and a product and a sum that are one operation round once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

from backends.cuda.interpreter_launches import plan_launches
from backends.cuda.interpreter_operations import tell_tapes, turns
from backends.cuda.interpreter_plans import keep_plans, operators, tensors
from backends.cuda.interpreter_tapes import doubt, whole


def hasten() -> None:
    """From here on, in this process. May be called again."""
    if getattr(interpreter, "_is_hastened", False):
        return
    tell_tapes()
    _prepare_once()
    _keep_descriptions()
    _call_directly()
    _leave_tiles_to_numpy()
    keep_plans()
    interpreter._convert_float = whole(interpreter._convert_float)
    _keep_types()
    _keep_constants()
    plan_launches()
    builder = interpreter.interpreter_builder
    assert not builder.options.debug
    builder.options = replace(builder.options, sanitize_overflow=False)
    if not hasattr(interpreter._interpreter, "fma_fp32"):
        interpreter.InterpreterBuilder.create_fma = _create_fma
    interpreter._is_hastened = True


def _prepare_once() -> None:
    """Once a module, and for good: nothing is compiled in a process whose kernels are interpreted."""
    prepare = interpreter._patch_lang
    prepared: set[int] = set()
    packages: set[Any] = set()

    def prepare_new(function: Any) -> Any:
        # what is prepared follows from the module that the function is of
        module = id(function.__globals__)
        if module not in prepared:
            prepared.add(module)
            prepare(function)
            function.__globals__["range"] = turns
        return interpreter._LangPatchScope()  # what was prepared is not undone

    def patch_builtin(package: Any, builder: Any, scope: Any) -> None:
        if package not in packages:
            packages.add(package)
            build(package, builder, scope)

    def patch_tensor(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))
        for name, member in _members(tensor.__getitem__).items():
            scope.set_attr(tensor, name, member)

    def patch_core(language: Any, scope: Any) -> None:
        core(language, scope)
        scope.set_attr(language, "range", lambda *bounds, **hints: turns(*bounds))

    core, interpreter._patch_lang_core = interpreter._patch_lang_core, patch_core
    build, patch = interpreter._patch_builtin, interpreter._patch_lang_tensor
    interpreter._patch_lang_tensor, interpreter._patch_builtin = patch_tensor, patch_builtin
    interpreter._patch_lang = prepare_new


def _members(index: Any) -> dict[str, Any]:
    """Operators without what Triton has between them and the operation. index: its own."""

    def with_axes(self: Any, axes: Any) -> Any:
        axes = axes if isinstance(axes, tuple) else (axes,)
        if not (self.type.dims and all(each is None or each == slice(None) for each in axes)):
            return index(self, axes)
        data = self.handle.data[axes]
        return tensors(self.dtype, data.shape)(data)

    return operators() | {"__getitem__": with_axes}


def _keep_descriptions() -> None:
    """Of element types in numpy, of tiles' types, and of tiles' shapes: all three are only read."""
    describe = interpreter._get_np_dtype
    of_element = cache(describe)

    def dtype_of(type: Any) -> Any:
        return np.dtype(np.uint64) if type.scalar.is_ptr() else of_element(type.scalar)

    interpreter._get_np_dtype = dtype_of

    build = tl.block_type.__init__
    built: dict[tuple[Any, ...], dict[str, Any]] = {}

    def block_type(self: Any, element_ty: Any, shape: Any) -> None:
        dims = tuple([each if isinstance(each, int) else each.value for each in shape])
        key = (dims, element_ty.name)
        if key not in built:
            build(self, element_ty, shape)
            built[key] = {**self.__dict__, "dims": dims}
        self.__dict__.update(built[key])

    initialize = tl.tensor.__init__
    shapes: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def tensor(self: Any, handle: Any, type: Any) -> None:
        if type.dims not in shapes:
            initialize(self, handle, type)
            shapes[type.dims] = self.shape, self.numel
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = shapes[type.dims]

    tl.dtype.dims = ()  # of what is no tile
    tl.block_type.__init__, tl.tensor.__init__ = block_type, tensor


def _call_directly() -> None:
    """A function of the language is called with no others in between; what a handle holds is looked at once."""
    wrapper = tl.core.builtin(lambda: None).__code__

    def patch_attr(owner: Any, name: str, member: Any, builder: Any, scope: Any) -> None:
        function = member.__wrapped__ if member.__code__ is wrapper else member

        def interpreted(*args: Any, **named: Any) -> Any:
            named["_semantic"] = interpreter.interpreter_semantic
            return function(*args, **named)

        scope.set_attr(owner, name, interpreted)

    def unwrapped(value: Any) -> Any:
        kind = type(value)
        if kind is tl.constexpr:
            return value.value
        if kind not in plain:
            if issubclass(kind, (list, tuple, tl.tuple, tl.constexpr)):
                return unwrap(value)
            plain.add(kind)
        return value

    def handle(self: Any, data: Any, dtype: Any, attr: dict[str, Any] | None = None) -> None:
        self.data, self.dtype, self.attr = data, dtype, {} if attr is None else attr
        size = data.itemsize
        if size > 1 and not isinstance(dtype, tl.pointer_type) and 8 * size > dtype.primitive_bitwidth:
            self.__post_init__()

    plain: set[type] = set()
    unwrap = tl.core._unwrap_if_constexpr
    tl.core._unwrap_if_constexpr = tl._unwrap_if_constexpr = unwrapped
    interpreter._patch_attr = patch_attr
    interpreter.TensorHandle.__init__ = handle


def _leave_tiles_to_numpy() -> None:
    """Operands of two are not made as large as their result, which numpy does as it computes.

    What types they are then of, and the tile of one number that a number is, follows from their types and from numbers:
    Triton is asked once.
    """
    check = interpreter.TritonSemantic.binary_op_type_checking_impl
    known: dict[Any, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {}

    def describe(operand: Any) -> Any:
        if type(operand) is tl.tensor:
            return operand.dtype.name, operand.type.dims
        return type(operand), operand if operand else str(operand)  # 0.0 is not -0.0

    def turn_of(operand: Any, checked: Any) -> Callable[[Any, Any], Any]:
        """What makes a tensor of a result's type of such an operand."""
        if type(operand) is not tl.tensor:
            number = interpreter.TensorHandle(checked.handle.data.ravel()[:1].copy(), checked.handle.dtype)
            number.data.flags.writeable = False
            constant = tl.tensor(number, checked.type)
            return lambda semantic, operand: constant
        if operand.dtype.name != checked.dtype.name:
            return lambda semantic, operand: tl.tensor(semantic.cast(operand, checked.dtype).handle, checked.type)
        if operand.type.dims == checked.type.dims:
            return lambda semantic, operand: operand
        return lambda semantic, operand: tl.tensor(operand.handle, checked.type)

    def checked(self: Any, lhs: Any, rhs: Any, *flags: bool, **named: bool) -> tuple[Any, Any]:
        key = (describe(lhs), describe(rhs), flags, *named.items())
        found = known.get(key)
        if found is None:
            doubt()
            left, right = check(self, lhs, rhs, *flags, **named)
            known[key] = turn_of(lhs, left), turn_of(rhs, right)
            return left, right
        return found[0](self, lhs), found[1](self, rhs)

    def broadcast(self: Any, lhs: Any, rhs: Any) -> tuple[Any, Any]:
        return (lhs, rhs) if lhs.type.dims == rhs.type.dims else enlarge(self, lhs, rhs)

    def converted(self: Any, operand: Any, dtype: Any, *rounding: Any) -> Any:
        return operand if operand.dtype.name == dtype.scalar.name else cast(self, operand, dtype, *rounding)

    semantic = interpreter.TritonSemantic
    enlarge, cast = semantic.broadcast_impl_value, semantic.cast
    semantic.binary_op_type_checking_impl, semantic.broadcast_impl_value = checked, broadcast
    semantic.cast = converted


def _keep_types() -> None:
    kept: dict[Any, Any] = {}

    def with_element_ty(self: Any, element: Any) -> Any:
        key = (self.dims, element.name)
        if key not in kept:
            kept[key] = tl.block_type(element, self.shape)
        return kept[key]

    tl.block_type.with_element_ty = with_element_ty


def _keep_constants() -> None:
    """Ranges, and tiles of one number: results of operations are new arrays, so nobody writes to them."""
    semantic = interpreter.TritonSemantic
    build_range, build_full = semantic.arange, semantic.full
    kept: dict[Any, Any] = {}

    def constant(key: Any, build: Callable[[], Any]) -> Any:
        found = kept.get(key)
        if found is None:
            found = kept[key] = build()
            found.handle.data.flags.writeable = False
        return found

    def arange(self: Any, start: int, end: int, **named: Any) -> Any:
        if named.get("ret_ty") is not None:
            return build_range(self, start, end, **named)
        return constant((start, end), lambda: build_range(self, start, end))

    def full(self: Any, shape: Any, value: Any, dtype: Any) -> Any:
        dims = tuple([each if isinstance(each, int) else each.value for each in shape])
        if not dims or type(value) not in (int, float):
            return build_full(self, shape, value, dtype)
        return constant(
            (dims, type(value), value or str(value), dtype.name), lambda: build_full(self, shape, value, dtype)
        )

    semantic.arange, semantic.full = arange, full


def _create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
    """Products of float32 are exact in float64; the sum there is rounded so far behind that it hardly ever matters."""
    wide = x.data.astype(np.float64) * y.data + z.data
    return interpreter.TensorHandle(wide.astype(z.data.dtype), z.dtype.scalar)
