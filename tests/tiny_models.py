"""Random tiny model directories in Hugging Face layout, made from a seed; and the real ones lying beside the project.

Used by the tests of every room. Tensor names and shapes are written out here, independently of albireo.models.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.graph.node import Graph
from albireo.models import load_architecture
from albireo.models.checkpoint.weights import _wanted_shapes
from albireo.models.config import ModelConfig
from albireo.models.config_keys import parse_config
from tiny_decoders import DECODERS, convolutions_as_published
from tiny_latent import (
    as_kimi_publishes,
    latent_shapes,
    value_width,
    with_logarithms,
    with_spare_matrices,
    with_up_projections_joined,
)
from tiny_layer_norm import LAYER_NORMS, as_stored, layer_norm_shapes
from tiny_mamba import OF_MAMBA
from tiny_parts import LLAMA, MIXTRAL, Shapes, below, ended, experts, gated, words
from tiny_published import PUBLISHED, SINES
from tiny_short_conv import SHORT_CONVS, convolutions_as_stored, short_conv_shapes
from tiny_windows import WITH_WINDOWS, step_as_published

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
STORIES = SHARED_DATA / "models" / "stories260k"

#: Of layers that are those of Gemma 4.
_GEMMA4 = ("gemma4_text", "gemma4_unified_text")
#: Architectures whose layers have experts.
MIXTURES = words(
    "afmoe axk1 axk2 bailing_hybrid bailing_moe cohere2_moe dbrx deepseek_v2 deepseek_v3 deepseek_v32 dots1 "
    "dots3_note_text ernie4_5_moe exaone_moe flex_olmo flint glm4_moe glm4_moe_lite glm5_next_text glm_moe_dsa "
    "gpt_oss granitemoe granitemoe_swa granitemoehybrid granitemoeshared hunyuan_v1_moe hy_v3 deepseek_v4 hy_v4 "
    "jamba jetmoe kimi_k2 kimi_linear kolibri1 laguna lara_mini mimo_v2_flash lfm2_moe llama4_text longcat_flash "
    "mellum minimax minimax_m1 minimax_m2 minimax_m3_vl_text minimax_text_01 mistral4 mistral_large4_text mixtral "
    "nemotron_h olmoe phimoe qwen2_moe qwen3_5_moe_text qwen3_moe qwen3_next qwen4_exp_text sarvam_mla sarvam_moe "
    "solar_open step3p5 zaya"
)

#: Whose norms' weights have 1 added.
_ADDING_ONE = (
    "gemma",
    "gemma2",
    "gemma3_text",
    "minimax_m3_vl_text",
    "nemotron",
    "qwen4_exp_text",
    "vaultgemma",
    "step3p5",
)
XIELU = {"beta": 0.5, "eps": -1e-6}
_FILE_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_TABLES = (
    "model.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "model.decoder.embed_positions.weight",
    "transformer.wte.weight",
    "transformer.wpe.weight",
    "transformer.word_embeddings.weight",
    "gpt_neox.embed_in.weight",
    "backbone.embeddings.weight",
    "model.word_embeddings.weight",
    "biogpt.embed_tokens.weight",
    "biogpt.embed_positions.weight",
)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def shared_data(*parts: str) -> Path:
    """A path of the shared data; skips the test when it is not there."""
    path = SHARED_DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"shared data {'/'.join(parts)} is not beside the repository")
    return path


def make_checkpoint(
    path: Path,
    config: Mapping[str, Any],
    seed: int = 0,
    dtype: str = "float32",
    shards: int = 1,
    tokenizer: bool = False,
    weights: Mapping[str, NDArray[np.float32]] | None = None,
) -> Path:
    """Write config.json, generation_config.json and random weights; the same seed gives the same bytes.

    Args:
        config: as in config.json; its dtype is replaced by dtype.
        shards: number of files; more than one come with an index.
        tokenizer: also copy the tokenizer of stories260k (512 tokens), or skip the test when it is absent.
        weights: as random_weights() names them; None: random ones.
    Returns: path.
    """
    path.mkdir(parents=True, exist_ok=True)
    config = {**config, "torch_dtype": dtype}
    (path / "config.json").write_text(json.dumps(config, indent=2))
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id") if config.get(key) is not None}
    (path / "generation_config.json").write_text(json.dumps(ids))
    weights = random_weights(config, seed) if weights is None else dict(weights)
    tensors = as_written(config, weights)
    names = list(tensors)
    if shards == 1:
        write_safetensors(path / "model.safetensors", tensors, dtype)
    else:
        weight_map = {}
        for i in range(shards):
            file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
            part = {name: tensors[name] for name in names[i::shards]}
            write_safetensors(path / file, part, dtype)
            weight_map.update(dict.fromkeys(part, file))
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
    if tokenizer:
        source = shared_data("models", "stories260k")
        for file in _TOKENIZER_FILES:
            shutil.copy(source / file, path / file)
    return path


def as_written(config: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Tensors as a checkpoint has them. Args: weights: as random_weights() names them."""
    return _as_stored(config, as_stored(config, weights))


