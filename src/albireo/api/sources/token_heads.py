"""What files beside a model of embeddings make of each of its tokens (bge-m3): a weight, or a vector of its own.

Called by the sources of models, behind sentence_transformers.with_modules(). Their authors publish these files as
pickles (.pt), which are code and are never read: the same numbers as safetensors are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from albireo.artifact.layout import POOLED_HEAD
from albireo.errors import WeightMismatch
from albireo.models.checkpoint.safetensors_file import SafetensorsFile
from albireo.models.settings.pooling_rule import HeadStep, PoolingRule, TokenHead
from albireo.params import PoolingTaskName

#: What files are called, and what their linear gives.
_FILES: dict[str, PoolingTaskName] = {"colbert_linear": "token_embed", "sparse_linear": "token_classify"}
#: In an engine directory: there was a pickle.
PICKLE = "pickle"


def with_token_heads(rule: PoolingRule, directory: Path) -> PoolingRule:
    """A rule with those that a directory has. Raises: ModelError for a damaged file; WeightMismatch for another shape
    than its kind has."""
    if rule.tasks != ("embed", "token_embed") or not directory.is_dir():
        return rule
    found = (_head(directory, name, task) for name, task in _FILES.items())
    return replace(rule, token_heads=tuple(head for head in found if head is not None))


def head_file(directory: Path, name: str) -> Path:
    return directory / f"{name}.safetensors"


def _head(directory: Path, name: str, task: PoolingTaskName) -> TokenHead | None:
    step = HeadStep(name, is_file=True)
    own, kept = head_file(directory, name), directory / POOLED_HEAD
    if not own.is_file() and kept.is_file():
        with_pickle, shape = _shape(kept, f"{name}.{PICKLE}"), _shape(kept, f"{name}.weight")
    else:
        with_pickle = (1,) if (directory / f"{name}.pt").is_file() and not own.is_file() else None
        shape = _shape(own, "weight") if own.is_file() else None
    if shape is None:
        return TokenHead(task, step, 0, _told(name)) if with_pickle else None
    if len(shape) != 2 or (task == "token_classify" and shape[0] != 1):
        wanted = "[1, width]" if task == "token_classify" else "[values, width]"
        raise WeightMismatch(f"{own}: weight is {list(shape)}; wanted {wanted}")
    return TokenHead(task, step, shape[0])


def _shape(path: Path, name: str) -> tuple[int, ...] | None:
    """Of a tensor of a file; None: it is not there."""
    file = SafetensorsFile(path)
    try:
        return file.shape(name) if name in file.names else None
    finally:
        file.close()


def _told(name: str) -> str:
    return (
        f"what makes that of its tokens is in {name}.pt, a pickle, which is not read; where you trust it, read it with "
        f"torch (weights_only=True), write its tensors as {name}.safetensors with safetensors.torch.save_file, and "
        "load the model again"
    )
