"""Tensor names and shapes of checkpoints of many decoders, as transformers writes them: one short function a family.

Used by tiny_models.py. Written out here, independently of albireo.models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_choosing import CHOOSING
from tiny_latent import bailing_hybrid_shapes, kimi_shapes, large4_shapes, longcat_shapes
from tiny_parts import MIXTRAL, Shapes, below, experts, in_layers, module, whole, words

#: Those whose FFN is two matrices, without a gate.
WITHOUT_GATE = words(
    "apertus apertus1p5_text arcee biogpt codegen gpt_bigcode gpt_neo gptj jais2 nanochat nemotron openai_gpt "
    "phi_msft xglm"
)
#: Those that add a table of positions.
WITH_POSITIONS = ("biogpt", "gpt_bigcode", "gpt_neo", "openai_gpt", "xglm")


def _attention(c: Mapping[str, Any], name: str, in_qkv: bool, in_o: bool, o: str = "o_proj") -> Shapes:
    """Matrices of q, k, v and what comes out."""
    e, heads = c["hidden_size"], c["num_attention_heads"]
    kv_heads, d = c.get("num_key_value_heads") or heads, c.get("head_dim") or e // heads
    shapes: Shapes = {}
    for p, rows in (("q", heads * d), ("k", kv_heads * d), ("v", kv_heads * d)):
        shapes |= module(f"{name}.{p}_proj", (rows, e), in_qkv)
    return shapes | module(f"{name}.{o}", (e, heads * d), in_o)


def _ffn(c: Mapping[str, Any], name: str, width: int, bias: bool = False) -> Shapes:
    """Of a gate, or of two matrices."""
    e, ups = c["hidden_size"], ("up",) if c["model_type"] in WITHOUT_GATE else ("gate", "up")
    shapes: Shapes = {}
    for p in ups:
        shapes |= module(f"{name}.{p}_proj", (width, e), bias)
    return shapes | module(f"{name}.down_proj", (e, width), bias)


def _layer_norms(c: Mapping[str, Any]) -> Shapes:
    """cohere2, cohere_compass_text, nemotron, jais2, olmo."""
    kind, e = c["model_type"], c["hidden_size"]
    bias, mlp_bias = c["attention_bias"], bool(c.get("mlp_bias"))
    layers: Shapes = {}
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        layers |= _attention(c, f"{h}.self_attn", bias, bias)
        layers |= _ffn(c, f"{h}.mlp", c["intermediate_size"], mlp_bias)
        if kind != "olmo":
            layers |= module(f"{h}.input_layernorm", (e,), not kind.startswith("cohere"))
        if kind in ("nemotron", "jais2", "orion"):
            layers |= module(f"{h}.post_attention_layernorm", (e,), True)
    shapes = whole(c, layers)
    if kind == "olmo":
        del shapes["model.norm.weight"]
    if kind in ("nemotron", "jais2", "orion"):
        shapes["model.norm.bias"] = (e,)
    return shapes


def _gpts(c: Mapping[str, Any]) -> Shapes:
    """gpt_bigcode, gptj and codegen."""
    kind, e, vocab = c["model_type"], c["n_embd"], c["vocab_size"]
    f, d = c.get("n_inner") or 4 * e, e // c["n_head"]
    shapes: Shapes = {"transformer.wte.weight": (vocab, e)}
    if kind == "gpt_bigcode":
        shapes["transformer.wpe.weight"] = (c["n_positions"], e)
    for i in range(c["n_layer"]):
        h = f"transformer.h.{i}"
        shapes |= module(f"{h}.ln_1", (e,), True)
        if kind == "gpt_bigcode":
            rows = e + 2 * d if c["multi_query"] else 3 * e
            shapes |= module(f"{h}.attn.c_attn", (rows, e), True) | module(f"{h}.attn.c_proj", (e, e), True)
            shapes |= module(f"{h}.ln_2", (e,), True)
        elif kind == "gptj":
            shapes |= {f"{h}.attn.{p}_proj.weight": (e, e) for p in ("q", "k", "v", "out")}
        else:
            shapes |= {f"{h}.attn.qkv_proj.weight": (3 * e, e), f"{h}.attn.out_proj.weight": (e, e)}
        up, down = ("c_fc", "c_proj") if kind == "gpt_bigcode" else ("fc_in", "fc_out")
        shapes |= module(f"{h}.mlp.{up}", (f, e), True) | module(f"{h}.mlp.{down}", (e, f), True)
    shapes |= module("transformer.ln_f", (e,), True)
    if c["tie_word_embeddings"]:
        return shapes
    return shapes | module("lm_head", (vocab, e), kind != "gpt_bigcode")


def _exaone(c: Mapping[str, Any]) -> Shapes:
    e, f, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    shapes: Shapes = {"transformer.wte.weight": (vocab, e)}
    for i in range(c["num_layers"]):
        h = f"transformer.h.{i}"
        shapes |= _attention(c, f"{h}.attn.attention", False, False, "out_proj")
        shapes |= {f"{h}.ln_{n}.weight": (e,) for n in (1, 2)}
        shapes |= {f"{h}.mlp.c_fc_{n}.weight": (f, e) for n in (0, 1)} | {f"{h}.mlp.c_proj.weight": (e, f)}
    shapes["transformer.ln_f.weight"] = (e,)
    return shapes | ({} if c["tie_word_embeddings"] else {"lm_head.weight": (vocab, e)})


def _gpt_neo(c: Mapping[str, Any]) -> Shapes:
    e, vocab = c["hidden_size"], c["vocab_size"]
    f = c.get("intermediate_size") or 4 * e
    shapes: Shapes = {"transformer.wte.weight": (vocab, e), "transformer.wpe.weight": (c["max_position_embeddings"], e)}
    for i in range(c["num_layers"]):
        h = f"transformer.h.{i}"
        shapes |= module(f"{h}.ln_1", (e,), True)
        for p in ("q", "k", "v", "out"):
            shapes |= module(f"{h}.attn.attention.{p}_proj", (e, e), p == "out")
        shapes |= module(f"{h}.ln_2", (e,), True)
        shapes |= module(f"{h}.mlp.c_fc", (f, e), True) | module(f"{h}.mlp.c_proj", (e, f), True)
    return shapes | module("transformer.ln_f", (e,), True)


def _llamas(c: Mapping[str, Any]) -> Shapes:
    """apertus, arcee, helium, hyperclovax, internlm, internlm3, xverse, vaultgemma, ministral, hunyuan_v1_dense."""
    kind, e, bias = c["model_type"], c["hidden_size"], bool(c.get("attention_bias") or c.get("qkv_bias"))
    bias |= bool(kind == "internlm" and c["bias"])
    d = c.get("head_dim") or e // c["num_attention_heads"]
    vectors = {"input_layernorm": e, "post_attention_layernorm": e}
    if kind == "vaultgemma":
        vectors = {"input_layernorm": e, "pre_feedforward_layernorm": e}
    if kind.startswith("apertus"):
        vectors = {"attention_layernorm": e, "feedforward_layernorm": e, "self_attn.q_norm": d, "self_attn.k_norm": d}
    if kind.startswith("hunyuan"):
        vectors |= {"self_attn.query_layernorm": d, "self_attn.key_layernorm": d}
    if kind == "bitnet":
        vectors |= {"self_attn.attn_sub_norm": e, "mlp.ffn_sub_norm": c["intermediate_size"]}
    if kind == "hyperclovax" and c["use_post_norm"]:
        vectors |= {"post_norm1": e, "post_norm2": e}
    layers: Shapes = {}
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        layers |= _attention(c, f"{h}.self_attn", bias, bias and kind != "helium")
        layers |= _ffn(
            c, f"{h}.mlp", c["intermediate_size"], bool(c.get("mlp_bias") or (kind != "internlm" and c.get("bias")))
        )
        layers |= {f"{h}.{name}.weight": (width,) for name, width in vectors.items()}
        if kind.startswith("apertus"):
            layers |= {f"{h}.mlp.act_fn.{name}": (1,) for name in ("alpha_p", "alpha_n")}
    shapes = whole(c, layers)
    return shapes | ({"lm_head.weight": (c["output_vocab_size"], e)} if c.get("output_vocab_size") else {})


def _internlm2(c: Mapping[str, Any]) -> Shapes:
    e, heads, kv = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
    rows, layers = (heads + 2 * kv) * (e // heads), {}
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        layers |= module(f"{h}.self_attn.qkv_proj", (rows, e), c["bias"])
        layers |= module(f"{h}.self_attn.o_proj", (e, e), c["bias"]) | _ffn(c, f"{h}.mlp", c["intermediate_size"])
        layers |= {f"{h}.{name}.weight": (e,) for name in ("input_layernorm", "post_attention_layernorm")}
    return whole(c, layers)


def _mixtures(c: Mapping[str, Any]) -> Shapes:
    """hunyuan_v1_moe, hy_v3, solar_open, exaone_moe, afmoe, granitemoeshared: experts one by one."""
    kind, e, bias = c["model_type"], c["hidden_size"], bool(c.get("attention_bias"))
    d = c.get("head_dim") or e // c["num_attention_heads"]
    count = c.get("num_experts") or c.get("n_routed_experts") or c["num_local_experts"]
    width = c.get("moe_intermediate_size") or c["intermediate_size"]
    shared = width * (c.get("num_shared_experts") or c.get("n_shared_experts") or 1)
    block, router = (
        "mlp",
        {"afmoe": "router.gate", "hy_v3": "router.gate", "hunyuan_v1_moe": "gate.wg"}.get(kind, "gate"),
    )
    beside = "shared_mlp" if kind in ("hunyuan_v1_moe", "hy_v3") else "shared_experts"
    vectors = {"input_layernorm": e, "post_attention_layernorm": e}
    if kind == "afmoe":
        vectors |= {"pre_mlp_layernorm": e, "post_mlp_layernorm": e}
    if kind in ("afmoe", "exaone_moe", "hy_v3"):
        vectors |= {"self_attn.q_norm": d, "self_attn.k_norm": d}
    if kind == "hunyuan_v1_moe":
        vectors |= {"self_attn.query_layernorm": d, "self_attn.key_layernorm": d}
    layers: Shapes = {}
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        layers |= {f"{h}.{name}.weight": (size,) for name, size in vectors.items()}
        layers |= _attention(c, f"{h}.self_attn", bias, bias and kind != "solar_open")
        if kind == "afmoe":
            layers[f"{h}.self_attn.gate_proj.weight"] = (c["num_attention_heads"] * d, e)
        if i < (
            c.get("num_dense_layers") or c.get("first_k_dense_replace") or c.get("mlp_layer_types", []).count("dense")
        ):
            layers |= _ffn(c, f"{h}.mlp", c["intermediate_size"])
            continue
        if kind == "granitemoeshared":
            m = f"{h}.block_sparse_moe"
            layers[f"{m}.router.layer.weight"] = (count, e)
            layers[f"{h}.shared_mlp.input_linear.weight"] = (2 * c["shared_intermediate_size"], e)
            layers[f"{h}.shared_mlp.output_linear.weight"] = (e, c["shared_intermediate_size"])
        else:
            m = f"{h}.{block}"
            layers[f"{m}.{router}.weight"] = (count, e)
            layers |= _ffn(c, f"{m}.{beside}", shared)
        layers |= experts(f"{m}.experts", count, width, e)
        if kind in ("afmoe", "hy_v3"):
            layers[f"{m}.expert_bias"] = (count,)
        elif kind in ("solar_open", "exaone_moe"):
            layers[f"{m}.gate.e_score_correction_bias"] = (count,)
    return whole(c, layers)


def _nanochat(c: Mapping[str, Any]) -> Shapes:
    e, f, bias = c["hidden_size"], c["intermediate_size"], c["attention_bias"]
    layers: Shapes = {}
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        layers |= _attention(c, f"{h}.self_attn", bias, bias)
        layers |= {f"{h}.mlp.fc1.weight": (f, e), f"{h}.mlp.fc2.weight": (e, f)}
    shapes = whole(c, layers)
    del shapes["model.norm.weight"]
    return shapes


def _biogpt(c: Mapping[str, Any]) -> Shapes:
    e, f = c["hidden_size"], c["intermediate_size"]
    shapes: Shapes = {"biogpt.embed_tokens.weight": (c["vocab_size"], e)}
    shapes["biogpt.embed_positions.weight"] = (c["max_position_embeddings"] + 2, e)
    for i in range(c["num_hidden_layers"]):
        h = f"biogpt.layers.{i}"
        for p in ("q", "k", "v", "out"):
            shapes |= module(f"{h}.self_attn.{p}_proj", (e, e), True)
        shapes |= module(f"{h}.fc1", (f, e), True) | module(f"{h}.fc2", (e, f), True)
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= module(f"{h}.{norm}", (e,), True)
    shapes |= module("biogpt.layer_norm", (e,), True)
    return shapes | ({} if c["tie_word_embeddings"] else {"output_projection.weight": (c["vocab_size"], e)})


def _dbrx(c: Mapping[str, Any]) -> Shapes:
    e, heads, kv = c["d_model"], c["n_heads"], c["attn_config"]["kv_n_heads"]
    f, count = c["ffn_config"]["ffn_hidden_size"], c["ffn_config"]["moe_num_experts"]
    shapes: Shapes = {"transformer.wte.weight": (c["vocab_size"], e)}
    for i in range(c["n_layers"]):
        h = f"transformer.blocks.{i}"
        shapes |= {f"{h}.norm_attn_norm.norm_{n}.weight": (e,) for n in (1, 2)}
        shapes[f"{h}.norm_attn_norm.attn.Wqkv.weight"] = ((heads + 2 * kv) * e // heads, e)
        shapes[f"{h}.norm_attn_norm.attn.out_proj.weight"] = (e, e)
        shapes[f"{h}.ffn.router.layer.weight"] = (count, e)
        shapes |= experts(f"{h}.ffn.experts", count, f, e, ("w1", "v1", "w2"))
    return shapes | {"transformer.norm_f.weight": (e,), "lm_head.weight": (c["vocab_size"], e)}


def _sarvam_moe(c: Mapping[str, Any]) -> Shapes:
    """bailing_moe, too."""
    e, d, heads, kv = c["hidden_size"], c["head_dim"], c["num_attention_heads"], c["num_key_value_heads"]
    shapes: Shapes = {"model.word_embeddings.weight": (c["vocab_size"], e)}
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        shapes |= {f"{h}.{norm}.weight": (e,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= module(f"{h}.attention.query_key_value", ((heads + 2 * kv) * d, e), c["use_qkv_bias"])
        shapes[f"{h}.attention.dense.weight"] = (e, heads * d)
        shapes |= {f"{h}.attention.{p}_layernorm.weight": (d,) for p in ("query", "key") if c["use_qk_norm"]}
        if i < c["first_k_dense_replace"]:
            shapes |= _ffn(c, f"{h}.mlp", c["intermediate_size"])
            continue
        shapes |= {f"{h}.mlp.gate.weight": (c["num_experts"], e), f"{h}.mlp.gate.expert_bias": (c["num_experts"],)}
        shapes |= _ffn(c, f"{h}.mlp.shared_experts", c["num_shared_experts"] * c["moe_intermediate_size"])
        shapes |= experts(f"{h}.mlp.experts", c["num_experts"], c["moe_intermediate_size"], e)
    return shapes | {"model.norm.weight": (e,), "lm_head.weight": (c["vocab_size"], e)}


def _phimoe(c: Mapping[str, Any]) -> Shapes:
    e, f, bias = c["hidden_size"], c["intermediate_size"], c["attention_bias"]
    layers: Shapes = {}
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        layers |= _attention(c, f"{h}.self_attn", bias, bias)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            layers |= module(f"{h}.{norm}", (e,), True)
        layers[f"{h}.block_sparse_moe.gate.weight"] = (c["num_local_experts"], e)
        layers |= experts(f"{h}.block_sparse_moe.experts", c["num_local_experts"], f, e, MIXTRAL)
    shapes = whole(c, layers) | {"model.norm.bias": (e,)}
    return shapes | ({"lm_head.bias": (c["vocab_size"],)} if c["lm_head_bias"] else {})


def _llama4(c: Mapping[str, Any]) -> Shapes:
    e, width, bias = c["hidden_size"], c["intermediate_size"], c["attention_bias"]
    layers: Shapes = {}
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        layers |= _attention(c, f"{h}.self_attn", bias, bias)
        layers |= {f"{h}.{name}.weight": (e,) for name in ("input_layernorm", "post_attention_layernorm")}
        if (i + 1) % c["interleave_moe_layer_step"]:
            layers |= _ffn(c, f"{h}.feed_forward", c["intermediate_size_mlp"])
            continue
        layers[f"{h}.feed_forward.router.weight"] = (c["num_local_experts"], e)
        layers |= _ffn(c, f"{h}.feed_forward.shared_expert", width)
        layers |= experts(f"{h}.feed_forward.experts", c["num_local_experts"], width, e)
    return whole(c, layers)


def _zaya(config: Mapping[str, Any]) -> Shapes:
    """Convolutions as graphs read them; see convolutions_as_published()."""
    hidden, dim, count = config["hidden_size"], config["head_dim"], config["num_experts"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    first, second = config["cca_time0"], config["cca_time1"]
    inner: Shapes = {"q_proj.weight": (q, hidden), "k_proj.weight": (kv, hidden), "v_delay.weight": (kv // 2, 2)}
    inner |= {f"v_proj_{each}.weight": (kv // 2, hidden) for each in ("current", "delayed")}
    inner |= {f"conv_qk_{each}.bias": (q + kv,) for each in ("depthwise", "grouped")}
    for place in range(second):
        inner |= {f"conv_qk_depthwise.{place}.weight": (q + kv, first + place)}
        inner |= {f"conv_qk_grouped.{place}.weight": (q + kv, dim)}
    if config["attention_bias"]:
        inner |= {f"{p}.bias": (rows,) for p, rows in {"q_proj": q, "k_proj": kv}.items()}
        inner |= {f"v_proj_{each}.bias": (kv // 2,) for each in ("current", "delayed")}
    layer = below("self_attn.qkv_proj", inner)
    layer |= {"self_attn.qk_norm.temp": (config["num_key_value_heads"],), "self_attn.o_proj.weight": (hidden, q)}
    layer |= {"self_attn.o_proj.bias": (hidden,)} if config["attention_bias"] else {}
    layer |= {f"{n}_layernorm.weight": (hidden,) for n in ("input", "post_attention")}
    for block in ("post_attention", "post_mlp"):
        for part in ("hidden_states", "residual"):
            layer |= {f"{block}_residual_scale.{part}_{each}": (hidden,) for each in ("scale", "bias")}
    width, ffn = config["router_hidden_size"], config["moe_intermediate_size"]
    layer |= {"mlp.gate.down_proj.weight": (width, hidden), "mlp.gate.down_proj.bias": (width,)}
    layer |= {"mlp.gate.balancing_biases": (count + 1,), "mlp.gate.router_mlp.norm.weight": (width,)}
    layer |= {f"mlp.gate.router_mlp.{fc}.weight": (width, width) for fc in ("fc1", "fc2")}
    layer |= {f"mlp.gate.router_mlp.{fc}.bias": (width,) for fc in ("fc1", "fc2")}
    layer["mlp.gate.router_mlp.out_proj.weight"] = (count + 1, width)
    layer |= experts("mlp.experts", count, ffn, hidden)
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    shapes |= {f"model.input_hidden_states_{each}": (hidden,) for each in ("scale", "bias")}
    later = layer | {"mlp.gate.router_states_scale": (width,)}
    shapes |= in_layers([layer, *[later] * (config["num_hidden_layers"] - 1)])
    shapes |= {"lm_head.bias": (config["vocab_size"],)} if config["lm_head_bias"] else {}
    return shapes if config["tie_word_embeddings"] else shapes | {"lm_head.weight": (config["vocab_size"], hidden)}


def convolutions_as_published(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """ZAYA's: the one of channels once, of that of heads all positions in one; channels as they are not rotated."""
    dim, part = config["head_dim"], config["rope_parameters"]["hybrid"]["partial_rotary_factor"]
    turning = int(dim * part)
    half, still = turning // 2, (dim - turning) // 2
    order = [*range(half), *range(turning, turning + still), *range(half, turning), *range(turning + still, dim)]
    found = {}
    for name, tensor in tensors.items():
        block, _, rest = name.partition(".conv_qk_")
        if rest == "depthwise.0.weight":
            found[f"{block}.conv_qk_depthwise.weight"] = tensor[:, None]
        elif rest == "grouped.0.weight":
            places = [tensors[f"{block}.conv_qk_grouped.{j}.weight"] for j in range(config["cca_time1"])]
            whole = np.empty((*tensor.shape, len(places)), np.float32)
            whole[:, order] = np.stack(places, axis=-1)
            found[f"{block}.conv_qk_grouped.weight"] = whole
        elif not name.endswith("v_delay.weight") and not (rest and rest.endswith(".weight")):
            found[name] = tensor
    return found


