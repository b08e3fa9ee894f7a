"""Adapters (LoRA) of tasks in the checkpoint of jina-embeddings-v3 as it was published, with code of its own: beside
each matrix those of all tasks, of which one may be added as the checkpoint is read.

Called by opening.py and joined_linears.py. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch, short
from albireo.json_file import Fields, keys

if TYPE_CHECKING:
    from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
    from albireo.models.checkpoint.text_tensors import TextTensors

#: What names of a matrix with adapters end with, in place of .weight; and the two parts of those.
ORIGINAL = ".parametrizations.weight.original"
ADAPTERS = (".parametrizations.weight.0.lora_A", ".parametrizations.weight.0.lora_B")
WHY_UNREAD = "adapters of tasks; default_task in config.json may name one of lora_adaptations, which is added"
#: Keys of how that code runs and is trained, and of what its callers do: instructions before a text, dimensions.
_LEFT_OUT = keys(
    "auto_map load_trained_adapters lora_adaptations lora_alpha lora_dropout_p lora_main_params_trainable lora_rank",
    "task_instructions truncate_dim use_flash_attn emb_pooler default_task position_embedding_type",
)


def is_jina(config: Mapping[str, Any]) -> bool:
    """Whether config.json is of a model of that code. It says that it is an XLM-RoBERTa, which jina-reranker-v2 is."""
    is_rotary = config.get("position_embedding_type") == "rotary"
    return config.get("model_type") == "xlm-roberta" and (is_rotary or "use_flash_attn" in config)


def as_transformers_has_it(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What transformers' config.json of it holds; of another model config itself.

    Raises: ModelError for a task that is none.
    """
    if not is_jina(config):
        return dict(config)
    task_of(config, where)
    found = {key: value for key, value in config.items() if key not in _LEFT_OUT}
    base = found.pop("rotary_emb_base", 10000.0)
    if config.get("position_embedding_type") != "rotary":
        return found | {"position_embedding_type": config.get("position_embedding_type", "absolute")}
    classes = [str(name).replace("XLMRoberta", "JinaEmbeddingsV3") for name in config.get("architectures") or ()]
    rope = {"rope_theta": base}
    return found | {"model_type": "jina_embeddings_v3", "architectures": classes, "rope_parameters": rope}


def task_of(config: Mapping[str, Any], where: str) -> int | None:
    """The place of the task whose adapters are added; None: the model is as it is without.

    Raises: ModelError for a task that is none.
    """
    if not is_jina(config):
        return None
    fields = Fields(config, where)
    name, known = fields.raw("default_task"), fields.texts("lora_adaptations")
    if name is None:
        return None
    if name not in known:
        fields.fail("default_task", name, f"must be one of lora_adaptations: {', '.join(known)}")
    return known.index(name)


def with_adapter(
    stored: SafetensorsFiles | TextTensors, module: str, config: Mapping[str, Any], task: int | None
) -> NDArray[np.float32]:
    """The matrix of a module, with what a task adds. Raises: WeightMismatch for adapters that do not fit."""
    whole = stored.tensor(module + ORIGINAL).to_float32()
    if task is None:
        return whole
    a, b = (stored.tensor(module + part).to_float32().astype(np.float64) for part in ADAPTERS)
    if a.ndim != 3 or b.ndim != 3 or task >= min(len(a), len(b)):
        raise WeightMismatch(f"{short(module)}: adapters are {list(a.shape)} and {list(b.shape)}, wanted one a task")
    # of a table a token has a row of the first
    one, other = (a[task], b[task]) if "embeddings" in module else (b[task], a[task])
    if one.shape[1] != other.shape[0] or (one.shape[0], other.shape[1]) != whole.shape:
        raise WeightMismatch(
            f"{short(module)}: adapters are {list(a.shape)} and {list(b.shape)} of {list(whole.shape)}"
        )
    fields = Fields(config, "config.json")
    rank = fields.integer("lora_rank", 1, 2**16, default=one.shape[1])
    scale = fields.number("lora_alpha", 0.0, 1e6, default=1.0) / rank
    return np.asarray(whole + one @ other * scale, np.float32)
