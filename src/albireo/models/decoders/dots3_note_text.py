"""dots3 note, text: latent attention of which some layers choose what they see, and others have a window, latents of
other sizes and other heads; a gate of each head; experts of DeepSeek V3.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import DEEPSEEK, moe_block
from albireo.models.blocks.indexer import Indexer, indexed_blocks
from albireo.models.blocks.latent_attention import UNREAD, LatentNames, latent_attention
from albireo.models.blocks.layers import embedding, head, norm, windows
from albireo.models.blocks.rope import latent_rope_spec
from albireo.models.checkpoint.latent_weights import LOCAL, PER_LAYER, local_latent
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEAD_DIM, MAX_HEADS, MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings, Latent
from albireo.models.settings.expert_settings import SIGMOIDS
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.rope_settings import MAX_POSITIONS
from albireo.models.settings.tiny import TINY_LATENT

_CHOOSING, _SLIDING, _FULL = "indexed_attention", "sliding_attention", "full_attention"
#: Two layers that choose, one with a window, which has two heads in place of four; the first has no experts.
TINY = TINY_LATENT | {
    "architectures": ["Dots3NoteForCausalLM"],
    "model_type": "dots3_note_text",
    "vocab_size": 131,
    "head_dim": 20,
    "layer_types": [_CHOOSING, _SLIDING, _CHOOSING],
    "sliding_window": 13,
    "swa_num_attention_heads": 2,
    "swa_num_key_value_heads": 2,
    "swa_q_lora_rank": 24,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 20,
    "swa_qk_nope_head_dim": 12,
    "swa_v_head_dim": 6,
    "index_topk": 12,
    "index_n_heads": 24,
    "index_head_dim": 12,
    "rope_parameters": {
        _CHOOSING: {"rope_type": "default", "rope_theta": 80000000.0, "partial_rotary_factor": 0.4},
        _SLIDING: {"rope_type": "default", "rope_theta": 50000.0, "partial_rotary_factor": 0.4},
    },
    "n_shared_experts": 2,
    "shared_experts_intermediate_size": 20,
    "routed_scaling_factor": 1.5,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "n_group": 1,
    "topk_group": 1,
    "pad_token_id": 0,
}
#: Layers from one that sees all to the next behind the first two, where nothing is said.
_PERIOD = 4
_SIZES = (
    *("num_attention_heads", "num_key_value_heads", "head_dim"),
    *("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"),
)
_BESIDE = tuple(f"{LOCAL}{key}" for key in _SIZES)


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a missing or impossible value; UnsupportedModel where layers with a window differ."""
    eps = fields.number("rms_norm_eps", 1e-30, 1.0)
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    kinds = _kinds(fields, layers)
    blocks = indexed_blocks(fields, has_pairs_side_by_side=True)
    assert blocks.latent is not None and blocks.index is not None
    latent = replace(blocks.latent, eps=eps, is_lengthened=True, norms_key=True, scales_with_context=False)
    window = fields.integer("sliding_window", 1, MAX_POSITIONS, default=512)
    own = tuple(kind == _CHOOSING for kind in kinds)
    found = replace(
        blocks,
        latent=latent,
        index=replace(blocks.index, own=own) if any(own) else None,
        layer_windows=tuple(window if kind == _SLIDING else None for kind in kinds),
    )
    local, heads = _local(fields, kinds, latent)
    return replace(found, local_latent=local, local_heads=heads)


def _kinds(fields: Fields, layers: int) -> tuple[str, ...]:
    """Of each layer what it sees. Older files have one word for those that see all and those that choose."""
    said, choosing = fields.texts("layer_types"), fields.raw("use_dsa")
    if choosing is None and fields.raw(PER_LAYER) is None:
        choosing = True
    has_windows = fields.flag("use_sliding_window", True)
    usual = (_FULL if not has_windows or i < 2 or i % _PERIOD == 1 else _SLIDING for i in range(layers))
    kinds = said or tuple(_CHOOSING if kind == _FULL and choosing is not False else kind for kind in usual)
    if len(kinds) != layers or not set(kinds) <= {_CHOOSING, _SLIDING, _FULL}:
        wanted = f"{_CHOOSING}, {_SLIDING} or {_FULL} for each of {layers} layers"
        fields.unsupported("layer_types", list(kinds), wanted)
    if choosing is None:
        return kinds
    meant = {_FULL: _CHOOSING} if choosing else {_CHOOSING: _FULL}
    return tuple(meant.get(kind, kind) for kind in kinds)


