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
from albireo.quantization.encoded import Encoded
from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors

#: Modules that graphs read, [heads * rank, plain] and [heads * value, rank]; and the one that checkpoints have.
OF_KEYS, OF_VALUES = "k_up_proj", "v_up_proj"
JOINED = (".self_attn.kv_b_proj.weight", ".attention.kv_b_proj.weight")
_NUMBERS = {"F32": ("float32", "<f4"), "F16": ("float16", "<f2"), "BF16": ("bfloat16", "<u2")}


def split_up_projections(plan: Plan, stored: StoredTensors, config: Mapping[str, Any]) -> Plan:
    """The plan with two matrices in place of each kv_b_proj; the plan itself where there is none.

    Args: config: what config.json holds.
    """
    config = config.get("text_config", config)
    rank, plain, value = (config.get(key) for key in ("kv_lora_rank", "qk_nope_head_dim", "v_head_dim"))
    if value is None and isinstance(rank, int):  # of MiniCPM 3
        hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
        value = hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads > 0 else None
    if not (isinstance(rank, int) and isinstance(plain, int) and isinstance(value, int)):
        return plan
    names = {name for name in (*stored.names, *plan.matrices) if name.endswith(JOINED)}
    matrices = dict(plan.matrices)
    for name in sorted(names):
        whole = matrices.pop(name, None) or _number_matrix(stored, name)
        rows, columns = whole.shape
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
