"""What graphs call the tensors of GGUF files: maps that the tables are made of.

A key is a tensor of llama.cpp's, of a layer behind "blk.N."; see GgufArchitecture.names. Sources: gguf/constants.py and
gguf/tensor_mapping.py of llama.cpp. Does not know architectures.
"""

from __future__ import annotations

from collections.abc import Mapping

Names = Mapping[str, str]

ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_sinks.weight": "self_attn.sinks",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_gate_up_exps": "mlp.experts.{}.gate_proj+up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
}


def experts_in(block: str, router: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj") -> Names:
    """Args: block: what experts lie in. gate, up, down: matrices of one."""
    one = f"{block}.experts.{{}}"
    names = {"ffn_gate_inp": f"{block}.{router}", "ffn_gate_up_exps": f"{one}.{gate}+{up}"}
    return names | {"ffn_gate_exps": f"{one}.{gate}", "ffn_up_exps": f"{one}.{up}", "ffn_down_exps": f"{one}.{down}"}


def mamba_in(module: str) -> Names:
    parts = {"ssm_in": "in_proj", "ssm_conv1d": "conv1d", "ssm_norm": "norm", "ssm_out": "out_proj"}
    parts |= {"ssm_a": "A_log", "ssm_d": "D", "ssm_dt.bias": "dt_bias"}
    return {name: f"{module}.{part}" for name, part in parts.items()}


POST_NORMS = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
NORM_BEHIND = {"post_attention_norm": "post_attention_layernorm"}
GEMMA = {**POST_NORMS, "ffn_norm": "pre_feedforward_layernorm"}
#: Linears behind pooling.
DENSE_ENDS = {"dense_2": "dense_2", "dense_3": "dense_3"}
GEMMA4 = {
    **GEMMA,
    "layer_output_scale.weight": "layer_scalar",
    "inp_gate": "per_layer_input_gate",
    "proj": "per_layer_projection",
    "post_norm": "post_per_layer_input_norm",
    "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
    "post_ffw_norm_1": "post_feedforward_layernorm_1",
    "post_ffw_norm_2": "post_feedforward_layernorm_2",
    "ffn_gate_inp": "router.proj",
    "ffn_gate_inp.scale": "router.scale",
    "ffn_gate_exps": "experts.{}.gate_proj",
    "ffn_up_exps": "experts.{}.up_proj",
    "ffn_gate_up_exps": "experts.{}.gate_proj+up_proj",
    "ffn_down_exps": "experts.{}.down_proj",
    "ffn_down_exps.scale": "router.per_expert_scale",
}
GEMMA4_ENDS = {
    "per_layer_token_embd": "model.embed_tokens_per_layer",
    "per_layer_model_proj": "model.per_layer_model_projection",
    "per_layer_proj_norm": "model.per_layer_projection_norm",
}
GEMMA3N = {
    **GEMMA,
    "inp_gate": "per_layer_input_gate",
    "proj": "per_layer_projection",
    "post_norm": "post_per_layer_input_norm",
    "laurel_l": "laurel.linear_left",
    "laurel_r": "laurel.linear_right",
    "laurel_post_norm": "laurel.post_laurel_norm",
    "altup_router": "altup.modality_router",
    "altup_router_norm": "altup.router_norm",
    "altup_predict_coef": "altup.prediction_coefs",
    "altup_correct_coef": "altup.correction_coefs",
    "altup_correct_scale.weight": "altup.correct_output_scale",
}
GEMMA3N_ENDS = {
    **GEMMA4_ENDS,
    "altup_proj": "model.altup_projections.{}",
    "altup_unembd_proj": "model.altup_unembed_projections.{}",
}
MIXTRAL = experts_in("block_sparse_moe", "gate", "w1", "w3", "w2")
LLAMA4 = {
    **experts_in("feed_forward", "router"),
    **{f"ffn_{part}": f"feed_forward.{part}_proj" for part in ("gate", "up", "down")},
    **{f"ffn_{part}_shexp": f"feed_forward.shared_expert.{part}_proj" for part in ("gate", "up", "down")},
}
GRANITE_EXPERTS = experts_in("block_sparse_moe", "router.layer")
SHARED = {f"ffn_{part}_shexp": f"mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")}
DEEPSEEK = {**SHARED, "exp_probs_b.bias": "mlp.gate.e_score_correction_bias"}
#: Of config.json.
OWN_EXPERT_KEYS = {"n_routed_experts": "num_experts", "n_shared_experts": "num_shared_experts"}
HUNYUAN = {"attn_q_norm": "self_attn.query_layernorm", "attn_k_norm": "self_attn.key_layernorm"}
HUNYUAN_EXPERTS = {
    **HUNYUAN,
    "ffn_gate_inp": "mlp.gate.wg",
    **{f"ffn_{part}_shexp": f"mlp.shared_mlp.{part}_proj" for part in ("gate", "up", "down")},
}
HY_V3 = {
    "ffn_gate_inp": "mlp.router.gate",
    "exp_probs_b": "mlp.expert_bias",
    "exp_probs_b.bias": "mlp.expert_bias",
    **{f"ffn_{part}_shexp": f"mlp.shared_mlp.{part}_proj" for part in ("gate", "up", "down")},
}
AFMOE = {
    **SHARED,
    **POST_NORMS,
    "attn_gate": "self_attn.gate_proj",
    "ffn_norm": "pre_mlp_layernorm",
    "post_ffw_norm": "post_mlp_layernorm",
    "ffn_gate_inp": "mlp.router.gate",
    "exp_probs_b.bias": "mlp.expert_bias",
}
LING = {
    **SHARED,
    "attn_qkv": "attention.query_key_value",
    "attn_output": "attention.dense",
    "attn_q_norm": "attention.query_layernorm",
    "attn_k_norm": "attention.key_layernorm",
    "exp_probs_b.bias": "mlp.gate.expert_bias",
}
LATENT = {
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_kv_b": "self_attn.kv_b_proj",
    "attn_k_b": "self_attn.k_up_proj",
    "attn_v_b": "self_attn.v_up_proj",
}
DSA = {
    **DEEPSEEK,
    **LATENT,
    "indexer.k_norm": "self_attn.indexer.k_norm",
    "indexer.proj": "self_attn.indexer.weights_proj",
    "indexer.attn_k": "self_attn.indexer.wk",
    "indexer.attn_q_b": "self_attn.indexer.wq_b",
}
DEEPSEEK4 = {
    **DEEPSEEK,
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_norm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv": "self_attn.kv_proj",
    "attn_kv_a_norm": "self_attn.kv_norm",
    "attn_output_a": "self_attn.o_a_proj",
    "attn_output_b": "self_attn.o_b_proj",
    "ffn_gate_tid2eid.weight": "mlp.gate.tid2eid",
    "indexer.proj": "self_attn.compressor.indexer.scorer.weights_proj",
    "indexer.attn_q_b": "self_attn.compressor.indexer.q_b_proj",
    **{f"hc_{of}_{part}.weight": f"{of}_hc.{part}" for of in ("attn", "ffn") for part in ("fn", "base", "scale")},
    **{
        f"{of}_compressor_{name}": f"self_attn.compressor{inner}.{part}"
        for of, inner in (("attn", ""), ("indexer", ".indexer"))
        for name, part in (
            ("kv", "kv_proj"),
            ("gate", "gate_proj"),
            ("norm", "kv_norm"),
            ("ape.weight", "position_bias"),
        )
    },
}
DEEPSEEK4_ENDS = {f"output_hc_{part}.weight": f"model.hc_head.hc_{part}" for part in ("fn", "base", "scale")}
KIMI_LINEAR = {
    **LATENT,
    **experts_in("block_sparse_moe", "gate", "w1", "w3", "w2"),
    **{f"ffn_{part}_shexp": f"block_sparse_moe.shared_experts.{part}_proj" for part in ("gate", "up", "down")},
    "exp_probs_b.bias": "block_sparse_moe.gate.e_score_correction_bias",
    **{f"ssm_conv1d_{p}": f"self_attn.{p}_conv1d" for p in "qkv"},
    **{f"ssm_{p}_{each}": f"self_attn.{p}_{each}_proj" for p in "fg" for each in "ab"},
    "ssm_beta": "self_attn.b_proj",
    "ssm_a": "self_attn.A_log",
    "ssm_dt.bias": "self_attn.dt_bias",
    "ssm_norm": "self_attn.o_norm",
}
LAGUNA = {
    "attn_gate": "self_attn.g_proj",
    **{f"ffn_{part}_shexp": f"mlp.shared_expert.{part}_proj" for part in ("gate", "up", "down")},
    "exp_probs_b.bias": "mlp.experts.e_score_correction_bias",
}
STEP = {**DEEPSEEK, "attn_gate": "self_attn.g_proj"}
MIMO = {**DEEPSEEK, "attn_sinks.weight": "self_attn.attention_sink_bias"}
MINIMAX_M3 = {
    **experts_in("block_sparse_moe", "gate", "w1", "w3", "w2"),
    **{f"ffn_{part}_shexp": f"block_sparse_moe.shared_experts.{part}_proj" for part in ("gate", "up", "down")},
    "exp_probs_b.bias": "block_sparse_moe.e_score_correction_bias",
    "indexer.q_proj": "self_attn.index_q_proj",
    "indexer.k_proj": "self_attn.index_k_proj",
    "indexer.q_norm": "self_attn.index_q_norm",
    "indexer.k_norm": "self_attn.index_k_norm",
}
GATED_DELTA = {
    **NORM_BEHIND,
    **{name: each for name, each in mamba_in("linear_attn").items() if name != "ssm_in"},
    "attn_qkv": "linear_attn.in_proj_qkv",
    "attn_gate": "linear_attn.in_proj_z",
    "ssm_alpha": "linear_attn.in_proj_a",
    "ssm_beta": "linear_attn.in_proj_b",
}
SHORT_CONV = {
    "attn_norm": "operator_norm",
    "ffn_norm": "ffn_norm",
    "attn_output": "self_attn.out_proj",
    "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm",
    "shortconv.conv": "conv.conv",
    "shortconv.in_proj": "conv.in_proj",
    "shortconv.out_proj": "conv.out_proj",
    "ffn_gate": "feed_forward.w1",
    "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2",
}
SHORT_CONV_ENDS = {"token_embd_norm": "model.embedding_norm", "output_norm": "model.embedding_norm"}
MAMBA1 = {
    **mamba_in("mixer"),
    "ssm_x": "mixer.x_proj",
    "ssm_dt": "mixer.dt_proj",
    "ssm_dt.bias": "mixer.dt_proj.bias",
    "attn_norm": "norm",
}
JAMBA = {
    **mamba_in("mamba"),
    **experts_in("feed_forward", "router"),
    **{f"ffn_{part}": f"feed_forward.{part}_proj" for part in ("gate", "up", "down")},
    "ssm_x": "mamba.x_proj",
    "ssm_dt": "mamba.dt_proj",
    "ssm_dt.bias": "mamba.dt_proj.bias",
    **{f"ssm_{part}_norm": f"mamba.{part}_layernorm" for part in ("dt", "b", "c")},
    "ffn_norm": "pre_ff_layernorm",
}
GRANITE_FFN = {"gate": "gate_proj", "up": "up_proj", "down": "output_linear"}
GRANITE_HYBRID = {
    **mamba_in("mamba"),
    **GRANITE_EXPERTS,
    **{f"ffn_{part}{end}": f"shared_mlp.{module}" for part, module in GRANITE_FFN.items() for end in ("", "_shexp")},
}
GRANITE_MOE = {
    **GRANITE_EXPERTS,
    **{f"ffn_{part}_shexp": f"shared_mlp.{module}" for part, module in GRANITE_FFN.items()},
}
GRANITE_SWA = {
    **experts_in("block_sparse_moe", "router"),
    "ffn_up_shexp": "shared_mlp.input_linear",
    "ffn_down_shexp": "shared_mlp.output_linear",
}
NEMOTRON_H = {
    **mamba_in("mixer"),
    **experts_in("mixer", "gate"),
    "attn_norm": "norm",
    **{f"attn_{part}": f"mixer.{part}_proj" for part in "qkv"},
    "attn_output": "mixer.o_proj",
    "exp_probs_b.bias": "mixer.gate.e_score_correction_bias",
    "ffn_latent_down": "mixer.fc1_latent_proj",
    "ffn_latent_up": "mixer.fc2_latent_proj",
    **{f"ffn_{part}": f"mixer.{part}_proj" for part in ("up", "down")},
    **{f"ffn_{part}_shexp": f"mixer.shared_experts.{part}_proj" for part in ("up", "down")},
}
FALCON_H1 = {
    **mamba_in("mamba"),
    "ffn_norm": "pre_ff_layernorm.weight",  # whose name ends there
    **{f"ffn_{part}": f"feed_forward.{part}_proj" for part in ("gate", "up", "down")},
}
FALCON_H1_ENDS = {"output_norm": "model.final_layernorm"}
NEMOTRON_H_ENDS = {"token_embd": "backbone.embeddings", "output_norm": "backbone.norm_f"}
FALCON = {
    "attn_qkv": "self_attention.query_key_value",
    "attn_output": "self_attention.dense",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}
