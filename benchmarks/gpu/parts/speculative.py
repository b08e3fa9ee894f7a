"""Drafts by prompt lookup, with against without: output that goes in circles, and text in which nothing repeats.

First what a step of one sequence costs by its rows, which drafts have to pay. Then requests through the engine, each
run twice, of which the second counts: what is met is recorded by then. Both ways must give the same tokens. At last the
model is its own draft model: it costs what it brings, but all of its drafts must come true.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from report import Row, target
from setup import Setup, attempt

if TYPE_CHECKING:
    from albireo.backends.cuda.model import CudaModel

ROWS = (1, 2, 4, 6, 8, 12, 16)
#: What greedy decoding goes in circles among, and of what the rest is said to be certain.
CIRCLES: dict[str, Any] = {"allowed_token_ids": [21, 22, 23]}
KINDS: dict[str, dict[str, Any]] = {"circles": CIRCLES, "random": {"temperature": 1.0, "seed": 1}}
_STEP_TOKENS = 2048


def run(setup: Setup) -> Iterator[Row]:
    from model import random_model

    from albireo.speculative_config import MAX_DRAFTS

    batches = setup.pick((1, 16), (2,))
    rows = batches[-1] + MAX_DRAFTS
    longest = setup.pick(1024, 64)
    maxima = {"T": setup.pick(_STEP_TOKENS, 80), "R": rows, "G": rows}
    model = random_model(setup, "bf16", maxima, longest, 1 + batches[-1] * longest // 16)
    yield from attempt("rows of a step", lambda: _rows(setup, model))
    for batch in batches:
        for kind in setup.pick(tuple(KINDS), ("circles",)):
            name = f"{kind}, {batch} at once"
            yield from attempt(
                name, lambda kind=kind, batch=batch, name=name: _requests(setup, model, kind, batch, name)
            )
    yield from attempt("the model guesses for itself", lambda: _itself(setup, model))


def _itself(setup: Setup, model: CudaModel) -> Iterator[Row]:
    """Its weights once more, with a KV cache of their own: drafts are tried now and then, and drawn as tokens are."""
    from model import BLOCK_SIZE, vocabulary
    from traffic import Asked, served, settings_of

    from albireo.backends.cuda.model import CudaModel
    from albireo.execution.ahead import AheadRunner
    from albireo.speculative.proposer import Method
    from albireo.speculative_config import SpeculativeConfig

    prompt, output, longest = setup.pick((40, 160, 1024), (2, 12, 64))
    weights = (model.program, model._matrices, model._vectors)
    draft = CudaModel(*weights, num_blocks=model.num_blocks, max_positions=longest, device=model.device)
    runner = AheadRunner(draft, vocabulary(model), BLOCK_SIZE, longest)
    method = Method(1, execute=runner.execute, max_positions=longest, vocab_size=vocabulary(model))
    config = SpeculativeConfig(method="draft_model", quantization="int8")
    rng = np.random.default_rng(7)
    for kind in setup.pick(tuple(KINDS), ("random",)):
        asked = [Asked(rng.integers(30, vocabulary(model), prompt).tolist(), output, KINDS[kind]) for _ in range(2)]
        plain = served(model, asked, settings_of(model, 2, setup.pick(_STEP_TOKENS, 80), longest))
        settings = settings_of(model, 2, setup.pick(_STEP_TOKENS, 80), longest, speculative=config)
        drafted = served(model, asked, settings, method=method)
        differ, stats = plain.differences(drafted), drafted.stats
        is_good = not differ and stats.num_accepted_tokens == stats.num_draft_tokens
        note = f"{stats.num_accepted_tokens} of {stats.num_draft_tokens} drafts came true, {stats.num_steps} steps"
        ratio = plain.seconds / drafted.seconds
        yield Row(f"the model guesses for itself: {kind}", ratio, "x", "; ".join([note, *differ[:2]]), is_good=is_good)


def _rows(setup: Setup, model: CudaModel) -> Iterator[Row]:
    """Of one sequence: drafts behind its last token, judged there."""
    from model import BLOCK_SIZE

    from albireo.execution.drafts import spread
    from albireo.execution.inputs import pack_step
    from albireo.params import SamplingParams
    from albireo.step import SampleTask, SequenceWork, StepPlan

    context = setup.pick(512, 8)
    table = list(range(1, 2 + (context + max(ROWS)) // BLOCK_SIZE))
    times = {}
    for rows in setup.pick(ROWS, ROWS[:2]):
        task = SampleTask(0, SamplingParams(temperature=0.0), 1, [5] * context, [])
        work = SequenceWork(0, [5] * rows, context - 1, (table,), (task,), num_drafts=rows - 1)
        step = pack_step(StepPlan(0, [work], rows, num_drafts=rows - 1), BLOCK_SIZE, is_top_greedy=True)
        tasks, drawn = spread(step)
        found = []
        for _ in range(setup.pick(20, 1)):
            start = time.perf_counter()
            model.collect(model.submit(step.inputs, tasks, drawn, has_drafts=rows > 1))
            found.append(time.perf_counter() - start)
        times[rows] = statistics.median(found)
    for rows, seconds in times.items():
        yield Row(f"a step of {rows} rows", seconds * 1e3, "ms", f"{seconds / times[1]:.3f} of one row")


def _requests(setup: Setup, model: CudaModel, kind: str, batch: int, name: str) -> Iterator[Row]:
    from model import vocabulary
    from traffic import Asked, served, settings_of

    from albireo.speculative_config import SpeculativeConfig

    rng = np.random.default_rng(batch)
    prompt, output, longest = setup.pick((200, 160, 1024), (6, 8, 64))
    asked = [Asked(rng.integers(30, vocabulary(model), prompt).tolist(), output, KINDS[kind]) for _ in range(batch)]
    runs = {}
    for way, config in (("without", None), ("with", SpeculativeConfig(method="ngram"))):
        settings = settings_of(model, batch, setup.pick(_STEP_TOKENS, 80), longest, speculative=config)
        for _ in range(setup.pick(2, 1)):
            runs[way] = served(model, asked, settings)
    plain, drafted = runs["without"], runs["with"]
    differ, stats = plain.differences(drafted), drafted.stats
    ratio = plain.seconds / drafted.seconds
    note = (
        f"{batch * output / drafted.seconds:,.0f} tok/s with, {batch * output / plain.seconds:,.0f} without; "
        f"{stats.num_accepted_tokens} of {stats.num_draft_tokens} drafts came true, {stats.num_steps} steps"
    )
    yield Row(f"with against without: {name}", ratio, "x", "; ".join([note, *differ[:2]]), is_good=not differ)
    if kind == "random":
        yield target(f"drafts cost nothing where nothing repeats, {batch} at once", ratio, 0.98)
