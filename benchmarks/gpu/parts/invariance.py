"""Bits of a request are the same alone and beside others, in pieces, recorded or not: through the engine, end to end.

Two layers in the shape of Llama-3.1-8B. Compared are tokens and, to the last bit, their log-probabilities, which any
other bit in a row of logits changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from report import Row
from setup import Setup, attempt

if TYPE_CHECKING:
    from traffic import Asked

    from albireo.backends.cuda.capture import Recorder
    from albireo.backends.cuda.model import CudaModel

NUM, OUTPUT, LONGEST = 12, 24, 512


def run(setup: Setup) -> Iterator[Row]:
    from model import ENCODINGS

    import albireo.engine.engine  # noqa: F401 - where it is missing the part is skipped

    kinds = [(weights, None) for weights in ENCODINGS] + [(weights, "fp8") for weights in ("bf16", "fp8")]
    for weights, kv_dtype in setup.pick(kinds, kinds[:1]):
        args = (setup, weights, kv_dtype)
        yield from attempt(f"{weights}, cache {kv_dtype}", lambda args=args: _all(*args))


def _requests(setup: Setup) -> list[Asked]:
    from traffic import Asked

    num, output, longest, vocab = setup.pick((NUM, OUTPUT, 400, 128_256), (2, 2, 6, 160))
    rng = np.random.default_rng(5)
    kinds = ({}, {"temperature": 0.8, "top_k": 50, "top_p": 0.9}, {"temperature": 1.0})
    return [
        Asked(
            rng.integers(3, vocab, int(rng.integers(3, longest))).tolist(),
            output,
            {"logprobs": 0, "seed": i} | kinds[i % len(kinds)],
        )
        for i in range(num)
    ]


def _all(setup: Setup, weights: str, kv_dtype: str | None) -> Iterator[Row]:
    from model import blocks_for, random_model
    from traffic import served, settings_of

    from albireo.backends.cuda.capture import DirectLaunches

    asked, (longest, step_tokens, piece) = _requests(setup), setup.pick((LONGEST, 2048, 48), (64, 16, 5))
    num = len(asked)

    def model_of(recorder: Recorder | None = None) -> CudaModel:
        maxima, blocks = {"T": step_tokens, "R": num, "G": num}, blocks_for(longest, num)
        return random_model(setup, weights, maxima, longest, blocks, recorder, layers=2, kv_dtype=kv_dtype)

    model = model_of()
    first = served(model, asked, settings_of(model, num, step_tokens, longest))
    label = f"{weights}, cache of {kv_dtype or 'bfloat16'}"

    def row(name: str, seats: int, tokens: int) -> Row:
        differ = first.differences(served(model, asked, settings_of(model, seats, tokens, longest)))
        return Row(
            f"{label}: {name}, of {num}", num - len(differ), "", "; ".join(differ[:3]), not differ or setup.is_dry
        )

    yield row("alone", 1, step_tokens)
    if not setup.is_dry:
        yield row("prompts in pieces", num, piece)
        number = sum(1 for _ in iter(model.record_next, False))
        yield row(f"{number} steps recorded ahead", num, step_tokens)
    del model
    setup.release()
    model = model_of(DirectLaunches())
    yield row("launched call by call", num, step_tokens)
    setup.release()
