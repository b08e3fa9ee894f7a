"""Programs of interpreted kernels from a tape: what one does with arrays is written down, and others do that alone.

Nearly all of the time of an interpreted program goes to Python between operations of numpy, and these are the same for
each program that takes the same way through a kernel. Programs of a kernel that are told the same constants and types
share a tape: a tree of parts, each a list of operations on registers, that ends where Python asks an array for a
number, as branches and bounds of loops do; answers lead on. Where a program gets to what nobody has written yet, the
kernel is interpreted from its beginning, with what was done already taken from registers, and writes on.

A part is trusted once two programs wrote the same: numbers that one read unseen would be taken for constants of all.
Of a kernel of which that was seen, one is enough, unless it met an array that is neither watched nor kept for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from operator import itemgetter
from typing import Any

import numpy as np

#: Of arrays: watched. What others make nobody saw.
_METHODS = ["astype", "view", "reshape", "ravel", "squeeze", "transpose", "flatten", "copy", "swapaxes", "__getitem__"]
_METHODS += ["sum", "all", "any"]
_WRITING = frozenset({np.copyto, np.put, np.place, np.putmask})
#: What functions of numpy call for arrays, once they have looked at what they were given.
_CALLED = {np.sum: np.add.reduce, np.nanmax: np.fmax.reduce, np.nanmin: np.fmin.reduce}
_OF_SHAPES = frozenset({np.ones_like, np.zeros_like, np.empty_like, np.shape, np.ndim, np.size})
#: Programs of a tape before any is written: by the first the interpreter makes plans of its own.
_BEFORE = 1
#: Of a tape. Of a kernel whose programs take more ways, longer ones, or not the same twice, all are interpreted.
_MOST_PARTS, _MOST_OPERATIONS, _MOST_CHANGES = 4000, 20000, 8
#: So are those of a tape where, after so many were written, every second one still is.
_ENOUGH = 16


class Recorded(np.ndarray):
    """An array that says what is done with it. plain: itself; place: its register, none where nobody saw it made."""

    plain: Any = None
    place: int | None = None

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **named: Any) -> Any:
        return do(ufunc if method == "__call__" else getattr(ufunc, method), inputs, named)

    def __array_function__(self, function: Any, types: Any, args: Any, named: Any) -> Any:
        if function is np.broadcast_arrays:
            shape = np.broadcast_shapes(*[each.shape for each in args])
            return [np.broadcast_to(each, shape) for each in args]
        if function in _OF_SHAPES:
            return function(*[_plain(each) for each in args], **named)
        return do(_CALLED.get(function, function) if "axis" in named else function, args, named)

    def __bool__(self) -> bool:
        return bool(_ask(bool, self))

    def __int__(self) -> int:
        return int(_ask(int, self))

    __index__ = __int__

    def __float__(self) -> float:
        return float(_ask(float, self))

    def item(self, *at: Any) -> Any:
        return _ask(np.ndarray.item, self) if not at else self._read().item(*at)

    def tolist(self) -> Any:
        return self._read().tolist()

    def tobytes(self, *order: Any) -> bytes:
        return bytes(self._read().tobytes(*order))

    def __setitem__(self, at: Any, value: Any) -> None:
        self._read()[at] = value

    def _read(self) -> Any:
        _stop("numbers are read or written one by one")
        return _plain(self)


def _method(name: str) -> Any:
    function = getattr(np.ndarray, name)
    return lambda self, *args, **named: do(function, (self, *args), named)


for _name in _METHODS:
    setattr(Recorded, _name, _method(_name))


@dataclass(slots=True)
class _Operation:
    """function(*arguments, **named). Arguments are in registers, at places; those below zero are of constants."""

    function: Callable[..., Any]
    named: dict[str, Any]
    places: tuple[int, ...]


@dataclass(slots=True)
class _Part:
    """Until a question of a register, or the end."""

    operations: list[_Operation] = field(default_factory=list)
    #: The same: what to call, what takes its arguments out of registers, and where to put what comes of it.
    steps: list[tuple[Callable[..., Any], Callable[..., Any], int]] = field(default_factory=list)
    question: tuple[Callable[[Any], Any], int] | None = None
    answers: dict[Any, _Part] = field(default_factory=dict)
    is_written: bool = False
    is_known: bool = False
    #: An array came in that may be numbers which somebody read unseen; or others will do it another way (doubt).
    is_doubted: bool = False


@dataclass(slots=True)
class Trust:
    """Of all tapes of a kernel. is_earned: a program wrote from its beginning to its end what another one had."""

    is_earned: bool = False


class Tape:
    """Of programs that are told the same."""

    def __init__(self, trust: Trust | None = None) -> None:
        self.trust = trust or Trust()
        self.first = _Part()
        self.constants: list[Any] = []
        self.size = self.num_parts = self.num_changes = self.num_programs = self.num_written = 0
        self.is_left = False
        self._places: dict[int, int] = {}

    def run(self, inputs: list[Any], interpret: Callable[[list[Any]], None]) -> None:
        """A program. inputs: arrays; interpret: the kernel, of these."""
        self.num_programs += 1
        if self.is_left or self.num_programs <= _BEFORE:
            interpret(inputs)
            return
        registers = [*inputs, *[None] * (self.size - len(inputs)), *reversed(self.constants)]
        num_done, part = 0, self.first
        while part.is_known:
            for call, arguments, out in part.steps:
                registers[out] = call(*arguments(registers))
            if part.question is None:
                return
            num_done += 1
            ask, place = part.question
            following = part.answers.get(ask(registers[place]))
            if following is None:
                break
            part = following
        _write(_Writer(self, registers, num_done), inputs, interpret)

    def place_of(self, constant: Any) -> int:
        if id(constant) not in self._places:
            self.constants.append(constant)
            self._places[id(constant)] = -len(self.constants)
        return self._places[id(constant)]

    def leave(self) -> None:
        self.is_left, self.first, self.constants, self._places = True, _Part(), [], {}


class _Writer:
    """Of a program that is interpreted. num_done: parts of it that were done, with what came of them in registers."""

    def __init__(self, tape: Tape, registers: list[Any], num_done: int) -> None:
        self.tape, self.registers, self.num_done = tape, registers, num_done
        self.num_passed = self.next = 0
        self.is_new = False
        self._begin(tape.first)

    def _begin(self, part: _Part) -> None:
        self.part, self.at = part, 0
        if not part.is_written:  # by a program that failed, perhaps
            part.operations.clear()
            part.steps.clear()
            part.is_doubted = False

    @property
    def is_behind(self) -> bool:
        """What comes now was done already."""
        return self.num_passed < self.num_done

    def input(self, data: Any) -> Any:
        self.next += 1
        return _recorded(data, self.next - 1)

    def do(self, function: Callable[..., Any], args: list[Any], named: dict[str, Any]) -> Any:
        part, out = self.part, self.next
        if part.is_written and not (
            self.at < len(part.operations) and self._is(part.operations[self.at], function, args, named)
        ):
            self._change()
        if not part.is_written:
            places = []
            for each in args:
                if type(each) is Recorded:
                    places.append(each.place)
                else:
                    places.append(self.tape.place_of(each))
                    part.is_doubted = part.is_doubted or _is_doubtful(each)
            part.operations.append(_Operation(function, named, tuple(places)))
            arguments = itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))
            part.steps.append((partial(function, **named) if named else function, arguments, out))
        self.at, self.next = self.at + 1, out + 1
        if self.is_behind:
            result = self.registers[out]
        else:
            result = function(*[each.plain if type(each) is Recorded else each for each in args], **named)
        return None if result is None else _recorded(result, out)

    def _is(self, operation: _Operation, function: Any, args: list[Any], named: dict[str, Any]) -> bool:
        if operation.function != function or len(operation.places) != len(args) or operation.named != named:
            return False
        constants = self.tape.constants
        return all(
            each.place == place if type(each) is Recorded else place < 0 and _same(each, constants[-1 - place])
            for each, place in zip(args, operation.places, strict=True)
        )

    def ask(self, function: Callable[[Any], Any], array: Recorded) -> Any:
        assert array.place is not None
        self._close((function, array.place))
        answer = function(array.plain)
        if answer not in self.part.answers:
            self.part.answers[answer] = _Part()
            self.tape.num_parts += 1
        self.num_passed += 1
        self._begin(self.part.answers[answer])
        return answer

    def end(self) -> None:
        self._close(None)
        tape = self.tape
        tape.trust.is_earned = tape.trust.is_earned or not self.is_new
        tape.size, tape.num_written = max(tape.size, self.next), tape.num_written + 1
        if (
            tape.num_parts > _MOST_PARTS
            or self.next > _MOST_OPERATIONS
            or tape.num_changes > _MOST_CHANGES
            or tape.num_written > max(_ENOUGH, tape.num_programs // 2)
        ):
            tape.leave()

    def _close(self, question: tuple[Callable[[Any], Any], int] | None) -> None:
        part = self.part
        if part.is_written and self.at == len(part.operations) and part.question == question:
            part.is_known = True
            return
        if part.is_written:
            self._change()
        part.question, part.is_written = question, True
        self.is_new = True
        part.is_known = self.tape.trust.is_earned and not part.is_doubted

    def _change(self) -> None:
        """What was written here is not what is done now."""
        assert not self.is_behind, "a program did something else than was written before it"
        del self.part.operations[self.at :], self.part.steps[self.at :]
        self.part.answers, self.part.is_written, self.part.is_known = {}, False, False
        self.tape.num_changes += 1


#: Who writes now.
_writer: _Writer | None = None


def _write(writer: _Writer, inputs: list[Any], interpret: Callable[[list[Any]], None]) -> None:
    global _writer
    _writer = writer
    try:
        interpret([writer.input(each) for each in inputs])
        if _writer is not None:
            writer.end()
    finally:
        _writer = None


def _stop(why: str) -> None:
    """The rest of the program is only interpreted, and so are others of its tape."""
    global _writer
    if _writer is not None:
        assert not _writer.is_behind, why
        _writer.tape.leave()
        _writer = None


def doubt() -> None:
    """What is written now is found out for the first time, and is done in another way from then on."""
    if _writer is not None:
        _writer.part.is_doubted = True


def do(function: Callable[..., Any], args: Iterable[Any], named: dict[str, Any]) -> Any:
    """function(*args, **named), of arrays among which are recorded ones."""
    args = list(args)
    if type(args[0]) in (list, tuple) and len(args) == 1:
        return do(_of_many(function), args[0], named)
    if _writer is not None:
        if function in _WRITING or "out" in named:
            _stop("an array is written to")
        else:
            for each in args:
                if type(each) is Recorded and each.place is None:
                    _stop("nobody saw how an array was made")
    if _writer is None:
        return function(*[_plain(each) for each in args], **named)
    return _writer.do(function, args, named)


@cache
def _of_many(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arrays, **named: function(arrays, **named)


def whole(function: Callable[..., Any], has_effect: bool = False) -> Callable[..., Any]:
    """One operation, however it comes about. has_effect: it is done for each program, whatever it is told."""

    def operation(*args: Any, **named: Any) -> Any:
        if (has_effect and _writer is not None) or any(type(each) is Recorded for each in args):
            return do(function, args, named)
        return of_kept(function(*args, **named), *args)

    return operation


def of_kept(made: Any, *operands: Any) -> Any:
    """The same; while a program is written, what is made of arrays that are kept alone is a constant as they are."""
    if _writer is not None and type(made) is np.ndarray:
        for each in operands:
            if _is_doubtful(each):
                return made
        made.flags.writeable = False
    return made


@cache
def filled(shape: tuple[int, ...], dtype: Any, value: int) -> Any:
    """Kept, so not to be written to."""
    made = np.full(shape, value, dtype)
    made.flags.writeable = False
    return made


def alone(method: Any) -> Any:
    """A method of which nothing is written down."""

    def called(self: Any, *args: Any) -> Any:
        _stop("numbers are combined one by one")
        return method(self, *args)

    return called


def _ask(function: Callable[[Any], Any], array: Recorded) -> Any:
    if array.place is None:
        _stop("nobody saw how an array was made")
    return function(_plain(array)) if _writer is None else _writer.ask(function, array)


def _recorded(data: Any, place: int) -> Any:
    if not isinstance(data, (np.ndarray, np.generic)):
        _stop("something else than an array was made")
        return data
    made = np.asarray(data).view(Recorded)
    made.plain, made.place = data, place
    return made


def _plain(value: Any) -> Any:
    if type(value) is not Recorded:
        return value
    return np.asarray(value) if value.plain is None else value.plain


def _is_doubtful(value: Any) -> bool:
    """Whether it may be numbers of this program that somebody read unseen. What is kept cannot be written to."""
    if type(value) is np.ndarray:
        return bool(value.flags.writeable)
    return isinstance(value, np.generic)


def _same(left: Any, right: Any) -> bool:
    if left is right or type(left) is not type(right):
        return left is right
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    return bool(left == right)
