"""Writes launched.json, what came of the kernels that test_compile_ahead.py has compiled: called by `make aot`."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from albireo.api.machine.compiling import Compiling
from albireo.backends.cuda.chip import Chip
from albireo.config import EngineConfig
from albireo.models import load_architecture
from backends.cuda.launched import SITE, known, noted, write
from tiny_models import make_checkpoint

CONFIG = EngineConfig(
    device="cuda", max_num_seqs=4, max_num_batched_tokens=64, quantization="fp8", enable_lora=True, max_lora_rank=8
)
CHIP = Chip(132, 90)
#: More than there are steps: each process has one, or none.
PARTS = 100


def tiny_model(directory: Path) -> Path:
    """Its layers are alike, so each kernel is compiled once."""
    return make_checkpoint(directory, load_architecture("qwen3").tiny, seed=0, dtype="bfloat16")


def order(directory: Path, part: int) -> dict[str, Any]:
    lengths = {"model_len": 64, "max_positions": [64]}
    told = {"directory": str(directory), "config": asdict(CONFIG), "chip": asdict(CHIP)}
    return {**told, **lengths, "part": part, "parts": PARTS}


def looking_up(place: Path) -> dict[str, str]:
    """Environment of processes that compile, as launched.py has it. Args: place: an empty folder, for their cache."""
    (place / "sitecustomize.py").write_text(SITE)
    return {"PYTHONPATH": str(place), "TRITON_CACHE_DIR": str(place / "cache")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="compile everything anew")
    if parser.parse_args().all:
        write({})
    kept = known()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        os.environ |= looking_up(place)
        compiling = Compiling([order(tiny_model(place / "model"), 0)], place / "cache" / "done")
        compiling.wait(3600.0)
        if not (place / "cache" / "done").exists():
            raise SystemExit("nothing was written: a process that compiles failed, as the log says")
        found = noted(place / "cache")
    write({key: facts or kept[key] for key, facts in found.items()})
    print(f"{sum(facts is not None for facts in found.values())} of {len(found)} that are launched were compiled")


if __name__ == "__main__":
    main()
