"""feed_drawn: the tokens that the step before drew become those of this step, without the host.

token_ids, sources: [T] int32, of a step of one token a sequence: token i is drawn[sources[i]], -1: the one that is
there. drawn: int32; -1 (a row that could not be drawn from, which whoever drew is told) feeds token 0. One launch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase

_BLOCK = 256


@triton.jit(do_not_specialize=["count"])
def feed_drawn_kernel(token_ids, sources, drawn, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(sources + at, mask=at < count, other=-1)
    token = tl.load(drawn + source, mask=source >= 0, other=0)
    tl.store(token_ids + at, tl.maximum(token, 0), mask=source >= 0)


def feed_drawn(token_ids: torch.Tensor, sources: torch.Tensor, drawn: torch.Tensor) -> None:
    count = len(sources)
    feed_drawn_kernel[(triton.cdiv(count, _BLOCK),)](
        token_ids, sources, drawn, count, BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=False
    )


def aot_cases() -> list[AotCase]:
    signature = {"token_ids": "*i32", "sources": "*i32", "drawn": "*i32", "count": "i32"}
    return [AotCase("feed_drawn", feed_drawn_kernel, signature, {"BLOCK": _BLOCK}, max_registers=24, max_shared=0)]
