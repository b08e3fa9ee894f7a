"""Keys that published files of a model have beside those of its tiny one: those that change nothing are accepted."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.errors import UnsupportedModel
from albireo.models import load_architecture
from tiny_models import parse_tiny

_CODE = {"auto_map": {"AutoConfig": "configuration.Config", "AutoModelForCausalLM": "modeling.Model"}}
_COHERE2: dict[str, Any] = {
    "layer_switch": 4,
    "order_of_interleaved_layers": "local_attn_first",
    "position_embedding_type": "rope_gptj",
    "rotary_pct": 1.0,
    "use_embedding_sharing": True,
    "use_gated_activation": True,
    "use_parallel_block": True,
    "use_parallel_embedding": True,
    "use_qk_norm": False,
    "cache_implementation": "hybrid",
    "head_dim": 12,
}
_HUNYUAN: dict[str, Any] = {
    "add_classification_head": False,
    "attention_head_dim": 16,
    "cla_share_factor": 2,
    "class_num": 0,
    "dense_list": [48, 0],
    "eod_token_id": 3,
    "im_end_id": 6,
    "kv_lora_rank": None,
    "mask_init_id": 12,
    "mlp_bias": False,
    "norm_type": "rms",
    "num_media_embeds": 257,
    "org_vocab_size": 127,
    "pool_type": "last",
    "position_embedding_xdrope": False,
    "routed_scaling_factor": False,
    "use_cla": False,
    "use_mla": False,
    "use_qk_norm": True,
    "use_rotary_pos_emb": True,
    "anyres_vit_two_views": False,
    "skip_cls_token": False,
    "vit_input_resolution": 224,
    "vit_mapping_type": "resampler",
    "vit_norm_type": "fused",
    "vit_patch": 1,
    "vit_token": 64,
}
_EXPERTS_OF_HUNYUAN: dict[str, Any] = {
    "moe_topk": [2, 2],
    "num_shared_expert": [1, 1],
    "moe_intermediate_size": [40, 40],
    "moe_layer_num_skipped": 0,
    "use_mixed_mlp_moe": True,
    "norm_topk_prob": True,
    "n_group": False,
    "topk_group": False,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "cohere2": _COHERE2,
    "hunyuan_v1_dense": {**_CODE, **_HUNYUAN},
    "hunyuan_v1_moe": {**_CODE, **_HUNYUAN, **_EXPERTS_OF_HUNYUAN},
    "afmoe": {
        **_CODE,
        **{"score_func": "sigmoid", "route_norm": True, "n_group": 1, "topk_group": 1, "num_expert_groups": 1},
        **{"num_limited_groups": 1, "load_balance_coeff": 5e-5, "use_grouped_mm": True, "rope_scaling": None},
    },
    "exaone_moe": {
        **{"scoring_func": "sigmoid", "topk_method": "noaux_tc", "num_nextn_predict_layers": 1},
        **{"mtp_loss_scaling_factor": 0.3, "is_moe_layer": [False, True], "first_last_k_dense_replace": 1},
    },
    "exaone": {**_CODE, "embed_dropout": 0.0, "attention_dropout": 0.0},
    "solar_open": {
        **_CODE,
        **{"intermediate_size": 1, "first_k_dense_replace": 0, "partial_rotary_factor": 1.0, "use_qk_norm": False},
    },
    "gpt_bigcode": {
        **{"attention_softmax_in_fp32": True, "scale_attention_softmax_in_fp32": True, "inference_runner": 0},
        **{"validate_runner_input": True, "pre_allocate_kv_cache": True, "max_batch_size": None, "summary_type": "x"},
    },
    "gptj": {"rotary": True, "scale_attn_weights": True, "summary_use_proj": True, "tokenizer_class": "GPT2Tokenizer"},
    "codegen": {
        "n_ctx": 128,
        "scale_attn_weights": True,
        "summary_activation": None,
        "tokenizer_class": "GPT2Tokenizer",
    },
    "gpt_neo": {"attention_layers": ["global", "local"], "resid_dropout": 0, "summary_first_dropout": 0.1},
    "glm_moe_dsa": {
        **{"indexer_rope_interleave": True, "index_topk_freq": 4, "index_skip_topk_offset": 3, "ep_size": 1},
        **{
            "indexer_types": ["full", "shared", "full"],
            "index_share_for_mtp_iteration": True,
            "moe_router_dtype": "float32",
        },
    },
    "minicpm3": _CODE,
    "internlm3": _CODE,
    "phi3": {"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False},  # Phi-4-mini
    "phimoe": {"auto_map": {"AutoModelForCausalLM": "modeling_phimoe.PhiMoEForCausalLM"}, "attention_dropout": 0.0},
    "bloom": {
        **{"attention_softmax_in_fp32": True, "bias_dropout_fusion": True, "masked_softmax_fusion": True},
        **{"n_inner": None, "offset_alibi": 100, "pretraining_tp": 4, "skip_bias_add": True, "unk_token_id": 0},
        **{"skip_bias_add_qkv": False, "slow_but_exact": False, "hidden_dropout": 0.0},
    },
    "mpt": {
        "auto_map": {"AutoModelForCausalLM": "modeling_mpt.MPTForCausalLM"},
        **{"emb_pdrop": 0, "embedding_fraction": 1.0, "init_config": {"name": "kaiming_normal_"}, "init_device": "cpu"},
        **{"learned_pos_emb": True, "logit_scale": None, "norm_type": "low_precision_layernorm", "resid_pdrop": 0},
        **{"tokenizer_name": "EleutherAI/gpt-neox-20b", "verbose": 0},
        "attn_config": {
            **{"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0, "clip_qkv": None},
            **{"attn_type": "multihead_attention", "attn_uses_sequence_id": False, "prefix_lm": False, "qk_ln": False},
            **{"rope": False, "rope_theta": 10000, "rope_impl": "dail", "rope_hf_config": {"type": "no_scaling"}},
            "softmax_scale": None,
        },
    },
    "cwm": {"use_cache": True, "mlp_bias": False, "pretraining_tp": 1, "attention_dropout": 0.0},
    "flex_olmo": {"initializer_range": 0.02, "num_local_experts": None, "rope_scaling": None},
    "mellum": {"num_nextn_predict_layers": 1, "mtp_layer_types": ["sliding_attention"], "max_window_layers": 28},
    "sarvam_mla": {
        **{"head_dim": 20, "q_head_dim": 20, "moe_router_enable_expert_bias": True, "num_nextn_predict_layers": 0},
        **{"num_experts": 12, "num_shared_experts": 2, "n_routed_experts": None, "n_shared_experts": None},
    },
    "minimax": {"block_size": 256, "attn_type_list": None, "router_aux_loss_coef": 0.001, "rope_scaling": None},
    "minimax_text_01": {
        "auto_map": {"AutoModelForCausalLM": "modeling_minimax_text_01.MiniMaxText01ForCausalLM"},
        **{"router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0, "layer_types": None},
    },
    "minimax_m1": {
        "auto_map": {"AutoModelForCausalLM": "modeling_minimax_m1.MiniMaxM1ForCausalLM"},
        "num_nextn_predict_layers": 0,
    },
    "modernbert_decoder": {
        **{"causal_mask": True, "is_causal": True, "classifier_activation": "gelu", "classifier_pooling": "mean"},
        **{"classifier_bias": False, "classifier_dropout": 0.0, "deterministic_flash_attn": False, "mlp_bias": False},
        **{"layer_norm_eps": 1e-5, "position_embedding_type": "sans_pos", "repad_logits_with_grad": False},
        **{"sparse_prediction": False, "sparse_pred_ignore_index": -100, "initializer_cutoff_factor": 2.0},
        **{"embedding_dropout": 0.0, "mlp_dropout": 0.0, "norm_bias": False, "sliding_window": 13, "cls_token_id": 1},
    },
    "chatglm": {
        "auto_map": {"AutoModelForCausalLM": "modeling_chatglm.ChatGLMForConditionalGeneration"},
        **{"apply_query_key_layer_scaling": True, "attention_softmax_in_fp32": True, "bias_dropout_fusion": True},
        **{"hidden_dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": None, "pad_token_id": 0},
        **{"pre_seq_len": None, "prefix_projection": False, "quantization_bit": 0},
    },
    "qwen": {
        "auto_map": {"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"},
        **{"attn_dropout_prob": 0.0, "emb_dropout_prob": 0.0, "bf16": False, "fp16": False, "fp32": False},
        **{"max_position_embeddings": 8192, "use_dynamic_ntk": True, "use_logn_attn": True, "use_flash_attn": "auto"},
        **{"onnx_safe": None, "rotary_pct": 1.0, "scale_attn_weights": True, "tokenizer_class": "QWenTokenizer"},
        **{"use_cache_quantization": False, "use_cache_kernel": False, "softmax_in_fp32": False},
    },
    "baichuan": {
        "auto_map": {"AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM"},
        **{"_from_model_config": None, "tokenizer_class": "BaichuanTokenizer", "gradient_checkpointing": False},
        "pad_token_id": 0,
    },
    "deepseek": {
        "auto_map": {"AutoModelForCausalLM": "modeling_deepseek.DeepseekForCausalLM"},
        **{"aux_loss_alpha": 0.001, "seq_aux": True, "pretraining_tp": 1, "ep_size": 1},
    },
    "telechat": {
        "auto_map": {"AutoModelForCausalLM": "modeling_telechat2.TeleChat2ForCausalLM"},
        **{"apply_residual_connection_post_layernorm": False, "hidden_dropout": 0.0, "flash_attn": True, "logn": True},
        **{"masked_softmax_fusion": True, "n_inner": None, "offset_alibi": 100, "unk_token_id": 0, "base_seqlen": 128},
        **{"skip_bias_add": False, "skip_bias_add_qkv": False, "slow_but_exact": False, "embed_layernorm": False},
    },
    "telechat3": {
        "auto_map": {"AutoModelForCausalLM": "modeling_telechat3.TeleChat3ForCausalLM"},
        **{"embedding_size": 1024, "share_attention": True, "share_ffn": False, "pretraining_tp": 1},
    },
    "openelm": {
        "auto_map": {"AutoModelForCausalLM": "modeling_openelm.OpenELMForCausalLM"},
        **{"qkv_multipliers": [0.5, 1.0], "initializer_range": 0.02},
    },
    "ouro": {
        "auto_map": {"AutoModelForCausalLM": "modeling_ouro.OuroForCausalLM"},
        **{"max_window_layers": 2, "rope_scaling": None, "attention_dropout": 0.0},
    },
    "jais": {
        "auto_map": {"AutoModelForCausalLM": "modeling_jais.JAISLMHeadModel"},
        **{"reorder_and_upcast_attn": False, "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True},
        **{"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    },
    "phi_msft": {
        "auto_map": {"AutoModelForCausalLM": "modeling_phi.PhiForCausalLM"},
        **{"flash_attn": False, "flash_rotary": False, "fused_dense": False, "img_processor": None},
        **{"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.1},
    },
    "deci": {
        "auto_map": {"AutoModelForCausalLM": "modeling_decilm.DeciLMForCausalLM"},
        **{"naive_attention_prefill": False, "naive_attention_decode_batched": True, "num_key_value_heads": None},
    },
    "openai_gpt": {
        **{"n_ctx": 128, "n_special": 0, "predict_special_tokens": True, "summary_type": "cls_index"},
        **{"summary_use_proj": True, "summary_activation": None, "task_specific_params": {}},
    },
    "xverse": {
        "auto_map": {"AutoModelForCausalLM": "modeling_xverse.XverseForCausalLM"},
        "max_tokenizer_truncation": 6144,
    },
    "internlm": {
        "auto_map": {"AutoModelForCausalLM": "modeling_internlm.InternLMForCausalLM"},
        "num_key_value_heads": 6,
    },
    "orion": {
        "auto_map": {"AutoModelForCausalLM": "modeling_orion.OrionForCausalLM"},
        **{"max_sequence_length": 128, "pretraining_tp": 1, "rope_scaling": None},
    },
    "kimi_linear": {
        "auto_map": {"AutoModelForCausalLM": "modeling_kimi.KimiLinearForCausalLM"},
        **{"head_dim": 10, "moe_layer_freq": 1, "num_nextn_predict_layers": 0, "rope_theta": 1e4, "rope_scaling": None},
        **{"use_grouped_topk": True, "layer_types": ["linear_attention", "full_attention"] * 2, "linear_head_dim": 12},
        **{"linear_num_heads": 3, "linear_conv_kernel_dim": 4, "max_position_embeddings": 128},
    },
    "bailing_hybrid": {
        "auto_map": {"AutoModelForCausalLM": "modeling_bailing_hybrid.BailingHybridForCausalLM"},
        **{"num_nextn_predict_layers": 1, "mtp_loss_scaling_factor": 0.3, "router_dtype": "fp32", "use_rmsnorm": True},
        **{"moe_router_enable_expert_bias": True, "score_function": "sigmoid", "use_qkv_bias": False},
        **{"use_bias": False, "linear_head_dim": 12, "linear_num_heads": 4, "linear_conv_kernel_dim": 4},
    },
    "bailing_moe": {
        "auto_map": {"AutoModelForCausalLM": "modeling_bailing_moe_v2.BailingMoeV2ForCausalLM"},
        **{"embedding_dropout": 0.0, "output_dropout": 0.0, "max_window_layers": 20, "router_dtype": "fp32"},
        **{"moe_router_enable_expert_bias": True, "norm_head": False, "norm_softmax": False, "use_bias": False},
        **{"score_function": "sigmoid", "use_rmsnorm": True, "num_nextn_predict_layers": 0, "rope_scaling": None},
        **{"moe_shared_expert_intermediate_size": 36, "using_split_qkv_in_self_attention": False},
    },
    "dbrx": {
        **{"emb_pdrop": 0.0, "resid_pdrop": 0.0, "output_router_logits": False, "router_aux_loss_coef": 0.05},
        "auto_map": {"AutoModelForCausalLM": "modeling_dbrx.DbrxForCausalLM"},
        "attn_config": {"attn_pdrop": 0.0, "clip_qkv": 0.8, "kv_n_heads": 2, "model_type": "", "rope_theta": 2e4},
    },
    "biogpt": {"activation_dropout": 0.0, "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1},
    "falcon": {"apply_residual_connection_post_layernorm": False, "ff_factor": 4},
    # SmolLM2, Falcon 3, ALLaM
    "llama": {"is_llama_config": True, "rope_interleaved": False, "activation": "swiglu", "internal_version": "7b"},
    "mistral": {"neftune_noise_alpha": 5},  # fine-tunes
    "qwen2": {"seq_length": 32768, "use_mrope": False},
    # distilgpt2, gpt2-medium
    "gpt2": {"_num_labels": 1, "output_past": True, "n_special": 0, "predict_special_tokens": True},
    "mixtral": {"output_router_logits": True, "is_decoder": True},  # of models that were trained further
    "stablelm": {"rope_pct": 0.34, "num_heads": 4, "norm_eps": 1e-5, "rotary_scaling_factor": 1.0},  # the first ones
    # Dolly, Polyglot-Ko
    "gpt_neox": {
        "custom_pipelines": {"text-generation": {"impl": "pipeline.Pipeline"}},
        "num_steps": "global_step301000",
    },
    "starcoder2": {
        **{"layer_norm_epsilon": 1e-5, "attention_softmax_in_fp32": True, "scale_attention_softmax_in_fp32": True},
        "scale_attn_weights": True,
    },
    "opt": {
        "learned_embeddings": True,
        "scale_embeddings": False,
        "_remove_final_layer_norm": False,
        "output_projection": True,
    },  # Galactica, OPT
    "ernie4_5": {"weight_share_add_bias": True, "compression_ratio": 1.0, "rope_scaling": None},
    "ernie4_5_moe": {"num_nextn_predict_layers": 1, "multi_token_pred_lambda": 0.3, "moe_capacity": [64, 64, 64]},
    "bamba": {"use_mamba_kernels": True, "num_logits_to_keep": 1},
    "zamba2": {"use_shared_mlp_adapter": True, "num_query_groups": 4, "ffn_hidden_size": 52},
    "dots1": {"scoring_func": "noaux_tc", "topk_method": "noaux_tc", "ep_size": 1, "seq_aux": True},
    "gemma2": {"sliding_window_size": 4096},
    "mamba": {
        **{"fused_add_norm": True, "rms_norm": True, "ssm_cfg": {}, "n_layer": 3, "d_model": 40, "d_inner": 80},
        **{"intermediate_size": 80, "time_step_min": 0.001, "time_step_max": 0.1, "time_step_scale": 1.0},
        **{"time_step_floor": 0.0001, "time_step_init_scheme": "random", "rescale_prenorm_residual": False},
    },
    "falcon_mamba": {"intermediate_size": 80, "use_mambapy": False, "use_falcon_mambapy": False},
    "jamba": {
        **{"mamba_inner_layernorms": True, "use_mamba_kernels": True, "num_logits_to_keep": 1},
        **{"calc_logits_for_entire_prompt": False, "sliding_window": None, "n_ctx": 262144},
    },
    "exaone4": {"reorder_and_qk_norm": True},
    "distilbert": {"output_past": True},
    "wav2vec2": {"hidden_dropout_prob": 0.1},
    "nemotron_h": {"num_query_groups": 2, "num_logits_to_keep": 1, "use_mamba_kernels": True},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_published_files_say_besides_changes_nothing(name: str) -> None:
    assert parse_tiny(name, **PUBLISHED[name]) == parse_tiny(name)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("cohere2", "layer_switch", 2),
        ("cohere2", "use_gated_activation", False),
        ("hunyuan_v1_dense", "use_cla", True),
        ("hunyuan_v1_dense", "use_qk_norm", False),
        ("hunyuan_v1_moe", "moe_layer_num_skipped", 1),
        ("afmoe", "score_func", "softmax"),
        ("exaone_moe", "topk_method", "greedy"),
        ("phi3", "full_attn_mod", 2),
        ("exaone4", "reorder_and_qk_norm", 0.5),
        ("apertus", "post_norm", True),
        ("hy_v3", "route_norm", False),
        ("mamba", "rms_norm", False),
        ("nemotron_h", "num_query_groups", 4),
        ("minicpm3", "mlp_bias", True),
        ("jamba", "mamba_inner_layernorms", False),
        ("llama", "activation", "gelu"),
        ("opt", "learned_embeddings", False),
        ("ernie4_5", "compression_ratio", 2.0),
        ("zamba2", "use_shared_mlp_adapter", False),
        ("zamba2", "ffn_hidden_size", 8),
        ("dots1", "scoring_func", "softmax"),
        ("mpt", "attn_config", {"rope": True, "alibi": True}),
        ("chatglm", "original_rope", False),
        ("chatglm", "rmsnorm", False),
        ("chatglm", "apply_residual_connection_post_layernorm", True),
        ("chatglm", "vision_config", {"hidden_size": 8}),
        ("chatglm", "position_encoding_2d", True),
        ("qwen", "no_bias", False),
        ("deepseek", "scoring_func", "sigmoid"),
        ("telechat", "base_seqlen", 64),
        ("telechat", "num_key_value_heads", 2),
        ("openelm", "ffn_with_glu", False),
        ("ouro", "early_exit_threshold", 0.5),
        ("ouro", "layer_types", ["full_attention", "sliding_attention"]),
        ("jais", "position_embedding_type", "learned"),
        ("phi_msft", "num_local_experts", 4),
    ],
)
def test_what_they_might_say_is_refused_by_name(name: str, key: str, value: object) -> None:
    with pytest.raises(UnsupportedModel, match=key):
        parse_tiny(name, **{key: value})


@pytest.mark.parametrize("name", ["phi3", "falcon", "ernie4_5", "llama"])
def test_code_of_the_class_that_is_computed_may_lie_beside_it(name: str) -> None:
    """As these were published, before transformers had them. Any other class is refused (test_config.py)."""
    own = load_architecture(name).tiny["architectures"][0]
    code = {"AutoConfig": f"configuration_{name}.Config", "AutoModelForCausalLM": f"modeling_{name}.{own}"}
    assert parse_tiny(name, auto_map=code) == parse_tiny(name)
    with pytest.raises(UnsupportedModel, match="auto_map"):
        parse_tiny(name, auto_map={"AutoModel": f"modeling_{name}.{own}"})
