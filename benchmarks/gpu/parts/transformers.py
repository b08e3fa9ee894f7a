"""64 requests at once, by transformers on the same GPU and through our engine: the same Llama-3.1-8B shape in bfloat16.

Prompts and outputs have random lengths, as requests have; every output's length is known to both. transformers takes
them as one batch, padded on the left, until the longest output is done, and tokens that nobody asked for do not count;
a second workload has equal lengths, where nothing is wasted. `eager`: generate() as it is; `static, compiled`: with a
static cache, which transformers compiles where that works. The weights are random, so neither text means anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from report import Row, target
from setup import Setup, attempt

REQUESTS, LONGEST_PROMPT, LONGEST_OUTPUT = 64, 512, 256
#: Times as fast as transformers that we are to be.
TARGET = 10.0
#: Compiling 32 layers takes about a minute; with less than this left it is not begun.
COMPILE_SECONDS = 75


def run(setup: Setup) -> Iterator[Row]:
    import transformers  # noqa: F401 - where it is missing the part is skipped

    import albireo.engine.engine  # noqa: F401 - and so where this is

    ours: dict[str, float] = {}
    for name, asked in _workloads(setup).items():
        yield from attempt(f"ours, {name}", lambda name=name, asked=asked: _ours(setup, name, asked, ours))
    setup.release()
    yield from attempt("transformers", lambda: _theirs(setup, ours))


def _workloads(setup: Setup) -> dict[str, Any]:
    from traffic import Asked

    num, longest, output = setup.pick((REQUESTS, LONGEST_PROMPT, LONGEST_OUTPUT), (2, 6, 3))
    vocab = setup.pick(128_256, 160)
    rng = np.random.default_rng(7)
    mixed = [
        Asked(rng.integers(3, vocab, int(rng.integers(longest // 8 + 1, longest + 1))).tolist(), int(length))
        for length in rng.integers(output // 8 + 1, output + 1, num)
    ]
    equal = [Asked(rng.integers(3, vocab, longest).tolist(), output) for _ in range(num)]
    return {"mixed lengths": mixed} | setup.pick({"equal lengths": equal}, {})


def _ours(setup: Setup, name: str, asked: list[Any], found: dict[str, float]) -> Iterator[Row]:
    from model import blocks_for, random_model
    from traffic import served, settings_of

    longest = max(len(one.prompt) + one.output for one in asked)
    step_tokens, num = setup.pick(8192, 16), len(asked)
    maxima = {"T": step_tokens, "R": num, "G": num}
    positions = setup.pick(1024, 64)
    model = random_model(setup, "bf16", maxima, positions, blocks_for(positions, num))
    settings = settings_of(model, num, step_tokens, longest + 1)
    seconds = min(served(model, asked, settings).seconds for _ in range(setup.pick(2, 1)))
    tokens = sum(one.output for one in asked)
    found[name] = tokens / seconds
    yield Row(f"ours, {name}", found[name], "tok/s", f"{tokens} tokens in {seconds:.2f} s")


def _theirs(setup: Setup, ours: dict[str, float]) -> Iterator[Row]:
    from model import _TINY, LLAMA_8B
    from transformers import LlamaConfig, LlamaForCausalLM

    config = {**LLAMA_8B, **setup.pick({}, _TINY)}
    shape = {name: value for name, value in config.items() if name not in ("architectures", "model_type")}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(setup.device):
            model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    finally:
        torch.set_default_dtype(before)
    kinds: dict[str, dict[str, Any]] = {"eager": {}, "static, compiled": {"cache_implementation": "static"}}
    for kind, options in kinds.items():
        for name, asked in _workloads(setup).items():
            if options and (setup.is_dry or setup.seconds_left < COMPILE_SECONDS):
                yield Row(f"transformers {kind}, {name}", note="not tried: " + ("on a CPU" if setup.is_dry else "late"))
                continue
            args = (setup, model, asked, options, f"transformers {kind}, {name}", ours.get(name))
            yield from attempt(args[4], lambda args=args: _generate(*args))


def _generate(
    setup: Setup, model: Any, asked: list[Any], options: dict[str, Any], name: str, ours: float | None
) -> Iterator[Row]:
    longest, most = max(len(one.prompt) for one in asked), max(one.output for one in asked)
    ids = torch.zeros((len(asked), longest), dtype=torch.long)
    for row, one in zip(ids, asked, strict=True):
        row[longest - len(one.prompt) :] = torch.tensor(one.prompt)
    ids = ids.to(setup.device)
    mask = (torch.arange(longest)[None] >= torch.tensor([[longest - len(one.prompt)] for one in asked])).long()
    seconds = []
    # the first compiles, or warms what is there
    for _ in range(setup.pick(2, 1)):
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=mask.to(setup.device),
                do_sample=False,
                min_new_tokens=most,
                max_new_tokens=most,
                pad_token_id=0,
                **options,
            )
        if not setup.is_dry:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    tokens = sum(one.output for one in asked)
    rate = tokens / seconds[-1]
    note = f"{tokens} tokens in {seconds[-1]:.2f} s, the first time {seconds[0]:.1f} s"
    yield Row(name, rate, "tok/s", note, is_good=out.shape[1] == longest + most)
    if ours is not None:
        yield target(f"times {name}", ours / rate, TARGET)
