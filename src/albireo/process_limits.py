"""What the system allows this process alone: memory, threads, files; and what is said where it gives no more.

ulimit, service managers and job schedulers set such limits, and what meets one says little of it: MemoryError, a
RuntimeError of who starts a thread, a number of an OSError.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from albireo.errors import OutOfMemory, ResourceError

#: What Python, and the C++ library, say where the system has no thread for them.
_NO_THREAD = ("can't start new thread", "Resource temporarily unavailable")


def memory_limit() -> int | None:
    """Bytes that this process may have of what it writes to; None: as many as there are."""
    limits = [_limit(each) for each in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((each for each in limits if each is not None), default=None)


def shortage_of(error: BaseException) -> ResourceError | None:
    """What an error that stands for a limit says in words; None for any other."""
    if isinstance(error, MemoryError):
        limit = memory_limit()
        allowed = "" if limit is None else f", which may have {limit / 2**30:.2f} GiB (ulimit -v, ulimit -d)"
        raised = "" if limit is None else "raise that limit, or "
        return OutOfMemory(
            f"the system gives this process no more memory{allowed}; {raised}lower kv_cache_memory_bytes, "
            "memory_utilization, max_num_seqs or max_model_len, or use a smaller model"
        )
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        limit = _limit(resource.RLIMIT_NOFILE)
        return ResourceError(f"this process may have {limit} files open (ulimit -n), and needs more; raise that limit")
    is_refused = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_THREAD)
    if is_refused or (isinstance(error, OSError) and error.errno == errno.EAGAIN):
        limit = _limit(resource.RLIMIT_NPROC)
        allowed = "" if limit is None else f"; its user may have {limit} of both (ulimit -u)"
        return ResourceError(
            f"the system gives this process no more threads or processes{allowed}; raise that limit, or the one of its "
            "control group (pids.max), or lower num_threads"
        )
    return None


def _limit(kind: int) -> int | None:
    found, _ = resource.getrlimit(kind)
    return None if found == resource.RLIM_INFINITY else found


@contextmanager
def naming_shortages() -> Iterator[None]:
    """Raises: ResourceError in place of what stands for a limit."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        found = shortage_of(error)
        if found is None:
            raise
        raise found from error