MPT = {
    "attn_norm": "norm_1",
    "attn_qkv": "attn.Wqkv",
    "attn_output": "attn.out_proj",
    "ffn_norm": "norm_2",
    "ffn_up": "ffn.up_proj",
    "ffn_down": "ffn.down_proj",
}
DBRX = {
    **experts_in("ffn", "router.layer", "w1", "v1", "w2"),
    "attn_norm": "norm_attn_norm.norm_1",
    "attn_qkv": "norm_attn_norm.attn.Wqkv",
    "attn_output": "norm_attn_norm.attn.out_proj",
    "attn_output_norm": "norm_attn_norm.norm_2",
}
MPT_ENDS = {"token_embd": "transformer.wte", "output_norm": "transformer.norm_f"}
#: Of config.json, as MPT and DBRX have it.
MPT_KEYS = {
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "max_position_embeddings": "max_seq_len",
}
BLOOM_ENDS = {
    "token_embd": "transformer.word_embeddings",
    "token_embd_norm": "transformer.word_embeddings_layernorm",
    "output_norm": "transformer.ln_f",
}
BLOOM_KEYS = {
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "seq_length",
    "rms_norm_eps": "layer_norm_epsilon",
}
GPT2 = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
EXAONE = {
    "attn_norm": "ln_1",
    **{f"attn_{p}": f"attn.attention.{p}_proj" for p in "qkv"},
    "attn_output": "attn.attention.out_proj",
    "ffn_norm": "ln_2",
    "ffn_gate": "mlp.c_fc_0",
    "ffn_up": "mlp.c_fc_1",
    "ffn_down": "mlp.c_proj",
}
GPT2_KEYS = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "rms_norm_eps": "layer_norm_epsilon",
}
LAYER_NORM_EPS = {"rms_norm_eps": "layer_norm_eps"}
NORM_EPS = {"rms_norm_eps": "norm_eps"}
LAYER_NORM_EPSILON = {"rms_norm_eps": "layer_norm_epsilon"}
GPT2_ENDS = {"token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f"}
GPTNEOX_ENDS = {"token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm", "output": "embed_out"}
BERT = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
BERT_ENDS = {
    "token_embd": "embeddings.word_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
    "token_types": "embeddings.token_type_embeddings",
    "position_embd": "embeddings.position_embeddings",
}
MODERN_BERT = {
    "attn_norm": "attn_norm",
    "attn_qkv": "attn.Wqkv",
    "attn_output": "attn.Wo",
    "ffn_norm": "mlp_norm",
    "ffn_up": "mlp.Wi",
    "ffn_down": "mlp.Wo",
}
MODERN_BERT_ENDS = {
    "token_embd": "embeddings.tok_embeddings",
    "token_embd_norm": "embeddings.norm",
    "output_norm": "final_norm",
}
