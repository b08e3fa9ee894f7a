"""Tiny engine directories, and ways to alter them as someone would who can also mend the hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from albireo import LLM, BuildConfig, SamplingParams, build
from tiny_layer_norm import with_changes
from tiny_models import make_checkpoint
from variants import tiny_of

PROMPTS = [[3, 4, 5, 6, 7, 8, 9], [11, 12, 13], list(range(2, 41))]
GREEDY = SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True, logprobs=3)


def make_engine(
    path: Path,
    model_type: str = "qwen3",
    dtype: str = "bfloat16",
    changes: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Path, Path]:
    """Checkpoint and engine directory of an architecture's tiny model."""
    config = with_changes(tiny_of(model_type), changes or {})
    checkpoint = make_checkpoint(path / "checkpoint", config, seed=5, dtype=dtype)
    build(checkpoint, path / "engine", BuildConfig(**options))
    return checkpoint, path / "engine"


def run(directory: Path, prompts: Sequence[list[int]] = PROMPTS, **settings: Any) -> list[Any]:
    """Token ids and log-probabilities, exactly as computed."""
    defaults = {"max_num_seqs": 4, "max_num_batched_tokens": 16, "num_gpu_blocks_override": 64, "num_threads": 1}
    llm = LLM(str(directory), skip_tokenizer_init=True, **defaults | settings)
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], GREEDY)
    return [
        (
            each.outputs[0].token_ids,
            [{i: p.logprob for i, p in step.items()} for step in each.outputs[0].logprobs or ()],
        )
        for each in outputs
    ]


def alter(directory: Path, name: str, edit: Callable[[Any], Any], *, reseal: bool = True) -> None:
    """Change a JSON file; edit changes its object in place or returns another. reseal: mend its hash too."""
    path = directory / name
    data = json.loads(path.read_text())
    replaced = edit(data)
    path.write_text(json.dumps(data if replaced is None else replaced))
    if reseal and name != "manifest.json":
        seal(directory, name)


def seal(directory: Path, name: str) -> None:
    """Make the manifest agree with a file as it is now."""
    data = (directory / name).read_bytes()
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (directory / "manifest.json").write_text(json.dumps(manifest))
