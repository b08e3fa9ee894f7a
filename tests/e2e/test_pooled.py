"""DeepSeek V4, whose rows see entries of several positions: blocks that are let go, what transformers computes step by
step, files as published, and what is refused. The same bits in every way: test_chosen_entries.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.backends.backend import BLOCK_GROUPS
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.compiler.passes.shard import problems
from albireo.engine.block_tables import blocks_needed
from albireo.errors import ModelError, UnsupportedModel, WeightMismatch
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from albireo.params import SamplingParams
from e2e.promises import assert_logits_of_transformers_with_its_caches, verdicts_of_a_directory
from e2e.serving import Ask, Server, assert_same_answers
from e2e.test_invariance import requests
from tiny_models import as_written, make_checkpoint, parse_tiny, random_weights, write_safetensors

TINY: dict[str, Any] = dict(load_architecture("deepseek_v4").tiny)
#: Parts of names in transformers' memory, and what its authors call them, in this order.
PUBLISHED = {
    "model.hc_head.hc_": "hc_head_",
    "model.embed_tokens.": "embed.",
    "lm_head.": "head.",
    "model.": "",
    ".self_attn.compressor.indexer.q_b_proj.": ".attn.indexer.wq_b.",
    ".self_attn.compressor.indexer.scorer.": ".attn.indexer.",
    ".self_attn.compressor.indexer.": ".attn.indexer.compressor.",
    ".self_attn.": ".attn.",
    ".compressor.kv_norm.": ".compressor.norm.",
    ".position_bias": ".ape",
    ".kv_proj.": ".wkv.",
    ".compressor.gate_proj.": ".compressor.wgate.",
    ".q_a_proj.": ".wq_a.",
    ".q_b_proj.": ".wq_b.",
    ".o_a_proj.": ".wo_a.",
    ".o_b_proj.": ".wo_b.",
    ".q_a_norm.": ".q_norm.",
    ".sinks": ".attn_sink",
    ".input_layernorm.": ".attn_norm.",
    ".post_attention_layernorm.": ".ffn_norm.",
    ".mlp.": ".ffn.",
    ".gate.e_score_correction_bias": ".gate.bias",
    ".gate_proj.": ".w1.",
    ".down_proj.": ".w2.",
    ".up_proj.": ".w3.",
    ".attn_hc.": ".hc_attn_",
    ".ffn_hc.": ".hc_ffn_",
}


def published(name: str) -> str:
    for ours, theirs in PUBLISHED.items():
        name = name.replace(ours, theirs)
    return name


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), TINY, seed=5, dtype="bfloat16")


def test_blocks_that_windows_have_passed_are_let_go(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cache with room for one long request and little more; found again, by entries and by windows."""
    long = SamplingParams(temperature=0, max_tokens=70, ignore_eos=True, logprobs=0)
    asks = [Ask(requests()[4].prompt[:50], long), *requests()[2:4]]
    limits: dict[str, Any] = {"block_size": 8, "max_num_batched_tokens": 24}
    with monkeypatch.context() as patch:
        patch.setattr(CpuCatalog, "abilities", CpuCatalog.abilities - {BLOCK_GROUPS})
        plain = Server.load(directory, enable_prefix_caching=False, **limits)
        assert plain.loaded.settings.windows == (None,)
        wanted, _ = plain.serve(asks)
    server = Server.load(directory, **limits)
    settings = server.loaded.settings
    room = blocks_needed(120, 8, settings.windows, 24)
    assert len(settings.windows) > 1 and room < len(settings.windows) * 120 // 8
    server.loaded = replace(server.loaded, settings=replace(settings, num_blocks=1 + room))
    answers, stats = server.serve(asks)
    assert_same_answers(answers, wanted)
    assert stats.num_failed_steps == 0
    server.loaded = replace(server.loaded, settings=settings)
    again, _ = server.serve([asks[0], *asks], waves=4)
    assert_same_answers(again[1:], wanted)
    assert again[1].num_cached_tokens == 48


def test_a_directory_computes_the_same_and_is_verified_by_tokens_and_quality(tmp_path: Path) -> None:
    assert verdicts_of_a_directory(tmp_path, TINY, requests()[:4]) == {
        **dict.fromkeys(("graph", "weights", "tokens", "quality"), "passed"),
        **dict.fromkeys(("ops", "layers"), "not judged"),
    }


