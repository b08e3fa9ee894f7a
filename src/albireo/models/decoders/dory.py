"""Nemotron Labs Dory: states that are kept at one length, and approach what blocks give at rates of each channel; some
layers are gone through several times.

Source: Loshchilov et al. 2024, nGPT, section 2.6.

A state is as long as the root of its width here, where it is 1 in the model: of length 1 in the mean of squares. Roots
that learned numbers are multiplied by there are gone then, and what is under the root of a norm is theirs, as much
larger as squares are.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import embedding, head_weight, linear, queries_keys_values, windows
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings, Sphere
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.rope_settings import MAX_POSITIONS
from albireo.models.settings.tiny import TINY_LLAMA

_FULL, _SLIDING, _FFN = "full_attention", "sliding_attention", "mlp"
#: Under the root by which lengths are made 1.
_EPS = 1e-6
#: Of four layers the two in the middle are gone through twice; one of each two has a window.
TINY = TINY_LLAMA | {
    "architectures": ["DoryForCausalLM"],
    "model_type": "dory",
    "vocab_size": 131,
    "hidden_size": 40,
    "intermediate_size": 60,
    "num_hidden_layers": 4,
    "head_dim": 12,
    "initializer_range": 0.05,
    "attention_bias": False,
    "mlp_bias": False,
    "sliding_window": 9,
    "layer_types": [_SLIDING, _FULL, _SLIDING, _FULL],
    "rope_parameters": {
        _SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
        _FULL: {"rope_type": "default", "rope_theta": 10000000.0},
    },
    "ngpt_alpha_init": 0.4,
    "n_input_layers": 1,
    "n_recurrent_layers": 2,
    "n_output_layers": 1,
    "n_recurrent_loops": 2,
    "recurrent_kv_cache_mode": "per_loop",
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a missing or impossible value; UnsupportedModel for a cache that loops share."""
    kinds = fields.texts("layer_types")
    blocks = 2 if _FFN in kinds else 1  # that files count for a layer: published ones tell FFNs apart
    layers = _count(fields, "num_hidden_layers", blocks)
    if not kinds:
        kinds = tuple(_SLIDING if (layer + 1) % 4 else _FULL for layer in range(layers))
    told = tuple(each for kind in kinds[::blocks] for each in (kind, _FFN)[:blocks])
    if told != kinds or len(kinds) != layers * blocks or not set(kinds[::blocks]) <= {_FULL, _SLIDING}:
        behind = f", each with {_FFN} behind it" if blocks == 2 else ""
        fields.fail("layer_types", list(kinds), f"must be {_FULL} or {_SLIDING} for each of {layers} layers{behind}")
    first, last = (_count(fields, f"n_{part}_layers", blocks, 8) for part in ("input", "output"))
    default = max(0, layers - first - last)
    again = _count(fields, "n_recurrent_layers", blocks, default * blocks)
    if first + again + last != layers:
        wanted = f"must be {layers} with {first} before and {last} behind them, of num_hidden_layers"
        fields.fail("n_recurrent_layers", again * blocks, wanted)
    loops = fields.integer("n_recurrent_loops", 1, MAX_LAYERS, default=2)
    mode = fields.text("recurrent_kv_cache_mode", "per_loop")
    if mode != "per_loop" and not (mode == "last_loop" and loops == 1):
        what = "per_loop: what another loop left would depend on how a prompt is cut"
        fields.unsupported("recurrent_kv_cache_mode", mode, what)
    order = (*range(first), *(*range(first, first + again),) * loops, *range(first + again, layers))
    if not 0 < len(order) <= MAX_LAYERS:
        fields.fail("n_recurrent_loops", loops, f"makes {len(order)} layers; at most {MAX_LAYERS} are computed")
    window = fields.integer("sliding_window", 1, MAX_POSITIONS, default=1024)
    stored = fields.number("initializer_range", 1e-6, 1e3, default=0.0177)
    rate = fields.number("ngpt_alpha_init", 1e-9, 1e3, default=0.05)
    return BlockSettings(
        num_layers=len(order),
        layer_windows=tuple(window if kinds[layer * blocks] == _SLIDING else None for layer in order),
        sphere=Sphere(order, first, again, stored, rate),
        norm_eps=_EPS,
    )


def _count(fields: Fields, key: str, blocks: int, default: int | None = None) -> int:
    """Layers that a file counts as so many blocks each."""
    found = fields.integer(key, 0 if default is not None else blocks, MAX_LAYERS * blocks, default=default)
    if found % blocks:
        fields.fail(key, found, f"must be a multiple of {blocks}: attention and {_FFN} of a layer are told apart")
    return found // blocks


