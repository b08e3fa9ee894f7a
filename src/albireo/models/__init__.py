"""What a model directory is: its architecture, its config, its graph and its weights.

Called by the front doors. What opens one (opening.py) is imported when first used: whoever asks for what needs neither
graphs nor arrays does not wait for them.
Does not know devices, nor how weights are packed.
"""

from __future__ import annotations

import functools
import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from albireo.models.opening import Architecture, build_graph, load_architecture, load_config, open_checkpoint

__all__ = [
    "Architecture",
    "architectures",
    "build_graph",
    "encoder_types",
    "load_architecture",
    "load_config",
    "open_checkpoint",
    "speech_types",
]

_OPENING = ("Architecture", "build_graph", "load_architecture", "load_config", "open_checkpoint")
#: Files of this room that are not architectures.
_ROOM = (
    "alibi",
    "block_indexer",
    "block_settings",
    "class_names",
    "class_sizes",
    "config",
    "conformer_names",
    "context",
    "distance_vectors",
    "draft_heads",
    "draft_input",
    "encoders",
    "expert_settings",
    "experts",
    "first_names",
    "fused_experts",
    "gated_delta",
    "generation",
    "gguf",
    "head_rows",
    "hearing",
    "hyper_connections",
    "indexer",
    "interleaved_experts",
    "internvl_chat",
    "latent_attention",
    "latent_weights",
    "joined_linears",
    "layer_inputs",
    "layer_kinds",
    "layers",
    "left_out",
    "mamba1_mixer",
    "mamba1_settings",
    "mamba2_mixer",
    "mamba_settings",
    "mapped_file",
    "multipliers",
    "opening",
    "peft",
    "plain_layers",
    "pooling_rule",
    "quantized",
    "rearranged",
    "recurrent_settings",
    "rope",
    "rope_settings",
    "safetensors_file",
    "sample_tower_names",
    "safetensors_files",
    "sentence_transformers",
    "short_conv",
    "speech",
    "task_adapters",
    "text_part",
    "text_tensors",
    "vision",
    "weights",
    "wholes",
)


@functools.cache
def architectures() -> tuple[str, ...]:
    """Every model_type that writes text: the file names of this folder, which is read once."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _ROOM))


@functools.cache
def encoder_types() -> tuple[str, ...]:
    """Every model_type whose tokens see what comes behind them, too: the file names of the folder encoders."""
    from albireo.models import encoders as folder

    return tuple(sorted(module.name for module in pkgutil.iter_modules(folder.__path__) if module.name != "layers"))


@functools.cache
def speech_types() -> tuple[str, ...]:
    """Every model_type that writes down what is said: the file names of the folder speech."""
    from albireo.models import speech as folder

    names = (module.name for module in pkgutil.iter_modules(folder.__path__))
    return tuple(sorted(name for name in names if name not in ("ctc_of_samples", "frame_heads", "layers")))


def __getattr__(name: str) -> Any:
    if name not in _OPENING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.opening"), name)
    globals()[name] = value  # the next look-up does not come here
    return value
