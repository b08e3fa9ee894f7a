"""The four workloads every engine is measured on. Token ids only, fixed by seeds; outputs always run to their length.

W1 one stream: prompt 128, generate 128        W2 prefill: prompt 2048, generate 8
W3 mixed: 32 requests at once, prompts uniform 64-512, outputs uniform 16-256
W4 shared prefix: 16 requests at once sharing 1024 tokens, 32 of their own, generate 64
"""

from __future__ import annotations

import random

Request = tuple[list[int], int]


def _ids(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(1000, 30000) for _ in range(count)]


def w1(run: int) -> list[Request]:
    return [(_ids(random.Random(100 + run), 128), 128)]


def w2(run: int) -> list[Request]:
    return [(_ids(random.Random(200 + run), 2048), 8)]


def w3(run: int) -> list[Request]:
    rng = random.Random(0)
    shapes = [(rng.randint(64, 512), rng.randint(16, 256)) for _ in range(32)]
    rng = random.Random(300 + run)  # the same shapes in each run, fresh tokens: nothing is reused between runs
    return [(_ids(rng, prompt), output) for prompt, output in shapes]


def w4(run: int) -> list[Request]:
    rng = random.Random(400 + run)
    prefix = _ids(rng, 1024)
    return [(prefix + _ids(rng, 32), 64) for _ in range(16)]


WORKLOADS = {"W1": w1, "W2": w2, "W3": w3, "W4": w4}
