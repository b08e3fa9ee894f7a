"""Architectures are found by file name, and by nothing else; their graphs say what they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import compile_graph
from albireo.errors import ConfigError, ModelError, UnsupportedModel, WeightMismatch
from albireo.graph.node import Graph
from albireo.models import architectures, build_graph, load_architecture, load_config, open_checkpoint
from albireo.models.config import ModelConfig
from albireo.models.config_keys import parse_config
from albireo.models.settings.mamba1_settings import Mamba1Settings
from albireo.models.settings.mamba_settings import MambaSettings
from albireo.models.settings.recurrent_settings import GatedDeltaSettings
from in_turn import in_turn
from tiny_decoders import WITH_POSITIONS, WITHOUT_GATE
from tiny_layer_norm import LAYER_NORMS
from tiny_models import make_checkpoint, random_weights, weight_shapes, write_safetensors

#: Of those with a LayerNorm.
GATED = ("cohere", "cohere2", "cohere_compass_text", "olmo", "orion", "stablelm")


def config_of(model_type: str, **changes: Any) -> ModelConfig:
    architecture = load_architecture(model_type)
    return parse_config({**architecture.tiny, **changes}, architecture.rules)


def test_every_architecture_file_is_complete() -> None:
    assert set(architectures()) >= {"llama", "mistral", "qwen2", "qwen3"}
    for name in architectures():
        architecture = load_architecture(name)
        # files have no hyphens in their names
        assert architecture.tiny["model_type"].replace("-", "_") == name
        assert config_of(name).model_type == architecture.tiny["model_type"]


@pytest.mark.parametrize(
    "name",
    [
        "no_such_model",
        "",
        "config",
        "layers",
        "__init__",
        "os",
        "../llama",
        "llama.py",
        "albireo.models.decoders.llama",
        "Llama",
        "a" * 500,
    ],
)
def test_nothing_else_is_imported(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"is not supported; supported: .*llama, "):
        load_architecture(name)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    with pytest.raises(UnsupportedModel, match="model_type"):
        load_config(tmp_path)


@pytest.mark.parametrize("value", [3, ["llama"], {"a": 1}])
def test_a_model_type_that_is_no_string(value: object, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": value}))
    with pytest.raises(ModelError, match=r"model_type=.*must be a string"):
        load_config(tmp_path)


@pytest.mark.parametrize("given", [{"model_type": None}, {"d_model": 768, "n_layer": 24, "vocab_size": 50277}])
def test_a_file_of_another_layout(given: dict[str, Any], tmp_path: Path) -> None:
    """As state-spaces/mamba-130m has it."""
    (tmp_path / "config.json").write_text(json.dumps(given))
    with pytest.raises(ModelError, match=r"model_type is missing, so .* those of mamba-130m-hf\), or convert them"):
        load_config(tmp_path)


def test_a_place_that_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a directory"):
        load_config(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"there is no config\.json in it"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("hf_quant_config.json", "{}", "hf_quant_config.json: quantization=None must be an object"),
        ("hf_quant_config.json", '{"quantization": {"quant_algo": "W4A8"}}', "quant_algo='W4A8' is not supported"),
        ("config.json", '{"quantization_config": 3}', "quantization_config=3 must be an object"),
        ("config.json", '{"quantization_config": {}}', "quant_method is missing"),
        ("config.json", '{"quantization_config": {"quant_method": "hqq"}}', "quant_method='hqq' is not.*compressed-t"),
    ],
)
def test_a_way_of_quantizing_that_is_not_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    make_checkpoint(tmp_path, load_architecture("llama").tiny)
    config = {**json.loads((tmp_path / "config.json").read_text()), **json.loads(text)}
    (tmp_path / name).write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        load_config(tmp_path)


@pytest.mark.parametrize("name", architectures())
def test_graph_reads_exactly_the_checkpoint(name: str) -> None:
    graph = build_graph(config_of(name), 64)
    shapes = weight_shapes(load_architecture(name).tiny)
    read: dict[str, list[int]] = {}
    for value in graph.constants.values():
        assert value.constant is not None
        assert sum(map(len, value.constant.segments)) == value.type.dims[0]
        for segment in value.constant.segments:
            if segment.source is None:  # zeros behind values that are narrower than keys
                assert name == "mimo_v2_flash"
                continue
            assert shapes[segment.source][1:] == value.type.dims[1:]
            read.setdefault(segment.source, []).extend(range(segment.start, segment.stop))
    if name == "gemma3n_text":  # tokens behind the table have its first row
        table = "model.embed_tokens_per_layer.weight"
        assert read[table][-8:] == [0] * 8
        del read[table][-8:]
    if name == "dory":  # a rate, and what is left of it
        read = {n: sorted(set(rows)) if ".lambda_" in n else rows for n, rows in read.items()}
    if name == "zaya":  # a number for each channel of a head
        read = {n: sorted(set(rows)) if n.endswith(".temp") else rows for n, rows in read.items()}
    if name == "jetmoe":  # one bias for all experts
        read = {n: sorted(set(rows)) if n.endswith(".bias") else rows for n, rows in read.items()}
    if name == "apertus1p5_text":  # the last rows are of pictures and sounds
        read["model.embed_tokens.weight"] += range(121, 141)
    if name in ("biogpt", "opt"):  # the first rows are those of padding
        read[f"{'biogpt' if name == 'biogpt' else 'model.decoder'}.embed_positions.weight"] += [0, 1]
    assert {n: sorted(rows) for n, rows in read.items()} == {n: list(range(s[0])) for n, s in shapes.items()}


@pytest.mark.parametrize("name", architectures())
def test_graph_has_the_agreed_ends_and_origins(name: str) -> None:
    config = config_of(name)
    graph = build_graph(config, 64)
    assert list(graph.outputs) == ["logits", "top_ids", "top_values", "kv"]
    assert str(graph.outputs["logits"].type) == f"float32[R, {config.vocab_size}]"
    assert str(graph.outputs["top_ids"].type) == "int32[G, 65]"
    origins = list(dict.fromkeys(node.origin for node in graph.nodes))
    blocks = config.blocks
    attn = [f"layers.0.attn.{p}" for p in ("norm", "q", "k", "v", "rope", "kv", "attention", "o")]
    if isinstance(config.recurrent, GatedDeltaSettings):
        parts = ("norm", "qkv", "z", "gates", "conv", "delta_rule", "out_norm", "out")
        attn = [f"layers.0.attn.{p}" for p in parts]
    elif isinstance(config.recurrent, MambaSettings):
        parts = ("norm", "z", "xbc", "dt", "conv", "state", "out_norm", "out")
        attn = [f"layers.0.attn.{p}" for p in parts]
        if blocks.attends_everywhere:  # on the same norm, before it
            of_mixed = ("z", "values", "keys", "queries", *parts[2:])
            attn = [f"layers.0.attn.{p}" for p in ("norm", *"qkv", "rope", "kv", "attention", "o", *of_mixed)]
    elif isinstance(config.recurrent, Mamba1Settings):
        norms = [] if config.recurrent.norms == "none" else ["dt_norm", "bc_norm"]
        parts = ("norm", "x", "z", "conv", "rank", *norms[:1], "bc", *norms[1:], "dt", "state", "gate", "out")
        attn = [f"layers.0.attn.{p}" for p in parts]
    elif config.recurrent is not None:
        attn = [f"layers.0.conv.{p}" for p in ("norm", "in", "conv", "out")]
    if name in ("afmoe", "dory", "hrm_text", "laguna", "step3p5"):  # whose gate is a linear of its own
        attn.insert(4, "layers.0.attn.q_gate")
    if name == "hrm_text":  # what both stacks have come to
        attn.insert(0, "layers.0.joined")
    mlp = [f"layers.0.mlp.{p}" for p in ("norm", "gate", "up", "act", "down")]
    if config.experts is not None and config.experts.layers[0]:
        experts = [f"experts.{p}" for p in ("gate", "up", "act", "down")]
        mlp = [f"layers.0.moe.{p}" for p in ("norm", "router", "route", *experts, "combine")]
    if blocks.mixers:  # each layer is one of them, and experts have no gate
        experts = [f"experts.{p}" for p in ("up", "act", "down")]
        mlp = [f"layers.1.moe.{p}" for p in ("norm", "router", "route", *experts, "combine")]
    if name == "zamba2":  # whose first layer is nothing else; of the second a block comes first
        mlp = [f"layers.1.shared.{p}" for p in ("norm", *"qkv", "q_low", "q_more", "k_low", "k_more", "v_low")]
    if name in ("falcon_mamba", "mamba", "mamba2"):  # states alone
        mlp = [origin.replace("layers.0", "layers.1") for origin in attn]
    if blocks.latent is not None:
        of_query = ["q_a", "q_a_norm"] if blocks.latent.query_rank else []
        parts = [*of_query, "q_plain", "q_rope", "c_kv", "k_rope", "rope", "kv", "k_up", "attention", "v_up", "o"]
        attn = [f"layers.0.attn.{p}" for p in ("norm", *parts)]
    if blocks.index is not None and blocks.latent is not None:  # between its keys and attention
        parts = ["q", "k", "k_norm", "rope", "kv", "weights", "choice"]
        parts = ["q_norm", *parts] if blocks.index.grows else parts
        at = attn.index("layers.0.attn.k_up")
        attn[at:at] = [f"layers.0.attn.indexer.{p}" for p in parts]
    if name == "deepseek_v4":  # whose first layer has no entries, and experts by token
        parts = [
            "norm",
            "q_a",
            "q_a_norm",
            "q",
            "q_norm",
            "kv",
            "kv_norm",
            "rope",
            "attention",
            "rope_back",
            "o_a",
            "o",
        ]
        attn = [f"layers.0.attn.{p}" for p in parts]
    if name == "glm5_next_text":  # whose first layer keeps a state, and has no experts
        parts = ["norm", "qkv", "dt_low", "dt", "gates", "z_low", "z", "conv", "delta_rule", "out_norm", "out"]
        attn = [f"layers.0.attn.{p}" for p in parts]
    if blocks.hyper is not None:  # what blocks read is a sum of streams
        if name == "hy_v4":
            attn.insert(attn.index("layers.0.attn.v_up") + 1, "layers.0.attn.q_gate")
        mixed = ["streams.mixed"] if blocks.hyper.rounds else []
        of_streams = [*(f"streams.{p}" for p in ("norm", "read", "written")), "streams", *mixed]
        if blocks.hyper.rank:
            of_streams = ["streams.norm", "streams.written", "streams", "streams.low", "streams.read"]
            attn, mlp = attn[1:], mlp[1:]  # which norm nothing else
        attn, mlp = ([*(f"{block[0].rpartition('.')[0]}.{p}" for p in of_streams), *block] for block in (attn, mlp))
    if name == "dots3_note_text":
        attn.insert(attn.index("layers.0.attn.v_up") + 1, "layers.0.attn.q_gate")
    if name == "axk2":  # whose norms have gates, and whose queries come with some
        attn[1:1] = [f"layers.0.attn.norm_{p}" for p in ("low", "gate")]
        attn.insert(attn.index("layers.0.attn.v_up") + 1, "layers.0.attn.q_gate")
    if name == "kimi_linear":  # whose first layer has none
        parts = ["norm", "qkv", "dt_low", "dt", "gates", "z_low", "z", "conv", "delta_rule", "out_norm", "out"]
        attn = [f"layers.0.attn.{p}" for p in parts]
    if name == "jetmoe":  # whose queries are of experts
        parts = ["norm", "k", "v", "router", "route", "q", "ranks", "rope", "kv", "attention", "o"]
        attn = [f"layers.0.attn.{p}" for p in parts]
    if name == "bailing_hybrid":
        parts = ["norm", "qkv", "dt", "gates", "z", "conv", "delta_rule", "out_norm", "out"]
        attn = [f"layers.0.attn.{p}" for p in parts]
    if name == "modernbert_decoder":  # whose first attention reads embeddings, rounded in 16 bits
        attn = attn[1:]
    if name in ("minimax", "minimax_m1", "minimax_text_01"):
        attn = [f"layers.0.attn.{p}" for p in ("norm", "qkv", "z", "state", "out_norm", "out")]
    if name == "zaya":
        parts = ["norm", "q", "k", "conv", "v", "v_before", "rope", "kv", "attention", "o"]
        attn = [f"layers.0.attn.{p}" for p in parts]
    has_gate = name not in WITHOUT_GATE and (name not in LAYER_NORMS or name in GATED)
    if not has_gate:
        mlp.remove("layers.0.mlp.gate")
    if blocks.is_parallel:
        attn[:0] = [mlp.pop(0)] if blocks.has_ffn_norm else []
        mlp = mlp if blocks.has_ffn_norm else mlp[1:]
    if name in (
        "olmo2",
        "olmo3",
        "exaone4",
        "flex_olmo",
        "openai_gpt",
    ):  # whose blocks read the residual stream as it is; rounded, in 16 bits
        attn, mlp = attn[1:], mlp[1:]
    attn += [o for o in ("layers.0.attn.behind", "layers.0.conv.behind") if o in origins]
    mlp += [o for o in ("layers.0.mlp.behind",) if o in origins]
    if blocks.streams is not None:  # around attention and FFN, and beside the former
        attn[:0] = [f"layers.0.predict.{p}" for p in ("norm", "router", "coefs")]
        attn += [f"layers.0.laurel.{p}" for p in ("norm", "left", "right", "behind", "sum")]
        # what a layer takes of all streams comes first
        attn.insert(0, "layers.0.predict")
    first = ["embed", *(["positions"] if name in ("gpt2", "opt", *WITH_POSITIONS) else [])]
    first += ["streams"] if blocks.hyper is not None else []
    first += ["given", "given.of_x", "streams.begin", "streams"] if blocks.streams is not None else []
    assert origins[: len(first) + len(attn) + len(mlp)] == [*first, *attn, *mlp]
    more = ["head.dense", "head.dense_norm"] if name == "modernbert_decoder" else []
    assert origins[-3 - len(more) :] == ["head.norm", *more, "head.logits", "head.top"]


@pytest.mark.parametrize("name", architectures())
def test_every_linear_says_how_ranks_may_share_it(name: str) -> None:
    """A new architecture that says nothing could not be cut, and would only be told so by its users."""
    roles = {"q": "heads", "k": "heads", "v": "heads", "o": "row", "gate": "ffn", "up": "ffn", "down": "row"}
    # what lies around a state says nothing, see compiler/state_parts.py; its gates stay numbers
    roles |= {"qkv": None, "z": None, "in": None, "out": None, "gates": "router", "q_gate": "heads"}
    roles |= {"xbc": None, "values": None, "keys": None, "queries": None, "dt": "router"}
    roles |= {"x": None, "rank": "router", "bc": "router", "dt_low": "router", "z_low": None}
    roles |= dict.fromkeys(("low", "into", *(f"{p}_low" for p in (*"qkv", "gate", "up"))))
    roles |= {f"{p}_more": roles[p] for p in ("q", "k", "v", "gate", "up")}
    roles |= dict.fromkeys(("of_x", "begin", "end", "left", "right", "projection"))
    roles |= {"coefs": "router", "logits": "vocab", "top": "vocab", "router": "router", "weight": "router"}
    if name in (
        "olmo2",
        "olmo3",
        "olmo_hybrid",
        "olmoe",
        "minimax_m2",
        "flex_olmo",
        "jetmoe",
    ):  # each rank needs all heads, whose q and k are normed at once
        roles |= dict.fromkeys("qkvo")
    if name in ("bitnet", "dory"):  # each rank needs what all heads and all channels give, which is normed at once
        roles |= dict.fromkeys((*"qkvo", "q_gate", "gate", "up", "down"))
    if name == "zaya":  # queries and keys of all heads are convolved
        roles |= dict.fromkeys((*"qkvo", "v_before"))
    if config_of(name).blocks.latent is not None:  # latents are those of all heads
        roles |= dict.fromkeys(("q_a", "c_kv", "k_rope")) | dict.fromkeys(("q_plain", "q_rope"), "heads")
    linears = [node for node in build_graph(config_of(name), 64).nodes if node.op in ("linear", "expert_linear")]
    # what chooses positions is whole on each rank, and its weights are as a router's
    roles |= dict.fromkeys(("norm_low", "norm_gate", "read", "written", "mixed"), "router")
    if name == "glm5_next_text":  # what says how much a position counts in its entry's key
        roles["pool"] = "router"
    if name == "qwen4_exp_text":  # gates of channels of streams
        roles["read"] = None
    if name == "modernbert_decoder":  # in front of the head
        roles["dense"] = None
    if name == "deepseek_v4":  # keys and values are those of all heads
        roles |= dict.fromkeys(("q_a", "q", "kv", "o")) | dict.fromkeys(("values", "gates"), "router")
    apart = {"given.gate": None, "indexer.q": None, "indexer.k": None, "indexer.weights": "router"}
    ends = [n.origin.rpartition(".")[2] for n in linears]
    wanted = [
        next((apart[key] for key in apart if n.origin.endswith(f".{key}")), roles.get(end, "no role"))
        for n, end in zip(linears, ends, strict=True)
    ]
    assert [n.attrs.get("role") for n in linears] == wanted


@in_turn(("name", architectures()), ("dtype", ["bfloat16", "float16"]))
def test_rounding_is_written_out(name: str, dtype: str) -> None:
    """Every linear and attention reads the compute dtype; the residual stream, RoPE and norms are float32."""
    graph = build_graph(config_of(name).with_dtype(dtype), 64)
    for node in graph.nodes:
        if node.origin.rpartition(".")[2] in ("read", "written", "mixed") and name in ("deepseek_v4", "glm5_next_text"):
            assert node.op != "linear" or node.inputs["weight"].type.dtype == "float32"
        elif node.op in ("linear", "expert_linear"):
            assert node.inputs["x"].type.dtype == node.inputs["weight"].type.dtype == dtype
            assert "bias" not in node.inputs or node.inputs["bias"].type.dtype == "float32"
        elif node.op == "attention":
            assert node.inputs["q"].type.dtype == dtype
        elif node.op in ("add", "rope", "rms_norm", "mul"):
            assert {v.type.dtype for r, v in node.inputs.items() if r != "positions"} == {"float32"}


def test_float32_models_have_no_casts() -> None:
    for name in architectures():
        assert not [n for n in build_graph(config_of(name), 64).nodes if n.op == "cast"]


def windows_of(graph: Graph) -> list[int | None]:
    return [n.attrs["window"] for n in graph.nodes if n.op == "attention"]


def test_a_window_no_sequence_can_notice_is_left_out() -> None:
    config = config_of("mistral", sliding_window=64)
    assert windows_of(build_graph(config, 64)) == [None, None]
    assert windows_of(build_graph(config, 65)) == [64, 64]
    assert windows_of(build_graph(config_of("qwen2"), 65)) == [None, 9, 9]


def test_tied_models_use_one_constant_twice() -> None:
    graph = build_graph(config_of("qwen3"), 64)
    table = graph.constants["model.embed_tokens.weight"]
    assert [n.op for n in graph.users()[table]] == ["embed", "linear", "linear"]


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
def test_the_text_part_of_a_model_that_reads_images(prefix: str, tmp_path: Path) -> None:
    """The settings lie one level down and leave most to defaults, the tensors under names of their own."""
    tiny = dict(load_architecture("gemma3_text").tiny)
    make_checkpoint(tmp_path, tiny, seed=5)
    names = {"num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 139, "max_position_embeddings": 128}
    left_out = {"architectures", "tie_word_embeddings", "eos_token_id", "rope_theta", "rope_local_base_freq"}
    text = {key: value for key, value in (tiny | names).items() if key not in left_out}
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    whole |= {"vision_config": {"hidden_size": 8}, "mm_tokens_per_image": 4, "image_token_index": 7}
    whole |= {"eos_token_id": [1, 106], "torch_dtype": "float32", "boi_token_index": 5, "eoi_token_index": 6}
    alone = load_config(tmp_path)
    tensors = random_weights(tiny, 5)
    renamed = {prefix + name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    renamed["vision_tower.patch.weight"] = np.ones((2, 2), np.float32)
    write_safetensors(tmp_path / "model.safetensors", renamed, "float32")
    (tmp_path / "config.json").write_text(json.dumps(whole))
    assert load_config(tmp_path) == alone
    with open_checkpoint(tmp_path, build_graph(alone, 64)) as checkpoint:
        assert checkpoint.names == tuple(sorted(tensors))
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(checkpoint.tensor(name).to_float32(), tensor)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"text_config": None}, ModelError, "text_config is missing"),
        ({"text_config": {"model_type": "llama"}}, UnsupportedModel, "text_config=.*must be gemma3_text"),
        ({"architectures": ["Gemma3ForQuestionAnswering"]}, UnsupportedModel, "architectures="),
        ({"some_key_of_tomorrow": 3}, UnsupportedModel, "some_key_of_tomorrow"),
    ],
)
def test_what_is_not_computed_of_a_whole(changes: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    whole = {"model_type": "gemma3", "torch_dtype": "float32", "text_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(whole | changes))
    with pytest.raises(error, match=message):
        load_config(tmp_path)


def test_partly_rotated_heads_are_paired_with_what_turns() -> None:
    """Of 12 channels 8 turn: pairs (i, i + 6) are (i, i + 4) of the file for the first four."""
    graph = build_graph(config_of("phi3"), 64)
    rope = next(node.attrs["rope"] for node in graph.nodes if node.op == "rope")
    assert [f == 0.0 for f in rope.inv_freq] == [False] * 4 + [True] * 2
    q = graph.constants["model.layers.0.self_attn.q_proj.weight"].constant
    assert q is not None and q.sources == ("model.layers.0.self_attn.qkv_proj.weight",)
    rows = [row for segment in q.segments for row in range(segment.start, segment.stop)]
    assert rows[:12] == [0, 1, 2, 3, 8, 9, 4, 5, 6, 7, 10, 11] and sorted(rows) == list(range(48))


def test_what_some_do_not_have_yet_is_refused(tmp_path: Path) -> None:
    """Latent attention: a cache of codes, GPUs; and a kv_b_proj of another shape than config.json says. Several
    streams: ranks."""
    options: Any = {"maxima": {"T": 16, "R": 4, "G": 4}, "block_size": 16, "max_positions": 64}
    graph = build_graph(config_of("youtu"), 64)
    with pytest.raises(UnsupportedModel, match="a KV cache of int8: values of this model are channels of its keys"):
        compile_graph(graph, CpuCatalog(isa_levels()), kv_dtype="int8", **options)
    with pytest.raises(UnsupportedModel, match=r"kv_lora_rank=8: on a GPU 16 is the least"):
        compile_graph(build_graph(config_of("youtu", kv_lora_rank=8), 64), CudaCatalog(), **options)
    with pytest.raises(ConfigError, match="its residual is several streams, which are not cut among ranks yet"):
        compile_graph(build_graph(config_of("gemma3n_text"), 64), CpuCatalog(isa_levels()), part=Part(2, 0), **options)
    tiny = dict(load_architecture("youtu").tiny)
    make_checkpoint(tmp_path, tiny)
    (tmp_path / "config.json").write_text(json.dumps(tiny | {"v_head_dim": 17}))
    with pytest.raises(WeightMismatch, match=r"kv_b_proj.weight' is \[128, 16\]; .* a multiple of 31 rows of 16"):
        open_checkpoint(tmp_path, graph)
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in tiny.items() if k != "v_head_dim"}))
    with pytest.raises(WeightMismatch, match=r"config.json: v_head_dim must say how .*kv_b_proj.weight' is divided"):
        open_checkpoint(tmp_path, graph)
