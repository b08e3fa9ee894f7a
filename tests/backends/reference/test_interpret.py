"""The interpreter against transformers, for every architecture and kind of model, and against published text."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.backends.reference.interpret import Interpretation, interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import round_to
from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.models import architectures, build_graph, load_architecture, load_config, open_checkpoint
from albireo.models.config import ModelConfig
from in_turn import in_turn
from representatives import ALL_REPRESENTATIVES
from step_batches import Work, make_step
from tiny_models import is_hybrid, make_checkpoint, shared_data
from variants import VARIANTS, tiny_of

BLOCK = 8
MAX_LEN = 64


class Model:
    """A model directory run by the interpreter, one sequence over shuffled blocks."""

    def __init__(self, directory: Path, dtype: str = "auto", max_model_len: int = MAX_LEN) -> None:
        self.config = load_config(directory).with_dtype(dtype)
        self.graph = build_graph(self.config, max_model_len)
        with open_checkpoint(directory, self.graph) as checkpoint:
            self.weights = {name: checkpoint.tensor(name).to_float32() for name in checkpoint.names}
        num_blocks = -(-max_model_len // BLOCK) + 1
        self.kv = ReferenceKV(num_blocks, BLOCK, self.config.dtype)
        self.blocks = np.random.default_rng(0).permutation(np.arange(1, num_blocks))
        self.length = 0

    def step(self, tokens: Sequence[int], **options: Any) -> Interpretation:
        work = Work(tokens, self.length, self.blocks, state_slot=0)
        self.length += len(tokens)
        return interpret(self.graph, make_step([work], BLOCK), self.weights, self.kv, **options)

    def logits(self, tokens: Sequence[int], chunks: Sequence[int] = ()) -> np.ndarray:
        """[T, V] of a new sequence, computed in chunks of the given sizes and a last one with the rest."""
        self.length = 0
        cuts = np.cumsum(chunks).tolist()
        pieces = [p for p in np.split(np.asarray(tokens), cuts) if len(p)]
        return np.concatenate([self.step(p)["logits"] for p in pieces])

    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """The next count tokens, one step each after the prompt."""
        self.length, out = 0, []
        for _ in range(count):
            out.append(int(self.step(out[-1:] or tokens)["top_ids"][-1, 0]))
        return out


def tiny(model_type: str, **changes: Any) -> dict[str, Any]:
    """An architecture's TINY config with changes; a change to ... removes the key."""
    config = {**load_architecture(model_type).tiny, **changes}
    return {key: value for key, value in config.items() if value is not ...}


def heads(head_dim: int, num_heads: int = 2, num_kv_heads: int = 1) -> dict[str, int]:
    return {"head_dim": head_dim, "num_attention_heads": num_heads, "num_key_value_heads": num_kv_heads}


def _grows(config: Mapping[str, Any], period: int) -> dict[str, Any]:
    """Its rotation, with queries that grow within a short text."""
    return {**config["rope_parameters"], "original_max_position_embeddings": period}


