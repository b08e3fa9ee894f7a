"""One of the processes that compile kernels for a GPU: an order on stdin, kernels into Triton's cache.

Started by compiling.py, which says why. What it is told is how programs are made (compile_all), not the programs.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from albireo.api.compiled import compile_all
from albireo.api.drafts.draft_head import tapped
from albireo.api.machine.cuda_device import AbsentGpu as PlannedGpu
from albireo.api.programs import compile_program
from albireo.api.ranks.rank_processes import whole_vocabulary
from albireo.api.sources.source import open_source
from albireo.compiler.rewrite import copy_graph
from albireo.config import EngineConfig


def main() -> None:
    """An order as compiling() gives it."""
    from albireo.backends.cuda.absent_gpu import AbsentGpu
    from albireo.backends.cuda.chip import Chip
    from albireo.backends.cuda.claims import claim_kernels
    from albireo.backends.cuda.compile_ahead import empty_model, launch_all, with_adapters

    order = json.load(sys.stdin)
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in order["config"].items()}
    config, chip, model_len = EngineConfig.from_kwargs(**given), Chip(**order["chip"]), order["model_len"]
    AbsentGpu.take(chip)
    claim_kernels(Path(order["claims"]))
    source = open_source(Path(order["directory"]), replace(config, verify_hashes=False))
    device = PlannedGpu(chip.capability)
    compiled = compile_all(config, source, model_len, device, may_lack_weights=True)
    num_ranks, vocab_size = len(compiled.programs), whole_vocabulary(compiled.programs)
    drafter, (longest, *of_guesses) = compiled.drafter, order["max_positions"]
    # what other ranks launch differs in a width at most; what guesses runs on the first alone
    models = [empty_model(compiled.programs[0], longest, num_ranks, vocab_size)]
    guessing = () if drafter is None else drafter.programs
    models += [empty_model(*each) for each in zip(guessing, of_guesses, strict=True)]
    if config.enable_lora:
        graph = tapped(
            copy_graph(source.graph(model_len)), () if drafter is None else drafter.taps, source.model_config
        )
        first, catalog = source.parts[0], device.catalog()
        adapted = compile_program(graph, config, model_len, first, catalog, has_adapters=True)
        models.append(with_adapters(models[0], adapted))
    for model in models:
        launch_all(model, order["part"], order["parts"])


if __name__ == "__main__":
    main()
    os._exit(0)  # what libraries do as an interpreter ends can go wrong, and all is done
