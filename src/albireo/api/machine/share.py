"""Which part of a machine one of several engines on it may have: plain arithmetic.

Used by api/machine/take_share.py and by engine_process, which tells a process its part. Does not know what a machine
has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from albireo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Share:
    """Part index of count, all on one machine, and each like the others."""

    index: int = 0
    count: int = 1


ALONE = Share()


def cut(cpus: Sequence[int], nodes: Mapping[int, int], share: Share) -> list[int]:
    """One's own processors: a run of them in the order of their NUMA nodes, so that they lie in few.

    Args: nodes: processor -> its node; those that are missing are in node 0.
    Returns: none, when there are fewer processors than engines.
    """
    ordered = sorted(cpus, key=lambda cpu: (nodes.get(cpu, 0), cpu))
    if len(ordered) < share.count:
        return []
    return ordered[share.index * len(ordered) // share.count : (share.index + 1) * len(ordered) // share.count]


def threads_of(num_threads: int | None, num_cpus: int, share: Share) -> int:
    """One's own threads of num_threads for all engines together; None: num_cpus, as many as may run all the time.

    Raises: ConfigError.
    """
    total = num_threads or num_cpus
    if total < share.count:
        what = f"{num_cpus} processors can be used here" if num_threads is None else f"num_threads={num_threads}"
        raise ConfigError(
            f"data_parallel_size={share.count}, and {what}; each engine needs a thread of its own: lower it to "
            f"{total}, or raise num_threads"
        )
    return (share.index + 1) * total // share.count - share.index * total // share.count