def _stretched(config: Mapping[str, Any]) -> dict[str, Any]:
    """Its rotations, those of layers that choose by yarn."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale_all_dim": 1.2}
    own = config["rope_parameters"]
    return {**own, "indexed_attention": {**own["indexed_attention"], **yarn}}


LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
MODELS: dict[str, Mapping[str, Any]] = {
    **{name: load_architecture(name).tiny for name in architectures()},
    "llama-plain": tiny("llama", rope_scaling=None, attention_bias=False, mlp_bias=False, tie_word_embeddings=True),
    "llama-mha": tiny("llama", num_key_value_heads=..., head_dim=..., attention_bias=False),
    "llama-linear": tiny("llama", rope_scaling={"type": "linear", "factor": 3.0}, mlp_bias=False),
    "llama-dynamic-short": tiny("llama", rope_scaling={"rope_type": "dynamic", "factor": 2.0}),
    "llama-yarn": tiny(
        "llama", rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    ),
    "llama-yarn-mscale": tiny(
        "llama",
        rope_scaling=dict(rope_type="yarn", factor=8.0, mscale=0.7, mscale_all_dim=1.3, truncate=False, beta_fast=16.0)
        | {"original_max_position_embeddings": 16},
    ),
    "llama-llama3": tiny("llama", rope_scaling=LLAMA3 | {"original_max_position_embeddings": 64}),
    "llama-v5": tiny(
        "llama", rope_theta=..., rope_scaling=..., rope_parameters={"rope_type": "default", "rope_theta": 500.0}
    ),
    "llama-64": tiny("llama", **heads(64)),
    "llama-80": tiny("llama", **heads(80, 3, 3)),
    "llama-96": tiny("llama", **heads(96, 2, 2)),
    "llama-128": tiny("llama", **heads(128)),
    "llama-256": tiny("llama", **heads(256)),
    "llama-8": tiny("llama", **heads(8, 8, 4)),
    "mistral-full": tiny("mistral", sliding_window=None, tie_word_embeddings=True),
    "mistral-window-1": tiny("mistral", sliding_window=1),
    "mistral-window-long": tiny("mistral", sliding_window=4096),
    "qwen2-full": tiny("qwen2", use_sliding_window=False, rope_scaling=None, tie_word_embeddings=False),
    "qwen2-layer-types": tiny("qwen2", layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "qwen3-bias": tiny("qwen3", attention_bias=True, tie_word_embeddings=False),
    "qwen3-128": tiny("qwen3", **heads(128)),
    "gemma3n-plain": tiny("gemma3n_text", attention_bias=True, intermediate_size=72)
    | {"activation_sparsity_pattern": None, "num_kv_shared_layers": 0, "altup_num_inputs": 4, "layer_types": None},
    "gemma4-own-values": tiny("gemma4_text", attention_k_eq_v=False, global_head_dim=512, head_dim=256),
    "gemma4-bias": tiny("gemma4_text", attention_bias=True, tie_word_embeddings=False, num_global_key_value_heads=2),
    "gpt_neox-in-turn": tiny("gpt_neox", use_parallel_residual=False, attention_bias=False, tie_word_embeddings=True),
    "falcon-40b": tiny("falcon", new_decoder_architecture=True, num_kv_heads=2, bias=True, tie_word_embeddings=False),
    "falcon-11b": tiny("falcon", new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1),
    "falcon-in-turn": tiny("falcon", multi_query=False, parallel_attn=False),
    "falcon-rw": tiny("falcon", multi_query=False, parallel_attn=False, bias=True, alibi=True),
    "falcon-rw-group": tiny("falcon", alibi=True),
    "bloom-power": tiny("bloom", n_head=4, tie_word_embeddings=False),
    "mpt-power": tiny("mpt", n_heads=4, attn_config={"alibi": True, "softmax_scale": 0.4, "clip_qkv": 0.9}),
    "olmo-limited": tiny("olmo", clip_qkv=0.7),
    "olmoe-limited": tiny("olmoe", clip_qkv=0.7),
    "bailing_moe-plain": tiny("bailing_moe", use_qkv_bias=True, use_qk_norm=False, n_group=1, topk_group=1),
    "phimoe-plain": tiny("phimoe", attention_bias=False, lm_head_bias=False, router_jitter_noise=0.01)
    | {"rope_scaling": None, "original_max_position_embeddings": None, "sliding_window": 9},
    "opt-plain": tiny("opt", enable_bias=False, layer_norm_elementwise_affine=True, activation_function="gelu"),
    "stablelm-parallel": tiny("stablelm", use_parallel_residual=True, use_qkv_bias=False, num_key_value_heads=2),
    "cohere-normed": tiny("cohere", use_qk_norm=True),
    "stablelm-normed": tiny("stablelm", qk_layernorm=True, use_parallel_residual=True, num_key_value_heads=2),
    "cohere-bias": tiny("cohere", attention_bias=True, tie_word_embeddings=False),
    "gpt2-untied": tiny("gpt2", n_inner=80, tie_word_embeddings=False),
    "starcoder2-plain": tiny("starcoder2", use_bias=False, sliding_window=None),
    "glm4_moe-plain": tiny("glm4_moe", use_qk_norm=True, n_group=1, topk_group=1, norm_topk_prob=False),
    "lfm2-bias": tiny("lfm2", conv_bias=True, conv_L_cache=4, tie_embedding=False, block_auto_adjust_ff_dim=False),
    "granite_swa-plain": tiny("granite_swa", layer_types=..., layer_rope_theta=..., sliding_window=5, mlp_bias=False),
    "granitemoe_swa-plain": tiny("granitemoe_swa", shared_intermediate_size=0, attention_bias=False)
    | {"rope_scaling": {"rope_type": "linear", "factor": 3.0}},
    "cohere2_moe-sigmoids": tiny("cohere2_moe", expert_selection_fn="sigmoid", rms_norm_eps=1e-6, attention_bias=True)
    | {"shared_expert_combination_strategy": "sum", "prefix_dense_sliding_window_pattern": 2},
    "cohere2_moe-plain": tiny("cohere2_moe", expert_selection_fn="sigmoid", norm_topk_prob=False, num_shared_experts=0),
    "flint-plain": tiny("flint", norm_topk_prob=False, mlp_only_layers=None, layer_types=None, attention_bias=True)
    | {"num_hidden_layers": 4},
    "kolibri1-plain": tiny("kolibri1", norm_topk_prob=False, tie_word_embeddings=True),
    "bailing_hybrid-plain": tiny("bailing_hybrid", kda_safe_gate=False, q_lora_rank=16, n_group=1, topk_group=1),
    "apertus1p5_text-whole": tiny("apertus1p5_text", output_vocab_size=None, rope_parameters=...),
    "laguna-plain": tiny("laguna", gating="per-element", attention_bias=True, moe_router_logit_softcapping=1.5)
    | {"num_attention_heads_per_layer": [4, 4, 4], "rope_parameters": None, "moe_routed_scaling_factor": 1.0},
    "lfm3-plain": tiny("lfm3", use_sandwich_norm=False, use_attention_gate=False, attention_bias=True, conv_bias=True)
    | {"layer_types": None, "rope_parameters": None, "num_hidden_layers": 5},
    "qwen3-window": tiny("qwen3", use_sliding_window=True, sliding_window=5, max_window_layers=1),
    "nemotron_h-dense": tiny("nemotron_h", hybrid_override_pattern="M-*M-", num_hidden_layers=5, use_bias=True)
    | {"use_conv_bias": False, "mlp_bias": False, "conv_kernel": 3, "n_groups": 1},
    "nemotron_h-latent": tiny("nemotron_h", moe_latent_size=24, n_group=1),
    "falcon_h1-normed": tiny("falcon_h1", mamba_rms_norm=True, mamba_d_ssm=None, mamba_d_head="auto"),
    "falcon_h1-plain": tiny("falcon_h1", mamba_rms_norm=True, mamba_norm_before_gate=True, ssm_multipliers=...)
    | {"mlp_multipliers": None, "attention_out_multiplier": 1.0, "ssm_out_multiplier": 1.0, "mamba_conv_bias": False},
    "olmo_hybrid-plain": tiny("olmo_hybrid", linear_allow_neg_eigval=False, attention_bias=True)
    | {"tie_word_embeddings": True, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
    "zamba2-plain": tiny("zamba2", num_mem_blocks=1, use_shared_attention_adapter=False, use_mem_rope=False)
    | {"num_key_value_heads": 2, "intermediate_size": None},
    "bamba-biases": tiny("bamba", attention_bias=True, mlp_bias=True, mamba_proj_bias=True, tie_word_embeddings=True)
    | {"attn_layer_indices": [0, 2], "time_step_limit": [0.2, 0.7]},
    "mamba2-bias": tiny("mamba2", tie_word_embeddings=False, use_bias=True, use_conv_bias=False, n_groups=4),
    "mamba-bias": tiny("mamba", tie_word_embeddings=False, use_bias=True, use_conv_bias=False, time_step_rank="auto"),
    "falcon_mamba-bias": tiny("falcon_mamba", use_bias=True, tie_word_embeddings=True, mixer_rms_eps=...),
    "jamba-dense": tiny("jamba", num_experts=1, num_experts_per_tok=1, mamba_proj_bias=True, mamba_dt_rank="auto")
    | {"tie_word_embeddings": True, "attn_layer_offset": 0, "mamba_conv_bias": False},
    "granitemoehybrid-limits": tiny("granitemoehybrid", time_step_limit=[0.2, 0.7], mamba_proj_bias=True)
    | {"mamba_n_groups": 2, "position_embedding_type": "rope", "mamba_d_head": "auto"},
    "granitemoehybrid-attention": tiny("granitemoehybrid", layer_types=["attention"] * 3, num_local_experts=0)
    | {"position_embedding_type": "rope", "tie_word_embeddings": False, "attention_bias": True},
    **{name: tiny_of(name) for name in VARIANTS},
    "gemma4-all": tiny("gemma4_text", **VARIANTS["gemma4_text, experts"])
    | VARIANTS["gemma4_text, embeddings of layers"]
    | {"attention_k_eq_v": True, "num_kv_shared_layers": 2},
    "mimo_v2_flash-plain": tiny("mimo_v2_flash", attention_bias=True, attention_value_scale=None, v_head_dim=24)
    | {"tie_word_embeddings": True, "norm_topk_prob": False, "routed_scaling_factor": 2.5},
    "mimo_v2_flash-narrow": tiny("mimo_v2_flash", v_head_dim=7, n_group=3, topk_group=2),
    "ministral3-growing": tiny("ministral3", rope_parameters=_grows(tiny("ministral3"), 10)),
    "zaya-plain": tiny("zaya", attention_bias=True, lm_head_bias=True, cca_time0=3, cca_time1=3)
    | {"num_attention_heads": 6, "layer_types": None, "tie_word_embeddings": True},
    "hrm_text-biases": tiny("hrm_text", attention_bias=True, mlp_bias=True, embedding_scale=3.0, L_cycles=3)
    | {"num_hidden_layers": 16},
    "dory-loops": tiny("dory", n_input_layers=0, n_recurrent_layers=..., n_recurrent_loops=3, layer_types=...)
    | {"rope_parameters": None},
    "mistral_large4-plain": tiny("mistral_large4_text", attention_bias=True, kv_source_layers=[0, 1, 2, 3, 4])
    | {"indexer_types": ["full"] * 5, "no_rope_layers": [1, 1, 1, 0, 1], "index_topk": 128},
    "longcat_flash-plain": tiny("longcat_flash", attention_bias=True, zero_expert_num=0),
    "cohere_compass-still": tiny("cohere_compass_text", attention_bias=True, logit_scale=None)
    | {"rope_parameters": {"full_attention": None, "sliding_attention": {"rope_type": "default", "rope_theta": 1e5}}},
    "modernbert_decoder-biases": tiny("modernbert_decoder", norm_bias=True, attention_bias=True, mlp_bias=True)
    | {"decoder_bias": False, "tie_word_embeddings": False, "layer_types": ["sliding_attention"] * 4},
    "mistral4-growing": tiny("mistral4", rope_parameters=_grows(tiny("mistral4"), 7)),
    # groups of which nothing is said, as of eight, and a null that is no
    "deepseek_v3-unsaid": tiny("deepseek_v3", n_group=..., topk_group=..., norm_topk_prob=None, n_routed_experts=16),
    # whose scores are what they are without
    "dots3_note-stretched": tiny("dots3_note_text", rope_parameters=_stretched(tiny("dots3_note_text"))),
    "nemotron_h-one-group": tiny("nemotron_h", topk_group=...),
}


def seed_of(name: str) -> int:
    """Each has its own. With numbers of another, transformers' float32 is 3e-4 from its float64, and ours 8e-5."""
    return {"mamba2-bias": 188}.get(name, list(MODELS).index(name))


