"""EAGLE and EAGLE 3: a layer that was trained for a model that is there, in a directory of its own.

Source: Li et al., arXiv:2401.15077 and arXiv:2503.01840. EAGLE reads what the model's last norm gave; EAGLE 3 what
three layers read, low, middle and high, and guesses among the commonest tokens only (d2t).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import ConfigError, ModelError, WeightMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys, read_json
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.layers import (
    Norms,
    attention,
    attention_block,
    embedding,
    ending,
    head_weight,
    linear,
    norm,
    queries_keys_values,
    unrounded_norm,
)
from albireo.models.blocks.rope import rope_spec
from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
from albireo.models.checkpoint.text_tensors import Prefixes
from albireo.models.config import ModelConfig
from albireo.models.config_keys import MAX_WIDTH, parse_config
from albireo.models.decoders.llama import CONFIG as LLAMA
from albireo.models.draft_heads.head import FINAL, HEAD, TABLE, DraftHead
from albireo.models.settings.draft_input import JOINING, STATE_NORM, DraftInput
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.speculative_config import MAX_VOCAB

#: Where the offsets from a head's own ids to the model's are.
_OFFSETS = "d2t"
_NAMES: Prefixes = (
    *(
        (f"{whole}{old}", new)
        for whole in ("", "model.")
        for old, new in (
            ("midlayer.hidden_norm.", f"{STATE_NORM}."),
            ("layers.0.hidden_norm.", f"{STATE_NORM}."),
            ("midlayer.", "model.layers.0."),
            ("layers.0.", "model.layers.0."),
            ("fc.", f"{JOINING}."),
            ("norm.", "model.norm."),
            ("embed_tokens.", "model.embed_tokens."),
        )
    ),
    ("lm_head.", "lm_head."),
)
#: Keys of config.json that say who made the head, or for what, and change nothing of it.
_SAID = keys(
    "architectures auto_map speculators_config speculators_model_type speculators_version target_model_type",
    "draft_vocab_size target_hidden_size eagle_config eagle_aux_hidden_state_layer_ids norm_before_residual bias",
    "has_no_defaults_at_init num_lookahead_tokens ttt_length length mask_token_id",
)


def eagle_head(method: str, model: ModelConfig, directory: Path, num_ids: int | None = None) -> DraftHead:
    """A head of a directory, for a model.

    Args: method: eagle or eagle3. num_ids: see DraftInput; of a head whose logits are made by the model's.

    Raises: ModelError for a bad file; UnsupportedModel naming what is not computed; ConfigError for a head of another
    model.
    """
    where = str(directory / "config.json")
    data = read_json(directory / "config.json")
    fields = Fields(data, where)
    layer = data.get("transformer_layer_config")
    settings = {**(layer if isinstance(layer, Mapping) else {}), **data}
    settings.pop("transformer_layer_config", None)
    config = _config(settings, model, where)
    files = SafetensorsFiles(directory)
    try:
        owned = {name for name in (TABLE, HEAD) if any(each in files for each in _spellings(name))}
        has_bias = "fc.bias" in files
    finally:
        files.close()
    if config.vocab_size == model.vocab_size and (method == "eagle" or HEAD not in owned):
        config = replace(config, draft=DraftInput(leaves_normed=False, num_ids=num_ids))
    if method == "eagle":
        return _first(directory, config, model, has_bias)
    return _third(directory, fields, config, model, owned)


def token_ids(head: DraftHead, vocab_size: int) -> NDArray[np.int32]:
    """[its vocab_size] the model's id of each of a head's own. Args: vocab_size: the model's.

    Raises: WeightMismatch where they are not told, or are none of the model's.
    """
    count, files = head.config.vocab_size, SafetensorsFiles(head.directory)
    try:
        if _OFFSETS not in files:
            raise WeightMismatch(
                f"{head.directory}: has logits of {count} tokens, the model has {vocab_size}, and there is no tensor "
                f"{_OFFSETS} that says which those are"
            )
        if files.type_name(_OFFSETS) != "I64" or files.shape(_OFFSETS) != (count,):
            raise WeightMismatch(
                f"{head.directory}: {_OFFSETS} is {files.type_name(_OFFSETS)} {list(files.shape(_OFFSETS))}, "
                f"config.json implies I64 [{count}]"
            )
        found = np.frombuffer(files.buffer(_OFFSETS), "<i8") + np.arange(count)
    finally:
        files.close()
    if found.min() < 0 or found.max() >= vocab_size or len(np.unique(found)) != count:
        raise WeightMismatch(
            f"{head.directory}: {_OFFSETS} leads to ids {found.min()} to {found.max()}, or to one twice; the model has "
            f"{vocab_size} tokens"
        )
    return found.astype(np.int32)


def _config(data: Mapping[str, Any], model: ModelConfig, where: str) -> ModelConfig:
    """Of its layer, whose logits are those of its own ids."""
    fields = Fields(data, where)
    if fields.integer("num_hidden_layers", 1, MAX_LAYERS, default=1) != 1:
        fields.unsupported("num_hidden_layers", data["num_hidden_layers"], "a head that drafts has one layer")
    if data.get("model_type", "llama") not in ("llama", "eagle", "eagle3"):
        fields.unsupported("model_type", data["model_type"], "heads of EAGLE are read whose layer is a llama's")
    vocab = fields.integer("draft_vocab_size", 1, MAX_VOCAB, default=model.vocab_size)
    kept = {key: value for key, value in data.items() if key not in _SAID}
    kept |= {"model_type": "llama", "vocab_size": vocab, "tie_word_embeddings": False, "num_hidden_layers": 1}
    config = parse_config(kept, LLAMA, where=where).with_dtype(model.dtype)
    return replace(config, draft=DraftInput(leaves_normed=False))


def _spellings(name: str) -> tuple[str, ...]:
    return name, name.removeprefix("model.")


@dataclass(frozen=True, slots=True)
class _Tables:
    """Where a head's tables of tokens are: ids of the model, and whether its logits are those of its embeddings."""

    vocab_size: int
    is_tied: bool

    def embedding(self, b: GraphBuilder, c: ModelConfig) -> Value:
        return embedding(b, replace(c, vocab_size=self.vocab_size, draft=None))

    def head(self, b: GraphBuilder, c: ModelConfig) -> Value:
        return head_weight(b, replace(c, tie_word_embeddings=self.is_tied))


