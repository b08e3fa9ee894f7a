"""What stands behind pooling, read from a checkpoint: the numbers of execution/pooled_head.py.

Called by the sources of models. Reads a few matrices, whole.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from albireo.api.sources.token_heads import PICKLE, head_file
from albireo.artifact.layout import POOLED_HEAD
from albireo.errors import WeightMismatch
from albireo.execution.pooled_head import LayerNorm, Linear, PooledHead
from albireo.models.checkpoint.safetensors_file import SafetensorsFile, safetensors_bytes
from albireo.models.checkpoint.safetensors_files import SINGLE_FILE
from albireo.models.checkpoint.weights import Checkpoint
from albireo.models.settings.pooling_rule import HeadStep, PoolingRule, TokenHead

Doubles = NDArray[np.float64]
#: What gives logits: a tensor of its own, or where there is none the table of embeddings.
_HEADS = ("lm_head.weight", "model.embed_tokens.weight")


def read_pooled_head(rule: PoolingRule, directory: Path, width: int) -> PooledHead:
    """Args: width: of hidden states. Raises: ModelError, WeightMismatch when matrices do not follow each other."""
    steps: list[Linear | LayerNorm] = []
    width_of_states = width
    for step in rule.head:
        made = _step(step, directory)
        given = made.weight.shape[-1]
        if given != width:
            raise WeightMismatch(f"{directory}: {step.name} takes {given} values, and {width} come")
        width = len(made.bias)
        steps.append(made)
    if rule.task == "classify" and width != len(rule.labels):
        raise WeightMismatch(f"{directory}: {width} scores, config.json names {len(rule.labels)} labels")
    heads = {head.task: _token_head(head, directory, width_of_states) for head in rule.token_heads if not head.problem}
    return PooledHead(rule, steps, heads)


def _token_head(head: TokenHead, directory: Path, width: int) -> Linear:
    made = _step(head.step, directory)
    assert isinstance(made, Linear), "it has no eps"
    if made.weight.shape[1] != width:
        raise WeightMismatch(f"{directory}: {head.step.name} takes {made.weight.shape[1]} values, and {width} come")
    return made


def stored_head(rule: PoolingRule, directory: Path) -> bytes:
    """What read_pooled_head() wants of a checkpoint beside its folders, as a safetensors file; empty: nothing."""
    own = [step for step in rule.head if not step.is_folder]
    own += [head.step for head in rule.token_heads if not head.problem]
    found = {f"{head.step.name}.{PICKLE}": np.zeros(1, np.float32) for head in rule.token_heads if head.problem}
    for step in own:
        for part, numbers in zip(("weight", "bias"), _numbers(step, directory), strict=True):
            if numbers is not None:  # they were widened from no more than this
                found[f"{step.name}.{part}"] = numbers.astype(np.float32)
    return safetensors_bytes(found) if found else b""


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
    return Linear(weight, bias, step.activation, _residual(step, directory, weight.shape))


def _residual(step: HeadStep, directory: Path, shape: tuple[int, ...]) -> Doubles | Literal["itself"] | None:
    """What is added to what a linear gives; see Linear."""
    if not step.is_residual:
        return None
    if shape[0] == shape[1]:
        return "itself"
    file = SafetensorsFile(directory / step.name / SINGLE_FILE)
    try:
        weight, _ = _pair(file, file.names, "residual")
    finally:
        file.close()
    if weight.shape != shape:
        raise WeightMismatch(f"{file.path}: residual.weight is {list(weight.shape)}, linear.weight {list(shape)}")
    return weight


def _numbers(step: HeadStep, directory: Path) -> tuple[Doubles, Doubles | None]:
    """Weight and bias."""
    own, module = directory / POOLED_HEAD, step.name
    if step.is_file and not own.is_file():
        own, module = head_file(directory, step.name), ""
    elif not step.is_folder and not own.is_file():
        with Checkpoint(directory) as checkpoint:
            return _of_tokens(checkpoint, step.tokens) if step.tokens else _pair(checkpoint, checkpoint.names, module)
    if step.is_folder:
        own, module = directory / step.name / SINGLE_FILE, "norm" if step.eps is not None else "linear"
    file = SafetensorsFile(own)
    try:
        return _pair(file, file.names, module)
    finally:
        file.close()


def _pair(stored: Checkpoint | SafetensorsFile, names: Container[str], module: str) -> tuple[Doubles, Doubles | None]:
    weight, bias = (f"{module}.{kind}".removeprefix(".") for kind in ("weight", "bias"))
    if weight not in names:
        where = stored.directory if isinstance(stored, Checkpoint) else stored.path
        raise WeightMismatch(f"{where}: there is no tensor {weight}")
    return _widened(stored, weight), _widened(stored, bias) if bias in names else None


def _of_tokens(checkpoint: Checkpoint, tokens: tuple[int, ...]) -> tuple[Doubles, Doubles | None]:
    """Raises: WeightMismatch where the head that gives logits is not found, or has fewer rows."""
    name = next((name for name in _HEADS if name in checkpoint.names), None)
    if name is None:
        raise WeightMismatch(f"{checkpoint.directory}: there is none of {', '.join(_HEADS)}, which scores are made of")
    if max(tokens) >= checkpoint.shape(name)[0]:
        raise WeightMismatch(f"{checkpoint.directory}: {name} has {checkpoint.shape(name)[0]} rows, none for {tokens}")
    rows = _widened(checkpoint, name)[list(tokens)]
    # as an engine directory keeps it
    made = rows[:1] - rows[1:] if len(tokens) > 1 else rows
    return made.astype(np.float32).astype(np.float64), None


def _widened(stored: Checkpoint | SafetensorsFile, name: str) -> Doubles:
    """Raises: WeightMismatch where it is not made of finite numbers."""
    numbers = stored.tensor(name).to_float32().astype(np.float64)
    if not np.isfinite(numbers).all():
        raise WeightMismatch(f"{name} holds numbers that are not finite")
    return numbers