def prompt(config: Mapping[str, Any], length: int, seed: int) -> list[int]:
    most = config.get("output_vocab_size") or config["vocab_size"]  # a head may know fewer than there are embeddings
    return np.random.default_rng(seed).integers(0, most, length).tolist()


def load_torch_model(directory: Path) -> Any:
    """transformers' model in float32; every weight must find its place."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers_minimax import RATES
    from transformers_models import transformers

    torch.set_num_threads(1)
    # eager attention of Falcon adds what falls with distance twice, in its mask and beside it
    falls = json.loads((directory / "config.json").read_text()).get("alibi", False)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.float32,
        attn_implementation="sdpa" if falls else "eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    lost = {name for name in info["missing_keys"] if not name.endswith(RATES)}
    assert not lost and not any(info[key] for key in ("unexpected_keys", "mismatched_keys")), info
    return model.eval()


def torch_logits(model: Any, tokens: Sequence[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor([list(tokens)])).logits[0].numpy()


def assert_same_logits(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 3e-5) -> None:
    assert ours.shape == theirs.shape
    scale = np.abs(theirs).max()
    assert np.abs(ours - theirs).max() <= tolerance * scale
    assert scale > 1  # a model whose logits are all alike would agree with anything


@pytest.fixture(scope="module")
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    """Of a name of MODELS also the directory, and transformers' model of it, whose loading takes longest. Tests that
    change it copy it."""
    name = str(request.param)
    seed = seed_of(name)
    directory = make_checkpoint(tmp_path_factory.mktemp("made"), MODELS[name], seed=seed, shards=1 + seed % 3)
    return name, directory, load_torch_model(directory)


def tolerance_of(config: Mapping[str, Any]) -> float:
    """Of a recurrence transformers solves for 64 tokens at once, and is further off than token by token."""
    return 1e-4 if is_hybrid(config) or config["model_type"] == "mamba2" else 3e-5


@pytest.mark.parametrize("both", MODELS, indirect=True)
def test_logits_and_greedy_tokens_equal_transformers(both: tuple[str, Path, Any]) -> None:
    name, directory, theirs = both
    ours, tokens = Model(directory), prompt(MODELS[name], 37, seed_of(name))
    chosen = ours.greedy(tokens, 3)
    wanted = torch_logits(theirs, [*tokens, *chosen[:2]])
    assert_same_logits(ours.logits(tokens), wanted[:37], tolerance_of(MODELS[name]))
    assert chosen == wanted[36:].argmax(1).tolist(), "each token is the likeliest behind those before it"


def _as_shortly_said(config: ModelConfig) -> ModelConfig:
    """transformers writes the base of each layer (Granite) where all have the one that is said."""
    bases = config.blocks.layer_thetas
    is_one = bool(bases) and set(bases) == {config.rope.theta}
    return replace(config, blocks=replace(config.blocks, layer_thetas=())) if is_one else config


def assert_what_is_saved_is_loaded(theirs: Any, name: str, made: Path, saved: Path, dtype: str) -> None:
    """Its own config.json in today's form, its own shards, its own generation_config.json."""
    import torch

    from transformers_minimax import with_exact_rates

    theirs.to(getattr(torch, dtype)).save_pretrained(saved, max_shard_size="40KB")
    assert len(list(saved.glob("*.safetensors"))) > 1
    assert _as_shortly_said(load_config(saved)) == load_config(made).with_dtype(dtype)
    tokens = prompt(MODELS[name], 21, 9)
    again = with_exact_rates(load_torch_model(saved))  # .to() also rounded the frequencies of theirs
    assert_same_logits(Model(saved, "float32").logits(tokens), torch_logits(again, tokens), tolerance_of(MODELS[name]))


