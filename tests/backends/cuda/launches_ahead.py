"""python launches_ahead.py MODELS: which kernels steps of tiny models launch that launch_all() does not; and what else
is asked of torch where a step is recorded.

Run by test_compile_ahead.py, in a process whose kernels are not interpreted. Nothing is compiled: Triton is told that
each kernel is known, once it has said what it was asked for, and launches nothing in its place from then on.
MODELS: JSON, [type, keys of its config that are others than the tiny one has, encoding of its matrices or null for
bfloat16] of each. Each is a child of the process that has imported everything, so that no model's kernels are known to
the next.
Prints a line of JSON a model: how many kernels launch_all() asks for; for which steps others are asked for, by kernel;
and operations of torch among the launches of recorded steps.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import triton
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.jit import JITFunction

from albireo.backends.cuda.absent_gpu import AbsentGpu
from albireo.backends.cuda.buckets import DRAWS, Ending
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.chip import Chip
from albireo.backends.cuda.compile_ahead import empty_model, launch_all
from albireo.compiler.passes import choose_precision
from albireo.compiler.pipeline import compile_graph
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config

#: Of the largest step: more than are few tokens, and than are split.
MAXIMA = {"T": 1100, "R": 96, "G": 96}
LONGEST = 2048


#: What is launched in place of a kernel that was asked for: Triton finds it under the kernel's key, and does not work
#: out once more what it would have compiled.
NOTHING = SimpleNamespace(
    launch_metadata=lambda *_: None, run=lambda *_: None, function=None, packed_metadata=None, hash=None
)


def find(model_type: str, keys: dict[str, Any], encoding: str | None) -> None:
    AbsentGpu.take(Chip(132, 90))
    operations: set[str] = set()

    class Noting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            operations.add(str(func))
            return func(*args, **(kwargs or {}))

    asked: set[tuple[str, str]] = set()
    missed: defaultdict[str, list[str]] = defaultdict(list)
    step = ""

    def note(*, key: Any, fn: Any, **_: Any) -> bool:
        name = fn.jit_function.__name__
        if (name, str(key)) not in asked:
            asked.add((name, str(key)))
            if step:
                missed[name].append(step)
        return True

    triton.knobs.runtime.jit_cache_hook = note
    ask = JITFunction._do_compile

    def ask_once(self: Any, key: str, signature: Any, device: int, *args: Any) -> Any:
        assert ask(self, key, signature, device, *args) is None, "something is compiled"
        self.device_caches[device][0][key] = NOTHING
        return NOTHING

    JITFunction._do_compile = ask_once
    architecture = load_architecture(model_type)
    config = parse_config(dict(architecture.tiny) | {"torch_dtype": "bfloat16"} | keys, architecture.rules)
    graph = build_graph(config, LONGEST)
    if encoding is not None:
        choose_precision.run(graph, lambda name, role: encoding)
    program = compile_graph(graph, CudaCatalog(90), maxima=MAXIMA, block_size=16, max_positions=LONGEST)
    model = empty_model(program, LONGEST)
    launch_all(model)
    ahead = len(asked)
    while (bucket := model._recordings.next()) is not None:
        step = str(bucket)
        model.record(bucket)
        if bucket.size in (1, 16, MAXIMA["G"]):
            launches = model.placed.whole(bucket.sizes, bucket.ending, bucket.tokens is None)
            with Noting():
                launches()
    draw = random.Random(0)
    for tokens in (1025, 1030, MAXIMA["T"], *(draw.randrange(1, MAXIMA["T"]) for _ in range(12))):
        size = draw.randrange(1, min(tokens, MAXIMA["G"]) + 1)
        for ending, rows, best in ((DRAWS, 0, size), (Ending(draws=True, truncates=True), size, 0)):
            sizes = {"T": tokens, "B": size, "R": rows, "G": best, "S": size, "D": size, "L": 0}
            step = str(sizes)
            model.placed.run_padding(sizes, ending, model.hidden_states)
    print(json.dumps([ahead, missed, sorted(operations)]), flush=True)


def main(models: str) -> None:
    for each in json.loads(models):
        if (child := os.fork()) == 0:
            find(*each)
            os._exit(0)
        if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
