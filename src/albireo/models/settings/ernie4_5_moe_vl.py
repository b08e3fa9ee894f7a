"""ERNIE 4.5 VL as its authors publish it: config.json with keys of the text part among those of the whole, as
transformers has it of the same model.

Called by text_part.py. Names of tensors are those that transformers writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.errors import ModelError, UnsupportedModel, short
from albireo.json_file import keys
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.settings.layer_kinds import MAX_LAYERS

ERNIE4_5_MOE_VL = "ernie4_5_moe_vl"
_MAX_RATIO = 2**10
#: Of the whole; a key -> what transformers calls it.
_OF_WHOLE = {
    **{key: key for key in ("architectures", "auto_map", "dtype", "torch_dtype", "transformers_version")},
    **{key: key for key in ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings")},
    **{f"{kind}_{end}_token_id": f"{kind}_{end}_token_id" for kind in ("image", "video") for end in ("start", "end")},
    "im_patch_id": "image_token_id",
}
#: How it was trained, and is run by its authors; what nobody reads.
_OF_TRAINING = keys(
    "moe_multimodal_dispatch_use_allgather moe_capacity moe_orthogonal_loss_lambda moe_aux_loss_lambda",
    "moe_z_loss_lambda moe_group_orthogonal_loss moe_all_to_all_dropout moe_reverse_token_drop moe_group",
    "moe_dense_experts_token_type_id moe_layer_feed_fake_token use_recompute use_recompute_moe use_recompute_resampler",
    "recompute use_flash_attention use_flash_attn use_sparse_flash_attn use_fused_head_and_loss_fn fuse_rope",
    "fuse_linear fuse_swiglu fuse_rms_norm fuse_softmax_mask fuse_attn_ffn fuse_ln sequence_parallel pixel_hidden_size",
    "tensor_parallel_degree tensor_parallel_output tensor_parallel_rank attention_probs_dropout_prob",
    "hidden_dropout_prob ignored_index compression_ratio modality_detach use_cache initializer_range num_acc_steps",
    "max_sequence_length enable_delay_scale_loss dpo_config disable_ffn_model_parallel spatial_conv_size",
    "temporal_conv_size freq_allocation vision_config model_type moe_layer_start_index moe_layer_end_index",
    "moe_layer_interval",
)
_OF_TOWER = keys(
    "model_type embed_dim mlp_ratio attn_implementation attn_sep pp_data_balance recompute use_recompute in_chans",
    "spatial_patch_size vit_first_fwd_bsz vit_num_recompute_layers tensor_parallel_degree",
)
#: What may be said, and is so anyway; any other value is refused.
_ALWAYS: Mapping[str, Any] = {
    "rope_3d": True,
    "use_rmsnorm": True,
    "weight_share_add_bias": True,
    "moe_gate_act": "softmax",
    "moe_norm_gate_logits": True,
    "moe_use_hard_gate": False,
    "moe_group_experts": False,
    "fuse_gate_detach_matmul": False,
    "scale_qk_coeff": 1.0,
}


def as_transformers_has_it(data: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with the parts that transformers' has. Raises: UnsupportedModel for what the model would compute
    otherwise than transformers' does; ModelError for sizes that are none."""
    vision = data.get("vision_config")
    vision = vision if isinstance(vision, Mapping) else {}
    for key, value in _ALWAYS.items():
        if data.get(key, value) != value:
            raise UnsupportedModel(f"config.json: {key}={short(data[key])} is not supported; supported: {short(value)}")
    left_out = (*_OF_WHOLE, *_OF_TRAINING, *_ALWAYS)
    text = {key: value for key, value in data.items() if key not in left_out}
    text |= {"model_type": "ernie4_5_vl_moe_text", "moe_num_shared_experts": data.get("moe_num_shared_experts") or 0}
    experts = text.get("moe_num_experts")
    if isinstance(experts, list) and experts and all(each == experts[0] for each in experts):
        text["moe_num_experts"] = experts[0]
    text["mlp_layer_types"] = _kinds(data)
    return {
        **{own: data[key] for key, own in _OF_WHOLE.items() if key in data},
        "model_type": "ernie4_5_vl_moe",
        "text_config": {**text, **_turns(data)},
        "vision_config": _tower(data, vision),
    }