#: Architectures and variants in each run, other settings of them in a thorough one.
SAVED = [
    pytest.param(name, marks=() if name in (*architectures(), *VARIANTS) else pytest.mark.thorough) for name in MODELS
]
# heads of its layers that see all are as many as those of others, and transformers leaves out what says so
SAVED[list(MODELS).index("gemma4-bias")] = pytest.param("gemma4-bias", marks=pytest.mark.skip("says the same shorter"))


@pytest.mark.parametrize("both", SAVED, indirect=True)
def test_what_transformers_saves_is_loaded(both: tuple[str, Path, Any], tmp_path: Path) -> None:
    name, directory, theirs = both
    assert_what_is_saved_is_loaded(copy.deepcopy(theirs), name, directory, tmp_path / "saved", "bfloat16")


# few: its word in config.json and its tensors are the same of every architecture
@pytest.mark.parametrize("name", [*ALL_REPRESENTATIVES][::9])
def test_what_transformers_saves_in_float32_is_loaded(name: str, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "made", MODELS[name], seed=9)
    assert_what_is_saved_is_loaded(load_torch_model(made), name, made, tmp_path / "saved", "float32")


@in_turn(("name", ALL_REPRESENTATIVES), ("dtype", ["float16", "bfloat16"]))
def test_half_precision_checkpoints_are_read_exactly(name: str, dtype: str, tmp_path: Path) -> None:
    config = MODELS[name]
    # with 3, rounding decides between two experts of a token in Mixtral and Jamba
    make_checkpoint(tmp_path, config, seed={"mixtral": 4, "jamba": 8}.get(name, 3), dtype=dtype)
    tokens = prompt(config, 20, 3)
    exact = torch_logits(load_torch_model(tmp_path), tokens)  # computed in float32 from the same 16-bit weights
    assert load_config(tmp_path).dtype == dtype
    assert_same_logits(Model(tmp_path, "float32").logits(tokens), exact)
    # Rounding activations to p bits moves logits by a few 2^-p of their scale, not by none and not by much.
    error = np.abs(Model(tmp_path).logits(tokens) - exact).max() / np.abs(exact).max()
    ulp = 2.0**-8 if dtype == "bfloat16" else 2.0**-11
    assert ulp / 16 < error < ulp * 16


