"""Solar Pro 22B: llama, of whose layers some read a mean of what the one before gives and what an earlier one read."""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.layers import attention_block, embedding, head, windows
from albireo.models.blocks.rope import layer_ropes
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings, Skip
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["SolarForCausalLM"],
    "model_type": "solar",
    "vocab_size": 127,
    "intermediate_size": 72,
    "num_hidden_layers": 6,
    "head_dim": 12,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 10000.0,
    "sliding_window": 33,
    "bskcn_1": [1],
    "bskcn_2": [2],
    "bskcn_3": [3],
    "bskcn_4": [5],
    "bskcn_tv": [0.9, 0.8],
    "bos_token_id": 1,
}
#: Layers whose input is kept, and layers that read it.
_PAIRS = (("bskcn_1", "bskcn_3"), ("bskcn_2", "bskcn_4"))
_DEFAULTS = {"bskcn_1": [12, 20, 32, 44], "bskcn_2": [20, 32], "bskcn_3": [16, 24, 36, 48], "bskcn_4": [28, 40]}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a layer that reads what is not there."""
    layers, parts = fields.integer("num_hidden_layers", 1, 2**12), fields.numbers("bskcn_tv", 0.0, 1.0)
    if len(parts) != 2:
        fields.fail("bskcn_tv", parts, "must be two numbers: of training, and of inference")
    skips: list[Skip] = []
    for first, then in _PAIRS:
        kept, reading = (_layers(fields, key, layers) for key in (first, then))
        for layer in reading:
            before = [each for each in kept if each <= layer]
            if not before:
                fields.fail(then, layer, f"reads what a layer of {first} before it keeps, and there is none")
            skips.append(Skip(before[-1], layer, parts[1]))
    return BlockSettings(skips=tuple(skips))


def _layers(fields: Fields, key: str, layers: int) -> list[int]:
    given = fields.raw(key)
    if not isinstance(given, list) or not all(type(each) is int and each >= 0 for each in given):
        fields.fail(key, given, "must be a list of layers")
    return sorted(each for each in given if each < layers)


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias"}),
    windows="every_layer",
    default_window=2047,
    blocks=_blocks,
    defaults={**_DEFAULTS, "bskcn_tv": [0.9, 0.8], "max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
    class_names=("SolarForCausalLM",),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    seen, ropes = windows(c, max_model_len), layer_ropes(c, max_model_len)
    x, kept = embedding(b, c), dict[int, Value]()
    sources = {skip.source for skip in c.blocks.skips}
    for layer in range(c.num_layers):
        if layer in sources:
            kept[layer] = x
        for skip in c.blocks.skips:
            if skip.layer == layer:
                with b.part(f"layers.{layer}.skip"):
                    x = b.add(b.scale(kept[skip.source], skip.part), b.scale(x, 1.0 - skip.part))
        x = attention_block(b, c, x, layer, ropes[layer], window=seen[layer])
        x = mlp_block(b, c, x, layer)
    return head(b, c, x)
