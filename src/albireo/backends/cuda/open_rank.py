"""A program and a rank's part of the weights -> the CudaModel of one rank of several, on a device of its own.

Called by api/ranks/rank_start.py in each of their processes; all are opened at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from albireo.backends.cuda.capture import CudaGraphs
from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.open import open_model
from albireo.backends.cuda.peers import ProcessPeers, Seat, require_nccl
from albireo.backends.stored_weights import StoredWeights
from albireo.backends.weights import Weights
from albireo.errors import ConfigError
from albireo.graph.program import Program


def prepare_device(device: str, size: int, capability: int) -> None:
    """All that can be wrong before ranks meet, who would wait for one that does not come.

    Args: capability: of the first rank's GPU, 90 is 9.0.
    Raises: ConfigError where torch has no NCCL, or GPUs differ; what torch says where it cannot use the device.
    """
    if torch.device(device).type != "cuda":
        return
    require_nccl(size)
    torch.cuda.set_device(device)
    major, minor = torch.cuda.get_device_capability(device)
    if 10 * major + minor != capability:
        raise ConfigError(
            f"{device} is {torch.cuda.get_device_name(device)} of compute capability {major}.{minor}, the first rank's "
            f"GPU has {capability / 10:.1f}; ranks compute alike on GPUs of one kind: choose such with "
            "CUDA_VISIBLE_DEVICES"
        )


def open_rank(
    program: Program,
    weights: Weights | StoredWeights,
    *,
    rank: int,
    size: int,
    vocab_size: int,
    device: str,
    meeting: str,
    least: Callable[[int], int],
    watch: Callable[[Callable[[], None], Callable[[], None]], None],
    is_eager: bool = False,
    **options: Any,
) -> CudaModel:
    """Args:
        vocab_size: of the whole head. device: as torch names it. meeting: path of the file by which ranks find each
            other, there until this one has ended. least: see peers.Seat. watch: told what is to be called when a rank
            is gone, from any thread, and when this one is to end, behind its last step.
        is_eager, options: of open_model().
    Raises: as open_model(). prepare_device() was called by all.
    """
    place = torch.device(device)
    peers = ProcessPeers(rank, size, meeting, place)
    recorder = CudaGraphs() if place.type == "cuda" and not is_eager else None

    def end() -> None:
        # NCCL waits for recordings of its gathers before it ends, for ever where they are held
        if recorder is not None:
            recorder.let_go()
        peers.abort()

    watch(peers.abort, end)
    seat = Seat(peers, vocab_size, least)
    return open_model(program, weights, device=place, seat=seat, recorder=recorder, is_eager=is_eager, **options)
