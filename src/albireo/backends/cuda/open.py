"""A program and the weights of a checkpoint, or of an engine directory -> a CudaModel.

Called by api/machine/cuda_device.py. The one place that knows how a model's parts on a GPU are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from albireo.backends.cuda.capture import DirectLaunches, Recorder
from albireo.backends.cuda.constants import place_constants
from albireo.backends.cuda.model import Beside, CudaModel
from albireo.backends.cuda.peers import Seat
from albireo.backends.cuda.shortage import empty_cache, is_shortage
from albireo.backends.cuda.stored import read_constants
from albireo.backends.stored_weights import StoredWeights
from albireo.backends.weights import Weights
from albireo.errors import OutOfMemory
from albireo.graph.program import Program


def open_model(
    program: Program,
    weights: Weights | StoredWeights,
    *,
    num_blocks: int,
    max_positions: int,
    reserve_bytes: int = 0,
    num_host_blocks: int = 0,
    num_state_slots: int = 0,
    max_num_seqs: int | None = None,
    has_axes: bool = False,
    is_tower: bool = False,
    is_eager: bool = False,
    device: torch.device | None = None,
    recorder: Recorder | None = None,
    advance: Callable[[int], None] = lambda _: None,
    before_trial: Callable[[], None] = lambda: None,
    beside: Callable[[CudaModel], Beside] | None = None,
    lender: CudaModel | None = None,
    borrowed: Sequence[str] = (),
    reads_cache: bool = False,
    seat: Seat | None = None,
) -> CudaModel:
    """Place the constants, allocate the rest, run a trial step.

    Args:
        num_blocks: KV blocks wanted; the model has fewer where they do not fit, see CudaModel, but for a tower's.
        num_host_blocks: of page-locked host memory, to swap blocks to. num_state_slots, max_num_seqs, has_axes,
            is_tower, beside: see CudaModel.
        lender: a model of which borrowed constants are, which has the same by these names; and its KV cache where
            reads_cache.
        is_eager: launch every kernel of every step.
        device: None: the first GPU. recorder: None: what is_eager says.
        seat: of one of several ranks.
        advance: told the bytes of each constant that is in place. before_trial: called when all are.
    Raises: OutOfMemory when the GPU has no room, or the host none that may be locked.
    """
    device = device or torch.device("cuda", 0)
    own = {name: constant for name, constant in program.constants.items() if name not in borrowed}
    try:
        if isinstance(weights, StoredWeights):
            matrices, vectors = read_constants(own, weights, device, advance)
        else:
            matrices, vectors = place_constants(own, weights, device, advance)
        if lender is not None:
            lent = lender.lend(borrowed)
            matrices, vectors = matrices | lent[0], vectors | lent[1]
        # else what constants were made of would count as taken, where blocks are counted that there is room for
        empty_cache()
        before_trial()
        model = CudaModel(
            program,
            matrices,
            vectors,
            num_blocks=num_blocks,
            max_positions=max_positions,
            device=device,
            reserve_bytes=reserve_bytes,
            num_host_blocks=num_host_blocks,
            num_state_slots=num_state_slots,
            max_num_seqs=max_num_seqs,
            # what reads another's cache is turned as the token behind it
            has_axes=has_axes or reads_cache,
            is_tower=is_tower,
            recorder=recorder or (DirectLaunches() if is_eager else None),
            beside=beside,
            lender=lender if reads_cache else None,
            seat=seat,
        )
    except RuntimeError as error:
        if not is_shortage(error):
            raise
        # torch's own class ends its sentences, the driver's errors do not
        words = str(error).splitlines()[0].rstrip(". ")
        raise OutOfMemory(
            f"the GPU has no room for the model: {words}. End what else uses the GPU, lower "
            f"max_num_batched_tokens{', max_num_seqs' if program.states else ''} or gpu_memory_utilization, or use "
            "--device cpu"
        ) from None
    if is_tower and model.num_blocks < num_blocks:
        raise OutOfMemory(
            f"after a vision tower's weights and a trial step the GPU has room for {model.num_blocks} of the "
            f"{num_blocks} blocks of its largest tile. End what else uses the GPU, leave images out "
            "(limit_mm_per_prompt), or use --device cpu"
        )
    return model