#: Tensors of whole numbers: which experts a token has.
WHOLE_NUMBERS = (".gate.tid2eid",)


def random_weights(config: Mapping[str, Any], seed: int) -> dict[str, NDArray[np.float32]]:
    """Every tensor of the model: norms around one, the rest such that activations stay near unit size."""
    return {name: array.copy() for name, array in _drawn(json.dumps(config), seed).items()}


@lru_cache(maxsize=64)
def _drawn(said: str, seed: int) -> dict[str, NDArray[np.float32]]:
    config = json.loads(said)
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in weight_shapes(config).items():
        noise = rng.standard_normal(shape, np.float32)
        if len(shape) == 1 and name.endswith(".weight"):
            kind = config["model_type"]
            adds_one = kind in _ADDING_ONE or is_hybrid(config)
            is_plain = not adds_one or name.endswith("linear_attn.norm.weight")
            tensors[name] = (1 if is_plain else 0) + np.float32(0.2) * noise
            if kind in ("gemma3n_text", *_GEMMA4) and name.endswith(".q_norm.weight"):
                tensors[name] /= np.sqrt(shape[0], dtype=np.float32)  # which scores are not divided by
        elif ".act_fn." in name:
            tensors[name] = np.float32(0.3) + np.float32(0.5) * noise
        elif name.endswith(WHOLE_NUMBERS):  # of each row others, below how many experts there are
            count = config["n_routed_experts"]
            drawn = rng.random((shape[0], count)).argsort(axis=1)[:, : shape[1]]
            tensors[name] = drawn.astype(np.float32)
        elif name.endswith((".layer_scalar", ".per_expert_scale", ".correct_output_scale")):
            tensors[name] = 1 + np.float32(0.2) * noise
        elif name.endswith(".router.scale"):
            # as of a norm, over the root of the width that is in it
            tensors[name] = np.sqrt(shape[0], dtype=np.float32) * (1 + np.float32(0.2) * noise)
        elif name.endswith(("A_log", "dt_bias", "dt_proj.bias")):
            # states that last for a few tokens, and for a few dozen
            tensors[name] = noise if name.endswith("A_log") else np.float32(-1.5) + noise
        elif name.endswith((".lambda_1", ".lambda_2", ".sqk", ".s_gate", ".logit_scale")):
            # about what they begin at, some rates below 0; scores go with squares of numbers
            spread = np.float32(0.7 if ".lambda_" in name else 0.2)
            begin = config["initializer_range"] * (3 if name.endswith(".logit_scale") else 1)
            tensors[name] = np.float32(begin) * (1 + spread * noise)
        elif name.endswith((".suv_gate", ".suv_up", ".temp", "_states_scale", ".residual_scale", ".D")):
            tensors[name] = 1 + np.float32(0.3) * noise
        elif name.endswith(".balancing_biases"):
            # transformers puts the last one, which is no expert's, back at -1
            tensors[name] = np.append(np.float32(0.1) * noise[:-1] - 1, np.float32(-1))
        elif name.endswith("v_delay.weight"):  # a position ago
            tensors[name] = np.tile(np.float32([1, 0]), (shape[0], 1))
        elif name.endswith(("conv1d.weight", "conv.conv.weight")):
            tensors[name] = noise * np.float32(0.7)
        elif ".shared_transformer." in name:  # blocks that nothing is kept beside, so that errors grow
            tensors[name] = noise * np.float32(0.5 / shape[1] ** 0.5)
        elif name.endswith(
            (".bias", "_bias", ".sinks", ".softmax_offset", ".base", ".scale", "_base", "_scale", ".z_L_init")
        ):
            tensors[name] = np.float32(0.3) * noise
        elif name in _TABLES:
            # so that they are no longer than what layers add, also where they are multiplied by the root of the width
            root = shape[1] ** 0.5 if config["model_type"].startswith("gemma") else 1
            tensors[name] = np.float32(0.5 / root) * noise
        else:
            tensors[name] = noise * np.float32(1.5 / shape[1] ** 0.5)
    return tensors


