"""What recording a step as a CUDA graph is worth, and what recording costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch
from report import Row, target
from setup import Setup, attempt


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.model  # noqa: F401 - where it is missing the part is skipped

    yield from attempt("graphs", lambda: _graphs(setup))
    setup.release()
    yield from attempt("recording", lambda: _recording(setup))


def _graphs(setup: Setup) -> Iterator[Row]:
    from model import blocks_for, make_step, random_model, vocabulary

    from albireo.backends.cuda.capture import DirectLaunches

    context, layers = setup.pick(512, 20), 8
    batches = setup.pick((1, 64), (2,))
    most = batches[-1]
    maxima = {"T": most, "R": most, "G": most}
    found = {}
    for name, recorder in (("on", None), ("off", DirectLaunches())):
        model = random_model(
            setup, "bf16", maxima, setup.pick(1024, 64), blocks_for(context, most), recorder, layers=layers
        )
        vocab = vocabulary(model)
        for batch in batches:
            step = make_step(1, context - 1, batch, vocab)
            ids = model.run(step).top_ids.copy()
            times = []
            for _ in range(setup.pick(20, 1)):
                start = time.perf_counter()
                model.run(step)
                times.append(time.perf_counter() - start)
            found[name, batch] = (statistics.median(times), ids)
    for batch in batches:
        (on, ids), (off, others) = found["on", batch], found["off", batch]
        same = bool((ids[:, 0] == others[:, 0]).all())
        yield Row(f"{layers} layers, batch {batch}: on", on * 1e3, "ms", f"off {off * 1e3:.3f} ms", same)


def _recording(setup: Setup) -> Iterator[Row]:
    """All steps of 256 sequences at most, ahead of need; what they give is looked at in invariance.py."""
    from model import blocks_for, random_model

    most, context = setup.pick(256, 2), setup.pick(512, 20)
    maxima = {"T": setup.pick(8192, 16), "R": most, "G": most}
    model = random_model(setup, "bf16", maxima, setup.pick(1024, 64), blocks_for(context, most))
    free = _free(setup)
    times: dict[str, list[float]] = {"decoding": [], "with prompts": []}
    while (bucket := model._recordings.next()) is not None and setup.seconds_left > 5:
        start = time.perf_counter()
        model.record_next()
        if not setup.is_dry:
            torch.cuda.synchronize()
        times["decoding" if bucket.tokens is None else "with prompts"].append(time.perf_counter() - start)
    yield Row("memory of recordings", (free - _free(setup)) / 2**20, "MiB")
    for kind, each in times.items():
        middle, longest = statistics.median(each or [0.0]), max(each, default=0.0)
        note = f"one takes {middle * 1e3:.0f} ms, {longest * 1e3:.0f} at most"
        layers = model.program.kv.num_layers
        yield target(f"recording {len(each)} steps, {kind}, {layers} layers", sum(each), 10, "s", note, is_least=False)


def _free(setup: Setup) -> int:
    return 0 if setup.is_dry else torch.cuda.mem_get_info(setup.device)[0]
