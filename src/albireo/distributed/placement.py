"""Which engine runs on which node, and with how many of its processors or GPUs: plain arithmetic.

Called by places.py with what Ray knows of its nodes. Does not know Ray.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from albireo.api.machine.share import ALONE, Share
from albireo.config import EngineConfig
from albireo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a Ray cluster. Fields: address: for people; num_cpus, num_gpus: that Ray may give away, in all."""

    name: str
    address: str
    num_cpus: int
    num_gpus: int = 0


@dataclass(frozen=True, slots=True)
class Seat:
    """What one engine is given.

    Fields:
        share: of the node's processors and memory, with the other engines there.
        num_threads: of all engines on the node; None: the device is a GPU.
    """

    node: Node
    num_cpus: int
    num_gpus: int
    share: Share
    num_threads: int | None


def place(nodes: Sequence[Node], config: EngineConfig) -> list[Seat]:
    """A seat for each of config.data_parallel_size engines.

    On GPUs one each, or one for each of its ranks, on one node. On processors as many each as can be, equally, or those
    of num_threads, which is for all of them.
    Engines go where most is left. Raises: ConfigError with the numbers when there is too little.
    """
    num = config.data_parallel_size
    num_gpus = sum(node.num_gpus for node in nodes)
    if config.device == "cuda" or (config.device == "auto" and num_gpus):
        size = config.tensor_parallel_size or 1
        room = sum(node.num_gpus // size for node in nodes)
        if room < num:
            raise ConfigError(
                f"data_parallel_size={num}, and the {len(nodes)} nodes of the Ray cluster have {num_gpus} GPUs; each "
                f"engine needs {'one of its own' if size == 1 else f'{size} of its own on one node'}: lower "
                f"{f'it to {room}' if room else 'tensor_parallel_size'}, or use --device cpu"
            )
        chosen = _spread({node: node.num_gpus for node in nodes}, size, num)
        return [Seat(node, 1, size, ALONE, None) for node in chosen]
    cpus_each = _cpus_each(nodes, config)
    chosen = _spread({node: node.num_cpus for node in nodes}, cpus_each, num)
    counts, seen = Counter(node.name for node in chosen), Counter[str]()
    seats = []
    for node in chosen:
        count = counts[node.name]
        seats.append(Seat(node, cpus_each, 0, Share(seen[node.name], count), cpus_each * count))
        seen[node.name] += 1
    return seats


def _cpus_each(nodes: Sequence[Node], config: EngineConfig) -> int:
    """Processors of each engine. Raises: ConfigError."""
    num, asked = config.data_parallel_size, config.num_threads
    largest = max((node.num_cpus for node in nodes), default=0)
    fitting = next((k for k in range(largest, 0, -1) if sum(node.num_cpus // k for node in nodes) >= num), 0)
    wanted = fitting if asked is None else asked // num
    if asked is not None and wanted == 0:
        raise ConfigError(
            f"data_parallel_size={num}, and num_threads={asked}; each engine needs a thread of its own: "
            "raise num_threads"
        )
    if fitting == 0 or wanted > fitting:
        have = ", ".join(str(node.num_cpus) for node in nodes) or "none"
        raise ConfigError(
            f"data_parallel_size={num} with {max(1, wanted)} threads each does not fit the {len(nodes)} nodes of the "
            f"Ray cluster, which have {have} CPUs; lower it, or num_threads"
        )
    return wanted


def _spread(free: dict[Node, int], each: int, num: int) -> list[Node]:
    """Nodes for num engines, the one with most left first, of nodes that have room for all of them."""
    left, chosen = dict(free), []
    for _ in range(num):
        node = max(left, key=lambda one: left[one])
        left[node] -= each
        chosen.append(node)
    return chosen