def weights_read(graph: Graph, seed: int) -> dict[str, NDArray[np.float32]]:
    """Every tensor that the graph of an encoder reads, drawn as those of random_weights()."""
    rng, tensors = np.random.default_rng(seed), {}
    for name, shape in _wanted_shapes(graph).items():
        noise = rng.standard_normal(shape, np.float32)
        is_norm = len(shape) == 1 and name.endswith("weight")
        tensors[name] = 1 + np.float32(0.2) * noise if is_norm else noise * np.float32(1.3 * shape[-1] ** -0.5)
    return tensors


def weight_shapes(config: Mapping[str, Any]) -> Shapes:
    """Tensor names and shapes of a checkpoint of any architecture that there is."""
    if config["model_type"] in DECODERS:
        return DECODERS[config["model_type"]](config)
    if config["model_type"] in PUBLISHED:
        return PUBLISHED[config["model_type"]](config)
    if config["model_type"] in WITH_WINDOWS:
        return WITH_WINDOWS[config["model_type"]](config)
    if config["model_type"] in LAYER_NORMS:
        return layer_norm_shapes(config)
    if config["model_type"] in SHORT_CONVS:
        return short_conv_shapes(config)
    if config["model_type"] in OF_MAMBA:
        return OF_MAMBA[config["model_type"]](config)
    if config["model_type"] == "olmo_hybrid":
        return olmo_hybrid_shapes(config)
    kind, hidden, ffn = config["model_type"], config["hidden_size"], config.get("intermediate_size", 0)
    ffn = ffn[0] if isinstance(ffn, list) else ffn
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    bias = bool(config.get("attention_bias") or config.get("use_bias"))
    is_joined = kind == "phi3"
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        layer: Shapes = {"input_layernorm.weight": (hidden,)}
        if is_hybrid(config) and config["layer_types"][i] == "linear_attention":
            layer |= _recurrent_shapes(config) | {"post_attention_layernorm.weight": (hidden,)}
            layer |= _ffn_shapes(config, i, ffn)
            shapes |= below(f"model.layers.{i}", layer)
            continue
        values_are_keys = False
        if kind in _GEMMA4:
            kv_heads, head_dim, values_are_keys = _heads_of_kind(config, config["layer_types"][i])
        q, kv = heads * head_dim, kv_heads * head_dim
        of_qkv: Sequence[tuple[str, int, int]] = (("q", q, hidden), ("k", kv, hidden), ("v", kv, hidden))
        if is_joined:
            of_qkv = (("qkv", q + 2 * kv, hidden),)
        if values_are_keys:
            of_qkv = of_qkv[:2]
        if "kv_lora_rank" in config:
            of_qkv, q = (), heads * value_width(config)
            layer |= latent_shapes(config)
            if config.get("indexer_types", ["full"] * (i + 1))[i] == "shared":
                layer = {name: shape for name, shape in layer.items() if ".indexer." not in name}
        for p, rows, columns in (*of_qkv, ("o", hidden, q)):
            rows = 2 * rows if p == "q" and is_hybrid(config) else rows
            layer[f"self_attn.{p}_proj.weight"] = (rows, columns)
            has_bias = p != "o" if kind in ("qwen2", "qwen2_moe", "mimo", "glm4_moe") else bias
            if p == "o" and kind in ("glm", "glm4", "seed_oss"):
                has_bias = bool(config.get("attention_out_bias"))
            if has_bias:
                layer[f"self_attn.{p}_proj.bias"] = (rows,)
        if kind in ("olmo2", "olmo3", "olmoe", "flex_olmo", "minimax_m2"):
            layer |= {"self_attn.q_norm.weight": (q,), "self_attn.k_norm.weight": (kv,)}
        if kind in ("olmo2", "olmo3", "exaone4", "flex_olmo"):
            layer["post_feedforward_layernorm.weight"] = layer.pop("input_layernorm.weight")
        if kind == "glm4":
            layer |= {f"post_{place}_layernorm.weight": (hidden,) for place in ("self_attn", "mlp")}
        if kind == "axk1" and has_experts(config, i):
            layer["post_mlp_layernorm.weight"] = (hidden,)
        with_norms = ("mellum", "qwen3", "qwen3_moe", "gemma3_text", "gemma3n_text", *_GEMMA4, "exaone4", "dots1")
        if kind in with_norms or is_hybrid(config) or (kind == "glm4_moe" and config["use_qk_norm"]):
            layer |= {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}
        layer["post_attention_layernorm.weight"] = (hidden,)
        if kind == "gpt_oss":
            layer["self_attn.sinks"] = (heads,)
        if kind in ("gemma2", "gemma3_text", "gemma3n_text", *_GEMMA4):
            layer |= {f"{place}_feedforward_layernorm.weight": (hidden,) for place in ("pre", "post")}
        if kind in _GEMMA4:
            layer["layer_scalar"] = (1,)
            layer |= _shapes_beside_ffn(config)
        sharing = i >= config["num_hidden_layers"] - (config.get("num_kv_shared_layers") or 0)
        if sharing:
            unread = tuple(f"self_attn.{p}" for p in ("k_proj", "v_proj", "k_norm", "v_norm"))
            layer = {name: shape for name, shape in layer.items() if not name.startswith(unread)}
        layer |= _ffn_shapes(config, i, 2 * ffn if sharing and config.get("use_double_wide_mlp") else ffn)
        layer |= _shapes_of_given(config) | _shapes_of_streams(config)
        shapes |= below(f"model.layers.{i}", layer)
    shapes["model.norm.weight"] = (hidden,)
    if width := config.get("hidden_size_per_layer_input"):
        columns = config["num_hidden_layers"] * width
        shapes["model.embed_tokens_per_layer.weight"] = (config["vocab_size_per_layer_input"], columns)
        shapes["model.per_layer_model_projection.weight"] = (columns, hidden)
        shapes["model.per_layer_projection_norm.weight"] = (width,)
    for i in range(config.get("altup_num_inputs", 1) - 1):
        shapes |= {f"model.altup_{of}projections.{i}.weight": (hidden, hidden) for of in ("", "unembed_")}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def _shapes_of_streams(config: Mapping[str, Any]) -> Shapes:
    """Of what Gemma 3n does to several residual streams, and beside attention."""
    if "altup_num_inputs" not in config:
        return {}
    hidden, count, rank = config["hidden_size"], config["altup_num_inputs"], config["laurel_rank"]
    shapes: Shapes = {
        "altup.prediction_coefs.weight": (count**2, count),
        "altup.correction_coefs.weight": (count, count),
        "altup.modality_router.weight": (count, hidden),
        "altup.router_norm.weight": (hidden,),
        "laurel.linear_left.weight": (rank, hidden),
        "laurel.linear_right.weight": (hidden, rank),
        "laurel.post_laurel_norm.weight": (hidden,),
    }
    return shapes | {"altup.correct_output_scale": (hidden,)}


