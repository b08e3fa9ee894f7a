"""The question: how many kernels does a decoding step of one sequence launch for a layer?

    python benchmarks/gpu/launches.py [--names llama,qwen3_moe,…] [--weights bf16] [--capability 90] [--list]

Tiny models of each family, whose layers have the calls that large ones have, are launched for a GPU that is absent, and
nothing is compiled: Triton is told that it knows each kernel, once it has said what it was asked for. Of the layers of
a kind the one with the fewest counts: the first has a norm more. "apart": without the passes that make one of several
small calls (catalog.SMALL_CALLS). --list: the kernels of each kind of layer, in order. Needs torch and Triton, no GPU.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]

#: Families of the table, by what they are published as.
FAMILIES = {
    "llama": "Llama 3.1",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3-30B-A3B",
    "gpt_oss": "gpt-oss",
    "gemma3_text": "Gemma 3",
    "gemma4_text": "Gemma 4",
    "deepseek_v3": "DeepSeek V3",
    "deepseek_v32": "DeepSeek V3.2",
    "deepseek_v4": "DeepSeek V4",
    "glm4_moe": "GLM-4.5",
    "glm_moe_dsa": "GLM-5",
    "glm5_next_text": "GLM-5.3",
    "qwen3_next": "Qwen3-Next",
    "qwen3_5_text": "Qwen3.5",
    "qwen3_5_moe_text": "Qwen3.5 MoE",
    "qwen4_exp_text": "Qwen 4",
    "nemotron_h": "Nemotron-H",
    "granitemoehybrid": "Granite 4",
    "lfm2_moe": "LFM2 MoE",
    "kimi_linear": "Kimi Linear",
}
#: Of calls that say what a layer is: how it is called.
_KINDS = {
    "selective_state": "Mamba-2",
    "selective_scan": "Mamba",
    "gated_delta_rule": "delta rule",
    "causal_conv": "convolution",
    "attention": "attention",
}
_LONGEST = 4096


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", default=",".join(FAMILIES), help="model types")
    parser.add_argument("--weights", default="bf16", help="bf16, or an encoding of linears: fp8, int4.g128, …")
    parser.add_argument("--capability", type=int, default=90)
    parser.add_argument("--list", action="store_true", help="name each kernel")
    args = parser.parse_args()
    import triton

    from albireo.backends.cuda.absent_gpu import AbsentGpu
    from albireo.backends.cuda.chip import Chip

    AbsentGpu.take(Chip(132, args.capability))
    asked: list[str] = []

    def note(*, fn: Any, **_: Any) -> bool:
        asked.append(fn.jit_function.__name__.removesuffix("_kernel"))
        return True

    triton.knobs.runtime.jit_cache_hook = note
    print("| family | launches of a layer | apart |\n| --- | --- | --- |")
    for name in args.names.split(","):
        found, apart = (launched(name, args.weights, args.capability, asked, is_apart) for is_apart in (False, True))
        counts = ["; ".join(f"{kind} {len(kernels)}" for kind, kernels in found.items())]
        counts.append("; ".join(str(len(apart[kind])) for kind in found))
        print(f"| {FAMILIES.get(name, name)} | {' | '.join(counts)} |", flush=True)
        for kind, kernels in found.items() if args.list else ():
            print(f"{kind}: {' '.join(kernels)}")
    return 0


def launched(name: str, weights: str, capability: int, asked: list[str], is_apart: bool) -> Mapping[str, list[str]]:
    """The kernels of each kind of layer of a decoding step of one sequence.

    Args: asked: what is launched is added. is_apart: without catalog.SMALL_CALLS.
    """
    from albireo.backends.cuda.catalog import SMALL_CALLS, CudaCatalog
    from albireo.backends.cuda.compile_ahead import empty_model
    from albireo.compiler.passes import choose_precision
    from albireo.compiler.pipeline import compile_graph
    from albireo.models import build_graph, load_architecture
    from albireo.models.config_keys import parse_config

    architecture = load_architecture(name)
    keys = {"torch_dtype": "bfloat16", "max_position_embeddings": _LONGEST}
    if not any(isinstance(value, list) for key, value in architecture.tiny.items() if key != "architectures"):
        keys["num_hidden_layers"] = 4  # of which two are neither the first nor the last
    keys |= _shared_as_published(architecture.tiny)
    graph = build_graph(parse_config(architecture.tiny | keys, architecture.rules), _LONGEST)
    if weights != "bf16":
        choose_precision.run(graph, lambda _, role: None if role == "router" else weights)
    maxima = {"T": 64, "R": 4, "G": 4}
    catalog = CudaCatalog(capability)
    catalog.abilities -= SMALL_CALLS if is_apart else set()
    program = compile_graph(graph, catalog, maxima=maxima, block_size=16, max_positions=_LONGEST)
    placed = empty_model(program, _LONGEST).placed
    step = placed._step({"T": 1, "B": 1, "R": 0, "G": 1, "S": 1, "D": 1, "L": 0})
    layers: dict[str, list[str]] = {}
    families: dict[str, set[str]] = {}
    for call, launch in placed.launches:
        del asked[:]
        if step.sizes[call.rows]:
            launch(step)
        if number := re.match(r"layers\.(\d+)\.", call.origin):
            layers.setdefault(number[1], []).extend(f"{call.family}:{kernel}" for kernel in asked)
            families.setdefault(number[1], set()).add(call.family)
    kinds: dict[str, list[str]] = {}
    for number, kernels in layers.items():
        kind = _kind(families[number])
        kinds[kind] = min(kinds.get(kind, kernels), kernels, key=len)
    return kinds


def _shared_as_published(tiny: Mapping[str, Any]) -> dict[str, int]:
    """Of a tiny model the shared expert is wider than others, of these models it is as wide as they are."""
    found = {name: 1 for name in ("n_shared_experts", "num_shared_experts") if name in tiny}
    if "shared_expert_intermediate_size" in tiny:
        found["shared_expert_intermediate_size"] = int(tiny["moe_intermediate_size"])
    return found


def _kind(families: set[str]) -> str:
    mixers = [said for family, said in _KINDS.items() if family in families][:1]
    chooses = ["choosing"] if "choose_keys" in families else []
    ffn = ["experts"] if "route" in families else []
    return " + ".join([" ".join([*chooses, *mixers]), *ffn] if mixers else [*ffn] or ["FFN"])


if __name__ == "__main__":
    sys.exit(main())