CONFIG = ConfigRules(
    blocks=_blocks,
    windows="read_elsewhere",
    has_local_rope=True,
    head_dim=256,
    defaults={
        "rope_theta": 10000000.0,
        "max_position_embeddings": 8192,
        "num_key_value_heads": 4,
    },
    ignorable=keys("auto_map"),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c, sphere = GraphBuilder(), config, config.blocks.sphere
    assert sphere is not None, "the architecture's rules read it"
    ropes = {is_local: rope_spec(c, max_model_len, is_local=is_local) for is_local in (False, True)}
    x, start = embedding(b, c), None
    is_raw = True  # rows of the table are as long as they are
    for layer, window in enumerate(windows(c, max_model_len)):
        told = sphere.order[layer]
        if sphere.begins_loop(layer):
            with b.part(f"layers.{layer}.loop"):
                x = _normed(b, c, x, is_raw)
                start = x if start is None else start
                x, is_raw = b.scale(x, 2.0) if start is x else b.add(x, start), False
        with b.part(f"layers.{layer}.attn"):
            x = _attention(b, c, _normed(b, c, x, is_raw), layer, told, ropes[c.windows[layer] is not None], window)
        with b.part(f"layers.{layer}.mlp"):
            x, is_raw = _ffn(b, c, _normed(b, c, x, False), told), False
    return _head(b, c, x)


def _normed(b: GraphBuilder, c: ModelConfig, x: Value, is_raw: bool) -> Value:
    """A state made as long as states are. Args: is_raw: it is as the table has it."""
    with b.part("norm"):
        return b.rms_norm(x, None, _EPS / c.hidden_size if is_raw else _EPS)


def _attention(
    b: GraphBuilder, c: ModelConfig, x: Value, layer: int, told: int, rope: RopeSpec, window: int | None
) -> Value:
    """x, nearer to what attention gives of it. Args: told: the layer's number in the file."""
    name, sphere, heads = f"model.layers.{told}.self_attn", c.blocks.sphere, {"q": c.num_heads, "k": c.num_kv_heads}
    assert sphere is not None
    width = c.num_heads * c.head_dim
    with b.part("norm"):
        h = b.cast(x, c.dtype)
    parts = queries_keys_values(b, c, h, name, bias=False, role=None)
    for p, count in heads.items():
        with b.part(p):
            parts[p] = b.rms_norm(parts[p], None, _EPS * c.hidden_size / c.head_dim, num_heads=count)
    gate = linear(b, c, h, f"{name}.gate_proj", width, "q_gate", False, None)
    with b.part("q_gate"):
        gate = b.unary(_times_square(b, gate, f"{name}.s_gate", 1 / sphere.stored), "sigmoid")
    with b.part("rope"):
        q = b.rope(parts["q"], rope, c.num_heads, c.head_dim)
        k = b.rope(parts["k"], rope, c.num_kv_heads, c.head_dim)
        q = _times_square(b, q, f"{name}.sqk", 1 / sphere.stored)
    with b.part("kv"):
        b.kv_write(k, parts["v"], layer, c.num_kv_heads, c.head_dim)
    with b.part("attention"):
        a = b.attention(
            b.cast(q, c.dtype),
            layer=layer,
            num_heads=c.num_heads,
            num_kv_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            scale=c.scale,
            window=window,
            softcap=None,
        )
        a = b.rms_norm(b.mul(a, gate), None, _EPS * c.hidden_size / width)
        a = b.cast(a, c.dtype)
    o = linear(b, c, a, f"{name}.o_proj", c.hidden_size, "o", False, None)
    with b.part("o"):
        o = b.rms_norm(o, None, _EPS * width / c.hidden_size)
        return _nearer(b, c, x, o, f"model.layers.{told}.lambda_1")


def _ffn(b: GraphBuilder, c: ModelConfig, x: Value, told: int) -> Value:
    """x, nearer to what an FFN gives of it."""
    name, width, parts = f"model.layers.{told}.mlp", c.intermediate_size, {}
    with b.part("norm"):
        h = b.cast(x, c.dtype)
    for p in ("gate", "up"):
        value = linear(b, c, h, f"{name}.{p}_proj", width, p, False, None)
        with b.part(p):
            parts[p] = b.gain(value, b.weight(f"{name}.suv_{p}", (width,), "float32"))
    with b.part("act"):
        m = b.mul(b.unary(parts["gate"], c.hidden_act), parts["up"])
        m = b.cast(b.rms_norm(m, None, _EPS / width), c.dtype)
    down = linear(b, c, m, f"{name}.down_proj", c.hidden_size, "down", False, None)
    with b.part("down"):
        down = b.rms_norm(down, None, _EPS * width / c.hidden_size)
        return _nearer(b, c, x, down, f"model.layers.{told}.lambda_2")


def _times_square(b: GraphBuilder, x: Value, name: str, factor: float) -> Value:
    """x times the square of factor and of a number of each channel."""
    weight = b.weight(name, (int(x.type.dims[-1]),), "float32", factor=factor)
    return b.gain(b.gain(x, weight), weight)


def _nearer(b: GraphBuilder, c: ModelConfig, x: Value, y: Value, name: str) -> Value:
    """x + rate * (y - x), channel by channel; rates are learned numbers whatever their signs."""
    sphere, width = c.blocks.sphere, c.hidden_size
    assert sphere is not None
    scale, rows = sphere.rate / sphere.stored, (RowSegment(name, 0, width),)
    rate = b.weight(name, (width,), "float32", factor=scale, is_absolute=True)
    rest = b.weight(
        f"{name}.rest", (width,), "float32", segments=rows, plus=-1 / scale, factor=-scale, is_absolute=True
    )
    return b.add(b.gain(x, rest), b.gain(y, rate))


def _head(b: GraphBuilder, c: ModelConfig, x: Value) -> Graph:
    """Logits, each times a number of its token."""
    sphere = c.blocks.sphere
    assert sphere is not None
    with b.part("head"):
        y = b.cast(_normed(b, c, x, False), c.dtype)
        weight = head_weight(b, c)
        factor = 1 / (sphere.stored * c.hidden_size**0.5)
        scales = b.weight("lm_head.logit_scale", (c.vocab_size,), "float32", factor=factor)
        with b.part("logits"):
            logits = b.gain(b.linear(b.gather_rows(y, b.logit_rows), weight, role="vocab"), scales)
        with b.part("top"):
            best = b.gain(b.linear(b.gather_rows(y, b.top_rows), weight, role="vocab"), scales)
            top_ids, top_values = b.top_logits(best)
    return b.finish(logits=logits, top_ids=top_ids, top_values=top_values)