def _shapes_of_given(config: Mapping[str, Any]) -> Shapes:
    """Of what a layer makes of the embedding that Gemma 4 may give it."""
    hidden, width = config["hidden_size"], config.get("hidden_size_per_layer_input")
    if not width:
        return {}
    matrices = {"per_layer_input_gate.weight": (width, hidden), "per_layer_projection.weight": (hidden, width)}
    return matrices | {"post_per_layer_input_norm.weight": (hidden,)}


def _heads_of_kind(config: Mapping[str, Any], kind: str) -> tuple[int, int, bool]:
    """Of Gemma 4's layers with a window, or without: KV heads, their size, and whether values are keys."""
    if kind == "sliding_attention":
        return config["num_key_value_heads"], config["head_dim"], False
    name = "num_global_key_value_heads" if config["attention_k_eq_v"] else "num_key_value_heads"
    return config[name], config["global_head_dim"], config["attention_k_eq_v"]


def _shapes_beside_ffn(config: Mapping[str, Any]) -> Shapes:
    """Of Gemma 4's experts of a layer, where it has any, their router and the norms of both."""
    if not config.get("enable_moe_block"):
        return {}
    hidden, count, width = config["hidden_size"], config["num_experts"], config["moe_intermediate_size"]
    norms = ("pre_feedforward_layernorm_2", "post_feedforward_layernorm_1", "post_feedforward_layernorm_2")
    shapes: Shapes = {f"{name}.weight": (hidden,) for name in norms}
    shapes |= {"router.proj.weight": (count, hidden), "router.scale": (hidden,), "router.per_expert_scale": (count,)}
    return shapes | experts("experts", count, width, hidden)


