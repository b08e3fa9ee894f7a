"""Layers behind a model's last that were trained with it to guess further tokens (multi-token prediction).

Source: DeepSeek-V3 Technical Report, arXiv:2412.19437, section 2.2; what differs among families is what their published
files say. Such a layer is one of the model's own, so it is built as the model is, with one layer. Where there are
several the first guesses for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from albireo.errors import ConfigError
from albireo.models import build_graph
from albireo.models.checkpoint.text_tensors import Prefixes
from albireo.models.config import ModelConfig
from albireo.models.draft_heads.head import ENDS, FINAL, DraftHead
from albireo.models.settings.draft_input import EMBEDDING_NORM, JOINING, STATE_NORM, DraftInput

_LAYER, _NORM = "model.layers.0.", "model.norm."


def _qwen(num_layers: int) -> Prefixes:
    return (
        ("mtp.fc.", f"{JOINING}."),
        ("mtp.pre_fc_norm_embedding.", f"{EMBEDDING_NORM}."),
        ("mtp.pre_fc_norm_hidden.", f"{STATE_NORM}."),
        ("mtp.norm.", _NORM),
        ("mtp.layers.0.", _LAYER),
    )


def _mimo(num_layers: int) -> Prefixes:
    place = "model.mtp_layers.0."
    return (
        (f"{place}input_proj.", f"{JOINING}."),
        (f"{place}token_layernorm.", f"{EMBEDDING_NORM}."),
        (f"{place}hidden_layernorm.", f"{STATE_NORM}."),
        (f"{place}final_layernorm.", _NORM),
        (place, _LAYER),
    )


def _deepseek(num_layers: int) -> Prefixes:
    """What they hold of tables of tokens is the model's once more. A model with other parts has its name before it."""
    return tuple(
        (f"{place}{named}", own)
        for place in (f"model.layers.{num_layers}.", f"model.language_model.layers.{num_layers}.")
        for named, own in (
            ("eh_proj.", f"{JOINING}."),
            ("enorm.", f"{EMBEDDING_NORM}."),
            ("hnorm.", f"{STATE_NORM}."),
            ("shared_head.norm.", _NORM),
            ("", _LAYER),
        )
    )


@dataclass(frozen=True, slots=True)
class _Family:
    """names: of tensors, of a model of so many layers."""

    names: Callable[[int], Prefixes]
    draft: DraftInput


_QWEN, _DEEPSEEK = _Family(_qwen, DraftInput()), _Family(_deepseek, DraftInput(leaves_normed=False))
_FAMILIES = {
    "deepseek_v3": _DEEPSEEK,
    # of GLM-OCR
    "glm4": _DEEPSEEK,
    "glm4_moe": _DEEPSEEK,
    "glm4_moe_lite": _DEEPSEEK,
    "mimo": _Family(_mimo, DraftInput(is_state_first=True)),
    "qwen3_5_moe_text": _QWEN,
    "qwen3_5_text": _QWEN,
    "qwen3_next": _QWEN,
}


def mtp_head(model: ModelConfig, directory: Path, num_ids: int | None = None) -> DraftHead:
    """The layer that a model was published with.

    Args: directory: of the checkpoint. num_ids: see DraftInput.

    Raises: ConfigError for an architecture that has none.
    """
    family = _FAMILIES.get(model.model_type)
    if family is None:
        raise ConfigError(
            f"speculative_config.method=mtp: {model.model_type} has no layers that guess; models of "
            f"{', '.join(sorted(_FAMILIES))} may, and gemma4 has assistants, which are named as model. Use method "
            "ngram, draft_model or eagle3"
        )
    config = _one_layer(model, replace(family.draft, num_ids=num_ids))
    names = (*family.names(model.num_layers), *ENDS)
    build = partial(build_graph, config)
    return DraftHead(directory, names, config, (FINAL,), build, model.hidden_size)


def _one_layer(model: ModelConfig, draft: DraftInput) -> ModelConfig:
    """A model of one layer: of attention, with experts where the model has any."""
    return replace(
        model,
        num_layers=1,
        windows=(None,),
        rotates=model.rotates[-1:],
        experts=None if model.experts is None else replace(model.experts, layers=(True,)),
        recurrent=None,
        draft=draft,
    )
