"""Which layers have experts, and what else config.json says of each layer's.

Called by expert_keys.py. Does not know what experts are.
"""

from __future__ import annotations

from albireo.json_file import Fields
from albireo.models.settings.expert_settings import Keys

#: What DeepSeek V4's files call layers by how their experts are chosen: by a table of tokens, or by scores.
_OF_V4 = ("hash_moe", "moe")


def check_any(fields: Fields, sparse: tuple[bool, ...], key: str) -> None:
    """Raises: UnsupportedModel naming the key that says that no layer has experts."""
    if not any(sparse):
        fields.unsupported(key, fields.raw(key), "no layer has experts; give the dense architecture's name")


def layers_of_qwen(fields: Fields, keys: Keys, layers: int) -> tuple[bool, ...]:
    if keys == "mellum":
        return layers_behind_dense_ones(fields, layers)
    return (True,) * layers if keys == "qwen3_5" else sparse_layers(fields, layers)


def sparse_layers(fields: Fields, layers: int, absent: tuple[int, ...] = ()) -> tuple[bool, ...]:
    """Every decoder_sparse_step-th layer but those of mlp_only_layers. Args: absent: what null means."""
    step = fields.integer("decoder_sparse_step", 1, 2**20, default=1)
    dense = fields.raw("mlp_only_layers")
    dense = [layer for layer in absent if layer < layers] if dense is None else dense
    if not isinstance(dense, list) or not all(type(i) is int and 0 <= i < layers for i in dense):
        fields.fail("mlp_only_layers", dense, f"must be a list of layers, from 0 to {layers - 1}")
    return tuple(i not in dense and (i + 1) % step == 0 for i in range(layers))


def layers_behind_dense_ones(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Told layer by layer, or by how many dense layers go before all others."""
    kinds = fields.raw("mlp_layer_types")
    if kinds is None:
        dense = fields.integer("first_k_dense_replace", 0, layers - 1, default=0)
        return (False,) * dense + (True,) * (layers - dense)
    fields.raw("first_k_dense_replace")
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in ("dense", "sparse") for kind in kinds):
        fields.fail("mlp_layer_types", kinds, f'must be "dense" or "sparse" for each of {layers} layers')
    sparse = tuple(kind == "sparse" for kind in kinds)
    check_any(fields, sparse, "mlp_layer_types")
    return sparse


def layers_of_ones(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Told layer by layer, in words or by ones and zeros; empty: not told."""
    said = fields.raw("moe_layer_freq")
    if fields.raw("mlp_layer_types") is not None:
        return layers_behind_dense_ones(fields, layers)
    if said is None:
        return ()
    is_list = isinstance(said, list) and len(said) == layers
    if not is_list or any(each not in (0, 1) for each in said) or not any(said):
        fields.fail("moe_layer_freq", said, f"must be a list of 0 and 1, one for each of {layers} layers, with a 1")
    return tuple(bool(each) for each in said)


def layers_of_deepseek(fields: Fields, layers: int, keys: Keys) -> tuple[bool, ...]:
    """As layers_behind_dense_ones(); of dots3 a list may say it, too; of MiMo, where nothing is said, all but the first
    have experts."""
    if keys == "mimo":
        return layers_of_ones(fields, layers) or (False,) + (True,) * (layers - 1)
    if keys == "dots3" and isinstance(fields.raw("moe_layer_freq"), list):
        fields.raw("first_k_dense_replace")
        return layers_of_ones(fields, layers)
    if keys == "dots3" and fields.raw("moe_layer_freq") not in (None, 1):
        fields.unsupported("moe_layer_freq", fields.raw("moe_layer_freq"), "1, or 0 or 1 for each layer")
    return layers_behind_dense_ones(fields, layers)


def layers_by_token(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Told layer by layer, or by how many such layers go before all others."""
    kinds = fields.texts("mlp_layer_types")
    first = fields.integer("num_hash_layers", 0, 2**20, default=3)
    if not kinds:
        return tuple(layer < first for layer in range(layers))
    if len(kinds) < layers or not set(kinds) <= set(_OF_V4):
        fields.fail("mlp_layer_types", list(kinds), f"must be {' or '.join(_OF_V4)} for each of {layers} layers")
    return tuple(kind == "hash_moe" for kind in kinds[:layers])


def limits_of_layers(fields: Fields, key: str, layers: int) -> tuple[float, ...]:
    """Of each layer; null and 0 are none."""
    said = fields.raw(key)
    if said is None or said == []:
        return (0.0,) * layers
    is_list = isinstance(said, list) and len(said) == layers
    if not is_list or not all(each is None or (type(each) in (int, float) and 0 <= each <= 1e6) for each in said):
        fields.fail(key, said, f"must be a list of numbers from 0 to 1000000 or null, one for each of {layers} layers")
    return tuple(float(each or 0.0) for each in said)