def is_hybrid(config: Mapping[str, Any]) -> bool:
    """Whether layers keep a state by the gated delta rule, and attention has a gate."""
    return "linear_num_key_heads" in config and config["model_type"] not in (
        "lara_mini",
        "olmo_hybrid",
        "qwen4_exp_text",
    )


def olmo_hybrid_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of OLMo Hybrid, under the names that transformers has in memory."""
    hidden, ffn, heads = config["hidden_size"], config["intermediate_size"], config["linear_num_value_heads"]
    k, v = heads * config["linear_key_head_dim"], heads * config["linear_value_head_dim"]
    kv = config["num_key_value_heads"] * hidden // config["num_attention_heads"]
    matrices = {"q": (k, hidden), "k": (k, hidden), "v": (v, hidden), "g": (v, hidden), "o": (hidden, v)}
    of_rule: Shapes = {f"{p}_proj.weight": shape for p, shape in matrices.items()}
    of_rule |= {f"{p}_proj.weight": (heads, hidden) for p in "ab"} | {"A_log": (heads,), "dt_bias": (heads,)}
    of_rule |= {"conv1d.weight": (2 * k + v, config["linear_conv_kernel_dim"])}
    of_rule |= {"o_norm.weight": (config["linear_value_head_dim"],)}
    rows = {"q": (hidden, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, hidden)}
    of_attention: Shapes = {f"{p}_proj.weight": shape for p, shape in rows.items()}
    of_attention |= {f"{p}_proj.bias": shape[:1] for p, shape in rows.items()} if config["attention_bias"] else {}
    of_attention |= {"q_norm.weight": (hidden,), "k_norm.weight": (kv,)}
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i, kind in enumerate(config["layer_types"]):
        block, found, norms = "linear_attn", of_rule, ("input_layernorm", "post_attention_layernorm")
        if kind == "full_attention":
            block, found = "self_attn", of_attention
            norms = ("post_attention_layernorm", "post_feedforward_layernorm")
        layer: Shapes = {f"{norm}.weight": (hidden,) for norm in norms}
        layer |= below(block, found) | _ffn_shapes(config, i, ffn)
        shapes |= below(f"model.layers.{i}", layer)
    return ended(config, shapes)


def _recurrent_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of a layer by the gated delta rule."""
    hidden, heads = config["hidden_size"], config["linear_num_value_heads"]
    k, v = config["linear_num_key_heads"] * config["linear_key_head_dim"], heads * config["linear_value_head_dim"]
    matrices = {"in_proj_qkv": (2 * k + v, hidden), "in_proj_z": (v, hidden), "out_proj": (hidden, v)}
    matrices |= {"in_proj_b": (heads, hidden), "in_proj_a": (heads, hidden)}
    if config["model_type"] == "qwen3_next":
        matrices = {"in_proj_qkvz": (2 * (k + v), hidden), "in_proj_ba": (2 * heads, hidden), "out_proj": (hidden, v)}
    shapes: Shapes = {f"linear_attn.{name}.weight": shape for name, shape in matrices.items()}
    shapes["linear_attn.conv1d.weight"] = (2 * k + v, config["linear_conv_kernel_dim"])
    shapes |= {f"linear_attn.{name}": (heads,) for name in ("A_log", "dt_bias")}
    return shapes | {"linear_attn.norm.weight": (config["linear_value_head_dim"],)}


