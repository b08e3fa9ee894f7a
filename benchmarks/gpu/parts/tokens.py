"""The bundled model in float32: requests through the engine, against the graph's definition in numpy.

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
BLOCK = 16


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.open  # noqa: F401 - where it is missing the part is skipped

    yield from attempt("against the definition", lambda: _against_numpy(setup))
    yield from attempt("against the CPU", lambda: _against_cpu(setup))


def _story(setup: Setup, maxima: dict[str, int], positions: int, blocks: int) -> tuple[Any, Any, dict[str, Any]]:
    """The bundled model in float32: on this device; its graph; and its weights, for the definition."""
    import albireo.models
    from albireo.backends.cuda.catalog import CudaCatalog
    from albireo.backends.cuda.open import open_model
    from albireo.compiler.pipeline import compile_graph
    from albireo.models import build_graph, load_config, open_checkpoint

    directory = Path(albireo.models.__file__).parent / "bundled" / "story"
    graph = build_graph(load_config(directory).with_dtype("float32"), positions)
    program = compile_graph(graph, CudaCatalog(), maxima=maxima, block_size=BLOCK, max_positions=positions)
    checkpoint = open_checkpoint(directory, graph)
    try:
        weights = {name: checkpoint.tensor(name).to_float32() for name in checkpoint.names}
        model = open_model(program, checkpoint, num_blocks=blocks, max_positions=positions, device=setup.device)
    finally:
        checkpoint.close()
    return model, graph, weights


#: Greedy and drawn, with all that changes or tells logits.
_ASKS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.8, "seed": 5, "top_p": 0.9},
    {"temperature": 1.0, "seed": 6, "top_k": 30, "logprobs": 2},
    {"temperature": 0.9, "seed": 7, "repetition_penalty": 1.3, "presence_penalty": 0.4},
    {"temperature": 0.0, "logit_bias": {9: 4.0}, "logprobs": 0},
    {"temperature": 1.2, "seed": 8, "min_p": 0.02},
)


def _against_numpy(setup: Setup) -> Iterator[Row]:
    """Requests beside each other, prompts in pieces, steps ahead, drawn here; the other is drawn by the host."""
    from model import vocabulary
    from traffic import Asked, served, settings_of

    from albireo.backends.reference.interpret import interpret
    from albireo.backends.reference.kv import ReferenceKV
    from albireo.backends.step_outputs import StepOutputs
    from albireo.execution.runner import Runner

    num, output, positions = setup.pick((len(_ASKS), 20, 64), (1, 1, 16))
    step_tokens = setup.pick(24, 12)
    blocks = 1 + num * -(-positions // BLOCK)
    maxima = {"T": step_tokens, "R": step_tokens, "G": num}
    model, graph, weights = _story(setup, maxima, positions, blocks)
    cache = ReferenceKV(blocks, BLOCK, "float32")

    class Defined:
        def run(self, inputs: Any) -> StepOutputs:
            return StepOutputs(**interpret(graph, inputs, weights, cache).outputs)

        def copy_blocks(self, pairs: object) -> None:
            raise NotImplementedError("one continuation each")

    rng, vocab = np.random.default_rng(2), vocabulary(model)
    asked = [
        Asked([1, *rng.integers(3, vocab, int(rng.integers(2, setup.pick(40, 4)))).tolist()], output, more)
        for more in _ASKS[:num]
    ]
    settings = settings_of(model, num, step_tokens, positions)
    defined: Any = Defined()
    wanted = served(model, asked, settings, Runner(defined, vocab, BLOCK).execute)
    for name in setup.pick(("as they come", "recorded ahead"), ("as they come",)):
        found = served(model, asked, settings)
        same = [ours == theirs for ours, theirs in zip(found.tokens, wanted.tokens, strict=True)]
        off = max(
            (
                abs(a - b)
                for some, others in zip(found.logprobs, wanted.logprobs, strict=True)
                for a, b in zip(some, others, strict=True)
            ),
            default=0.0,
        )
        wrong = "".join(f"; request {i} {_ASKS[i]}" for i, is_same in enumerate(same) if not is_same)
        note = f"log-probabilities differ by {off:.1e}{wrong}"
        yield Row(f"requests as by the definition, {name}, of {num}", sum(same), "", note, all(same) and off < 1e-3)
        while model.record_next():
            pass


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
