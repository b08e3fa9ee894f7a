"""The bundled model in float32: greedy tokens of this device against those of the graph's definition in numpy.

And, where the native core is built, `LLM(device="cuda")` against `LLM(device="cpu")`, greedy and sampled.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from report import Row
from setup import Setup, attempt

PROMPT = "Once upon a time, a little fox"


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.open  # noqa: F401 - where it is missing the part is skipped

    yield from attempt("against the definition", lambda: _against_numpy(setup))
    yield from attempt("against the CPU", lambda: _against_cpu(setup))


def _against_numpy(setup: Setup) -> Iterator[Row]:
    import albireo.models
    from albireo.backends.cuda.catalog import CudaCatalog
    from albireo.backends.cuda.open import open_model
    from albireo.backends.reference.interpret import interpret
    from albireo.backends.reference.kv import ReferenceKV
    from albireo.compiler.pipeline import compile_graph
    from albireo.models import build_graph, load_config, open_checkpoint

    directory = Path(albireo.models.__file__).parent / "bundled" / "story"
    positions, block = setup.pick(64, 16), 16
    config = load_config(directory).with_dtype("float32")
    graph = build_graph(config, positions)
    program = compile_graph(
        graph, CudaCatalog(), maxima={"T": 16, "R": 16, "G": 1}, block_size=block, max_positions=positions
    )
    blocks = 1 + -(-positions // block)
    checkpoint = open_checkpoint(directory, graph)
    try:
        weights = {name: checkpoint.tensor(name).to_float32() for name in checkpoint.names}
        model = open_model(program, checkpoint, num_blocks=blocks, max_positions=positions, device=setup.device)
    finally:
        checkpoint.close()
    cache = ReferenceKV(blocks, block, "float32")
    prompt = [1, *np.random.default_rng(1).integers(3, config.vocab_size, setup.pick(7, 2)).tolist()]
    new, computed, largest, ours, theirs = prompt, 0, 0.0, [], []
    for _ in range(setup.pick(48, 1)):
        step = _one(new, computed, blocks, block)
        got, wanted = model.run(step).logits, interpret(graph, step, weights, cache)["logits"]
        largest = max(largest, float(np.abs(got - wanted).max() / np.abs(wanted).max()))
        ours.append(int(got[-1].argmax()))
        theirs.append(int(wanted[-1].argmax()))
        computed += len(new)
        # both go on with the definition's token, so that one difference stays one
        new = [theirs[-1]]
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    yield Row(f"tokens as in numpy, of {len(ours)}", same, "", f"logits differ by {largest:.1e}", same == len(ours))


def _one(new: list[int], computed: int, blocks: int, block: int) -> object:
    from albireo.backends.step_inputs import StepInputs

    def ints(values: object) -> np.ndarray:
        return np.ascontiguousarray(values, np.int32)

    positions = np.arange(computed, computed + len(new))
    return StepInputs(
        token_ids=ints(new),
        positions=ints(positions),
        slots=ints(positions + block),
        query_start=ints([0, len(new)]),
        context_len=ints([computed + len(new)]),
        block_table=ints(np.arange(1, blocks))[None],
        logit_rows=ints([len(new) - 1]),
        top_rows=ints([]),
    )


def _against_cpu(setup: Setup) -> Iterator[Row]:
    if setup.is_dry:
        return
    try:
        from albireo import LLM, SamplingParams
        from albireo.api.llm import LLM as _  # noqa: F401 - the name above is imported when it is used
    except ImportError as error:
        yield Row("against the CPU", note=f"left out: {error}")
        return
    kinds: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0.0}, "seed 7": {"seed": 7, "top_p": 0.95}}
    texts = {}
    for device in ("cpu", "cuda"):
        llm = LLM(device=device, dtype="float32")
        texts[device] = [
            output.outputs[0].token_ids
            for params in kinds.values()
            for output in llm.generate([PROMPT, "The sea"], SamplingParams(max_tokens=100, **params))
        ]
    for i, name in enumerate(name for name in kinds for _ in range(2)):
        ours, theirs = list(texts["cuda"][i]), list(texts["cpu"][i])
        same = next((j for j, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(theirs))
        yield Row(f"tokens as on the CPU, {name}, of {len(theirs)}", same, "", is_good=ours == theirs)