def _local(fields: Fields, kinds: tuple[str, ...], latent: Latent) -> tuple[Latent | None, int]:
    """Latents of layers with a window, and their query heads; None: there are none. Args: latent: of other layers."""
    of_layers, given = fields.table(PER_LAYER), {key: fields.raw(key) for key in (*_SIZES, *_BESIDE)}
    if _SLIDING not in kinds:
        return None, 0
    if of_layers:
        wanted = {str(layer) for layer, kind in enumerate(kinds) if kind == _SLIDING}
        if set(of_layers) != wanted or any(each != next(iter(of_layers.values())) for each in of_layers.values()):
            fields.unsupported(PER_LAYER, of_layers, "the same for each layer with a window, and for no other")
    said = {key: value for key, value in given.items() if value is not None} | {PER_LAYER: of_layers}
    sizes = local_latent({**said, "model_type": TINY["model_type"]})
    own = Fields(sizes, f"{fields.where}: of layers with a window")
    heads, plain = own.integer("num_attention_heads", 1, MAX_HEADS), own.integer("qk_nope_head_dim", 1, MAX_HEAD_DIM)
    if own.integer("num_key_value_heads", 1, MAX_HEADS, default=heads) != heads:
        own.fail("num_key_value_heads", sizes["num_key_value_heads"], f"must be num_attention_heads={heads}")
    rotary = own.integer("head_dim", plain + 2, MAX_HEAD_DIM) - plain
    rank = own.integer("kv_lora_rank", 2, MAX_HEAD_DIM - rotary)
    again = sizes.get("qk_rope_head_dim") if of_layers else given[f"{LOCAL}qk_rope_head_dim"]
    if rotary % 2 or rank % 2 or again not in (None, rotary):
        own.fail("qk_rope_head_dim", again, f"must be what head_dim has beside qk_nope_head_dim={plain}, and even")
    value, low = own.integer("v_head_dim", 1, MAX_HEAD_DIM), own.integer("q_lora_rank", 1, MAX_WIDTH)
    return replace(latent, rank=rank, rotary=rotary, plain=plain, value=value, query_rank=low), heads


CONFIG = ConfigRules(
    keys=keys("attention_bias qk_rope_head_dim"),
    blocks=_blocks,
    experts="dots3",
    windows="read_elsewhere",
    has_local_rope=True,
    local_theta=50000.0,
    has_pairs_side_by_side=True,
    class_names=("Dots3NoteForCausalLM",),
    older_names={
        "num_local_experts": "n_routed_experts",
        "sliding_window_size": "sliding_window",
        "swa_rope_theta": "rope_local_base_freq",
        "moe_shared_expert_intermediate_size": "shared_experts_intermediate_size",
    },
    deciding=frozenset({"num_local_experts", "moe_shared_expert_intermediate_size"}),
    defaults={
        "rope_theta": 80000000.0,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 524288,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 1536,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 1024,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    },
    built_in={key: value for key, value in SIGMOIDS.items() if key != "moe_layer_freq"},
    ignorable=UNREAD,
)
#: Layers behind the last guess further tokens; towers lie beside text.
IGNORABLE_WEIGHTS = (
    *("model.mtp.*", "model.layers.*.self_attn.indexer.*"),
    *(f"{whole}{part}*" for whole in ("model.", "") for part in ("vision_", "audio_")),
)
_NAMES = LatentNames(gate="g_proj")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c, index = GraphBuilder(), config, config.blocks.index
    ropes = {is_local: latent_rope_spec(c, max_model_len, is_local=is_local) for is_local in (False, True)}
    indexer = None if index is None else Indexer(b, c, ropes[False])
    x = embedding(b, c)
    for layer, window in enumerate(windows(c, max_model_len)):
        chooses = indexer is not None and index is not None and index.own[layer]
        choose = indexer.choose if indexer is not None and chooses else None
        rope = ropes[c.windows[layer] is not None]
        with b.part(f"layers.{layer}.attn"):
            h = norm(b, c, x, f"model.layers.{layer}.input_layernorm.weight", "norm")
            o = latent_attention(b, c.of_layer(layer), h, layer, rope, names=_NAMES, choose=choose, window=window)
            with b.part("o"):
                x = b.add(x, o)
        x = moe_block(b, c, x, layer, DEEPSEEK)
    return head(b, c, x)
