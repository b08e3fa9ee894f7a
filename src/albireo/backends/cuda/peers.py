"""Peers: what a rank of several needs of the others while it computes: the rows of all, in the order of ranks.

A gather copies and adds nothing, so that sums are formed by kernels/add_parts.py, in one order, on every rank. Between
GPUs it is NCCL's, which CUDA graphs record; of CPU tensors gloo's. Asked by bind.py and joined_head.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist

from albireo import devflags
from albireo.errors import ConfigError, RankLost

#: Seconds that the host takes at most to begin a gather, but for the first.
_GATHERING_S = 1.0


class Peers(Protocol):
    """The ranks of one model, as one of them sees them."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def gather(self, out: torch.Tensor, x: torch.Tensor) -> None:
        """out[i] = x of rank i. Every rank does it, in the same order of steps and calls.

        Args: out: [size, *x.shape]; both without gaps, of the same type.
        """
        ...


@dataclass(frozen=True, slots=True)
class Seat:
    """A rank's place.

    Fields: vocab_size: of the whole head, of which the ranks have parts. least: of a number of each rank, the least;
        all are asked at the same place.
    """

    peers: Peers
    vocab_size: int
    least: Callable[[int], int] = int


class AbsentPeers:
    """Ranks of a model whose tensors are shapes alone: nothing is copied."""

    rank = 0

    def __init__(self, size: int) -> None:
        self.size = size

    def gather(self, out: torch.Tensor, x: torch.Tensor) -> None:
        """Nothing to do."""


def require_nccl(size: int) -> None:
    """Raises: ConfigError where torch has none."""
    if not dist.is_nccl_available():
        raise ConfigError(
            f"tensor_parallel_size={size}: torch {torch.__version__} has no NCCL, by which GPUs exchange rows; install "
            "torch for Linux with CUDA, or use --device cpu"
        )


class ProcessPeers:
    """Ranks that are processes of one machine, by torch's process groups; none of torch's own is touched.

    Args: path: of a file, not there yet, by which the processes find each other. device: this rank's.
    """

    def __init__(self, rank: int, size: int, path: str, device: torch.device) -> None:
        self.rank, self.size = rank, size
        store, self._is_nccl = dist.FileStore(path, size), device.type == "cuda"
        if self._is_nccl:
            devflags.handle_nccl_errors()
            group: Any = dist.ProcessGroupNCCL(store, rank, size, dist.ProcessGroupNCCL.Options())
        else:
            of_gloo: Any = dist.ProcessGroupGloo
            options = of_gloo._Options()
            options._devices = [of_gloo.create_device(hostname="127.0.0.1")]
            group = of_gloo(store, rank, size, options)
        self._group = group
        self._is_over, self._is_aborted = False, False
        self._gathering, self._aborting = threading.Lock(), threading.Lock()

    def gather(self, out: torch.Tensor, x: torch.Tensor) -> None:
        """Raises: RankLost when another is gone, where that can be told at once, and behind abort()."""
        with self._gathering:
            if self._is_over:
                raise RankLost(f"rank {self.rank} gathers nothing any more, since another rank is gone")
            try:
                self._group._allgather_base(out.view(-1, *x.shape[1:]), x).wait()
            except RuntimeError as error:
                if "out of memory" in str(error):
                    raise
                raise RankLost(
                    f"rank {self.rank} does not reach the others: {(str(error).splitlines() or [''])[0]}"
                ) from error

    def abort(self) -> None:
        """Let what waits for a rank that is gone end; nothing is gathered any more. From any thread; a second call
        waits for the first.

        NCCL returns from it when no recording is left that has a gather: CudaGraphs.let_go(). Meanwhile torch lets
        nobody gather, so whoever is to let recordings go must not begin to: it would wait for itself.
        """
        # the first gather waits for all ranks, and may be what is to end
        is_free = self._gathering.acquire(timeout=_GATHERING_S)
        self._is_over = True
        if is_free:
            self._gathering.release()
        with self._aborting:
            if self._is_nccl and not self._is_aborted:
                self._is_aborted = True
                self._group.abort()