def _ffn_shapes(config: Mapping[str, Any], layer: int, ffn: int) -> Shapes:
    """Of a layer's experts, or of its one FFN."""
    if has_experts(config, layer):
        return _expert_shapes(config)
    hidden, up_is_joined = config["hidden_size"], config["model_type"] in ("phi3", "glm", "glm4")
    of_up = (("gate_up", 2 * ffn, hidden),) if up_is_joined else (("gate", ffn, hidden), ("up", ffn, hidden))
    shapes: Shapes = {}
    for p, rows, columns in (*of_up, ("down", hidden, ffn)):
        shapes[f"mlp.{p}_proj.weight"] = (rows, columns)
        if config.get("mlp_bias") or config.get("use_bias"):
            shapes[f"mlp.{p}_proj.bias"] = (rows,)
    return shapes


def has_experts(config: Mapping[str, Any], layer: int) -> bool:
    """Whether a layer has experts."""
    if "num_dense_layers" in config:
        return bool(layer >= config["num_dense_layers"])
    if is_hybrid(config):
        return "num_experts" in config and layer not in config["mlp_only_layers"]
    if "mlp_layer_types" in config:
        return bool(config["mlp_layer_types"][layer] == "sparse")
    if "first_k_dense_replace" in config:
        return layer >= config["first_k_dense_replace"]
    if "moe_layer_start_index" in config:
        return bool(config["moe_layer_start_index"] <= layer <= config["moe_layer_end_index"])
    if not config["model_type"].endswith("_moe"):
        return config["model_type"] in MIXTURES
    return layer not in config["mlp_only_layers"] and (layer + 1) % config["decoder_sparse_step"] == 0