def _kinds(data: Mapping[str, Any]) -> list[str]:
    """Of each layer, whether it has experts: of both kinds, from where either begins to where the last ends."""
    count, interval = data.get("num_hidden_layers", 28), data.get("moe_layer_interval", 1)
    first, last = data.get("moe_layer_start_index", 1), data.get("moe_layer_end_index", -1)
    firsts, lasts = (each if isinstance(each, list) else [each] for each in (first, last))
    numbers = (count, interval, *firsts, *lasts)
    if not all(type(each) is int for each in numbers) or interval < 1 or not firsts or not lasts:
        raise UnsupportedModel(
            f"config.json: layers with experts are told by num_hidden_layers={short(count)}, moe_layer_interval="
            f"{short(interval)}, moe_layer_start_index={short(first)} and moe_layer_end_index={short(last)}; whole "
            "numbers are, or one of either kind"
        )
    if count > MAX_LAYERS:
        raise ModelError(f"config.json: num_hidden_layers={short(count)} must be a whole number up to {MAX_LAYERS}")
    end = count if min(lasts) < 0 else max(lasts)
    return [
        "sparse" if (layer + 1) % interval == 0 and min(firsts) <= layer <= end else "dense" for layer in range(count)
    ]


def _turns(data: Mapping[str, Any]) -> dict[str, Any]:
    """How many pairs of a head turn by rows, by columns and by time, where only the last of these is said."""
    time, heads, width = (data.get(key) for key in ("freq_allocation", "num_attention_heads", "hidden_size"))
    said, of_head = data.get("rope_scaling"), data.get("head_dim")
    if isinstance(said, Mapping) or not all(type(each) is int and each > 0 for each in (time, heads, width)):
        return {}
    assert isinstance(time, int) and isinstance(heads, int) and isinstance(width, int)
    # what is no number is refused by name where it is read
    rest = (of_head if type(of_head) is int else width // heads) // 2 - time
    if rest < 0 or rest % 2:
        raise UnsupportedModel(
            f"config.json: freq_allocation={time} is not supported; it leaves {rest} pairs of a head for two axes"
        )
    return {"rope_scaling": {"type": "default", "mrope_section": [rest // 2, rest // 2, time]}}


def _tower(data: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Any]:
    tower = {key: value for key, value in vision.items() if key not in _OF_TOWER}
    width, wide = vision.get("hidden_size", 1280), vision.get("embed_dim")
    if wide not in (None, width):
        raise UnsupportedModel(
            f"config.json: vision_config: embed_dim={short(wide)} is not supported; it is hidden_size={short(width)}"
        )
    if (ratio := vision.get("mlp_ratio")) is not None:
        if type(ratio) not in (int, float) or not 0 < ratio < _MAX_RATIO:
            raise ModelError(
                f"config.json: vision_config: mlp_ratio={short(ratio)} must be a number above 0 and below {_MAX_RATIO}"
            )
        if type(width) is not int or not 0 < width <= MAX_WIDTH:
            raise ModelError(
                f"config.json: vision_config: hidden_size={short(width)} must be a whole number from 1 to {MAX_WIDTH}"
            )
        tower["intermediate_size"] = int(width * ratio)
    merge = data.get("spatial_conv_size")
    if merge is not None:
        if vision.get("spatial_merge_size", merge) != merge:
            raise UnsupportedModel(
                f"config.json: spatial_conv_size={short(merge)} is not supported; the tower has spatial_merge_size="
                f"{short(vision['spatial_merge_size'])}"
            )
        tower["spatial_merge_size"] = merge
    if data.get("temporal_conv_size") is not None:
        tower["temporal_merge_size"] = data["temporal_conv_size"]
    if vision.get("in_chans") is not None:
        tower.setdefault("in_channels", vision["in_chans"])
    return {**tower, "model_type": "ernie4_5_vl_moe_vision"}
