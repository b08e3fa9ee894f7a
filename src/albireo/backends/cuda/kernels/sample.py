"""sample: logits -> one token a task, as the host's sampler draws it (sampling/sampler.py), without sorting.

logits: [R, V] float32, any stride between rows, not written to. tasks, space: see ../sampling.py. out: [S] int32; -1
where no token can be drawn, which the host's sampler explains. changes: a task may change logits; truncates: one may
have top_k or top_p. Launches: 2; 2 more with changes, 5 with truncates. Each costs little where no task waits for it,
so that a recorded step can have them all. As a rule top_k and top_p keep few tokens: those near the best are gathered,
and one program settles the rest; what it cannot settle is searched for in the whole row. What a task gets depends on
its row and its own parameters, to the last bit.
"""

from __future__ import annotations

import torch

from albireo.backends.cuda.kernels.parts.weights import FIELDS
from albireo.backends.cuda.kernels.sample_adjust import sample_adjust
from albireo.backends.cuda.kernels.sample_bracket import SPLITS, sample_bracket
from albireo.backends.cuda.kernels.sample_draw import sample_draw
from albireo.backends.cuda.kernels.sample_gather import MOST, sample_gather
from albireo.backends.cuda.kernels.sample_peak import sample_peak
from albireo.backends.cuda.kernels.sample_search import ROOM, sample_search
from albireo.backends.cuda.kernels.sample_settle import sample_settle
from albireo.backends.cuda.kernels.sample_whole import sample_whole
from albireo.backends.cuda.sample_call import CRESTS, SampleCall, tiles_of
from albireo.backends.cuda.sampling import SampleWorkspace, SamplingTensors


def sample(
    logits: torch.Tensor,
    tasks: SamplingTensors,
    space: SampleWorkspace,
    out: torch.Tensor,
    changes: bool,
    truncates: bool,
) -> None:
    call = SampleCall.of(logits, tasks, space, out)
    if changes:
        sample_adjust(call)
    sample_peak(call)
    if truncates:
        sample_gather(call)
        sample_whole(call)
        sample_settle(call)
        sample_bracket(call)
        sample_search(call)
    sample_draw(call)


def sample_workspace(num_tasks: int, vocab: int, device: torch.device) -> SampleWorkspace:
    """Scratch for at most num_tasks tasks over rows of vocab logits."""
    tiles = tiles_of(vocab)

    def zeros(dtype: torch.dtype, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    return SampleWorkspace(
        num_tasks,
        work=zeros(torch.float32, num_tasks, vocab),
        alive=zeros(torch.int32, num_tasks, tiles),
        best=zeros(torch.int64, num_tasks, tiles),
        crests=zeros(torch.int32, num_tasks, tiles, CRESTS),
        stretches=zeros(torch.int32, num_tasks, tiles, CRESTS),
        num_found=zeros(torch.int32, num_tasks),
        keys=zeros(torch.int64, num_tasks, MOST),
        partial=zeros(torch.int64, num_tasks, tiles, SPLITS),
        inside=zeros(torch.int32, num_tasks, ROOM),
        strict=zeros(torch.int64, num_tasks, tiles),
        ties=zeros(torch.int32, num_tasks, tiles),
        state=zeros(torch.int64, num_tasks, FIELDS),
        draws=zeros(torch.int32, num_tasks),
        arrived=zeros(torch.int32, num_tasks),
    )
