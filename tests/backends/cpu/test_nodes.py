"""Pages near threads: who takes which, what stays as it was, and that no bit depends on it.

That pages lie in the memory beside a thread was seen on a machine of two nodes (docs/journal.md); one node shows who
wrote to them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from albireo import LLM, SamplingParams, _native
from albireo.backends.cpu import machine, nodes
from albireo.backends.cpu.model import CpuModel

PAGE = 4096
TWO = {0: 0, 1: 1, 2: 0, 3: 1}


@pytest.fixture
def pool() -> _native.ThreadPool:
    return _native.ThreadPool([-1] * 3)


def pretend(monkeypatch: pytest.MonkeyPatch, found: Mapping[int, int]) -> None:
    monkeypatch.setattr(nodes, "numa_nodes", lambda: dict(found))


def taken(pool: _native.ThreadPool, spans: list[tuple[int, int]], first: int, threads: int, pages: int) -> list[int]:
    """Places that were written to, of memory that had been filled."""
    memory = _native.Memory(pages * PAGE)
    memory.view()[:] = 1
    _native.take_pages(pool, memory, spans, first, threads)
    return np.flatnonzero(memory.view() == 0).tolist()


def test_threads_go_node_by_node_whatever_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, TWO)
    assert nodes.in_order([0, 1, 2, 3]) == [0, 2, 1, 3]
    pretend(monkeypatch, {})
    assert nodes.in_order([2, 0]) == [0, 2]


def test_a_pool_of_all_processors_is_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = machine.usable_cpus()
    pretend(monkeypatch, {cpu: -cpu for cpu in cpus})
    assert machine.thread_pool(len(cpus)).cpus == sorted(cpus, reverse=True)
    assert machine.thread_pool(len(cpus) + 1).cpus == [-1] * (len(cpus) + 1), "more than processors are kept to none"


@pytest.mark.parametrize(
    ("found", "cpus", "part", "near"),
    [
        (TWO, [0, 2, 1, 3], (0, None), (0, 1)),
        (TWO, [0, 2, 1, 3], (2, 2), (1,)),
        (TWO, [0, 2], (0, None), (0,)),
        (TWO, [-1, -1], (0, None), ()),
        (TWO, [0, 9], (0, None), ()),
        ({0: 0, 1: 0}, [0, 1], (0, None), ()),
        ({}, [0, 1], (0, None), ()),
    ],
)
def test_which_memories_are_near(found, cpus, part, near, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, found)

    class Pool:
        size = len(cpus)

    Pool.cpus = cpus
    assert nodes.Near(Pool, *part).nodes == near


def test_every_page_is_taken_once_a_thread_that_has_a_part_of_it(pool: _native.ThreadPool) -> None:
    assert taken(pool, [(0, 6 * PAGE)], 0, 3, 8) == [i * PAGE for i in range(6)]
    # a share begins within a page: the page has two takers, of whom the first has it
    assert taken(pool, [(PAGE, 3 * PAGE)], 0, 2, 8) == [PAGE, 2 * PAGE, 2 * PAGE + PAGE // 2, 3 * PAGE]
    assert taken(pool, [(100, 10), (3 * PAGE, PAGE)], 2, 1, 8) == [100, 3 * PAGE]
    assert taken(pool, [(0, 0)], 0, 3, 8) == []


@pytest.mark.parametrize(
    ("spans", "first", "threads", "words"),
    [
        ([(0, 9 * PAGE)], 0, 3, "memory that there is"),
        ([(2**63 - 1, 2)], 0, 3, "memory that there is"),
        ([(-1, 2)], 0, 3, "memory that there is"),
        ([(0, PAGE)], 2, 2, "threads that the pool has"),
        ([(0, PAGE)], 0, 0, "threads that the pool has"),
    ],
)
def test_what_is_not_there_is_not_taken(pool, spans, first, threads, words) -> None:
    with pytest.raises(ValueError, match=words):
        taken(pool, spans, first, threads, 8)


def test_a_node_that_is_not_there_is_not_granted() -> None:
    memory = _native.Memory(8 * PAGE)
    assert not memory.take_in_turn([5000])
    assert not memory.take_in_turn([1000])
    assert memory.take_in_turn([])


def test_weights_are_taken_by_shares_and_bits_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks' by their own threads; the memory of the second node is not there, which is a wish that is not granted."""
    params = SamplingParams(temperature=0, max_tokens=8, logprobs=1)
    plain = LLM(num_threads=2).generate(["A fox"], params, use_tqdm=False)[0].outputs[0]
    pretend(monkeypatch, {0: 0, 1: 1})
    monkeypatch.setattr("albireo.backends.cpu.machine._native.usable_cpus", lambda: [0, 1])
    asked: list[tuple[int, int, int]] = []
    real = _native.take_pages

    def take(pool, memory, spans, first, threads):
        asked.append((sum(size for _, size in spans), first, threads))
        real(pool, memory, spans, first, threads)

    monkeypatch.setattr(nodes._native, "take_pages", take)
    sizes: list[int] = []
    made = CpuModel.__init__

    def init(self, *args, **keywords):
        made(self, *args, **keywords)
        sizes.append(sum(constant.num_bytes for constant in self.program.constants.values()))

    monkeypatch.setattr(CpuModel, "__init__", init)
    placed = LLM(num_threads=2).generate(["A fox"], params, use_tqdm=False)[0].outputs[0]
    assert (placed.token_ids, placed.logprobs) == (plain.token_ids, plain.logprobs)
    LLM(num_threads=2, tensor_parallel_size=2)
    assert asked == [(sizes[0], 0, 2), (sizes[1], 0, 1), (sizes[2], 1, 1)]


def test_the_doctor_says_where_threads_are(monkeypatch: pytest.MonkeyPatch, pool: _native.ThreadPool) -> None:
    pretend(monkeypatch, {0: 0, 1: 0, 2: 5})
    assert nodes.report(pool) == {"processors": [2, 1], "nodes": [], "spreads": None}
    pinned = _native.ThreadPool([0, 2])
    found = nodes.report(pinned)
    assert found["nodes"] == [0, 5]
    assert found["spreads"] in (True, False)