@pytest.mark.parametrize("name", ALL_REPRESENTATIVES)
def test_chunks_give_what_the_whole_prompt_gives(name: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, MODELS[name], seed=11)
    model, tokens = Model(tmp_path), prompt(MODELS[name], 41, 11)
    whole = model.logits(tokens)
    for chunks in ([40], [1] * 12, [8, 16, 8], [7, 1, 1, 25]):
        # float64 sums of other lengths may differ in the last bit of a float32
        np.testing.assert_allclose(model.logits(tokens, chunks), whole, rtol=0, atol=1e-5)


def test_sequences_of_one_batch_do_not_see_each_other(tmp_path: Path) -> None:
    config = MODELS["qwen2"]
    make_checkpoint(tmp_path, config, seed=5)
    model = Model(tmp_path)
    first, second = prompt(config, 19, 1), prompt(config, 30, 2)
    kv = ReferenceKV(16, BLOCK)
    steps = [
        [Work(first[:10], 0, [3, 9, 1]), Work(second[:17], 0, [2, 8, 5, 4])],
        [Work(second[17:29], 17, [2, 8, 5, 4]), Work(first[10:18], 10, [3, 9, 1])],
        [Work(first[18:], 18, [3, 9, 1]), Work(second[29:], 29, [2, 8, 5, 4])],
    ]
    results = [interpret(model.graph, make_step(step, BLOCK, "last"), model.weights, kv) for step in steps]
    alone = [model.logits(first)[-1], model.logits(second)[-1]]
    np.testing.assert_allclose(results[-1]["logits"], np.stack(alone), rtol=0, atol=1e-5)
    assert results[-1]["top_ids"][:, 0].tolist() == [int(a.argmax()) for a in alone]


