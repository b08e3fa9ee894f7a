"""spec_verify: how many of a sequence's drafted tokens stand, and which token follows.

A draft stands where it is the token that the sequence draws there anyway: sample() draws one from the target's own
logits of every drafted position, at that position of the sequence's random stream, and drafts are kept up to the first
that differs. So the tokens are those without drafts, greedy or sampled, and follow the target's distribution whatever
made the drafts. A draft that was made with certainty (by n-grams, or greedily) is kept with the probability that the
target gives it, which is the most there is.

drafts: [B, N] int32, counts: [B] int32 how many of each (0 to N). drawn: int32, tokens of sample(); first: [B] int32,
where those of a sequence begin: counts + 1 of them, the last behind all drafts; -1 where none could be drawn. tokens:
[B, N + 1] int32, what the sequence goes on with, -1 behind the last; num_tokens: [B] int32 how many, 1 to counts + 1.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase


@triton.jit
def spec_verify_kernel(drafts, counts, drawn, first, tokens, num_tokens, N, PLACES: tl.constexpr):
    sequence = tl.program_id(0)
    place = tl.arange(0, PLACES)
    count = tl.load(counts + sequence)
    draft = tl.load(drafts + sequence * N + place, mask=place < count, other=-1)
    own = tl.load(drawn + tl.load(first + sequence) + place, mask=place <= count, other=-1)
    differs = (draft != own) | (own < 0) | (place >= count)
    last = tl.min(tl.where(differs, place, PLACES), 0)
    tl.store(tokens + sequence * (N + 1) + place, tl.where(place <= last, own, -1), mask=place <= N)
    tl.store(num_tokens + sequence, last + 1)


def spec_verify(
    drafts: torch.Tensor,
    counts: torch.Tensor,
    drawn: torch.Tensor,
    first: torch.Tensor,
    tokens: torch.Tensor,
    num_tokens: torch.Tensor,
) -> None:
    sequences, most = drafts.shape
    places = triton.next_power_of_2(most + 1)
    spec_verify_kernel[(sequences,)](drafts, counts, drawn, first, tokens, num_tokens, most, PLACES=places, num_warps=1)


def aot_cases() -> list[AotCase]:
    signature = {name: "*i32" for name in ("drafts", "counts", "drawn", "first", "tokens", "num_tokens")}
    return [
        AotCase(
            "spec_verify",
            spec_verify_kernel,
            {**signature, "N": "i32"},
            {"PLACES": 8},
            num_warps=1,
            max_registers=40,
            max_shared=64,
        )
    ]