def test_ranks_give_one_answer(tmp_path: Path) -> None:
    """All have the attention; experts and the head are cut."""
    config = TINY | {"moe_intermediate_size": 48, "vocab_size": 96}
    assert not problems(build_graph(parse_tiny("deepseek_v4", **config), 64), 2)
    directory = make_checkpoint(tmp_path, config, seed=3)
    asks = [Ask(tuple(t % 96 for t in ask.prompt), ask.params) for ask in requests()[:4]]
    wanted = Server.load(directory, tp_invariant=True).alone(asks)
    answers, _ = Server.load(directory, tensor_parallel_size=2, num_threads=2).serve(asks)
    assert_same_answers(answers, wanted)


def test_transformers_with_its_caches(tmp_path: Path) -> None:
    assert_logits_of_transformers_with_its_caches(make_checkpoint(tmp_path, TINY, seed=7))


# -- files -------------------------------------------------------------------------------------------------------------


def test_tensors_as_published(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, TINY, seed=3)
    graph = build_graph(load_config(directory), 64)
    with open_checkpoint(directory, graph) as checkpoint:
        wanted = {each: checkpoint.tensor(each).to_float32() for each in checkpoint.names}
    renamed = {published(name): array for name, array in random_weights(TINY, 3).items()}
    assert {"embed.weight", "head.weight", "hc_head_fn", "layers.1.attn.indexer.compressor.ape"} <= set(renamed)
    assert {"layers.0.ffn.experts.3.w2.weight", "layers.2.hc_ffn_scale", "layers.0.ffn.gate.tid2eid"} <= set(renamed)
    renamed["mtp.0.attn.wq_a.weight"] = np.ones((2, 2), np.float32)
    write_safetensors(directory / "model.safetensors", renamed, "float32")
    with open_checkpoint(directory, graph) as checkpoint:
        assert set(checkpoint.names) == set(wanted)
        for each, numbers in wanted.items():
            assert np.array_equal(checkpoint.tensor(each).to_float32(), numbers), each


