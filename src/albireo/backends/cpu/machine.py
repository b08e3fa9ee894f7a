"""What this processor can do: ISA levels, cores, the threads a program runs on.

Called by api/, the bench and what measures or checks. Does not know programs.
"""

from __future__ import annotations

import hashlib
import logging
from functools import cache
from pathlib import Path

from albireo import _native, devflags
from albireo.backends.cpu.nodes import in_order
from albireo.control_group import control_group, threads_allowed
from albireo.errors import ConfigError, ResourceError

_LOG = logging.getLogger(__name__)

#: What thread_pool() gives, for those who hand it on and do not know the native core.
ThreadPool = _native.ThreadPool

#: Of processors of this kind, best first; csrc/isa_levels.txt says what each asks of them.
LEVELS = tuple(_native.known_levels())
#: The target that means this machine's levels.
NATIVE = "native"


def isa_levels() -> tuple[str, ...]:
    """Levels to choose kernels from, best first: the machine's, capped by ALBIREO_ISA_MAX.

    Raises: ConfigError when the cap names no level.
    """
    cap = devflags.isa_max()
    _log_refusals()
    if cap is None:
        return tuple(_native.isa_levels())
    if cap not in LEVELS:
        raise ConfigError(f"ALBIREO_ISA_MAX={cap!r} is no level; choose one of {', '.join(LEVELS)}")
    return tuple(level for level in _native.isa_levels() if LEVELS.index(level) >= LEVELS.index(cap))


@cache
def native_digest() -> str:
    """SHA-256 of the native core's file: another build may compute other bits."""
    return hashlib.sha256(Path(_native.__file__).read_bytes()).hexdigest()


def refused_levels() -> dict[str, str]:
    """Levels whose instructions the processor has and that are off all the same, with the reason."""
    return dict(_native.refused_levels())


@cache
def _log_refusals() -> None:
    """Once a process."""
    for level, reason in refused_levels().items():
        _LOG.warning("kernels of level %s are off: %s", level, reason)


def name_lost_pages() -> None:
    """Have the process say which file it was, before it ends of SIGBUS because a mapped file became shorter or its disk
    fails. Handlers that were there go on after it."""
    _native.name_lost_pages()


def target_levels(target: str) -> tuple[str, ...]:
    """Levels to choose kernels from for a target, best first: native is isa_levels(); a level is itself and those
    below, whether or not this machine has it.

    Raises: ConfigError for another word.
    """
    if target == NATIVE:
        return isa_levels()
    if target not in LEVELS:
        raise ConfigError(f"target={target!r} is no level; choose one of {', '.join((NATIVE, *LEVELS))}, or cuda")
    return LEVELS[LEVELS.index(target) :]


def usable_cpus() -> list[int]:
    """One per physical core, of those this process may run on."""
    return list(_native.usable_cpus())


def num_threads_of(num_threads: int | None) -> int:
    """Threads a program runs on when so many are asked for; None: one a physical core that this process may use, and no
    more than its control group gives time for."""
    return num_threads or threads_allowed(control_group().cpus, len(_native.usable_cpus()))


def kernel_revision(family: str) -> int:
    """Which kernels of a family these are: what was measured of another revision does not hold."""
    return _native.revision(family)


def thread_pool(num_threads: int | None) -> _native.ThreadPool:
    """Threads for a program; None: as num_threads_of() says.

    Pinned, one per physical core and in the order of the NUMA nodes, where they have all of them; fewer go where the
    system puts them, since another process with as few would be pinned to the same ones; more share the cores.
    Raises: ResourceError when the system starts no more of them.
    """
    cpus, count = _native.usable_cpus(), num_threads_of(num_threads)
    try:
        return _native.ThreadPool(in_order(cpus) if count == len(cpus) else [-1] * count)
    except RuntimeError as error:
        raise ResourceError(f"num_threads={count}: {error}; ask for fewer, or raise the limit (ulimit -u)") from None
