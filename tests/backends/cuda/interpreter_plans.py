"""What Triton's interpreter finds out about an operation at each program, found out once for each kind of operands.

Which function of numpy an operation of two is and what type its result has follows from types and shapes. The first of
a kind goes all of Triton's way and is watched; the others do what it did to the numbers. Numbers of 8 and 16 bits are
converted by tables of what Triton makes of each of them. What is no such case goes Triton's way each time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

from backends.cuda.interpreter_tapes import doubt, filled, of_kept, whole

#: Of the language, those that numpy has too, and converts to each other as the interpreter does.
_NATIVE = frozenset(
    [*(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), *(f"fp{bits}" for bits in (16, 32, 64))]
)
#: See tensors(), by a name and shape.
_MAKERS: dict[tuple[str, tuple[int, ...]], Callable[[Any], Any]] = {}
_RAW = {8: np.uint8, 16: np.uint16}
#: Triton's own conversion of floats.
CONVERT = interpreter._convert_float
_BITS_OF_BOOLS = frozenset({np.bitwise_and, np.bitwise_or, np.bitwise_xor})


def keep_plans() -> None:
    """From here on, in this process; after what interpreter.py does."""
    _convert_by_tables()
    _plan_casts()
    _plan_loads()


def _convert_by_tables() -> None:
    """float32 to bfloat16 by dropping bits, as Triton does, but for numbers below 2^-126, with which it does else."""
    convert = CONVERT

    @cache
    def table(source: Any, target: Any, rounding: Any) -> Any:
        bits = source.primitive_bitwidth
        every = np.arange(1 << bits, dtype=_RAW[bits])
        return convert(every, source, target, rounding)

    def converted(data: Any, source: Any, target: Any, rounding: Any) -> Any:
        bits = source.primitive_bitwidth
        if bits in _RAW:
            return table(source, target, rounding).take(data.view(_RAW[bits]))
        if bits == 32 and target.name == "bf16" and rounding is None:
            raw = data.view(np.uint32)
            is_tiny = (raw & 0x7FFFFFFF) - 1 < 0x007FFFFF
            if not is_tiny.any():
                return (raw >> 16).astype(np.uint16)
        return convert(data, source, target, rounding)

    interpreter._convert_float = converted


class _Watch:
    """What operands of an operation of the language became, and what the builder made of which: while is_on."""

    def __init__(self) -> None:
        self.is_on = False
        self.checked: list[tuple[Any, Any]] = []
        self.made: list[tuple[Any, Any, Any, Any]] = []

    def begin(self) -> None:
        self.is_on, self.checked, self.made = True, [], []


@cache
def operators() -> dict[str, Callable[[Any, Any], Any]]:
    """Of a tensor, by their names in Python."""
    semantic, watch = interpreter.interpreter_semantic, _watched()
    arithmetic = {"add": semantic.add, "sub": semantic.sub, "mul": semantic.mul}
    others = {
        "and": semantic.and_,
        "or": semantic.or_,
        "lt": semantic.less_than,
        "le": semantic.less_equal,
        "gt": semantic.greater_than,
        "ge": semantic.greater_equal,
        "eq": semantic.equal,
        "ne": semantic.not_equal,
    }
    sums = {name: _planned(lambda a, b, of=of: of(a, b, False), watch) for name, of in arithmetic.items()}
    found = sums | {name: _planned(of, watch) for name, of in others.items()}
    turned = {f"r{name}": lambda a, b, of=of: of(b, a) for name, of in sums.items()}
    return {f"__{name}__": _unwrapping(of) for name, of in (found | turned).items()}


def _unwrapping(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def operator(self: Any, other: Any) -> Any:
        return operation(self, other.value if type(other) is tl.constexpr else other)

    return operator


def _watched() -> _Watch:
    """Makes the interpreter tell."""
    watch, builder, semantic = _Watch(), interpreter.InterpreterBuilder, interpreter.TritonSemantic
    binary_op, create_addptr = builder.binary_op, builder.create_addptr
    check = semantic.binary_op_type_checking_impl

    def told(self: Any, left: Any, right: Any, function: Any) -> Any:
        handle = binary_op(self, left, right, function)
        of_kept(handle.data, left.data, right.data)
        if watch.is_on:
            watch.made.append((left, right, function, handle))
        return handle

    def told_addptr(self: Any, pointer: Any, offset: Any) -> Any:
        handle = create_addptr(self, pointer, offset)
        if watch.is_on:
            watch.made.append((pointer, offset, None, handle))
        return handle

    def checked(self: Any, *args: Any, **named: Any) -> Any:
        found = check(self, *args, **named)
        if watch.is_on:
            watch.checked.append(found)
        return found

    builder.binary_op, builder.create_addptr = told, told_addptr
    semantic.binary_op_type_checking_impl = checked
    return watch


def _planned(operation: Callable[[Any, Any], Any], watch: _Watch) -> Callable[[Any, Any], Any]:
    plans: dict[Any, Callable[[Any, Any], Any]] = {}

    def planned(left: Any, right: Any) -> Any:
        key = (_kind(left), _kind(right))
        plan = plans.get(key)
        if plan is not None:
            return plan(left, right)
        doubt()
        watch.begin()
        try:
            result = operation(left, right)
        finally:
            watch.is_on = False
        plans[key] = _plan(left, right, result, watch) or operation
        return result

    return planned


def _kind(operand: Any) -> Any:
    if type(operand) is tl.tensor:
        return operand.dtype.name, operand.type.dims
    return type(operand), operand if operand else str(operand)  # 0.0 is not -0.0


def _plan(left: Any, right: Any, result: Any, watch: _Watch) -> Callable[[Any, Any], Any] | None:
    """None: it was more than one operation of numpy."""
    if len(watch.checked) != 1 or len(watch.made) != 1:
        return None
    (checked,), (made,) = watch.checked, watch.made
    first, second, function, handle = made
    if handle is not result.handle or {id(first), id(second)} != {id(each.handle) for each in checked}:
        return None
    if function is None:
        if checked[0].handle is not first:
            return None  # an offset before its pointer
        size = max(1, first.get_element_ty().primitive_bitwidth // 8)

        def function(pointer: Any, offset: Any) -> Any:
            wide = offset.astype(np.uint64)
            return pointer + of_kept(wide if size == 1 else wide * size, offset)

    else:
        are_bools = first.data.dtype == np.bool_ and second.data.dtype == np.bool_
        if checked[0].handle is not first or (are_bools and function not in _BITS_OF_BOOLS):
            return None
    of_left, of_right = _data_of(left, checked[0]), _data_of(right, checked[1])
    finish, wanted = _tensors(handle.dtype, result.type), handle.data.dtype

    def plan(left: Any, right: Any) -> Any:
        first, second = of_left(left), of_right(right)
        data = function(first, second)
        return finish(of_kept(data if data.dtype == wanted else data.astype(wanted), first, second))

    return plan


def _data_of(operand: Any, checked: Any) -> Callable[[Any], Any]:
    """The numbers of such an operand, of the type that it was made for the operation; numpy makes them as many as there
    have to be."""
    if type(operand) is not tl.tensor:
        constant = checked.handle.data.ravel()[:1].copy()
        constant.flags.writeable = False
        return lambda operand: constant
    if operand.dtype.name == checked.dtype.name:
        return lambda operand: operand.handle.data
    cast, dtype = interpreter.interpreter_semantic.cast, checked.dtype
    return lambda operand: cast(operand, dtype).handle.data


def tensors(element: Any, dims: tuple[int, ...]) -> Callable[[Any], Any]:
    """What makes a tensor of so many numbers."""
    key = (element.name, dims)
    if key not in _MAKERS:
        _MAKERS[key] = _tensors(element, tl.block_type(element, list(dims)) if dims else element)
    return _MAKERS[key]


def _tensors(scalar: Any, type: Any) -> Callable[[Any], Any]:
    """The same. scalar: what the interpreter takes the numbers for, which of truth values is what was compared."""
    handle, tensor = interpreter.TensorHandle, tl.tensor
    dtype, like = type.scalar, tl.tensor(handle(np.zeros(1, bool), scalar), type)
    shape, numel = like.shape, like.numel

    def finish(data: Any) -> Any:
        made = tensor.__new__(tensor)
        made.handle = handle(data, scalar)
        made.type, made.dtype, made.shape, made.numel = type, dtype, shape, numel
        return made

    return finish


def _plan_casts() -> None:
    cast = interpreter.TritonSemantic.cast
    plans: dict[Any, Callable[[Any], Any]] = {}

    def converted(self: Any, operand: Any, dtype: Any, *rounding: Any) -> Any:
        key = (operand.dtype.name, operand.type.dims, dtype.scalar.name, rounding)
        plan = plans.get(key)
        if plan is None:
            doubt()
            plan = plans[key] = _plan_of_cast(operand, dtype.scalar, rounding) or (
                lambda operand: cast(self, operand, dtype, *rounding)
            )
        return plan(operand)

    interpreter.TritonSemantic.cast = converted


def _plan_of_cast(operand: Any, target: Any, rounding: tuple[Any, ...]) -> Callable[[Any], Any] | None:
    source = operand.dtype
    if source.name == target.name:
        return lambda operand: operand
    if any(each is not None for each in rounding):
        return None
    pair = {source.name, target.name}
    finish = tensors(target, operand.type.dims)
    if pair == {"bf16", "fp32"}:
        kept = np.dtype(np.float32 if target.name == "fp32" else np.uint16)
        convert = interpreter._convert_float
        return lambda operand: finish(convert(operand.handle.data, source, target, None).view(kept))
    if pair <= _NATIVE:
        number = interpreter._get_np_dtype(target)
        return lambda operand: finish(of_kept(operand.handle.data.astype(number), operand.handle.data))
    return None


@whole
def _spread(data: Any, shape: tuple[int, ...]) -> Any:
    """As np.broadcast_to, which takes longer to look at them than to fill this many."""
    made = np.empty(shape, data.dtype)
    made[...] = data
    return made


def _plan_loads() -> None:
    """What a load says of caches is nothing to the interpreter."""
    load, native = interpreter.TritonSemantic.load, interpreter._interpreter.load
    plans: dict[Any, tuple[Any, Callable[[Any], Any]]] = {}

    def spread(tensor: Any, dims: Any, data: Any) -> Any:
        """Its numbers, as many as there are pointers; None: there would have to be more pointers."""
        if tensor.type.dims == dims:
            return tensor.handle.data
        if len(tensor.type.dims) in (0, len(dims)) and all(
            a in (1, b) for a, b in zip(tensor.type.dims, dims, strict=False)
        ):
            return _spread(tensor.handle.data, data.shape)
        return None

    def loaded(self: Any, pointer: Any, mask: Any, other: Any, *rest: Any) -> Any:
        dims, element, data = pointer.type.dims, getattr(pointer.dtype, "element_ty", None), pointer.handle.data
        if element is None or element.name == "int1" or (mask is None and other is not None):
            return load(self, pointer, mask, other, *rest)
        key = (element.name, dims)
        if key not in plans:
            plans[key] = interpreter._get_np_dtype(element), tensors(element, dims)
        dtype, finish = plans[key]
        is_read = filled(data.shape, np.dtype(bool), 1) if mask is None else spread(mask, dims, data)
        others = filled(data.shape, dtype, 0) if other is None else spread(self.cast(other, element), dims, data)
        if is_read is None or others is None:
            return load(self, pointer, mask, other, *rest)
        return finish(native(data, is_read, others, dtype))

    interpreter.TritonSemantic.load = loaded
    if hasattr(tl.core, "_normalize_cache_policy"):
        tl.core._normalize_cache_policy = cache(tl.core._normalize_cache_policy)
