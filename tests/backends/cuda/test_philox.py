"""Random numbers inside kernels are those of albireo/sampling/rng.py, to the bit."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.philox import philox4x32, uniform
from albireo.sampling import rng


@triton.jit
def uniform_kernel(seeds, positions, out, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, uniform(tl.load(seeds + at), tl.load(positions + at)))


@triton.jit
def philox_kernel(words, out):
    at = tl.program_id(0) * 6
    c0, c1, c2, c3 = tl.load(words + at), tl.load(words + at + 1), tl.load(words + at + 2), tl.load(words + at + 3)
    w0, w1, w2, w3 = philox4x32(c0, c1, c2, c3, tl.load(words + at + 4), tl.load(words + at + 5))
    at = tl.program_id(0) * 4
    tl.store(out + at, w0)
    tl.store(out + at + 1, w1)
    tl.store(out + at + 2, w2)
    tl.store(out + at + 3, w3)


def test_the_published_vectors() -> None:
    # of Random123's kat_vectors
    full, pi = [0xFFFFFFFF] * 6, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0]
    words = torch.tensor([[0] * 6, full, pi], dtype=torch.uint32)
    out = torch.zeros((3, 4), dtype=torch.uint32)
    philox_kernel[(3,)](words, out)
    assert out.tolist() == [
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ]


def test_numbers_are_those_of_the_host() -> None:
    seeds = [0, 1, -1, 2**63 - 1, -(2**63), 123456789012345678, -42, 7]
    positions = [0, 1, 2, 3, 2**32 - 1, 2**32, 2**40 + 17, 8191]
    out = torch.zeros(8, dtype=torch.float64)
    uniform_kernel[(1,)](torch.tensor(seeds), torch.tensor(positions), out, N=8)
    assert out.tolist() == [rng.uniform(*pair) for pair in zip(seeds, positions, strict=True)]
