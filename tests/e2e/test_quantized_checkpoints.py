"""Checkpoints of few bits on the native kernels, beside transformers on the numbers that the formats stand for.

What differs is the rounding of activations to 8 bits, token by token, and to bfloat16 where weights are numbers.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.backends.cpu.machine import isa_levels
from albireo.models import load_architecture
from albireo.models.checkpoint.weights import Checkpoint
from albireo.params import SamplingParams
from e2e.serving import Ask, Server
from models.gguf.writer import CONFIGS as GGUF_CONFIGS
from models.gguf.writer import LLAMA, PRESETS, write_gguf
from models.transformers_logits import distance, logits_by_transformers
from quantization.formats.writers import TINY, WRITERS, write_model
from tiny_models import make_checkpoint, random_weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
ASK = Ask((5, 17, 3, 90, 44, 8, 61, 33), SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, logprobs=0))


def ours(model: Path, **config: Any) -> np.ndarray:
    answers, _ = Server.load(model, max_num_batched_tokens=48, **config).serve([ASK])
    return np.stack([answers[0].rows[position] for position in range(len(ASK.prompt))])


def theirs(config: dict[str, Any], numbers: dict[str, np.ndarray]) -> np.ndarray:
    return logits_by_transformers(config, numbers, ASK.prompt)


@pytest.mark.parametrize("name", WRITERS)
def test_logits_of_every_format(name: str, tmp_path: Path) -> None:
    numbers = write_model(tmp_path, WRITERS[name], seed=4)
    off = distance(ours(tmp_path), theirs(TINY, numbers))
    # numbers in float32 are exact; the rounding of activations is about 1 % a linear
    assert off < (1e-5 if (WRITERS[name].encoding or "fp8").startswith("fp8") else 0.025), off


def test_bitnet_rounds_as_its_own_layers_do(tmp_path: Path) -> None:
    """Weights and activations: nothing is left but the order of sums, and what that rounds the other way."""
    config = dict(load_architecture("bitnet").tiny)
    settings = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
    make_checkpoint(tmp_path, config | {"quantization_config": settings}, seed=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda function: function)
        from transformers.integrations.bitnet import replace_with_bitnet_linear
    whole = transformers.AutoConfig.for_model(**config)
    model = transformers.AutoModelForCausalLM.from_config(whole, attn_implementation="eager", dtype=torch.float32)
    replace_with_bitnet_linear(model, ["lm_head"], transformers.BitNetQuantConfig(**settings))
    numbers = {name: torch.tensor(array) for name, array in random_weights(config, 4).items()}
    model.load_state_dict(numbers | {"lm_head.weight": numbers["model.embed_tokens.weight"]})
    with torch.no_grad():
        wanted = model.eval()(torch.tensor([ASK.prompt])).logits[0].numpy()
    assert distance(ours(tmp_path), wanted) < 2e-3
    assert distance(logits_by_transformers(config, random_weights(config, 4), ASK.prompt), wanted) > 0.1


@pytest.mark.parametrize("name", ["compressed-tensors W8A8 channel", "awq", "compressed-tensors fp8 block"])
def test_rows_of_joined_matrices(name: str, tmp_path: Path) -> None:
    """q, k and v are rows of one quantized matrix, those of q and k in the order in which a part of each head turns."""
    changes = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "partial_rotary_factor": 0.75}
    changes |= {"pad_token_id": 0, "sliding_window": None, "original_max_position_embeddings": 64}
    numbers = write_model(tmp_path, WRITERS[name], seed=4, **changes)
    with Checkpoint(tmp_path) as checkpoint:
        assert "model.layers.0.self_attn.qkv_proj.weight" in checkpoint.encodings
    assert distance(ours(tmp_path), theirs(TINY | changes, numbers)) < (1e-5 if "fp8" in name else 0.025)


@pytest.mark.parametrize("name", ["compressed-tensors W8A8 channel", "awq", "fp8 blocks"])
def test_matrices_that_latents_go_through(name: str, tmp_path: Path) -> None:
    """The one that makes keys and values is decoded and split; rows of queries are taken apart where they lie."""
    changes = {"model_type": "youtu", "architectures": ["YoutuForCausalLM"], "num_key_value_heads": 4}
    changes |= {"q_lora_rank": 128, "kv_lora_rank": 128, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16}
    changes |= {"v_head_dim": 32, "attention_bias": False, "bos_token_id": 1}
    numbers = write_model(tmp_path, WRITERS[name], seed=4, **changes)
    with Checkpoint(tmp_path) as checkpoint:
        assert "model.layers.0.self_attn.q_b_proj.weight" in checkpoint.encodings
        assert "model.layers.0.self_attn.kv_b_proj.weight" not in checkpoint
        assert checkpoint.kind("model.layers.0.self_attn.k_up_proj.weight") == "float32"
    assert distance(ours(tmp_path), theirs(TINY | changes, numbers)) < (1e-5 if "fp8" in name else 0.025)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Q8_0", "llama"),
        ("Q4_0", "llama, tied"),
        ("Q4_1", "qwen2"),
        ("Q5_1", "qwen3"),
        ("Q5_0", "llama"),
        ("Q8_0", "phi3"),
        ("Q4_0", "gemma"),
        ("Q8_0", "gemma2"),
        ("Q4_0", "gemma3"),
        ("Q8_0", "granite"),
        ("Q4_1", "olmo2"),
        ("Q4_0", "smollm3"),
    ],
)
def test_logits_of_gguf(kind: str, name: str, tmp_path: Path) -> None:
    numbers = write_gguf(tmp_path / "m.gguf", GGUF_CONFIGS[name], kind, seed=4)
    off = distance(ours(tmp_path / "m.gguf", dtype="float32"), theirs(GGUF_CONFIGS[name], numbers))
    assert off < 0.05, off  # two layers and a head


@pytest.mark.parametrize("name", ["compressed-tensors W8A8 channel", "compressed-tensors W8A16 g32"])
def test_the_smallest_code_of_int8_at_every_level(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-128, which compressed-tensors writes where the largest number of a row is negative: the same bits everywhere."""
    numbers = write_model(tmp_path, WRITERS[name], seed=4)
    with Checkpoint(tmp_path) as checkpoint:
        assert any((checkpoint.encoded(matrix).codes == 0).any() for matrix in checkpoint.encodings)
    wanted = theirs(TINY, numbers)
    for level in isa_levels():
        monkeypatch.setenv("ALBIREO_ISA_MAX", level)
        assert distance(ours(tmp_path), wanted) < 0.025, level


