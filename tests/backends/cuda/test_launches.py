"""How many kernels a decoding step launches for a layer: by the program, and by counting them as they are launched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import triton

from albireo.backends.cuda.catalog import CudaCatalog
from albireo.compiler.passes import choose_precision
from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import PASSES, Pass, adapter_passes, compile_graph
from albireo.graph.program import Program
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config
from backends.cuda.test_model import model_of, steps
from backends.cuda.test_model_adapters import both_of
from backends.cuda.test_rank_adapters import both_of as both_of_rank

#: Launches of a call, one where it is not named: a linear of q, k and v, and what turns and stores them; logits, the
#: best of each part of a row, the best of those. Of a linear of leaves one more, which adds them up, and of one with
#: adapters one more, which ends its sums.
LAUNCHES = {"qkv_rope_kv": 2, "head_top": 3, "adapter": 1, "choose_keys": 2}
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "num_hidden_layers": 4,
}
QWEN3_30B_A3B = {
    "hidden_size": 2048,
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "num_hidden_layers": 4,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "mlp_only_layers": [],
    "max_window_layers": 4,
}
QWEN3_8B = LLAMA_8B | {"intermediate_size": 12288, "vocab_size": 151936, "head_dim": 128}


def program_of(
    name: str,
    sizes: dict[str, int],
    encoding: str | None,
    capability: int,
    passes: Sequence[Pass] = PASSES,
    part: Part | None = None,
) -> Program:
    architecture = load_architecture(name)
    config = parse_config(architecture.tiny | sizes, architecture.rules).with_dtype("bfloat16")
    graph = build_graph(config, 4096)
    if encoding is not None:
        choose_precision.run(graph, lambda name, role: None if role == "router" else encoding)
    maxima = {"T": 256, "R": 64, "G": 64}
    return compile_graph(
        graph, CudaCatalog(capability), maxima=maxima, block_size=16, max_positions=4096, passes=passes, part=part
    )


def launches_of_layer(program: Program, layer: int) -> list[str]:
    """Families of the calls between one layer's attention and the next one's, once for each launch."""
    found: list[str] = []
    at = [i for i, call in enumerate(program.calls) if call.family == "attention"]
    for call in program.calls[at[layer] : at[layer + 1]]:
        found += [call.family] * (LAUNCHES.get(call.family, 1 + ("chunks" in call.attrs)) + ("low" in call.args))
    return found


@pytest.mark.parametrize(
    ("encoding", "capability", "wanted"),
    [
        (None, 90, 6),
        ("fp8", 80, 6),
        ("fp8", 90, 6),
        ("fp8.g128", 89, 6),
        ("int8", 90, 9),
        ("int4.g128", 90, 6),
        ("int4p.g64", 90, 9),
        ("int4.g64.affine", 90, 9),
    ],
)
@pytest.mark.parametrize(("name", "sizes"), [("llama", LLAMA_8B), ("qwen3", QWEN3_8B)])
def test_launches_of_a_layer(
    name: str, sizes: dict[str, int], encoding: str | None, capability: int, wanted: int
) -> None:
    program = program_of(name, sizes, encoding, capability)
    found = launches_of_layer(program, 1)
    assert len(found) == wanted, found


@pytest.mark.parametrize(("size", "wanted"), [(2, 10), (4, 10), (8, 8)])
def test_launches_of_a_layer_of_a_rank(size: int, wanted: int) -> None:
    """Beside two gathers. Of output and down all leaves are a launch, and where there are several, their sum."""
    program = program_of("llama", LLAMA_8B, None, 90, part=Part(size, 0))
    found = launches_of_layer(program, 1)
    assert len(found) == wanted and found.count("all_reduce_norm") == 2, found


@pytest.mark.parametrize(("encoding", "wanted"), [(None, 14), ("fp8", 14), ("int8", 17), ("int4.g128", 14)])
def test_launches_of_a_layer_with_adapters(encoding: str | None, wanted: int) -> None:
    """Two more for each of four linears: x A^T, and what ends their sums."""
    program = program_of("llama", LLAMA_8B, encoding, 90, adapter_passes(PASSES, 16))
    found = launches_of_layer(program, 1)
    assert len(found) == wanted and found.count("adapter") == 4, found


@pytest.mark.parametrize(("size", "wanted"), [(2, 18), (8, 16)])
def test_launches_of_a_layer_of_a_rank_with_adapters(size: int, wanted: int) -> None:
    """Two more for each of four linears, also of leaves: all of these are one launch."""
    program = program_of("llama", LLAMA_8B, None, 90, adapter_passes(PASSES, 16), part=Part(size, 0))
    found = launches_of_layer(program, 1)
    assert len(found) == wanted and found.count("adapter") == 4, found


@pytest.mark.parametrize(
    ("encoding", "capability", "wanted"),
    [(None, 90, 9), ("fp8", 80, 9), ("fp8", 90, 13), ("int4.g128", 90, 9), ("int8", 90, 14)],
)
def test_launches_of_a_layer_of_experts(encoding: str | None, capability: int, wanted: int) -> None:
    """Where an ordinary layer has gate/up and down: the router, routes and lists, gate/up, down, and their sum. Codes
    of 8 bits are made beside the numbers that the router reads."""
    found = launches_of_layer(program_of("qwen3_moe", QWEN3_30B_A3B, encoding, capability), 1)
    assert len(found) == wanted, found
    experts = ["route", "expert_linear", "expert_linear", "combine" if encoding == "int8" else "combine_norm"]
    assert [family for family in found if family in {*experts, "combine"}] == experts


@pytest.mark.parametrize(("encoding", "wanted"), [(None, (8, 8)), ("fp8", (9, 12)), ("int8", (12, 14))])
def test_launches_of_layers_beside_those_that_keep_a_state(encoding: str | None, wanted: tuple[int, int]) -> None:
    """Of one whose attention has a gate; and of one with a recurrence, of whose linears one has numbers always."""
    program = program_of("qwen3_5_text", {}, encoding, 90)
    for layer, count in zip((1, 2), wanted, strict=True):
        calls = [call for call in program.calls if call.origin.startswith(f"layers.{layer}.")]
        found = [call.family for call in calls for _ in range(LAUNCHES.get(call.family, 1))]
        assert len(found) == count, found


@pytest.mark.parametrize(
    ("name", "sizes", "wanted"),
    [
        ("deepseek_v3", {}, (11, 15, 15)),
        # a shared expert as wide as others is one of them
        ("deepseek_v3", {"n_shared_experts": 1}, (11, 13, 13)),
        ("deepseek_v32", {"n_shared_experts": 1}, (15, 17)),
        ("deepseek_v4", {}, (26, 35, 30)),
        ("kimi_linear", {"num_shared_experts": 1}, (13, 11, 15)),
        ("nemotron_h", {}, (6, 10, 5, 10, 6, 4)),
        ("qwen3_next", {"shared_expert_intermediate_size": 24}, (11, 11)),
        # a norm, and the norm of the sum that it is added to
        ("gemma3_text", {}, (9, 8)),
        ("gemma4_text", {}, (9, 12)),
    ],
)
def test_launches_of_layers_of_many_calls(name: str, sizes: dict[str, int], wanted: tuple[int, ...]) -> None:
    """Latents, what chooses, streams, entries; small linears of one input are one."""
    program = program_of(name, {"max_position_embeddings": 4096} | sizes, None, 90)
    for layer, count in enumerate(wanted):
        calls = [call for call in program.calls if call.origin.startswith(f"layers.{layer}.")]
        found = [call.family for call in calls for _ in range(LAUNCHES.get(call.family, 1))]
        assert len(found) == count, found


def test_adapters_of_leaves_are_as_many_launches_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a step of few rows: products of leaves are one launch, what adapters make of them two."""
    adapted = both_of_rank("llama", "bfloat16", Part(1, 0), None)[1]
    counts: Counter[str] = Counter()
    run = triton.runtime.interpreter.InterpretedFunction.run

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        counts[self.fn.__name__] += "grid" in kwargs
        return run(self, *args, **kwargs)

    monkeypatch.setattr(triton.runtime.interpreter.InterpretedFunction, "run", counted)
    step = steps("none", "last")[0]
    adapted.run(replace(step, adapter_slots=np.zeros(step.num_tokens, np.int32)))
    linears = [call for call in adapted.program.calls if "low" in call.args]
    num_of_leaves = sum("chunks" in call.attrs for call in linears)
    assert counts["adapter_kernel"] == counts["adapter_add_kernel"] == len(linears) > num_of_leaves > 0
    assert counts["add_parts_kernel"] == num_of_leaves


@pytest.mark.parametrize("has_adapters", [False, True])
def test_a_call_is_as_many_launches_as_said(has_adapters: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where they happen, in the interpreter."""
    model = both_of("llama", "bfloat16", "int8")[1] if has_adapters else model_of("llama", "bfloat16", "int8")
    counts: Counter[str] = Counter()
    run = triton.runtime.interpreter.InterpretedFunction.run

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        counts[self.fn.__name__] += "grid" in kwargs
        return run(self, *args, **kwargs)

    monkeypatch.setattr(triton.runtime.interpreter.InterpretedFunction, "run", counted)
    model.run(steps("none", "last")[0])
    calls = [call for call in model.program.calls if call.rows != "R"]
    named = {"qk_norm_rope_kv_write_kernel": "qkv_rope_kv", "attention_kernel": "attention", "norm_kernel": "norm"}
    for kernel, family in named.items():
        assert counts[kernel] == sum(call.family == family for call in calls)
    # and one list of attention's work for all layers
    assert counts.total() == 1 + sum(LAUNCHES.get(call.family, 1) + ("low" in call.args) for call in calls)
    assert counts["adapter_add_kernel"] == counts["adapter_kernel"] == 12 * has_adapters
