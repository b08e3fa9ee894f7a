"""Programs from a tape: what is done again, what is asked, and when a kernel is interpreted after all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backends.cuda import interpreter_tapes
from backends.cuda.interpreter_tapes import _BEFORE, Tape, Trust, doubt, whole

Program = Callable[[list[Any]], None]


class Kernel:
    """Counts how often it is interpreted; put() keeps numbers, as a store does."""

    def __init__(self, body: Callable[..., Any]) -> None:
        self.num_interpreted, self.kept, self._body = 0, [], body
        self._put = whole(self._keep, has_effect=True)

    def __call__(self, inputs: list[Any]) -> None:
        self.num_interpreted += 1
        self._body(*inputs, put=self._put)

    def _keep(self, number: Any) -> None:
        self.kept.append(np.array(number).item())


def run(tape: Tape, kernel: Kernel, *numbers: float) -> list[Any]:
    """What a program keeps."""
    kernel.kept.clear()
    tape.run([np.array([each]) for each in numbers], kernel)
    return list(kernel.kept)


def test_two_programs_write_and_others_do_the_same_alone() -> None:
    def body(x: Any, y: Any, put: Any) -> None:
        put(np.where(x > y, x, 2 * y) + np.broadcast_to(x, (2, 1)).sum(axis=0, keepdims=True).astype(np.float64)[0])

    tape, kernel = Tape(), Kernel(body)
    for turn, (x, y) in enumerate([(1, 2), (5, 3), (4, 4), (9, 1), (0, 7), (6, 6), (2, 8)]):
        assert run(tape, kernel, x, y) == [(x if x > y else 2 * y) + 2.0 * x]
        assert kernel.num_interpreted == min(turn + 1, _BEFORE + 2)


def test_each_way_is_written_and_what_was_done_is_not_done_again() -> None:
    """Loops as long as numbers say, and branches; what is kept before a way parts from others is kept once."""

    def body(x: Any, count: Any, put: Any) -> None:
        put(x)
        for i in range(int(count.squeeze())):
            x = x * 2 + i
        if x[0] > 10:
            put(x)
        put(-x)

    def wanted(x: int, count: int) -> list[int]:
        end = x
        for i in range(count):
            end = end * 2 + i
        return [x, end, -end] if end > 10 else [x, -end]

    tape, kernel = Tape(), Kernel(body)
    ways = [[(1, 2), (2, 2), (1, 2)], [(9, 2), (8, 2), (7, 2)], [(3, 0), (4, 0), (5, 0)]]
    for x, count in [(1, 2)] * _BEFORE + [each for way in ways for each in way] + [(2, 2), (7, 2), (8, 0)]:
        assert run(tape, kernel, x, count) == wanted(x, count)
    assert kernel.num_interpreted == _BEFORE + 2 + len(ways) - 1, "the first twice"


def test_one_writes_where_others_were_right_and_two_where_an_array_came_out_of_nowhere() -> None:
    """Tapes of one kernel trust it together; what a program may have read unseen is not taken for a constant of all."""
    kept, trust = np.array([3]), Trust()
    kept.flags.writeable = False

    def body(x: Any, put: Any) -> None:
        put(x + kept)
        put(x + (np.asarray(x) if x[0] > 3 else kept))

    first, kernel = Tape(trust), Kernel(body)
    for x in [1] * (_BEFORE + 2):
        assert not trust.is_earned
        assert run(first, kernel, x) == [x + 3, x + 3]
    assert trust.is_earned
    tape, kernel = Tape(trust), Kernel(body)
    for x in [1] * (_BEFORE + 4):
        assert run(tape, kernel, x) == [4, 4]
    assert kernel.num_interpreted == _BEFORE + 1
    for x in (4, 5, 6, 7):
        assert run(tape, kernel, x) == [x + 3, 2 * x]
    assert kernel.num_interpreted == _BEFORE + 1 + 4


def test_what_is_found_out_once_is_written_until_two_agree() -> None:
    """The first program that is written does it another way than all others."""

    def body(x: Any, put: Any) -> None:
        if kernel.num_interpreted == _BEFORE + 1:
            doubt()
            put(x + x)
        put(2 * x)

    tape, kernel = Tape(Trust(is_earned=True)), Kernel(body)
    for turn in range(_BEFORE + 4):
        assert run(tape, kernel, 3) == [6] * (2 if turn == _BEFORE else 1)
    assert kernel.num_interpreted == _BEFORE + 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: np.asarray(x) * x,  # its numbers of now, taken for constants
        lambda x: x.repeat(1) + x,  # by a method that is not watched
        lambda x: np.add(x, x, out=np.zeros_like(x)),
        lambda x: np.array(x.tolist()) + x,
    ],
)
def test_what_cannot_be_written_is_interpreted(spoil: Callable[[Any], Any]) -> None:
    def body(x: Any, put: Any) -> None:
        put(np.asarray(spoil(x)))
        put(x)

    tape, kernel = Tape(), Kernel(body)
    for x in range(1, 30):
        assert run(tape, kernel, x) == [np.asarray(spoil(np.array([x]))).item(), x]
    assert tape.is_left and kernel.num_interpreted == 29


@pytest.mark.parametrize("limit", ["_MOST_PARTS", "_MOST_OPERATIONS"])
def test_a_kernel_of_too_many_ways_or_operations_is_interpreted(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def body(x: Any, put: Any) -> None:
        put(x + int(x.squeeze()))

    monkeypatch.setattr(interpreter_tapes, limit, 2)
    tape, kernel = Tape(), Kernel(body)
    for x in range(9):
        assert run(tape, kernel, x) == [2 * x]
    assert tape.is_left


def test_a_kernel_whose_programs_go_ways_of_their_own_is_interpreted() -> None:
    def body(x: Any, put: Any) -> None:
        put(x + int(x.squeeze()))

    tape, kernel = Tape(), Kernel(body)
    for x in [*[0] * 60, *range(1, 20)]:
        assert run(tape, kernel, x) == [2 * x]
    assert not tape.is_left and kernel.num_interpreted == _BEFORE + 2 + 19
    for x in range(20, 99):
        assert run(tape, kernel, x) == [2 * x]
    assert tape.is_left


def test_a_fault_leaves_nobody_writing() -> None:
    def body(x: Any, put: Any) -> None:
        assert x != 3
        put(x)

    tape, kernel = Tape(), Kernel(body)
    for x in (*[1] * _BEFORE, 2, 3, 3, 4, 5, 6):
        if x == 3:
            with pytest.raises(AssertionError):
                run(tape, kernel, x)
        else:
            assert run(tape, kernel, x) == [x]
    assert interpreter_tapes._writer is None
