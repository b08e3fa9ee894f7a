"""The question: what does rounding activations to e4m3 cost, beside rounding weights alone?

    python benchmarks/e4m3_activations.py [MODEL] [--text FILE] [--tokens 512]

By the reference (numpy), so on any machine: divergence from the model as it is, in nats a token, agreement of the
likeliest token, and perplexity.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from albireo.api.sources.checkpoint_source import CheckpointSource
from albireo.api.sources.locate import locate_model
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.passes import narrow_activations
from albireo.compiler.pipeline import Pass, run_passes
from albireo.models import open_checkpoint
from albireo.quantization.schemes import Precision
from albireo.text.tokenizer import Tokenizer
from albireo.verify.text import SAMPLE

BLOCK = 16
KINDS: tuple[tuple[str, str | None, list[Pass]], ...] = (
    ("as it is", None, []),
    ("fp8-a16", "fp8", []),
    ("fp8", "fp8", [narrow_activations.run]),
    ("int8", "int8", []),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--text", type=Path, default=SAMPLE)
    parser.add_argument("--tokens", type=int, default=512)
    args = parser.parse_args()
    directory = locate_model(args.model)
    ids = Tokenizer.from_directory(directory).encode(args.text.read_text())[: args.tokens]
    exact = None
    for name, scheme, passes in KINDS:
        found = _log_probabilities(directory, scheme, passes, ids)
        exact = found if exact is None else exact
        divergence = float((np.exp(exact) * (exact - found)).sum(axis=1).mean())
        same = float((exact.argmax(axis=1) == found.argmax(axis=1)).mean())
        perplexity = float(np.exp(-found[np.arange(len(ids) - 1), ids[1:]].mean()))
        print(f"{name:8} KL {divergence:.5f} nats, top-1 {same:.3f}, perplexity {perplexity:.3f}, {len(ids)} tokens")


def _log_probabilities(directory: Path, scheme: str | None, passes: list[Pass], ids: list[int]) -> np.ndarray:
    """[tokens, V] float64, of one sequence in one step."""
    graph = CheckpointSource(directory, "bfloat16", precision=Precision(scheme)).graph(len(ids))
    graph, _ = run_passes(graph, passes)
    with open_checkpoint(directory, graph) as checkpoint:
        weights = {name: checkpoint.tensor(name).to_float32() for name in checkpoint.names}
    count, num_blocks = len(ids), -(-len(ids) // BLOCK)
    at, none = np.arange(count, dtype=np.int32), np.zeros(0, np.int32)
    step = StepInputs(
        token_ids=np.array(ids, np.int32),
        positions=at,
        slots=at + np.int32(BLOCK),
        query_start=np.array([0, count], np.int32),
        context_len=np.array([count], np.int32),
        block_table=np.arange(1, num_blocks + 1, dtype=np.int32)[None],
        logit_rows=at,
        top_rows=none,
    )
    logits = interpret(graph, step, weights, ReferenceKV(num_blocks + 1, BLOCK, "bfloat16"))["logits"].astype(
        np.float64
    )
    logits -= logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


if __name__ == "__main__":
    main()