def _first(directory: Path, config: ModelConfig, model: ModelConfig, has_bias: bool) -> DraftHead:
    if config.hidden_size != model.hidden_size or config.vocab_size != model.vocab_size:
        raise ConfigError(
            f"speculative_config.model={directory}: it is a head for a model of width {config.hidden_size} and "
            f"{config.vocab_size} tokens; this one has {model.hidden_size} and {model.vocab_size}"
        )
    tables = _Tables(model.vocab_size, model.tie_word_embeddings)

    def build(max_model_len: int) -> Graph:
        b, c = GraphBuilder(), config
        x, state = tables.embedding(b, c), b.given(c.hidden_size, 0)
        with b.part("join"):
            joined = b.cast(b.join_heads(x, state, 1), c.dtype)
            x = linear(b, c, joined, JOINING, c.hidden_size, "fc", has_bias, None)
        rope = rope_spec(c, max_model_len)
        x = attention_block(b, c, x, 0, rope, norms=Norms(None))
        x = mlp_block(b, c, x, 0)
        return ending(b, c, b.cast(x, c.dtype), tables.head(b, c), None, x)

    return DraftHead(directory, _NAMES, config, (FINAL,), build, model.hidden_size)


def _third(directory: Path, fields: Fields, config: ModelConfig, model: ModelConfig, owned: set[str]) -> DraftHead:
    given = fields.table("eagle_config") or {}
    if given.get("use_aux_hidden_state") is False:
        fields.unsupported("eagle_config", given, "EAGLE 3 reads hidden states of three layers")
    size = fields.optional_integer("target_hidden_size", 1, MAX_WIDTH)
    if (size or config.hidden_size) != model.hidden_size:
        raise ConfigError(
            f"speculative_config.model={directory}: it is a head for a model of width {size or config.hidden_size}; "
            f"this one has {model.hidden_size}"
        )
    shared = tuple(name for name in (TABLE, HEAD) if name not in owned)
    if HEAD in shared and config.vocab_size != model.vocab_size:
        raise ModelError(f"{directory}: has no {HEAD}, and logits of {config.vocab_size} tokens")
    is_normed = fields.flag("norm_before_residual", False)
    tables = _Tables(model.vocab_size, HEAD in shared and model.tie_word_embeddings)

    def build(max_model_len: int) -> Graph:
        b, c = GraphBuilder(), config
        x, state = tables.embedding(b, c), b.given(c.hidden_size, 0)
        with b.part("join"):
            first = unrounded_norm(b, c, x, "model.layers.0.input_layernorm.weight")
            normed = unrounded_norm(b, c, state, f"{STATE_NORM}.weight")
            joined = b.cast(b.join_heads(first, normed, 1), c.dtype)
        name, rope, bias = "model.layers.0.self_attn", rope_spec(c, max_model_len), c.attention_bias
        with b.part("layers.0.attn"):
            parts = queries_keys_values(b, c, joined, name, bias=bias)
            a = attention(b, c, parts, 0, rope, None)
            o = linear(b, c, a, f"{name}.o_proj", c.hidden_size, "o", bias, "row")
            with b.part("o"):
                x = b.add(normed if is_normed else state, o)
        x = mlp_block(b, c, x, 0)
        y = norm(b, c, x, "model.norm.weight", "norm")
        return ending(b, c, y, tables.head(b, c), None, x)

    taps = _taps(fields, model)
    size = len(taps) * model.hidden_size
    has_own_ids = config.vocab_size != model.vocab_size
    return DraftHead(directory, _NAMES, config, taps, build, size, True, shared, has_own_ids)


def _taps(fields: Fields, model: ModelConfig) -> tuple[int, ...]:
    """Layers whose input it reads. Raises: ConfigError where the model has no such layer."""
    layers = model.num_layers
    said = fields.raw("eagle_aux_hidden_state_layer_ids")
    nested = fields.table("eagle_config") or {}
    said = nested.get("eagle_aux_hidden_state_layer_ids") if said is None else said
    taps = (2, layers // 2, layers - 3) if said is None else said
    if not isinstance(taps, list | tuple) or not all(type(tap) is int and 0 < tap < layers for tap in taps):
        raise ConfigError(
            f"{fields.where}: it reads what layers {taps} are given, and this model has {layers} layers, 0 to "
            f"{layers - 1}, of which the first is given nothing but tokens"
        )
    return tuple(taps)
