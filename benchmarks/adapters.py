"""What adapters (LoRA) cost: steps of a random model with them, as multiples of the same steps without.

    PYTHONPATH=tests python benchmarks/adapters.py [--quantization int8] [--layers 4] [--hidden 1536] [--rank 16]

Merged weights would take what the model without adapters takes. Processor time of one thread, least of many runs, all
in one process, so that what else runs on the machine disturbs little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from albireo.api.load import load
from albireo.backends.step_inputs import StepInputs
from albireo.config import EngineConfig
from albireo.models import load_architecture
from step_batches import Work, make_step
from tiny_adapters import make_adapter
from tiny_models import make_checkpoint

NUM_ADAPTERS = 4
BLOCK_SIZE = 16


def steps() -> dict[str, StepInputs]:
    """Decoding after 30 tokens, and prompts."""
    found = {}
    for count in (1, 4, 16):
        works = [Work([5], 30, [2 * i + 1, 2 * i + 2]) for i in range(count)]
        found[f"decode {count}"] = make_step(works, BLOCK_SIZE, "none", "last")
    for length in (128, 512):
        works = [Work(list(range(length)), 0, list(range(1, 1 + length // BLOCK_SIZE)))]
        found[f"prompt {length}"] = make_step(works, BLOCK_SIZE, "none", "last")
    return found


def least(run: Callable[[], object], times: int) -> float:
    """Seconds of processor time of the quickest of so many runs."""
    found = []
    for _ in range(times):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quantization")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--rank", type=int, default=16)
    args = parser.parse_args()
    config = {
        **load_architecture("llama").tiny,
        "hidden_size": args.hidden,
        "intermediate_size": args.hidden * 8 // 3,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.hidden // 64,
        "num_key_value_heads": args.hidden // 192,
        "head_dim": 64,
        "vocab_size": 2000,
        "max_position_embeddings": 2048,
        "rope_scaling": None,
    }
    with tempfile.TemporaryDirectory() as folder:
        directory = make_checkpoint(Path(folder) / "model", config, dtype="bfloat16")
        loaded = load(
            EngineConfig(
                model=str(directory),
                num_threads=1,
                skip_tokenizer_init=True,
                max_num_seqs=16,
                num_gpu_blocks_override=400,
                enable_lora=True,
                max_loras=NUM_ADAPTERS,
                max_lora_rank=args.rank,
                quantization=args.quantization,
            )
        )
        assert loaded.adapters is not None
        slots = loaded.adapters.runner._slots
        for slot in range(NUM_ADAPTERS):
            path = make_adapter(Path(folder) / str(slot), config, seed=slot, rank=args.rank, dtype="bfloat16")
            slots.put(slot, loaded.adapters.read(path))
        program = loaded.adapters.runner.program()
        for name, step in steps().items():
            counts = np.diff(step.query_start)
            slots_of = {
                "none": np.full(len(counts), -1),
                "one": np.zeros(len(counts)),
                "four": np.arange(len(counts)) % NUM_ADAPTERS,
            }
            runs: dict[str, Callable[[], object]] = {"plain": partial(loaded.model.run, step)}
            for way, each in slots_of.items():
                given = replace(step, adapter_slots=np.repeat(each, counts).astype(np.int32))
                runs[way] = partial(program.run, given)
            found: dict[str, float] = {}
            for _ in range(3):
                for way, run in runs.items():
                    found[way] = min(found.get(way, np.inf), least(run, 20 if name.startswith("decode") else 4))
            ratios = {way: round(found[way] / found["plain"], 3) for way in slots_of}
            print(json.dumps({"step": name, "plain_ms": round(1e3 * found["plain"], 2), **ratios}), flush=True)


if __name__ == "__main__":
    main()