def _expert_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of a layer, router first."""
    hidden = config["hidden_size"]
    names_of_count = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    count = next(config[name] for name in names_of_count if config.get(name))
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    block, names, router = "mlp", LLAMA, "gate"
    if config["model_type"] in ("mixtral", "minimax_m2"):
        block, names = "block_sparse_moe", MIXTRAL
    elif config["model_type"] == "granitemoe":
        block, router = "block_sparse_moe", "router.layer"
    elif config["model_type"] == "gpt_oss":
        router = "router"
    shapes: Shapes = {f"{block}.{router}.weight": (count, hidden)}
    shapes |= experts(f"{block}.experts", count, width, hidden, names)
    if config["model_type"] == "gpt_oss":
        shapes |= {f"{name.removesuffix('.weight')}.bias": shape[:1] for name, shape in list(shapes.items())}
    shared = config.get("shared_expert_intermediate_size")
    if shared:
        shapes |= gated("mlp.shared_expert", shared, hidden, names)
        shapes["mlp.shared_expert_gate.weight"] = (1, hidden)
    shared = (config.get("n_shared_experts") or config.get("moe_num_shared_experts") or 0) * width
    if shared:
        shapes |= gated("mlp.shared_experts", shared, hidden, names)
    if config.get("use_routing_bias"):
        shapes[f"{block}.e_score_correction_bias"] = (count,)
    if "moe_num_experts" in config:
        shapes["mlp.moe_statics.e_score_correction_bias"] = (count,)
    if "n_routed_experts" in config and config["model_type"] not in ("deepseek_v2", "mistral4"):
        shapes["mlp.gate.e_score_correction_bias"] = (count,)
    return shapes


def _as_stored(config: Mapping[str, Any], tensors: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Tensors as an architecture is published: of all experts of a layer, or vectors as rows."""
    if config["model_type"] in ("deepseek_v4", "hy_v4", "lara_mini"):
        tensors = _joined_experts(tensors, "experts.gate_up_proj", "experts.down_proj")
    if config["model_type"] == "zaya":
        tensors = _joined_experts(tensors, "experts.gate_up_proj", "experts.down_proj")
        return convolutions_as_published(config, tensors)
    if config["model_type"] == "xglm":
        return {name: array for name, array in tensors.items() if name != SINES}
    if config["model_type"] == "longcat_flash":
        tensors = with_spare_matrices(config, tensors)
    if config["model_type"] == "mistral_large4_text":
        tensors = with_logarithms(config, tensors)
    if "kv_lora_rank" in config:
        return as_kimi_publishes(with_up_projections_joined(config, tensors), config["model_type"] != "glm5_next_text")
    if config["model_type"] in SHORT_CONVS:
        return convolutions_as_stored(tensors)
    if config["model_type"].startswith("apertus"):  # numbers that are the same in every model
        of_layers = range(config["num_hidden_layers"])
        fixed = {f"model.layers.{i}.mlp.act_fn.{n}": np.float32(v) for i in of_layers for n, v in XIELU.items()}
        return {**tensors, **{name: np.asarray(value) for name, value in fixed.items()}}
    if config["model_type"] == "step3p5":
        return step_as_published(tensors)
    if config["model_type"] == "dbrx":
        return _experts_below(config, tensors)
    if config["model_type"] == "gpt_oss":
        return interleaved_experts(config, tensors)
    if config["model_type"] == "olmo_hybrid":
        return _as_olmo_publishes(config, tensors)
    if is_hybrid(config) or any(name.endswith(".A_log") for name in tensors):
        tensors = {name: v[:, None] if name.endswith("conv1d.weight") else v for name, v in tensors.items()}
        if config["model_type"] != "granitemoehybrid":
            return tensors
    if config["model_type"] == "ernie4_5_moe":
        return {name: v[None] if name.endswith("correction_bias") else v for name, v in tensors.items()}
    if config["model_type"] in ("granitemoe", "granitemoehybrid", "granitemoeshared"):
        return _joined_experts(tensors, "input_linear.weight", "output_linear.weight")
    if config["model_type"] == "jetmoe":
        found = _joined_experts(tensors, "input_linear.weight", "output_linear.weight")
        return found | _jetmoe_attention(config, tensors)
    if config["model_type"] == "llama4_text":
        found = _joined_experts(tensors, "experts.gate_up_proj", "experts.down_proj")
        turned = (".experts.gate_up_proj", ".experts.down_proj")
        return {name: t.swapaxes(1, 2).copy() if name.endswith(turned) else t for name, t in found.items()}
    if config.get("enable_moe_block") or config["model_type"] == "granitemoe_swa":
        return _joined_experts(tensors, "experts.gate_up_proj", "experts.down_proj")
    return tensors