def test_matrices_as_published(tmp_path: Path) -> None:
    """e4m3 in blocks, and experts in e2m1, with powers of two: the numbers that transformers makes of them."""
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    config = TINY | {"hidden_size": 64, "moe_intermediate_size": 32, "torch_dtype": "bfloat16"}
    quantized = {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0", "activation_scheme": "dynamic"}
    config |= {"expert_dtype": "fp4", "quantization_config": {**quantized, "weight_block_size": [128, 128]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    generator, stored, wanted = torch.Generator().manual_seed(1), {}, {}
    in_blocks = ("wq_a", "wq_b", "wkv", "wo_a", "wo_b", "w1", "w2", "w3")
    for name, array in random_weights(config, 3).items():
        theirs, tensor = published(name), torch.tensor(array)
        module = theirs.removesuffix(".weight")
        is_numbers = ".compressor." in theirs or module.rpartition(".")[2] not in in_blocks
        if is_numbers:
            stored[theirs] = tensor.long() if theirs.endswith("tid2eid") else tensor.bfloat16()
            continue
        rows, columns = tensor.shape
        is_expert = ".ffn.experts." in theirs
        shape = (rows, columns // 32) if is_expert else (-(-rows // 128), -(-columns // 128))
        scale = torch.randint(121, 130, shape, generator=generator, dtype=torch.uint8).view(torch.float8_e8m0fnu)
        if is_expert:
            codes = torch.randint(-128, 128, (rows, columns // 2), generator=generator, dtype=torch.int8)
        else:
            codes = (448 * torch.tanh(tensor)).to(torch.float8_e4m3fn)
        stored |= {f"{module}.weight": codes, f"{module}.scale": scale}
        # transformers' own wants blocks that divide a matrix
        size = (1, 32) if is_expert else (rows, columns)
        dequantize = Fp8Dequantize(type("Q", (), {"quantization_config": type("C", (), {"weight_block_size": size})})())
        wanted[name] = dequantize._dequantize_one(codes, scale.float().reshape(shape)).float().numpy()
    safetensors.save_file(stored, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path, build_graph(load_config(tmp_path), 64)) as checkpoint:
        assert set(checkpoint.encodings.values()) == {"fp8.g128", "fp4.g32"} and wanted
        for name, numbers in wanted.items():
            np.testing.assert_array_equal(checkpoint.tensor(name).to_float32(), numbers, name)
    answers, _ = Server.load(tmp_path).serve(requests()[:2])
    assert all(np.isfinite(row).all() for answer in answers for row in answer.rows.values())


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (np.full((109, 3), 12), "has 12 to 12; there are 12 experts"),
        (np.full((109, 3), -1), "has -1 to -1; there are 12 experts"),
        (np.zeros((109, 3), np.float32), "has type F32; numbers of experts must be I64, I32"),
    ],
)
def test_a_table_of_no_experts(numbers: Any, message: str, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    directory = make_checkpoint(tmp_path, TINY, seed=3)
    tensors = as_written(TINY, random_weights(TINY, 3))
    tensors["model.layers.0.mlp.gate.tid2eid"] = numbers
    safetensors.save_file(tensors, directory / "model.safetensors")
    with pytest.raises(WeightMismatch, match=rf"gate\.tid2eid.* {message}"):
        Server.load(directory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_key_value_heads": 2}, "num_key_value_heads=2 is not supported; one KV head"),
        ({"compress_rates": {"compressed_sparse_attention": 6}}, "compress_rates=.*6.* a power of two of positions"),
        ({"compress_rates": {"attention": 4}}, "compress_rates: .*'attention': 4"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types='full_attention' is not supported"),
        ({"layer_types": ..., "compress_ratios": [0, 4]}, "compress_ratios=.* one for each of 3 layers"),
        (
            {"layer_types": ..., "compress_ratios": [0, 4, 8]},
            "compress_ratios=.*8.* supported: 0, 4, 128",
        ),
        ({"compress_ratios": [0, 4, 4]}, "compress_ratios=.* contradicts layer_types="),
        ({"mlp_layer_types": ["moe", "dense", "moe"]}, "mlp_layer_types=.* must be hash_moe or moe for each of 3"),
        ({"scoring_func": "softmax"}, "scoring_func='softmax' is not supported; supported: sqrtsoftplus, sigmoid"),
        ({"o_groups": 3}, "o_groups=3 must divide num_attention_heads=4"),
        ({"norm_topk_prob": False}, "'norm_topk_prob': False"),
        ({"partial_rotary_factor": 0.7}, "partial_rotary_factor=0.7 contradicts qk_rope_head_dim=8"),
        ({"qk_rope_head_dim": 7}, "must rotate pairs of head_dim=20"),
        ({"index_head_dim": 6}, "index_head_dim=6 .* at least 8"),
        ({"rope_parameters": {"main": {}}}, "must be one of main and one of compress"),
        ({"rope_parameters": {"main": {}, "compress": {}, "factor": 3.0}}, "not supported .*'factor': 3.0"),
        ({"hc_mult": 17}, "hc_mult=17 must be a whole number from 2 to 16"),
        ({"n_shared_experts": 2}, "n_shared_experts=2 must be a whole number from 1 to 1"),
        ({"first_k_dense_replace": 1}, "'first_k_dense_replace': 1"),
    ],
)
def test_what_is_not_computed_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny("deepseek_v4", **changes)


def test_a_kv_cache_of_codes_is_refused(directory: Path) -> None:
    with pytest.raises(UnsupportedModel, match="a KV cache of int8: values of this model are channels of its keys"):
        Server.load(directory, kv_cache_dtype="int8")


def test_what_nobody_chooses_among_is_not_read() -> None:
    """A context of as many entries as are chosen: no indexer, and a cache fewer."""
    some, all_ = (parse_tiny("deepseek_v4", index_topk=count) for count in (31, 32))
    assert [len(each.kv_shapes) for each in (some, all_)] == [6, 5]
    ops = [[node.op for node in build_graph(each, 128).nodes].count("choose_keys") for each in (some, all_)]
    assert ops == [1, 0]
    assert some.state_bytes - all_.state_bytes == 4 * 9 * 12
