"""What Gemma 4 says of single layers: caches and widths as transformers has them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.errors import ModelError
from albireo.models import load_architecture
from albireo.models.config_keys import parse_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"enable_moe_block": True}, "num_experts is missing"),
        ({"enable_moe_block": True, "num_experts": 4, "top_k_experts": 5}, "top_k_experts=5"),
        ({"hidden_size_per_layer_input": 8}, "vocab_size_per_layer_input=262144 is not supported; must be vocab_size"),
        ({"hidden_size_per_layer_input": None}, "vocab_size_per_layer_input=262144 is not supported"),
        ({"num_kv_shared_layers": 2}, r"num_kv_shared_layers=2 must leave a layer of each of \['full_attention', 'sli"),
        ({"num_kv_shared_layers": 4}, "num_kv_shared_layers=4"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
        ({"layer_types": ["full_attention"] * 2 + ["sliding_attention"]}, "the last layer must be one of full_atten"),
        ({"per_layer_config": {"1": {"head_dim": 32}}}, "per_layer_config=.* an entry for each layer of full_att"),
        ({"per_layer_config": {"1": {"head_dim": 32}, "2": {"head_dim": 8}}}, "layers of full_attention must be alike"),
        ({"num_global_key_value_heads": 3}, "num_attention_heads=4 must be a multiple of the 3 KV heads"),
    ],
)
def test_what_is_not_computed_of_gemma_4(changes: dict[str, Any], message: str) -> None:
    architecture = load_architecture("gemma4_text")
    with pytest.raises(ModelError, match=message):
        parse_config({**architecture.tiny, **changes}, architecture.rules)


#: As published; what they have in common with larger ones is left out.
E2B: dict[str, Any] = {
    **{"num_hidden_layers": 35, "hidden_size": 1536, "intermediate_size": 6144, "num_key_value_heads": 1},
    **{"num_kv_shared_layers": 20, "use_double_wide_mlp": True, "hidden_size_per_layer_input": 256},
    "layer_types": [*["sliding_attention"] * 4, "full_attention"] * 7,
}
E4B: dict[str, Any] = {
    **{"num_hidden_layers": 42, "hidden_size": 2560, "intermediate_size": 10240, "num_key_value_heads": 2},
    **{"num_kv_shared_layers": 18, "hidden_size_per_layer_input": 256},
    "layer_types": [*["sliding_attention"] * 5, "full_attention"] * 7,
}


@pytest.mark.parametrize("given", [E2B, E4B])
def test_layers_that_share_a_cache_are_those_of_transformers(given: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    from transformers_models import transformers

    architecture = load_architecture("gemma4_text")
    ours = parse_config({"model_type": "gemma4_text", **given}, architecture.rules)
    theirs = transformers.AutoConfig.for_model("gemma4_text", **given)
    modes = theirs.kv_sharing_modes
    layers = range(len(modes))
    assert [ours.shares(layer) for layer in layers] == [mode == "reuse" for mode in modes]
    assert ours.cached_layers == tuple(layer for layer in layers if modes[layer] != "reuse")
    # of each kind one layer's keys and values are kept for others
    kept = {theirs.layer_types[layer]: layer for layer in layers if modes[layer] == "store"}
    read = [layer if modes[layer] != "reuse" else kept[theirs.layer_types[layer]] for layer in layers]
    assert [ours.cached_layers[ours.cache_of(layer)] for layer in layers] == read
    of_layers = [theirs.per_layer_config[layer] for layer in ours.cached_layers]
    assert ours.kv_shapes == tuple((each.num_key_value_heads, each.head_dim) for each in of_layers)
    factor = 2 if theirs.use_double_wide_mlp else 1
    widths = [theirs.intermediate_size * (factor if mode == "reuse" else 1) for mode in modes]
    assert [ours.ffn_width(layer) for layer in layers] == widths
    assert ours.blocks.layer_width == theirs.hidden_size_per_layer_input
