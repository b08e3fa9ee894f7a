"""Assistants of Gemma 4: a few narrow layers without keys and values of their own, which look at the model's.

Source: transformers' Gemma4AssistantForCausalLM. All guesses of a step are made at the place of the last token whose
keys are there: each reads what the one before it left. Among which tokens centroids would choose is not asked: a head
guesses among some of them anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from albireo.errors import ConfigError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment
from albireo.json_file import Fields, keys, read_json
from albireo.models.blocks.feed_forward import AROUND_FFN, mlp_block
from albireo.models.blocks.layers import AROUND_ATTENTION, attention_block, embedding, ending, linear, norm, windows
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ModelConfig
from albireo.models.config_keys import MAX_WIDTH, parse_config
from albireo.models.decoders.gemma4_text import CONFIG as GEMMA4
from albireo.models.decoders.gemma4_text import scaled
from albireo.models.draft_heads.head import FINAL, TABLE, DraftHead
from albireo.models.settings.draft_input import FEW_LOGITS, JOINING, DraftInput

#: Its own table of tokens, and what makes a hidden state of the model's width of its own.
_TOKENS, _LEAVING = "draft.tokens.weight", "draft.leaving"
_NAMES = (
    ("model.embed_tokens.", "draft.tokens."),
    ("lm_head.", "draft.tokens."),
    ("pre_projection.", f"{JOINING}."),
    ("post_projection.", f"{_LEAVING}."),
    ("model.", "model."),
)
#: Keys of its text_config that say what all of its layers are.
_SAID = keys("num_kv_shared_layers vocab_size_per_layer_input use_double_wide_mlp enable_moe_block architectures")


def assistant_head(model: ModelConfig, directory: Path, num_ids: int | None = None) -> DraftHead:
    """An assistant, for a model. Args: num_ids: see DraftInput.

    Raises: ModelError for a bad file; UnsupportedModel naming what is not computed; ConfigError for another model's.
    """
    fields = Fields(read_json(directory / "config.json"), str(directory / "config.json"))
    width = fields.integer("backbone_hidden_size", 1, MAX_WIDTH, default=1536)
    if model.model_type != "gemma4_text" or width != model.hidden_size:
        raise ConfigError(
            f"speculative_config.model={directory}: it is an assistant of a gemma4 of width {width}; this model is a "
            f"{model.model_type} of width {model.hidden_size}"
        )
    config = _config(fields, model)
    if config.vocab_size != model.vocab_size:
        raise ConfigError(
            f"speculative_config.model={directory}: it has {config.vocab_size} tokens, the model {model.vocab_size}"
        )
    config = replace(config, draft=DraftInput(num_ids=num_ids))
    caches = tuple(_cache(config, model, layer, directory) for layer in range(config.num_layers))

    def build(max_model_len: int) -> Graph:
        return _graph(config, model, caches, max_model_len)

    return DraftHead(directory, _NAMES, config, (FINAL,), build, width, shared=(TABLE,), reads_cache=True)


def _config(fields: Fields, model: ModelConfig) -> ModelConfig:
    text: Mapping[str, Any] = fields.table("text_config") or {}
    for key in ("use_double_wide_mlp", "enable_moe_block"):
        if text.get(key):
            fields.unsupported(f"text_config.{key}", text[key], "layers of an assistant have one FFN")
    kept = {key: value for key, value in text.items() if key not in _SAID}
    kept |= {"model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "tie_word_embeddings": True}
    config = parse_config(kept, GEMMA4, where=fields.where).with_dtype(model.dtype)
    # what the model's next token sees of a window: what is behind that may be gone
    seen = tuple(window and window - 1 for window in config.windows)
    # logits are not capped
    return replace(config, windows=seen, multipliers=replace(config.multipliers, logits_cap=None))


def _cache(config: ModelConfig, model: ModelConfig, layer: int, directory: Path) -> int:
    """Which of the model's caches a layer reads: that of its last layer of the same kind.

    Raises: ConfigError where the model has none of its shape.
    """
    is_local = config.windows[layer] is not None
    found = [place for place, each in enumerate(model.cached_layers) if (model.windows[each] is not None) == is_local]
    kind = config if is_local else config.without_windows
    shape = (kind.num_kv_heads, kind.head_dim)
    if not found or model.kv_shapes[found[-1]] != shape:
        raise ConfigError(
            f"speculative_config.model={directory}: its layer {layer} reads {shape[0]} heads of {shape[1]}, which no "
            f"layer {'with' if is_local else 'without'} a window of this model has"
        )
    return found[-1]


def _graph(c: ModelConfig, model: ModelConfig, caches: tuple[int, ...], max_model_len: int) -> Graph:
    b, full = GraphBuilder(), c.without_windows
    local_rope, full_rope = rope_spec(c, max_model_len, is_local=True), rope_spec(full, max_model_len)
    x, state = embedding(b, model), b.given(model.hidden_size, 0)
    with b.part("join"):
        x = linear(b, c, b.cast(b.join_heads(x, state, 1), c.dtype), JOINING, c.hidden_size, "fc", False, None)
    for layer, window in enumerate(windows(c, max_model_len)):
        is_local = c.windows[layer] is not None
        x = attention_block(
            b,
            c if is_local else full,
            x,
            layer,
            local_rope if is_local else full_rope,
            window=window,
            qk_norm=True,
            linears="q",
            norms=AROUND_ATTENTION,
            cache=caches[layer],
        )
        x = mlp_block(b, c, x, layer, norms=AROUND_FFN)
        x = scaled(b, x, layer)
    with b.part("head"):
        y = norm(b, c, x, "model.norm.weight", "norm")
    with b.part("next"):
        following = linear(b, c, y, _LEAVING, model.hidden_size, "leaving", False, None)
    assert c.draft is not None
    if c.draft.num_ids is None:
        weight = b.weight(_TOKENS, (c.vocab_size, c.hidden_size), c.dtype)
    else:
        rows = (RowSegment(_TOKENS, 0, c.draft.num_ids),)
        weight = b.weight(FEW_LOGITS, (c.draft.num_ids, c.hidden_size), c.dtype, segments=rows)
    return ending(b, c, y, weight, None, following)
