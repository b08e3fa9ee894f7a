"""What recording a step as a CUDA graph is worth, and what recording costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from report import Row
from setup import Setup, attempt


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.model  # noqa: F401 - where it is missing the part is skipped

    yield from attempt("graphs", lambda: _graphs(setup))


def _graphs(setup: Setup) -> Iterator[Row]:
    from model import blocks_for, make_step, random_model

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
        vocab = model.program.constants[next(iter(model.program.constants))].rows
        for batch in batches:
            step = make_step(1, context - 1, batch, vocab)
            ids = model.run(step).top_ids.copy()
            times = []
            for _ in range(setup.pick(20, 1)):
                start = time.perf_counter()
                model.run(step)
                times.append(time.perf_counter() - start)
            found[name, batch] = (statistics.median(times), ids)
        if name == "on" and not setup.is_dry:
            start = time.perf_counter()
            number = sum(1 for _ in iter(model.record_next, False))
            seconds = time.perf_counter() - start
            yield Row(f"recording {number} steps of {layers} layers", seconds, "s")
    for batch in batches:
        (on, ids), (off, others) = found["on", batch], found["off", batch]
        same = bool((ids[:, 0] == others[:, 0]).all())
        yield Row(f"{layers} layers, batch {batch}: on", on * 1e3, "ms", f"off {off * 1e3:.3f} ms", same)