def _dory(config: Mapping[str, Any]) -> Shapes:
    """Of which each layer lies there once, however often it is gone through."""
    hidden, ffn, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    layer: Shapes = {"lambda_1": (hidden,), "lambda_2": (hidden,), "self_attn.sqk": (q,), "self_attn.s_gate": (q,)}
    layer |= {f"self_attn.{p}_proj.weight": (rows, hidden) for p, rows in {"q": q, "k": kv, "v": kv, "gate": q}.items()}
    layer |= {"self_attn.o_proj.weight": (hidden, q), "mlp.down_proj.weight": (hidden, ffn)}
    layer |= {f"mlp.{p}_proj.weight": (ffn, hidden) for p in ("gate", "up")}
    layer |= {f"mlp.suv_{p}": (ffn,) for p in ("gate", "up")}
    shapes |= in_layers([layer] * config["num_hidden_layers"])
    return shapes | {"lm_head.weight": (config["vocab_size"], hidden), "lm_head.logit_scale": (config["vocab_size"],)}


def _hrm(config: Mapping[str, Any]) -> Shapes:
    """Of which each layer of two stacks lies there once."""
    hidden, ffn, width = config["hidden_size"], config["intermediate_size"], 12 * config["num_attention_heads"]
    layer: Shapes = {f"self_attn.{p}_proj.weight": (width, hidden) for p in ("q", "k", "v", "gate")}
    layer |= {"self_attn.o_proj.weight": (hidden, width), "mlp.down_proj.weight": (hidden, ffn)}
    layer |= {f"mlp.{p}_proj.weight": (ffn, hidden) for p in ("gate", "up")}
    if config["attention_bias"]:
        layer |= {n.replace("weight", "bias"): shape[:1] for n, shape in layer.items() if n.startswith("self_attn")}
    if config["mlp_bias"]:
        layer |= {n.replace("weight", "bias"): shape[:1] for n, shape in layer.items() if n.startswith("mlp")}
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.z_L_init": (hidden,)}
    for stack in ("L_module", "H_module"):
        shapes |= in_layers([layer] * config["num_layers_per_stack"], f"model.{stack}.layers")
    return shapes | {"lm_head.weight": (config["vocab_size"], hidden)}


