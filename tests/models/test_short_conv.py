"""LFM2's config.json -> ModelConfig: published files as transformers reads them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.errors import ModelError
from albireo.models import load_architecture
from albireo.models.config_keys import parse_config
from albireo.models.settings.recurrent_settings import ShortConvSettings
from tiny_models import parse_tiny

#: As LFM2 1.2B was published.
LFM2: dict[str, Any] = {
    "architectures": ["Lfm2ForCausalLM"],
    "block_auto_adjust_ff_dim": True,
    "block_dim": 2048,
    "block_ff_dim": 12288,
    "block_ffn_dim_multiplier": 1.0,
    "block_mlp_init_scale": 1.0,
    "block_multiple_of": 256,
    "block_norm_eps": 1e-5,
    "block_out_init_scale": 1.0,
    "block_use_swiglu": True,
    "block_use_xavier_init": True,
    "bos_token_id": 1,
    "conv_L_cache": 3,
    "conv_bias": False,
    "conv_dim": 2048,
    "conv_dim_out": 2048,
    "conv_use_xavier_init": True,
    "eos_token_id": 7,
    "full_attn_idxs": [2, 5, 8, 10, 12, 14],
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "max_position_embeddings": 128000,
    "model_type": "lfm2",
    "norm_eps": 1e-5,
    "num_attention_heads": 32,
    "num_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pad_token_id": 0,
    "rope_theta": 1000000.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_pos_enc": True,
    "vocab_size": 65536,
}
#: Published models, and what else files may say; ... is a key that is not there.
SAID: dict[str, dict[str, Any]] = {
    "350M": {
        "block_dim": 1024,
        "block_ff_dim": 6656,
        "conv_dim": 1024,
        "conv_dim_out": 1024,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_heads": 16,
    },
    "1.2B": {},
    "2.5 1.2B": {
        "block_ff_dim": ...,
        "intermediate_size": 12288,
        "full_attn_idxs": ...,
        "layer_types": ["full_attention" if i in (2, 5, 8, 10, 12, 14) else "conv" for i in range(16)],
        "rope_theta": ...,
        "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
        "tie_embedding": True,
        "tie_word_embeddings": True,
    },
    "as it is said": {"block_auto_adjust_ff_dim": False, "block_ff_dim": 10752},
    "untied, with biases": {"tie_embedding": False, "conv_bias": True},
    "a multiplier": {"block_ffn_dim_multiplier": 1.3, "conv_L_cache": 4},
}


@pytest.mark.parametrize("name", SAID)
def test_lfm2_is_as_transformers_reads_it(name: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers import Lfm2Config
    from transformers.models.lfm2.modeling_lfm2 import Lfm2MLP

    data = {key: value for key, value in (LFM2 | SAID[name]).items() if value is not ...}
    ours, theirs = parse_config(data, load_architecture("lfm2").rules), Lfm2Config(**data)
    with torch.device("meta"):
        assert ours.intermediate_size == Lfm2MLP(theirs).w1.out_features
    attentive = tuple(i for i, kind in enumerate(theirs.layer_types) if kind == "full_attention")
    assert ours.cached_layers == attentive == (2, 5, 8, 10, 12, 14)
    layers = tuple(kind == "conv" for kind in theirs.layer_types)
    assert ours.recurrent == ShortConvSettings(layers, theirs.hidden_size, theirs.conv_L_cache, theirs.conv_bias)
    assert (ours.num_heads, ours.num_kv_heads) == (theirs.num_attention_heads, theirs.num_key_value_heads)
    assert (ours.rms_norm_eps, ours.rope.theta) == (theirs.norm_eps, theirs.rope_parameters["rope_theta"])
    assert (ours.tie_word_embeddings, ours.eos_token_ids) == (theirs.tie_word_embeddings, (7,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_dim": 64}, "block_dim=64 is not supported; it must be hidden_size=40"),
        ({"num_heads": 8}, "num_heads=8 is not supported; it must be num_attention_heads=4"),
        ({"block_norm_eps": 1e-6}, "block_norm_eps=1e-06 is not supported; it must be norm_eps=1e-05"),
        ({"use_pos_enc": False}, "'use_pos_enc': False"),
        ({"block_use_swiglu": False}, "'block_use_swiglu': False"),
        ({"full_attn_idxs": [4]}, r"full_attn_idxs=\[4\] must be a list of layers, from 0 to 3"),
        ({"layer_types": ["conv", "linear_attention"]}, "'linear_attention' is not supported; supported: conv, full_"),
        ({"conv_L_cache": 9}, "conv_L_cache=9 must be a whole number from 2 to 8"),
        ({"block_ff_dim": 1}, "intermediate_size=1 gives FFNs of 0 channels"),
    ],
)
def test_short_convolutions_that_are_not_computed_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny("lfm2", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": ["conv", "linear_attention"]}, "'linear_attention' is not supported; supported: conv, full_"),
        ({"layer_types": ["conv"]}, "layer_types=.* has 1 entries for num_hidden_layers=4"),
        ({"sliding_window": None}, "names sliding_attention but no sliding window is in use"),
        ({"full_attn_idxs": [1]}, r"'full_attn_idxs': \[1\]"),
        ({"block_auto_adjust_ff_dim": True}, "'block_auto_adjust_ff_dim': True"),
        ({"conv_L_cache": 9}, "conv_L_cache=9 must be a whole number from 2 to 8"),
    ],
)
def test_what_lfm3_does_not_compute_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny("lfm3", **changes)


def test_lfm3_is_as_transformers_reads_it_where_it_says_little() -> None:
    pytest.importorskip("transformers")
    from transformers import Lfm3Config

    little = {"layer_types": ..., "rope_parameters": ..., "head_dim": ..., "sliding_window": ..., "conv_L_cache": ...}
    ours = parse_tiny("lfm3", **little, num_hidden_layers=9)
    said = {key: value for key, value in load_architecture("lfm3").tiny.items() if key not in little}
    theirs = Lfm3Config(**{**said, "num_hidden_layers": 9})
    kinds = theirs.layer_types
    assert ours.recurrent == ShortConvSettings(tuple(kind == "conv" for kind in kinds), 40, theirs.conv_L_cache, False)
    assert ours.windows == tuple(theirs.sliding_window if kind == "sliding_attention" else None for kind in kinds)
    full, local = (theirs.rope_parameters[f"{kind}_attention"] for kind in ("full", "sliding"))
    assert ours.local_rope is not None and ours.head_dim == theirs.head_dim
    assert (ours.local_rope.theta, ours.rope.theta) == (local["rope_theta"], full["rope_theta"])
    assert (ours.rope.rope_type, ours.rope.turning_part) == (full["rope_type"], full["partial_rotary_factor"])


def test_lfm2_of_attention_alone_keeps_no_states() -> None:
    """As transformers has it where nothing says which layers have attention."""
    config = parse_tiny("lfm2", full_attn_idxs=...)
    assert config.recurrent is None and config.cached_layers == (0, 1, 2, 3)