def test_dynamic_rope_is_transformers_at_the_longest_length(tmp_path: Path) -> None:
    config = tiny("llama", rope_scaling={"type": "dynamic", "factor": 4.0}, max_position_embeddings=16)
    make_checkpoint(tmp_path, config, seed=2)
    tokens = prompt(config, 48, 2)
    theirs = torch_logits(load_torch_model(tmp_path), tokens)
    assert_same_logits(Model(tmp_path, max_model_len=48).logits(tokens), theirs)
    unstretched = Model(tmp_path, max_model_len=16).graph
    assert unstretched.nodes[-1].op == "top_logits"
    ropes = [next(n for n in g.nodes if n.op == "rope").attrs["rope"] for g in (unstretched, Model(tmp_path).graph)]
    assert ropes[0] != ropes[1]


@pytest.mark.parametrize("case", range(12))
def test_real_model_tells_the_published_story(case: int) -> None:
    directory = shared_data("models", "stories260k")
    expected = json.loads((directory / "expected.json").read_text())["cases"][case]
    model = Model(directory, max_model_len=len(expected["prompt_ids"]) + 32)
    logits = model.logits(expected["prompt_ids"])[-1]
    for token, value in expected["next_top5"]:
        assert logits[token] == pytest.approx(value, abs=2e-3)
    assert logits.argmax() == expected["next_top5"][0][0]
    greedy = expected["greedy_ids"][:32]
    assert model.greedy(expected["prompt_ids"], len(greedy)) == greedy


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_rounding_point_is_kept(dtype: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, MODELS["qwen3"], seed=1, dtype=dtype)
    model = Model(tmp_path)
    result = model.step(prompt(MODELS["qwen3"], 9, 0), keep=True)
    kept = {v.name: v for n in model.graph.nodes for v in n.outputs if v.type.dtype != "kv"}
    assert set(result.values) == set(kept)
    rounded = [name for name, value in kept.items() if value.type.dtype == dtype]
    assert len(rounded) == 5 * model.config.num_layers + 1 + 2  # and the final norm, gathered twice
    for name in rounded:
        np.testing.assert_array_equal(round_to(result.values[name], dtype), result.values[name])