@pytest.mark.parametrize("kind", ["mixed", *PRESETS])
def test_types_that_differ_from_matrix_to_matrix(kind: str, tmp_path: Path) -> None:
    """As in files of Q4_K_M: what would be joined is not, where the types differ."""
    numbers = write_gguf(tmp_path / "m.gguf", LLAMA, kind, seed=4)
    off = distance(ours(tmp_path / "m.gguf", dtype="float32"), theirs(LLAMA, numbers))
    assert off < (0.05 if kind == "mixed" else 0.1), off  # exact where activations are; see models/gguf/test_models.py


def test_what_is_not_kept_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_model(tmp_path, WRITERS["gptq desc_act"])
    with caplog.at_level(logging.WARNING):
        ours(tmp_path)
    assert any("groups of inputs in any order" in record.message for record in caplog.records)


def test_a_matrix_left_as_numbers_beside_quantized_ones(tmp_path: Path) -> None:
    """An ignore list may keep one of q, k and v, or gate but not up, in 16 bits."""
    numbers = write_model(tmp_path, WRITERS["awq"], seed=5)
    from safetensors.torch import load_file, save_file

    tensors = load_file(tmp_path / "model.safetensors")
    for module in ("model.layers.0.self_attn.k_proj", "model.layers.0.mlp.gate_proj"):
        for part in ("qweight", "qzeros", "scales"):
            del tensors[f"{module}.{part}"]
        weight = torch.tensor(numbers[f"{module}.weight"]).to(torch.bfloat16)
        numbers[f"{module}.weight"] = weight.float().numpy()
        tensors[f"{module}.weight"] = weight
    save_file(tensors, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        assert len(checkpoint.encodings) == 5
    assert distance(ours(tmp_path), theirs(TINY, numbers)) < 0.025
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "awq"
