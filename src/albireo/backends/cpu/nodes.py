"""Machines with several memories (NUMA nodes): threads in the order of the nodes, and pages near who reads them.

Called by machine.py, by whoever holds much memory, and by api/. A call's items are shared out in order, and a matrix
lies in the order of its items: of each matrix a thread reads the same run of pages in every step, which can be in the
memory beside it. No bit depends on where they are. Does not know programs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from albireo import _native

_SYSTEM = Path("/sys/devices/system/node")


def numa_nodes(root: Path = _SYSTEM) -> dict[int, int]:
    """Processor -> the node whose memory is near it; empty where the system does not say."""
    found = {}
    for path in root.glob("node[0-9]*/cpulist"):
        try:
            spans = [part.partition("-") for part in path.read_text().split(",") if part.strip()]
        except OSError:
            continue
        for first, _, last in spans:
            found.update(dict.fromkeys(range(int(first), int(last or first) + 1), int(path.parent.name[4:])))
    return found


def in_order(cpus: Iterable[int]) -> list[int]:
    """Node by node: threads that follow each other share a memory. Boards number theirs in turn, too."""
    nodes = numa_nodes()
    return sorted(cpus, key=lambda cpu: (nodes.get(cpu, 0), cpu))


class Near:
    """The memories beside some threads of a pool.

    nodes is empty, and nothing is placed, where all memory is as near, or threads are not kept to their processors.
    """

    def __init__(self, pool: _native.ThreadPool, first: int = 0, threads: int | None = None) -> None:
        """Args: first, threads: of the pool's threads, those that will read; None: all from first on."""
        self._pool, self._first = pool, first
        self._threads = pool.size - first if threads is None else threads
        nodes, cpus = numa_nodes(), pool.cpus
        own = {nodes[cpu] for cpu in cpus[first : first + self._threads] if cpu in nodes}
        is_placed = len(set(nodes.values())) > 1 and all(cpu in nodes for cpu in cpus)
        self.nodes = tuple(sorted(own)) if is_placed else ()

    def take(self, memory: _native.Memory, spans: Sequence[tuple[int, int]]) -> None:
        """Have each thread take the pages of its share of each span (offset, bytes) of memory that nothing was written
        to yet."""
        if self.nodes:
            _native.take_pages(self._pool, memory, spans, self._first, self._threads)

    def spread(self, memory: _native.Memory) -> bool:
        """Of memory that any thread may read: have pages come from the nodes in turn. Returns: whether the system
        grants that, or there is nothing to spread."""
        return not self.nodes or memory.take_in_turn(self.nodes)


def report(pool: _native.ThreadPool) -> dict[str, Any]:
    """For the doctor: processors of each node of the machine that one is found of; the nodes that these threads keep
    to, if any; whether the system lets memory be spread over them, None where that does not matter."""
    near, processors = Near(pool), Counter(numa_nodes().values())
    spreads = near.spread(_native.Memory(1 << 16)) if len(near.nodes) > 1 else None
    return {
        "processors": [processors[node] for node in sorted(processors)],
        "nodes": list(near.nodes),
        "spreads": spreads,
    }