def _decilm(config: Mapping[str, Any]) -> Shapes:
    hidden, layers = config["hidden_size"], Shapes()
    for i, block in enumerate(config["block_configs"]):
        h, attention, ffn = f"model.layers.{i}", block["attention"], block["ffn"]
        if not attention["no_op"]:
            heads = config["num_attention_heads"] // attention["n_heads_in_group"]
            bias = config["attention_bias"]
            layers |= _attention({**config, "num_key_value_heads": heads}, f"{h}.self_attn", bias, bias)
            layers[f"{h}.input_layernorm.weight"] = (hidden,)
        if not ffn["no_op"]:
            width = ffn.get("intermediate_size") or (int(2 * ffn["ffn_mult"] * hidden / 3) + 255) // 256 * 256
            layers |= _ffn(config, f"{h}.mlp", width, config["mlp_bias"])
            layers[f"{h}.post_attention_layernorm.weight"] = (hidden,)
    return whole(config, layers)


def _modernbert(config: Mapping[str, Any]) -> Shapes:
    hidden, width = config["hidden_size"], config["intermediate_size"]
    layers: Shapes = {"model.embeddings.tok_embeddings.weight": (config["vocab_size"], hidden)}
    has_norm_bias, bias = config.get("norm_bias", False), config.get("attention_bias", False)
    layers |= module("model.embeddings.norm", (hidden,), has_norm_bias)
    for i in range(config["num_hidden_layers"]):
        h = f"model.layers.{i}"
        for norm in ("attn_norm", "mlp_norm")[i == 0 :]:
            layers |= module(f"{h}.{norm}", (hidden,), has_norm_bias)
        layers |= _attention(config, f"{h}.attn", bias, bias, "Wo")
        layers |= module(f"{h}.mlp.Wi", (2 * width, hidden), config.get("mlp_bias", False))
        layers |= module(f"{h}.mlp.Wo", (hidden, width), config.get("mlp_bias", False))
    layers |= module("model.final_norm", (hidden,), has_norm_bias)
    layers |= {"lm_head.dense.weight": (hidden, hidden)} | module("lm_head.norm", (hidden,), has_norm_bias)
    if not config["tie_word_embeddings"]:
        layers["decoder.weight"] = (config["vocab_size"], hidden)
    return layers | ({"decoder.bias": (config["vocab_size"],)} if config["decoder_bias"] else {})


