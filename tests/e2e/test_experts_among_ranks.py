"""Mixtures of experts on several ranks: transformers' tokens, and in few bits the bits of one rank in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.build import build
from albireo.config import BuildConfig
from albireo.errors import ConfigError
from albireo.verify.run import verify
from compiler.ranks import wide_config, wide_mixture
from e2e.serving import Server, assert_same_answers
from e2e.test_invariance import ALL_AT_ONCE, NO_CACHE, requests
from e2e.test_parity import all_rows, assert_greedy, distance, reference, serve
from models.test_interleaved_experts import in_mxfp4
from tiny_models import make_checkpoint

torch = pytest.importorskip("torch")

#: What their shared experts, or FFNs in place of experts, are cut to.
WIDTHS = {
    "mixtral": {},
    "qwen2_moe": {"moe_intermediate_size": 44, "shared_expert_intermediate_size": 48},
    "qwen3_moe": {"moe_intermediate_size": 40},
    "gpt_oss": {},
    "glm4_moe": {"moe_intermediate_size": 48},
    "llama4_text": {"intermediate_size": 48, "intermediate_size_mlp": 80},
    "olmoe": {},
    # heads that share latents; one without experts
    "deepseek_v3": {"moe_intermediate_size": 48},
    "deepseek_v2": {"moe_intermediate_size": 48},
    "youtu": {},
    # streams, and heads that see chosen positions
    "hy_v4": {"moe_intermediate_size": 48},
    # beside an FFN, and heads of two shapes
    "gemma4_text, experts": {},
}
#: Heads whose outputs are an eighth of whole groups.
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 128}
QWEN3 = {
    **{"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_hidden_layers": 2, "num_experts": 5},
    **{"num_experts_per_tok": 2, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    **{"max_position_embeddings": 512, "vocab_size": 131},
    **HEADS,
}


#: Ranks of more than two are threads that wait for each other: of one model eight, of two four.
SIZES = {"qwen2_moe": 8, "gpt_oss": 4, "deepseek_v3": 4}


@pytest.mark.parametrize(
    ("model", "size"),
    [
        *((model, SIZES.get(model, 2)) for model in WIDTHS),
        *(
            pytest.param(model, 4 if i % 3 else 8, marks=pytest.mark.thorough)
            for i, model in enumerate(WIDTHS)
            if model not in SIZES
        ),
    ],
)
def test_logits_and_tokens_of_transformers(model: str, size: int, tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, wide_mixture(model, **WIDTHS[model]), seed=3)
    sequences, answers = serve(directory, tensor_parallel_size=size, num_threads=size)
    logits = reference(directory, "float32", sequences)
    assert_greedy(sequences, answers, logits)
    assert distance(all_rows(answers), np.concatenate(logits)) < 3e-6


def assert_same_on_ranks(directory: Path, sizes: tuple[int, ...], **settings: Any) -> None:
    wanted = Server.load(directory, tp_invariant=True, **NO_CACHE, **settings).alone(requests())
    for size in sizes:
        among = {**ALL_AT_ONCE, "num_threads": size, "tensor_parallel_size": size}
        answers, _ = Server.load(directory, **among, **settings).serve(requests())
        assert_same_answers(answers, wanted)


@pytest.mark.parametrize(
    ("name", "width", "sizes"),
    [
        # a leaf has a group, or none
        ("fp8 blocks", 384, (2,)),
        ("awq", 640, (4,)),
        ("gptq", 1024, (8,)),
        ("compressed-tensors W4A16 g128", 768, (2,)),
        ("compressed-tensors fp8 channel", 72, (4,)),
        ("compressed-tensors mxfp4", 352, (2,)),
        *(
            pytest.param(*each, marks=pytest.mark.thorough)
            for each in (
                ("awq", 640, (2,)),
                ("compressed-tensors W4A16 g128", 768, (4,)),
                ("compressed-tensors fp8 channel", 72, (8,)),
                ("compressed-tensors mxfp4", 352, (8,)),
            )
        ),
    ],
)
def test_checkpoints_in_few_bits(name: str, width: int, sizes: tuple[int, ...], tmp_path: Path) -> None:
    from quantization.formats.writers import WRITERS, write_model

    write_model(tmp_path, WRITERS[name], **QWEN3, moe_intermediate_size=width)
    assert_same_on_ranks(tmp_path, sizes)


def test_channels_of_an_ffn_in_groups_that_are_no_eighths(tmp_path: Path) -> None:
    """A dense model as published in few bits: five groups, of which a rank of four has one or two."""
    from quantization.formats.writers import WRITERS, write_model

    sizes = {"intermediate_size": 640, "max_position_embeddings": 512, "vocab_size": 131}
    write_model(tmp_path, WRITERS["compressed-tensors W4A16 g128"], **HEADS, **sizes)
    assert_same_on_ranks(tmp_path, (2, 4))
    words = r"layers\.0\.mlp\.down adds 640 products of int4\.g128, whose groups have no part for each of 8"
    with pytest.raises(ConfigError, match=words):
        Server.load(tmp_path, tensor_parallel_size=8, num_threads=8)


def test_experts_in_mxfp4_as_published(tmp_path: Path) -> None:
    """All of a layer in one tensor, gate and up in turn; there are two groups of an expert's channels."""
    in_mxfp4(tmp_path)
    assert_same_on_ranks(tmp_path, (2,))
    with pytest.raises(
        ConfigError, match=r"layers\.0\.moe\.experts\.down adds 64 products of fp4\.g32, whose groups have"
    ):
        Server.load(tmp_path, tensor_parallel_size=4, num_threads=4)


@pytest.mark.parametrize("scheme", ["int8", "int4", "fp8"])
def test_experts_rounded_while_they_are_loaded(scheme: str, tmp_path: Path) -> None:
    config = wide_config("qwen2_moe", head_dim=128, moe_intermediate_size=88, shared_expert_intermediate_size=512)
    directory = make_checkpoint(tmp_path, config | {"intermediate_size": 512}, seed=3, dtype="bfloat16")
    assert_same_on_ranks(directory, (2,), quantization=scheme)


def test_a_gguf_file(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from models.gguf.writer import MIXTURES, write_gguf

    write_gguf(tmp_path / "m.gguf", MIXTURES["mixtral"], "Q8_0")
    assert_same_on_ranks(tmp_path / "m.gguf", (2,))


@pytest.mark.parametrize(
    "model",
    [
        "gpt_oss",
        *(pytest.param(each, marks=pytest.mark.thorough) for each in ("deepseek_v3", "gemma4_text, experts")),
    ],
)
def test_a_directory_of_ranks_is_verified(model: str, tmp_path: Path) -> None:
    """Built, run and held to the graph of the first rank, which has the biases of all. In 16 bits experts that are
    nearly equal would decide what is measured of quality."""
    directory = make_checkpoint(tmp_path / "model", wide_mixture(model), seed=3)
    engine = build(directory, tmp_path / "engine", BuildConfig(tensor_parallel_size=2)).directory
    wanted = Server.load(directory, tp_invariant=True, **NO_CACHE).alone(requests())
    answers, _ = Server.load(engine, **ALL_AT_ONCE, num_threads=2).serve(requests())
    assert_same_answers(answers, wanted)
    for options in ({}, {"tensor_parallel_size": 1, "tp_invariant": True}):
        if options:
            engine = build(directory, engine, BuildConfig(force=True, **options)).directory
        found = verify(engine, str(directory), num_tokens=60)
        assert found.is_verified, found.finding
