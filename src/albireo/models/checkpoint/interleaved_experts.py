"""The experts of gpt-oss: all of a layer in one tensor, gate and up in turn, as numbers or in MXFP4; read as a matrix
and a bias for each.

    X.mlp.experts.gate_up_proj         [experts, H, 2 F], columns 2 i of gate and 2 i + 1 of up
    X.mlp.experts.gate_up_proj_bias    [experts, 2 F]
    X.mlp.experts.down_proj            [experts, F, H]      X.mlp.experts.down_proj_bias    [experts, H]
    X.mlp.experts.gate_up_proj_blocks  U8 [experts, 2 F, H / 32, 16]    X.mlp.experts.gate_up_proj_scales   U8
    X.mlp.experts.down_proj_blocks     U8 [experts, H, F / 32, 16]      X.mlp.experts.down_proj_scales      U8

Called by weights.py. Does not know graphs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch, short
from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
from albireo.models.checkpoint.text_tensors import TextTensors
from albireo.quantization.formats.matrix import Matrix, Plan
from albireo.quantization.formats.mxfp4 import mxfp4_matrix

#: Architectures whose experts lie so.
INTERLEAVED = ("gpt_oss",)
_NAME = re.compile(r"(.*\.mlp\.experts)\.(gate_up_proj|down_proj)(_bias|_blocks|)")
_WORDS = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
_MAX_EXPERTS = 2**12

_Tensors = SafetensorsFiles | TextTensors


def interleaved(stored: _Tensors) -> Plan:
    """Every expert's matrices and biases. Raises: WeightMismatch for a tensor of another shape or type."""
    plan = Plan()
    for name in stored.names:
        found = _NAME.fullmatch(name)
        if found is not None:
            for matrix in _matrices(stored, name, *found.groups()):
                plan.add(matrix)
    return plan


def _matrices(stored: _Tensors, name: str, block: str, module: str, kind: str) -> Iterator[Matrix]:
    shape, dims = stored.shape(name), {"_bias": 2, "_blocks": 4}.get(kind, 3)
    parts = ("gate_proj", "up_proj") if module == "gate_up_proj" else ("down_proj",)
    rows = shape[2 if kind == "" else 1] if len(shape) == dims else 0
    if not all(shape) or not rows or rows % len(parts) or shape[0] > _MAX_EXPERTS:
        raise WeightMismatch(
            f"tensor {short(name)} is {list(shape)}; it must be {dims - 1} dims of each of at most {_MAX_EXPERTS} "
            f"experts{', and even, for gate and up' if len(parts) > 1 else ''}"
        )
    for expert in range(shape[0]):
        for i, part in enumerate(parts):
            of, at = f"{block}.{expert}.{part}", (expert, slice(i, None, len(parts)))
            if kind == "_blocks":
                yield mxfp4_matrix(stored, f"{of}.weight", name, f"{block}.{module}_scales", at)
            else:
                yield _numbers(stored, name, f"{of}.{'bias' if kind else 'weight'}", at)


def _numbers(stored: _Tensors, name: str, of: str, at: tuple[int, slice]) -> Matrix:
    dtype, shape = stored.dtype(name), stored.shape(name)
    if dtype is None:
        raise WeightMismatch(f"tensor {short(name)} has type {stored.type_name(name)}; experts are numbers or MXFP4")
    rows = len(range(*at[1].indices(shape[-1])))
    return Matrix(of, (rows, *shape[1:-1]), None, (name,), partial(_read, stored, name, dtype, at), dtype=dtype)


def _read(stored: _Tensors, name: str, dtype: str, at: tuple[int, slice]) -> NDArray[np.generic]:
    """Columns of an expert's matrix as rows, or numbers of its bias."""
    expert, rows = at
    numbers: NDArray[np.generic] = np.frombuffer(stored.buffer(name), _WORDS[dtype]).reshape(stored.shape(name))
    return np.ascontiguousarray(numbers[expert][..., rows].T)