def _jetmoe_attention(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """What experts have of attention, all of a layer in one tensor; and the rest of it, which lies beside them."""
    stored = {name: tensor for name, tensor in tensors.items() if re.search(r"attention\.experts\.[a-z]", name)}
    for i in range(config["num_hidden_layers"]):
        block = f"model.layers.{i}.self_attention.experts"
        for part, called in (("q", "input_linear"), ("o", "output_linear")):
            each = [tensors[f"{block}.{e}.{part}_proj.weight"] for e in range(config["num_local_experts"])]
            stored[f"{block}.{called}.weight"] = np.stack(each)
    return stored


def _experts_below(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """DBRX's: the matrices of all experts one below the other, down transposed."""
    stored = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for i in range(config["n_layers"]):
        block, count = f"transformer.blocks.{i}.ffn.experts", config["ffn_config"]["moe_num_experts"]
        for m in ("w1", "v1", "w2"):
            each = [tensors[f"{block}.{e}.{m}.weight"] for e in range(count)]
            stored[f"{block}.mlp.{m}"] = np.concatenate([t.T if m == "w2" else t for t in each])
    return stored


def _as_olmo_publishes(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Convolutions of queries, keys and values apart, and norms of layers with a state under other names."""
    k = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    stored = dict(tensors)
    for i, kind in enumerate(config["layer_types"]):
        layer = f"model.layers.{i}"
        if kind == "linear_attention":
            for new, old in (("attention_layer", "input_layer"), ("feedforward_layer", "post_attention_layer")):
                stored[f"{layer}.{new}_norm.weight"] = stored.pop(f"{layer}.{old}norm.weight")
            parts = np.split(stored.pop(f"{layer}.linear_attn.conv1d.weight")[:, None], [k, 2 * k])
            stored |= {f"{layer}.linear_attn.{p}_conv1d.weight": a for p, a in zip("qkv", parts, strict=True)}
    return stored


def _joined_experts(tensors: dict[str, NDArray[np.float32]], gate_up: str, down: str) -> dict[str, NDArray[np.float32]]:
    """All experts of a layer in one tensor, gate above up. Args: gate_up, down: what they are called there."""
    stored = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for first in [name for name in tensors if name.endswith(".experts.0.down_proj.weight")]:
        block, experts = first.partition(".experts.")[0], range(len(tensors))
        parts = [
            np.stack([tensors[n] for e in experts if (n := f"{block}.experts.{e}.{p}_proj.weight") in tensors])
            for p in ("gate", "up", "down")
        ]
        stored[f"{block}.{gate_up}"] = np.concatenate(parts[:2], axis=1)
        stored[f"{block}.{down}"] = parts[2]
    return stored


def interleaved_experts(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """gpt-oss's: matrices with columns first, in which a channel's gate and up are neighbours."""
    stored = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for i in range(config["num_hidden_layers"]):
        block = f"model.layers.{i}.mlp.experts"
        for of, ending in (("weight", ""), ("bias", "_bias")):
            gate, up, down = (
                np.stack([tensors[f"{block}.{e}.{p}_proj.{of}"] for e in range(config["num_local_experts"])])
                for p in ("gate", "up", "down")
            )
            gate_up = np.stack([gate, up], axis=2).reshape(gate.shape[0], -1, *gate.shape[2:])
            stored[f"{block}.gate_up_proj{ending}"] = np.ascontiguousarray(np.moveaxis(gate_up, 1, -1))
            stored[f"{block}.down_proj{ending}"] = np.ascontiguousarray(np.moveaxis(down, 1, -1))
    return stored


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[np.float32]], dtype: str) -> None:
    """float32 arrays as a safetensors file of dtype, rounded to nearest even."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    chunks, offset = [], 0
    for name, array in tensors.items():
        is_whole = name.endswith(WHOLE_NUMBERS)
        data = array.astype("<i8").tobytes() if is_whole else _encode(array, dtype)
        header[name] = {
            "dtype": "I64" if is_whole else _FILE_DTYPES[dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(chunks))


def _encode(array: NDArray[np.float32], dtype: str) -> bytes:
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return array.astype("<f4" if dtype == "float32" else "<f2").tobytes()


def parse_tiny(model_type: str, /, **changes: Any) -> ModelConfig:
    """An architecture's TINY config with changes; ... removes a key."""
    architecture = load_architecture(model_type)
    data = {k: v for k, v in {**architecture.tiny, **changes}.items() if v is not ...}
    return parse_config(data, architecture.rules)
