"""Who is the last of the programs that share a piece of work, and so ends it: kernels need no launch more for that.

Used inside kernels whose programs leave parts for each other in memory. Counters are zeros before and after a launch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def is_last_of(arrived, count):
    """Whether the other programs of the count that share this counter are done, so that what they stored can be read.

    The last one is to set_back() the counter.
    """
    tl.debug_barrier()  # every thread's stores are released by the one that counts
    return tl.atomic_add(arrived, 1, sem="acq_rel", scope="gpu") == count - 1


@triton.jit
def set_back(arrived):
    """Let a counter be 0 again. What is loaded in front of this is on its way before what follows begins."""
    tl.atomic_xchg(arrived, 0, sem="relaxed", scope="gpu")


@triton.jit
def arrives_last(arrived, count):
    """is_last_of(), and the last one sets the counter to 0 at once."""
    is_last = is_last_of(arrived, count)
    if is_last:
        tl.store(arrived, 0)
    return is_last
