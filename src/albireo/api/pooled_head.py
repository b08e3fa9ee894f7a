"""What stands behind pooling, read from a checkpoint: the numbers of execution/pooled_head.py.

Called by the sources of models. Reads a few matrices, whole.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch
from albireo.execution.pooled_head import LayerNorm, Linear, PooledHead
from albireo.models.pooling_rule import HeadStep, PoolingRule
from albireo.models.safetensors_files import SafetensorsFiles
from albireo.models.weights import Checkpoint

Doubles = NDArray[np.float64]


def read_pooled_head(rule: PoolingRule, directory: Path, width: int) -> PooledHead:
    """Args: width: of hidden states. Raises: ModelError, WeightMismatch when matrices do not follow each other."""
    steps: list[Linear | LayerNorm] = []
    for step in rule.head:
        made = _step(step, directory)
        given = made.weight.shape[-1]
        if given != width:
            raise WeightMismatch(f"{directory}: {step.name} takes {given} values, and {width} come")
        width = len(made.bias)
        steps.append(made)
    if rule.task == "classify" and width != len(rule.labels):
        raise WeightMismatch(f"{directory}: {width} scores, config.json names {len(rule.labels)} labels")
    return PooledHead(rule, steps)


def _step(step: HeadStep, directory: Path) -> Linear | LayerNorm:
    weight, bias = _numbers(step, directory)
    wanted = 1 if step.eps is not None else 2
    if weight.ndim != wanted:
        raise WeightMismatch(f"{directory}: {step.name}.weight is {list(weight.shape)}, wanted {wanted} dimensions")
    bias = np.zeros(len(weight)) if bias is None else bias
    if bias.shape != weight.shape[:1]:
        raise WeightMismatch(f"{directory}: {step.name}.bias is {list(bias.shape)}, of {list(weight.shape)}")
    if step.eps is not None:
        return LayerNorm(weight, bias, step.eps)
    return Linear(weight, bias, step.activation)


def _numbers(step: HeadStep, directory: Path) -> tuple[Doubles, Doubles | None]:
    """Weight and bias."""
    if not step.is_folder:
        with Checkpoint(directory) as checkpoint:
            return _pair(checkpoint, step.name)
    files = SafetensorsFiles(directory / step.name)
    try:
        return _pair(files, "norm" if step.eps is not None else "linear")
    finally:
        files.close()


def _pair(stored: Checkpoint | SafetensorsFiles, module: str) -> tuple[Doubles, Doubles | None]:
    weight, bias = (
        stored.tensor(name).to_float32().astype(np.float64) if name in stored else None
        for name in (f"{module}.weight", f"{module}.bias")
    )
    if weight is None:
        raise WeightMismatch(f"{stored.directory}: there is no tensor {module}.weight")
    return weight, bias