def test_a_fused_node_runs_its_body(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, MODELS["llama"], seed=1)
    model, tokens = Model(tmp_path), prompt(MODELS["llama"], 12, 4)
    plain = model.logits(tokens)
    index = next(i for i, n in enumerate(model.graph.nodes) if n.op == "unary")
    model.graph.nodes[index : index + 2] = [_fuse(model.graph.nodes[index], model.graph.nodes[index + 1])]
    np.testing.assert_array_equal(model.logits(tokens), plain)
    model.length = 0
    assert any("/" in name for name in model.step(tokens, keep=True).values)


def _fuse(silu: Node, mul: Node) -> Node:
    """silu(gate) * up as one node whose body names its inputs gate and up."""
    b = Graph()
    gate, up = (Value(name, v.type) for name, v in (("gate", silu.inputs["x"]), ("up", mul.inputs["y"])))
    b.inputs = {"gate": gate, "up": up}
    inner = Value("s", silu.output.type)
    outer = Value("m", mul.output.type)
    b.nodes = [
        Node("unary", {"x": gate}, {"kind": "silu"}, (inner,)),
        Node("mul", {"x": inner, "y": up}, {}, (outer,)),
    ]
    b.outputs = {"y": outer}
    return Node("fused", {"gate": silu.inputs["x"], "up": mul.inputs["y"]}, {}, mul.outputs, body=b, family="act")


def _one_linear(rows: int, columns: int) -> Graph:
    b = GraphBuilder()
    table = b.weight("table", (5, columns), "float32")
    with b.part("somewhere"):
        y = b.linear(b.embed(b.token_ids, table), b.weight("w", (rows, columns), "float32"))
    return b.finish(y=y)


def test_nan_is_reported_with_the_node() -> None:
    weights = {"table": np.zeros((5, 3), np.float32), "w": np.full((2, 3), np.nan, np.float32)}
    step = make_step([Work([1, 2], 0, [0])], BLOCK)
    with pytest.raises(InvariantError, match=r"node 1 linear \(somewhere\): %1 holds NaN, first at \[0, 0\]"):
        interpret(_one_linear(2, 3), step, weights, ReferenceKV(1, BLOCK))


def test_wrong_shape_is_reported_with_the_node() -> None:
    weights = {"table": np.zeros((5, 3), np.float32), "w": np.zeros((2, 3), np.float32)}
    graph = _one_linear(2, 3)
    graph.nodes[1].output.type = TensorType("float32", ("T", 7))
    step = make_step([Work([1, 2], 0, [0])], BLOCK)
    with pytest.raises(InvariantError, match=r"node 1 linear \(somewhere\): %1 is \(2, 2\)"):
        interpret(graph, step, weights, ReferenceKV(1, BLOCK))


@pytest.mark.parametrize("token", [-1, 5])
def test_a_token_outside_the_vocabulary_is_reported(token: int) -> None:
    weights = {"table": np.zeros((5, 3), np.float32), "w": np.zeros((2, 3), np.float32)}
    step = make_step([Work([token], 0, [0])], BLOCK)
    with pytest.raises(InvariantError, match="leave the vocabulary of 5"):
        interpret(_one_linear(2, 3), step, weights, ReferenceKV(1, BLOCK))


def test_reading_a_slot_never_written_is_reported(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, MODELS["llama"], seed=1)
    model = Model(tmp_path)
    model.length = 4  # claims four positions that were never computed
    with pytest.raises(InvariantError, match=r"attention \(layers\.0\.attn\.attention\).*NaN"):
        model.step([1, 2])
