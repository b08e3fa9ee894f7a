"""spec_verify: which tokens that were drawn behind drafts stand.

A draft stands where it is the token that the sequence draws there anyway: sample() draws one from the target's own
logits of every row, at that position of the sequence's random stream, and tokens are kept up to the first that is not
the draft behind it. So the tokens are those without drafts, greedy or sampled, and follow the target's distribution
whatever made the drafts. A draft that was made with certainty (by n-grams, or greedily) is kept with the probability
that the target gives it, which is the most there is.

Of a step that draws from every row: token_ids: [T] int32, of each sequence the last known token and its drafts;
query_start: [B + 1] int32, where each begins; at most PLACES rows of each. drawn: [T] int32, what was drawn from each
row, -1 where none could be; those behind the first that is not the draft of the row after it become REFUSED. One
launch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.step_outputs import REFUSED
from albireo.speculative_config import MAX_DRAFTS

#: Rows of a sequence at most, as a power of two: its drafts, and the last known token.
_PLACES = 2 * MAX_DRAFTS

_REFUSED = tl.constexpr(REFUSED)


@triton.jit
def spec_verify_kernel(token_ids, query_start, drawn, PLACES: tl.constexpr):
    sequence = tl.program_id(0)
    first = tl.load(query_start + sequence)
    count = tl.load(query_start + sequence + 1) - first
    place = tl.arange(0, PLACES)
    is_there = place < count
    own = tl.load(drawn + first + place, mask=is_there, other=-1)
    draft = tl.load(token_ids + first + place + 1, mask=place + 1 < count, other=-1)
    last = tl.min(tl.where((draft == own) & (own >= 0), PLACES, place), 0)
    tl.store(drawn + first + place, _REFUSED, mask=is_there & (place > last))


def spec_verify(token_ids: torch.Tensor, query_start: torch.Tensor, drawn: torch.Tensor) -> None:
    spec_verify_kernel[(len(query_start) - 1,)](
        token_ids, query_start, drawn, PLACES=_PLACES, num_warps=1, enable_fp_fusion=False
    )


def aot_cases() -> list[AotCase]:
    signature = {name: "*i32" for name in ("token_ids", "query_start", "drawn")}
    sizes = {"PLACES": _PLACES}
    return [AotCase("spec_verify", spec_verify_kernel, signature, sizes, num_warps=1, max_registers=48, max_shared=64)]
