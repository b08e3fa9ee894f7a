"""A program and a rank's part of the weights -> the CudaModel of one rank of several, on a device of its own.

Called by api/rank_process.py in each of their processes; all are opened at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.open import open_model
from albireo.backends.cuda.peers import ProcessPeers, Seat, require_nccl
from albireo.backends.stored_weights import StoredWeights
from albireo.backends.weights import Weights
from albireo.graph.program import Program


def prepare_device(device: str, size: int) -> None:
    """All that can be wrong before ranks meet, who would wait for one that does not come.

    Raises: ConfigError where torch has no NCCL; what torch says where it cannot use the device.
    """
    if torch.device(device).type == "cuda":
        require_nccl(size)
        torch.cuda.set_device(device)


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
    watch: Callable[[Callable[[], None]], None],
    **options: Any,
) -> CudaModel:
    """Args:
        vocab_size: of the whole head. device: as torch names it. meeting: path of the file by which ranks find each
            other. least: see peers.Seat. watch: told what is to be called when a rank is gone.
        options: of open_model().
    Raises: as open_model(). prepare_device() was called by all.
    """
    place = torch.device(device)
    peers = ProcessPeers(rank, size, meeting, place)
    watch(peers.abort)
    return open_model(program, weights, device=place, seat=Seat(peers, vocab_size, least), **options)
