"""The chain of additions of weights that are floats of 4 bits (fp4.gG) and inputs of 16; see chain.py.

A code e2m1 has two significant bits and the scale of its group one (e8m0, of 32) or four (e4m3, of 16), so that
bfloat16 holds their product exactly: numbers are made of codes, and all of k is one chain. The scale of a channel comes
behind it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import INTERP, awaited, mma
from albireo.backends.cuda.kernels.parts.microscaled import from_gamma
from albireo.backends.cuda.kernels.parts.operands import inputs_of, words_of
from albireo.backends.cuda.matrix import PLANE

_PLANE = tl.constexpr(PLANE)


@triton.jit
def chain_of_fp4(
    weight_at, x_at, at_k, is_token, first, end, k, gamma, row, num_rows,
    GROUP_K: tl.constexpr, EVEN_K: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_K: tl.constexpr,
    first_row, first_token, TMA: tl.constexpr, X_TMA: tl.constexpr, ARE_MANY: tl.constexpr,
):  # fmt: skip
    """A step is one word of each row and plane, 256 inputs. gamma: [groups, num_rows] uint8; four of them are on their
    way while the four before are used. Of a group behind the last one those of the last, times zeros.
    """
    OF_PLANE: tl.constexpr = _PLANE // GROUP_K  # groups
    acc = tl.zeros((ROWS, TOKENS), tl.float32)
    last = (k - 1) // GROUP_K
    g0, g1, g2, g3 = _gammas(gamma, first // GROUP_K, last, num_rows, row)
    for start in range(first, end, BLOCK_K):
        # a multiple, said here: else 8 bytes are loaded at a time
        word = words_of(weight_at, tl.multiple_of(start // 8, 4), first_row, TMA)
        for four in tl.static_range(BLOCK_K // (4 * GROUP_K)):
            group = start // GROUP_K + 4 * four
            if ARE_MANY:
                # loaded here they come in the layout of the matrix unit; else a would go through shared memory
                g0, g1, g2, g3 = _gammas(gamma, group, last, num_rows, row)
                next_0, next_1, next_2, next_3 = g0, g1, g2, g3
            else:
                next_0, next_1, next_2, next_3 = _gammas(gamma, group + 4, last, num_rows, row)
            for i in tl.static_range(4 // OF_PLANE):
                if OF_PLANE == 1:
                    scales = _spread(g0 if i == 0 else g1 if i == 1 else g2 if i == 2 else g3, GROUP_K)
                else:
                    is_first = (tl.arange(0, _PLANE) < GROUP_K)[None, :]
                    scales = tl.where(
                        is_first, _spread(g0 if i == 0 else g2, GROUP_K), _spread(g1 if i == 0 else g3, GROUP_K)
                    )
                at = start + (four * (4 // OF_PLANE) + i) * _PLANE
                b = inputs_of(x_at, at_k, is_token, at, k, first_token, EVEN_K, X_TMA)
                acc = mma(fp4_to_bfloat16(word, scales, four * (4 // OF_PLANE) + i), b, acc)
                if TMA:
                    # else codes are widened beside this product, and ptxas waits for each instruction of it
                    acc = awaited(acc)
            g0, g1, g2, g3 = next_0, next_1, next_2, next_3
    return acc


@triton.jit
def _gammas(gamma, group, last, num_rows, row):
    """Those of four groups from one on."""
    g0 = tl.load(gamma + tl.minimum(group, last) * num_rows + row)
    g1 = tl.load(gamma + tl.minimum(group + 1, last) * num_rows + row)
    g2 = tl.load(gamma + tl.minimum(group + 2, last) * num_rows + row)
    g3 = tl.load(gamma + tl.minimum(group + 3, last) * num_rows + row)
    return g0, g1, g2, g3


@triton.jit
def _spread(gamma, GROUP_K: tl.constexpr):
    """[rows, PLANE] bfloat16: exact, since a scale has four significant bits at most."""
    return tl.broadcast_to(from_gamma(gamma, GROUP_K).to(tl.bfloat16)[:, None], (gamma.shape[0], _PLANE))


@triton.jit
def fp4_to_bfloat16(word, scales, PLANE_AT: tl.constexpr):
    """The numbers of a plane's e2m1 codes in words [N, W], times scales [N, W], bfloat16.

    A code's bits in a bfloat16's places stand for 2^-126 of it, small ones too.
    """
    if INTERP:
        code = (word >> (4 * PLANE_AT)) & 15
        bits = ((code & 7) << 22) | ((code & 8) << 28)
        number = bits.to(tl.float32, bitcast=True) * 8.507059173023462e37
        return (number * scales.to(tl.float32)).to(tl.bfloat16)
    BYTE: tl.constexpr = PLANE_AT // 2
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 x, y, one, none;
        mov.b32 one, 0x7E807E80;
        mov.b32 none, 0x80008000;
        prmt.b32 x, $1, $2, """
        + ("0x0400;" if BYTE == 0 else "0x0501;" if BYTE == 1 else "0x0602;" if BYTE == 2 else "0x0703;")
        + ("shr.b32 x, x, 4;" if PLANE_AT % 2 else "")
        + """
        shl.b32 y, x, 12;
        shl.b32 x, x, 6;
        and.b32 x, x, 0x01C001C0;
        lop3.b32 x, y, 0x80008000, x, 0xEA;
        fma.rn.bf16x2 x, x, one, none;
        fma.rn.bf16x2 $0, x, $3, none;
        }""",
        "=r,r,r,r",
        [word, scales],
        dtype=tl.bfloat16,
        is_pure=True,
        pack=2,
    )