#: Whose names are those of Llama.
_LLAMAS = words(
    "apertus apertus1p5_text arcee bitnet helium hunyuan_v1_dense hyperclovax internlm internlm3 iquestcoder "
    "minicpm ministral vaultgemma xverse"
)
#: model_type -> every tensor of a checkpoint, as it is read.
DECODERS: dict[str, Callable[[Mapping[str, Any]], Shapes]] = {
    **dict.fromkeys(("cohere2", "cohere_compass_text", "jais2", "nemotron", "olmo", "orion"), _layer_norms),
    **dict.fromkeys(_LLAMAS, _llamas),
    **dict.fromkeys(("afmoe", "exaone_moe", "granitemoeshared", "hunyuan_v1_moe", "hy_v3", "solar_open"), _mixtures),
    **dict.fromkeys(("codegen", "gpt_bigcode", "gptj"), _gpts),
    **CHOOSING,
    "bailing_hybrid": bailing_hybrid_shapes,
    "biogpt": _biogpt,
    "dbrx": _dbrx,
    "dory": _dory,
    "exaone": _exaone,
    "gpt_neo": _gpt_neo,
    "hrm_text": _hrm,
    "internlm2": _internlm2,
    "kimi_linear": kimi_shapes,
    "llama4_text": _llama4,
    "longcat_flash": longcat_shapes,
    "mistral_large4_text": large4_shapes,
    "modernbert-decoder": _modernbert,
    "nanochat": _nanochat,
    "nemotron-nas": _decilm,
    "phimoe": _phimoe,
    "zaya": _zaya,
    **dict.fromkeys(("bailing_moe", "param2moe", "sarvam_moe"), _sarvam_moe),
}
