"""Linears that start before the launch in front of them has ended, which is programmatic dependent launch of Hopper.

Used by kernels of linears for few tokens, at their beginning: weights are constants, so the first of them can be
brought into the second-level cache while other programs still compute what is multiplied with them. ENABLED is the one
switch; benchmarks turn it. A kernel launched so reads and writes nothing but constants before start_early() has
returned, which is when all launches before it are complete: it waits for the one in front, which waited for the one
before. Kernels launched otherwise wait for everything, as ever.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from albireo.backends.cuda.chip import chip_of
from albireo.backends.cuda.kernels.parts.arithmetic import INTERPRETED

#: Whether linears of few tokens start early, where the GPU can. Not measured yet, so not.
ENABLED = False
#: Lines of each weight row that are fetched ahead: what the stages of a tile hold, about.
LINES = 4
_LINE = tl.constexpr(128)


def lines_ahead(device: torch.device) -> int:
    """LINES where kernels are to be launched so (launch_pdl), else 0."""
    return LINES if ENABLED and not INTERPRETED and chip_of(device).capability >= 90 else 0


@triton.jit
def start_early(row_at, last, LINES: tl.constexpr):
    """row_at: [ROWS] pointers to the weights that are read first, of which `last` more follow in a row.

    Waits for the launches before, then lets those behind start.
    """
    if LINES:
        ITEM: tl.constexpr = row_at.dtype.element_ty.primitive_bitwidth // 8
        at = tl.minimum(tl.arange(0, LINES) * (_LINE // ITEM), last)
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.b32 $0, 0;",
            "=r,l",
            [(row_at[:, None] + at[None, :]).to(tl.int64)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
        gdc_wait()
        gdc_launch_dependents()
