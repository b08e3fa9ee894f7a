"""The matrix of latent attention that makes keys and values of a latent, as the two that graphs read.

Called by weights.py. A checkpoint has it as kv_b_proj [heads * (plain + value), rank], head by head. What queries are
multiplied with is the transpose of a head's part for keys. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch, short
from albireo.models.settings.text_part import text_type
from albireo.quantization.encoded import Encoded
from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors

#: Modules that graphs read, [heads * rank, plain] and [heads * value, rank]; and the one that checkpoints have.
OF_KEYS, OF_VALUES = "k_up_proj", "v_up_proj"
JOINED = tuple(f".{block}.kv_b_proj.weight" for block in ("self_attn", "attention", "self_attn.0", "self_attn.1"))
#: Of layers with a window: what their keys begin with, or where they lie, layer by layer.
LOCAL, PER_LAYER = "swa_", "per_layer_config"
_OF_TWO_KINDS = ("dots3_note", "dots3_note_text")
_WITH_STILL_LAYERS = "mistral_large4_text"
_LOCAL_DEFAULTS = {
    **{"num_attention_heads": 64, "num_key_value_heads": 64, "q_lora_rank": 1024, "kv_lora_rank": 1024},
    **{"head_dim": 256, "qk_nope_head_dim": 192, "v_head_dim": 128},
}
_LATENT_KEYS = (*_LOCAL_DEFAULTS, "qk_rope_head_dim")
#: What divides a joined matrix.
_WIDTHS = ("kv_lora_rank", "qk_nope_head_dim", "v_head_dim")
_NUMBERS = {"F32": ("float32", "<f4"), "F16": ("float16", "<f2"), "BF16": ("bfloat16", "<u2")}


def split_up_projections(plan: Plan, stored: StoredTensors, config: Mapping[str, Any]) -> Plan:
    """The plan with two matrices in place of each kv_b_proj; the plan itself where there is none.

    Args: config: what config.json holds.
    """
    text, kind = config.get("text_config"), text_type(config)
    config = text if isinstance(text, Mapping) else config
    said = (config, local_latent(config), _still_latent(config) if kind == _WITH_STILL_LAYERS else {})
    kinds = [found for found in (_widths(each, kind) for each in said) if found is not None]
    names = {name for name in (*stored.names, *plan.matrices) if name.endswith(JOINED)}
    if not names:
        return plan
    if not kinds:
        missing = ", ".join(key for key in _WIDTHS if config.get(key) is None)
        raise WeightMismatch(
            f"config.json: {missing or ', '.join(_WIDTHS)} must say how {short(min(names))} is divided; write what the "
            "model was made with"
        )
    matrices = dict(plan.matrices)
    for name in sorted(names):
        whole = matrices.pop(name, None) or _number_matrix(stored, name)
        rows, columns = whole.shape
        fitting = [each for each in kinds if columns == each[0] and rows == each[3] * (each[1] + each[2])]
        rank, plain, value, _ = (*fitting, *kinds)[0]
        if columns != rank or rows % (plain + value):
            raise WeightMismatch(
                f"{short(name)} is {list(whole.shape)}; kv_lora_rank={rank}, qk_nope_head_dim={plain} and "
                f"v_head_dim={value} imply a multiple of {plain + value} rows of {rank}"
            )
        heads = rows // (plain + value)
        for module, shape in ((OF_KEYS, (heads * rank, plain)), (OF_VALUES, (heads * value, rank))):
            read = partial(_part, whole, heads, plain, module == OF_KEYS)
            part = name.replace("kv_b_proj", module)
            matrices[part] = replace(whole, name=part, shape=shape, encoding=None, read=read)
    return replace(plan, matrices=matrices)


def local_latent(config: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of latents of layers with a window, by the names of others', where it says that they are
    other ones (dots3); else nothing.

    Said for all such layers with a prefix, or layer by layer, of which the first is given; what neither says is that of
    the other layers.
    """
    if config.get("model_type") not in _OF_TWO_KINDS:
        return {}
    said, of_layers = {key: value for key, value in config.items() if key in _LATENT_KEYS}, config.get(PER_LAYER)
    if isinstance(of_layers, Mapping) and of_layers:
        first = next(iter(of_layers.values()))
        return said | (dict(first) if isinstance(first, Mapping) else {})
    return said | {key: config.get(f"{LOCAL}{key}", value) for key, value in _LOCAL_DEFAULTS.items()}


def _still_latent(config: Mapping[str, Any]) -> dict[str, Any]:
    """What it says of latents of layers that do not rotate, where others do: what they would rotate is plain."""
    plain, rotary = (config.get(key) for key in ("qk_nope_head_dim", "qk_rope_head_dim"))
    if not isinstance(plain, int) or not isinstance(rotary, int):
        return {}
    return {**config, "qk_nope_head_dim": plain + rotary}


def _widths(config: Mapping[str, Any], kind: str) -> tuple[int, int, int, int] | None:
    """Of latents: their channels, those of a head's key and of its value, and heads; None: it is not said.

    Args: kind: model_type of the text part.
    """
    rank, plain, value = (config.get(key) for key in _WIDTHS)
    heads = config.get("num_attention_heads")
    if value is None and kind == "minicpm3":
        hidden = config.get("hidden_size")
        value = hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads > 0 else None
    # whoever reads config.json refuses other ones by name
    if not all(isinstance(each, int) and each > 0 for each in (rank, plain, value)):
        return None
    return rank, plain, value, heads if isinstance(heads, int) else 0  # type: ignore[return-value]


def _number_matrix(stored: StoredTensors, name: str) -> Matrix:
    kind = stored.type_name(name)
    if kind not in _NUMBERS or len(stored.shape(name)) != 2:
        raise WeightMismatch(
            f"tensor {short(name)} is {kind} {list(stored.shape(name))}; it must be a matrix of numbers"
        )
    dtype, words = _NUMBERS[kind]

    def read() -> NDArray[np.generic]:
        return np.frombuffer(stored.buffer(name), words).reshape(stored.shape(name))

    return Matrix(name, stored.shape(name), None, (name,), read, dtype=dtype)


def _part(whole: Matrix, heads: int, plain: int, is_of_keys: bool) -> NDArray[np.generic]:
    numbers = whole.read()
    array = numbers.decode() if isinstance(numbers, Encoded) else numbers
    blocks = array.reshape(heads, -1, array.shape[1])
    if is_of_keys:
        return np.ascontiguousarray(blocks[:, :plain].transpose(0, 2, 1)).reshape(-1, plain)
    return np.ascontiguousarray(blocks[:, plain:]).reshape(-1, array.shape[1])
