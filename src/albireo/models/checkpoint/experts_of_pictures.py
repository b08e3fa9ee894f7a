"""ERNIE 4.5 VL's experts of two kinds, those of text and those of pictures, as the graph reads them; and which tokens
are of pictures.

Called by weights.py. A checkpoint has experts of text first, then as many of pictures; routers [hidden, experts], of
pictures as weight_1; and biases of a choice [2, experts]. Those of pictures are here X.mlp.pictures.experts.N and so
on. Does not know graphs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch, short
from albireo.json_file import Fields
from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
from albireo.models.checkpoint.text_tensors import TextTensors
from albireo.quantization.formats.matrix import Matrix, Plan

#: Of the whole.
WHOLE = "ernie4_5_vl_moe"
#: Tables of a row a token, [vocabulary, experts of a token]: ones where a token is of a kind, else zeros.
OF_TEXT, OF_PICTURES = "model.tokens_of_text.weight", "model.tokens_of_pictures.weight"
#: Keys of config.json that tell tokens of pictures, with what they mean where they are absent.
_TOKENS = {
    "image_token_id": 100295,
    "image_start_token_id": 101304,
    "image_end_token_id": 101305,
    "video_token_id": 103367,
    "video_start_token_id": 101306,
    "video_end_token_id": 101307,
}
_EXPERT = re.compile(r"(.+\.mlp)\.experts\.(\d+)\.(.+)")
_BIAS = ".mlp.moe_statics.e_score_correction_bias"
_ROUTERS = {".mlp.gate.weight": ".mlp.gate.weight", ".mlp.gate.weight_1": ".mlp.pictures.gate.weight"}
_WORDS = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
_MAX_VOCABULARY, _MAX_EXPERTS = 2**24, 2**12

_Tensors = SafetensorsFiles | TextTensors


def experts_of_pictures(stored: _Tensors, config: Mapping[str, Any]) -> Plan:
    """What is to be read otherwise than it lies. Args: config: what config.json holds.

    Raises: ModelError for a bad value; WeightMismatch for tensors of another shape.
    """
    where = f"{stored.directory}/config.json"
    text, plan = Fields(Fields(config, where).table("text_config") or {}, f"{where}: text_config"), Plan()
    count = text.integer("moe_num_experts", 1, _MAX_EXPERTS, 64)
    for name in stored.names:
        dtype, shape = stored.dtype(name), stored.shape(name)
        if dtype is None:
            continue
        expert, router = _EXPERT.fullmatch(name), next((end for end in _ROUTERS if name.endswith(end)), None)
        if expert is not None and int(expert[2]) >= count:
            own = f"{expert[1]}.pictures.experts.{int(expert[2]) - count}.{expert[3]}"
            plan.add(Matrix(own, shape, None, (name,), partial(_numbers, stored, name, dtype), dtype=dtype))
        elif router is not None:
            _check(name, shape, 2, count)
            own = name.removesuffix(router) + _ROUTERS[router]
            read = partial(_turned, stored, name, dtype)
            plan.add(Matrix(own, shape[::-1], None, (name,), read, dtype=dtype))
        elif name.endswith(_BIAS):
            _check(name, shape[::-1], 2, 2)
            for place, own in enumerate((name, name.replace(".mlp.", ".mlp.pictures."))):
                read = partial(_row, stored, name, dtype, place)
                plan.add(Matrix(own, shape[1:], None, (name,), read, dtype=dtype))
    for matrix in _tokens(Fields(config, where), text):
        plan.add(matrix)
    return plan


def _tokens(whole: Fields, text: Fields) -> tuple[Matrix, Matrix]:
    vocabulary, chosen = text.integer("vocab_size", 1, _MAX_VOCABULARY, 103424), text.integer("moe_k", 1, 2**8, 6)
    ids = [whole.integer(key, 0, 2**31 - 1, default) for key, default in _TOKENS.items()]
    of_pictures = np.zeros((vocabulary, chosen), np.float32)
    of_pictures[[each for each in ids if each < vocabulary]] = 1.0
    return tuple(
        Matrix(name, of_pictures.shape, None, (), partial(np.copy, table))
        for name, table in ((OF_TEXT, 1.0 - of_pictures), (OF_PICTURES, of_pictures))
    )  # type: ignore[return-value]


def _check(name: str, shape: tuple[int, ...], dims: int, last: int) -> None:
    if len(shape) != dims or shape[-1] != last:
        raise WeightMismatch(f"tensor {short(name)} is {list(shape)}; config.json implies {last} of one of its sides")


def _numbers(stored: _Tensors, name: str, dtype: str) -> NDArray[np.generic]:
    numbers: NDArray[np.generic] = np.frombuffer(stored.buffer(name), _WORDS[dtype])
    return numbers.reshape(stored.shape(name))


def _turned(stored: _Tensors, name: str, dtype: str) -> NDArray[np.generic]:
    return np.ascontiguousarray(_numbers(stored, name, dtype).T)


def _row(stored: _Tensors, name: str, dtype: str, place: int) -> NDArray[np.generic]:
    return np.ascontiguousarray(_numbers(stored, name, dtype)[place])
