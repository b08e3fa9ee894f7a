"""Mixtures of experts in few bits: checkpoints that hold each expert quantized by itself, and matrices that are rounded
when they are loaded. The native program is held to the numbers that the format's own rule gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.sources.checkpoint_source import CheckpointSource
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels
from albireo.backends.cpu.model import CpuModel
from albireo.backends.cpu.stored import pack_image
from albireo.compiler.pipeline import compile_graph, passes_of
from albireo.errors import ConfigError
from albireo.graph.node import Graph
from albireo.models import load_architecture, open_checkpoint
from albireo.models.checkpoint.weights import MAX_DECODED
from albireo.quantization.schemes import Precision
from albireo.verify.numerics import layers_stage, ops_stage, run_numerics
from albireo.verify.steps import NUM_BLOCKS, walk_steps
from backends.cpu.harness import pool
from quantization.formats.writers import WRITERS, save_file, torch, write_model
from tiny_models import MIXTURES, make_checkpoint, write_safetensors
from variants import MIXED, tiny_of

load_file = pytest.importorskip("safetensors.torch").load_file
TOKENS = np.random.default_rng(3).integers(0, 90, 90).tolist()
QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_hidden_layers": 2,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 256,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "head_dim": 32,
}
#: Whose experts lie beside the FFN of a layer.
GEMMA4: dict[str, Any] = tiny_of("gemma4_text, experts") | {
    **{"hidden_size": 128, "intermediate_size": 256, "moe_intermediate_size": 128, "num_attention_heads": 8},
    **{"num_experts": 5, "top_k_experts": 2, "num_hidden_layers": 2},
    "layer_types": ["sliding_attention", "full_attention"],
}
#: Calls of models that keep states are not judged one by one.
KEEP_STATES = {
    "zaya",
    "bailing_hybrid",
    "deepseek_v4",
    "glm5_next_text",
    "jamba",
    "lara_mini",
    "granitemoehybrid",
    "kimi_linear",
    "lfm2_moe",
    "minimax",
    "minimax_m1",
    "minimax_text_01",
    "nemotron_h",
    "qwen3_5_moe_text",
    "qwen3_next",
    "qwen4_exp_text",
}
JUDGED = sorted({*MIXTURES, *MIXED} - KEEP_STATES)
FORMATS = ("fp8 blocks", "compressed-tensors fp8 channel", "compressed-tensors W4A16 g128", "awq", "gptq")


def check(directory: Path, graph: Graph, levels: tuple[str, ...]) -> CpuModel:
    """Every call of the native program is within the tolerance of its operands."""
    maxima = {"T": 64, "R": 8, "G": 8}
    program = compile_graph(graph, CpuCatalog(levels), maxima=maxima, block_size=16, max_positions=128)
    with open_checkpoint(directory, graph) as checkpoint:
        model = CpuModel(program, checkpoint, pool(), NUM_BLOCKS)
        steps = walk_steps(TOKENS, 100, 16)
        found = run_numerics(model, graph, checkpoint, steps, lambda _: None, passes_of(program))
    assert found.wrong is None, ops_stage(found, []).finding
    stage = layers_stage(found.layers)
    assert stage.verdict == "passed", stage.finding
    return model


@pytest.mark.parametrize(
    ("config", "name"), [*((QWEN3, name) for name in FORMATS), (GEMMA4, "modelopt nvfp4"), (GEMMA4, FORMATS[1])]
)
def test_checkpoints_of_experts_in_few_bits(config: dict[str, Any], name: str, tmp_path: Path) -> None:
    numbers = write_model(tmp_path, WRITERS[name], **config)
    block, router = ("mlp.", "mlp.gate") if config is QWEN3 else ("", "router.proj")
    source = CheckpointSource(tmp_path, "bfloat16")
    graph = source.graph(64)
    kinds = {v.type.dtype for n, v in graph.constants.items() if ".experts." in n}
    assert kinds == {WRITERS[name].encoding}
    routers = {v.type.dtype for n, v in graph.constants.items() if n.endswith(f"{router}.weight")}
    assert routers == {"bfloat16"}, "as the checkpoint has it"
    check(tmp_path, graph, isa_levels())
    with open_checkpoint(tmp_path, graph) as checkpoint:
        for expert in range(5):
            weight = f"model.layers.1.{block}experts.{expert}.down_proj.weight"
            np.testing.assert_allclose(checkpoint.tensor(weight).to_float32(), numbers[weight], rtol=3e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["fp8 static of transformers", "fp8 blocks", "modelopt nvfp4"])
def test_scales_of_all_experts_in_one_tensor(name: str, tmp_path: Path) -> None:
    """As Mistral Small 4 is published, whose experts have a scale each; with blocks, as transformers saves them; and as
    ModelOpt has NVFP4 of such tensors."""
    config = {**QWEN3, "num_hidden_layers": 1}
    numbers = write_model(tmp_path, WRITERS[name], **config)
    tensors = load_file(tmp_path / "model.safetensors")
    experts = "model.layers.0.mlp.experts"

    def taken(matrix: str, part: str) -> list[Any]:
        return [tensors.pop(f"{experts}.{expert}.{matrix}_proj.{part}") for expert in range(5)]

    parts = sorted(key.rpartition("_proj.")[2] for key in tensors if key.startswith(f"{experts}.0.gate_proj."))
    for part in parts:
        gate, up, down = (taken(matrix, part) for matrix in ("gate", "up", "down"))
        end = {"weight": "", "weight_scale_inv": "_scale_inv"}.get(part, f"_{part}")
        if gate[0].ndim == 0:  # one for the matrix: gate and up of an expert share it
            assert part != "weight"
            tensors[f"{experts}.down_proj{end}"] = torch.stack(down)
            shared = torch.stack([torch.maximum(one, other) for one, other in zip(gate, up, strict=True)])
            tensors[f"{experts}.gate_up_proj{end}"] = shared.reshape(-1, 1, 1) if end == "_scale_inv" else shared
            for expert in range(5) if part in ("weight_scale_inv", "weight_scale_2") else ():
                for matrix, own in (("gate", gate), ("up", up)):
                    numbers[f"{experts}.{expert}.{matrix}_proj.weight"] *= float(shared[expert]) / float(own[expert])
        else:
            bytes_of = [
                [t.view(torch.uint8) if t.element_size() == 1 else t for t in each] for each in (gate, up, down)
            ]
            joined = torch.stack([torch.cat(pair) for pair in zip(*bytes_of[:2], strict=True)])
            tensors[f"{experts}.gate_up_proj{end}"] = joined.view(gate[0].dtype)
            tensors[f"{experts}.down_proj{end}"] = torch.stack(bytes_of[2]).view(gate[0].dtype)
    save_file(tensors, tmp_path / "model.safetensors")
    graph = CheckpointSource(tmp_path, "bfloat16").graph(64)
    assert {v.type.dtype for n, v in graph.constants.items() if ".experts." in n} == {WRITERS[name].encoding}
    with open_checkpoint(tmp_path, graph) as checkpoint:
        for weight, wanted in numbers.items():
            np.testing.assert_allclose(checkpoint.tensor(weight).to_float32(), wanted, rtol=1e-6, atol=1e-9)
            checkpoint.release(weight)


def test_more_experts_than_are_held_decoded(tmp_path: Path) -> None:
    """nf4 is computed as numbers: a constant joins more matrices than there may be in memory decoded."""
    config = {**QWEN3, "num_hidden_layers": 1, "num_experts": MAX_DECODED + 3, "moe_intermediate_size": 64}
    write_model(tmp_path / "few bits", WRITERS["bitsandbytes nf4"], **config)
    graph = CheckpointSource(tmp_path / "few bits", "bfloat16").graph(64)
    program = compile_graph(
        graph, CpuCatalog(isa_levels()), maxima={"T": 8, "R": 1, "G": 1}, block_size=16, max_positions=64
    )
    images = []
    for name in ("few bits", "numbers"):
        with open_checkpoint(tmp_path / name, graph) as checkpoint:
            images.append(pack_image(pool(2), program.constants, checkpoint, lambda _: None).memory.view().copy())
            if name == "few bits":
                (tmp_path / "numbers").mkdir()
                numbers = {each: checkpoint.tensor(each).to_float32() for each in checkpoint.names}
                write_safetensors(tmp_path / "numbers" / "model.safetensors", numbers, "float32")
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "Q2_K", "Q3_K", "IQ3_S", "TQ2_0", "mixed"])
def test_gguf_files_of_experts(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from models.gguf.writer import MIXTURES as CONFIGS
    from models.gguf.writer import write_gguf

    write_gguf(tmp_path / "m.gguf", CONFIGS["qwen3_moe" if kind == "mixed" else "mixtral"], kind)
    graph = CheckpointSource(tmp_path / "m.gguf", "auto").graph(64)
    check(tmp_path / "m.gguf", graph, isa_levels())


def rounded(directory: Path, scheme: str) -> Graph:
    return CheckpointSource(directory, "auto", precision=Precision(scheme)).graph(64)


@pytest.mark.parametrize("name", JUDGED)
def test_experts_are_rounded_and_not_what_they_are_chosen_by(name: str, tmp_path: Path) -> None:
    graph = rounded(make_checkpoint(tmp_path, tiny_of(name), seed=4, dtype="bfloat16"), "int8")
    experts = [n.inputs["weight"].type.dtype for n in graph.nodes if n.op == "expert_linear"]
    assert experts and set(experts) == {"int8"}
    endings = (
        "mlp.gate",
        "moe.gate",
        "_gate",
        "router.layer",
        "router",
        "router.proj",
        "router.gate",
        "gate.wg",
        "classifier",
        "router_mlp.out_proj",
    )
    gates = [v for n, v in graph.constants.items() if n.endswith(tuple(f"{each}.weight" for each in endings))]
    assert gates and {v.type.dtype for v in gates} == {"bfloat16"}


#: Each run goes through calls of every third, a thorough one through those of all.
NUMBERS = [pytest.param(n, "int8", marks=() if i % 3 == 0 else pytest.mark.thorough) for i, n in enumerate(JUDGED)]


@pytest.mark.parametrize(("name", "scheme"), [*(("qwen3_moe", s) for s in ("int4-g32", "int4-g64", "fp8")), *NUMBERS])
def test_experts_are_rounded_when_they_are_loaded(name: str, scheme: str, tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, tiny_of(name), seed=4, dtype="bfloat16")
    model = check(directory, rounded(directory, scheme), isa_levels())
    kernels = {call.kernel for call in model.program.calls if call.family == "expert_linear"}
    encoding = {"int8": "int8", "int4-g32": "int4.g32", "int4-g64": "int4.g64", "fp8": "fp8"}[scheme]
    assert all(kernel.startswith(f"expert_linear.{encoding}.") for kernel in kernels) and kernels


def test_rows_become_codes_once_a_token(tmp_path: Path) -> None:
    """And not once for each of its experts: what the experts read has T rows."""
    directory = make_checkpoint(tmp_path, load_architecture("qwen3_moe").tiny, dtype="bfloat16")
    graph = CheckpointSource(directory, "auto", precision=Precision("int8")).graph(64)
    program = compile_graph(
        graph, CpuCatalog(isa_levels()), maxima={"T": 8, "R": 1, "G": 1}, block_size=16, max_positions=64
    )
    first = next(call for call in program.calls if call.family == "expert_linear")
    read = program.buffers[first.args["x"]]
    assert (read.rows, read.dtype, first.rows, first.attrs["act"]) == ("T", "int8.token", "P", "silu_mul")


def test_offline_methods_refuse_mixtures(tmp_path: Path) -> None:
    from albireo.compress.recipe import Recipe
    from albireo.compress.run import quantize
    from albireo.compress.texts import Text

    directory = make_checkpoint(tmp_path / "model", load_architecture("mixtral").tiny)
    text = Text("numbers", np.arange(64, dtype=np.int32) % 90)
    with pytest.raises(ConfigError, match="mixtral has experts, whose inputs are not calibrated yet"):
        quantize(directory, tmp_path / "out", Recipe(scheme="int8", method="rtn"), text, [text])
    assert not (tmp_path / "out").exists()
