"""Models in GGUF files: settings, numbers, and logits equal to transformers on the same numbers."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.errors import ModelError, UnsupportedModel, WeightMismatch
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from albireo.models.blocks.rope import rope_spec
from albireo.models.checkpoint.weights import Checkpoint
from albireo.models.config_keys import parse_config
from in_turn import in_turn
from models.gguf.lying import assert_blocks_are_what_is_read
from models.gguf.writer import CONFIGS, LLAMA, PRESETS, words, write_gguf
from models.transformers_logits import distance, logits_by_transformers
from quantization.formats.test_gguf_blocks import KINDS, YOUNGER
from step_batches import Work, make_step

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
IDS = [5, 17, 3, 90, 44, 8, 61]
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def logits_of(path: Path) -> np.ndarray:
    graph = build_graph(load_config(path).with_dtype("float32"), 64)
    with open_checkpoint(path, graph) as checkpoint:
        weights = {name: checkpoint.tensor(name).to_float32() for name in checkpoint.names}
    outputs = interpret(graph, make_step([Work(IDS, 0, [0], state_slot=0)], 16), weights, ReferenceKV(1, 16))
    return np.asarray(outputs["logits"])


@in_turn(("kind", ["F32", "mixed"]), ("name", CONFIGS))
def test_whole_models_equal_transformers(name: str, kind: str, tmp_path: Path) -> None:
    numbers = write_gguf(tmp_path / "m.gguf", CONFIGS[name], kind, seed=3)
    off = distance(logits_of(tmp_path / "m.gguf"), logits_by_transformers(CONFIGS[name], numbers, IDS))
    assert off < 3e-6, off


@pytest.mark.parametrize("kind", PRESETS)
def test_files_of_few_bits_equal_transformers(kind: str, tmp_path: Path) -> None:
    numbers = write_gguf(tmp_path / "m.gguf", LLAMA, kind, seed=3)
    off = distance(logits_of(tmp_path / "m.gguf"), logits_by_transformers(LLAMA, numbers, IDS))
    assert off < 3e-6, off


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "Q8_0") for name in ("llama", "qwen2", "qwen3")), ("llama", "preset Q2_K"), ("qwen2", "preset IQ1_M")],
)
def test_transformers_reads_the_file_the_same_way(name: str, kind: str, tmp_path: Path) -> None:
    """Its own reader of GGUF: settings, order of rows, names."""
    config = CONFIGS[name] | ({"head_dim": 128} if name == "qwen3" else {})  # which it takes every Qwen 3 to have
    write_gguf(tmp_path / "m.gguf", config, kind, seed=4, tokenizer=words)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        wanted = model.eval()(torch.tensor([IDS])).logits[0].numpy()
    assert distance(logits_of(tmp_path / "m.gguf"), wanted) < 3e-6


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", *(kind for kind in KINDS if kind not in YOUNGER)])
def test_numbers_of_every_type(kind: str, tmp_path: Path) -> None:
    numbers = write_gguf(tmp_path / "m.gguf", LLAMA, kind)
    with open_checkpoint(tmp_path / "m.gguf", build_graph(load_config(tmp_path / "m.gguf"), 64)) as checkpoint:
        matrices = {name for name, array in numbers.items() if array.ndim == 2}
        assert set(checkpoint.encodings) == (matrices if kind in KINDS else set())
        assert checkpoint.names == tuple(sorted(numbers))
        for name, wanted in numbers.items():
            assert checkpoint.shape(name) == wanted.shape
            got = checkpoint.tensor(name).to_float32()
            np.testing.assert_array_equal(got, wanted)
            checkpoint.release(name)
        types = {checkpoint.tensor(name).dtype for name in matrices}
        assert types == {{"F16": "float16", "BF16": "bfloat16"}.get(kind, "float32")}, "parts are joined in one type"
    dtypes = {"F32": "float32", "F16": "float16"}
    assert load_config(tmp_path / "m.gguf").dtype == dtypes.get(kind, "bfloat16")


def test_pages_of_blocks_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By release(), once a matrix is packed from them."""
    write_gguf(tmp_path / "m.gguf", LLAMA, "Q4_K")
    with Checkpoint(tmp_path / "m.gguf") as checkpoint:
        assert assert_blocks_are_what_is_read(checkpoint) == len(checkpoint.encodings)
        released: list[str] = []
        monkeypatch.setattr(checkpoint._stored, "release", released.append)
        assert checkpoint.blocks(Q_PROJ) is not None and not released
        checkpoint.release(Q_PROJ)
        assert released == [Q_PROJ]


def test_settings_are_those_of_config_json(tmp_path: Path) -> None:
    for name, config in CONFIGS.items():
        path = tmp_path / f"{name}.gguf"
        write_gguf(path, config)
        extra = {"use_sliding_window": False} if config["model_type"] == "qwen2" else {}
        wanted = parse_config({**config, **extra, "dtype": "float32"}, load_architecture(config["model_type"]).rules)
        got = load_config(path)
        assert got.rms_norm_eps == np.float32(wanted.rms_norm_eps)
        same = {"dtype": "float32", "rms_norm_eps": got.rms_norm_eps}
        wanted = parse_config({**config, **extra, **same}, rules(config))
        # numbers are float32 there; norms are stored as they multiply; the factor on attention is always said
        mine, theirs = asdict(got.multipliers), asdict(wanted.multipliers) | {"norm_plus": 0.0}
        assert mine == {k: v if v is None else pytest.approx(v, rel=1e-7) for k, v in theirs.items()}
        assert rope_spec(got, 64).attention_factor == pytest.approx(rope_spec(wanted, 64).attention_factor, rel=1e-7)
        rope = replace(wanted.rope, attention_factor=got.rope.attention_factor)
        rope = replace(rope, short_factors=got.rope.short_factors, long_factors=got.rope.long_factors)
        np.testing.assert_allclose(rope_spec(got, 64).inv_freq, rope_spec(wanted, 64).inv_freq, rtol=1e-6)
        assert got == replace(wanted, multipliers=got.multipliers, rope=rope)


def rules(config: dict[str, Any]) -> Any:
    return load_architecture(config["model_type"]).rules


def test_llama_3_frequencies_come_as_a_tensor(tmp_path: Path) -> None:
    """As the converter writes them: what each frequency is divided by."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 32
    wanted = parse_config({**LLAMA, "rope_scaling": scaling, "dtype": "float32"}, rules(LLAMA))
    plain = parse_config({**LLAMA, "dtype": "float32"}, rules(LLAMA))
    ours, base = (np.array(rope_spec(c, 64).inv_freq) for c in (wanted, plain))

    def factors(writer: Any, keys: dict[str, Any]) -> None:
        writer.add_tensor("rope_freqs.weight", (base / ours).astype(np.float32))

    write_gguf(tmp_path / "m.gguf", LLAMA, change=factors)
    got = rope_spec(load_config(tmp_path / "m.gguf"), 64).inv_freq
    np.testing.assert_allclose(got, ours, rtol=2e-7)
    assert not np.allclose(got, base)
    with open_checkpoint(tmp_path / "m.gguf", build_graph(load_config(tmp_path / "m.gguf"), 64)):
        pass


def test_factors_of_long_contexts_that_nothing_reads_are_refused(tmp_path: Path) -> None:
    def factors(writer: Any, keys: dict[str, Any]) -> None:
        writer.add_tensor("rope_factors_long.weight", np.ones(32, np.float32))

    write_gguf(tmp_path / "m.gguf", LLAMA, change=factors)
    with pytest.raises(UnsupportedModel, match=r"rope_factors_long\.weight is not supported but in files of phi3"):
        load_config(tmp_path / "m.gguf")


def test_frequencies_that_are_scaled_twice_are_refused(tmp_path: Path) -> None:
    write_gguf(
        tmp_path / "m.gguf", CONFIGS["phi3"], change=lambda writer, keys: keys.update({"rope.scale_linear": 2.0})
    )
    with pytest.raises(UnsupportedModel, match=r"has rope_factors_short\.weight too"):
        load_config(tmp_path / "m.gguf")


def test_bases_of_gemma_2_are_one(tmp_path: Path) -> None:
    for base in (10000.0, 100.0):
        change = {"rope.freq_base_swa": base}
        write_gguf(tmp_path / f"{base}.gguf", CONFIGS["gemma2"], change=lambda writer, keys, c=change: keys.update(c))
    load_config(tmp_path / "10000.0.gguf")
    with pytest.raises(UnsupportedModel, match=r"rope.freq_base_swa=100.0 is not supported; supported: 10000.0"):
        load_config(tmp_path / "100.0.gguf")


@pytest.mark.parametrize(
    ("keys", "rope"),
    [
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"rope.scaling.factor": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"rope.scaling.factor": 1.0}, None),
        ({"rope.scaling.type": "none"}, None),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 2.0}, None),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        ),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 32,
                "rope.scaling.yarn_attn_factor": 1.25,
                "rope.scaling.yarn_ext_factor": 1.0,
            },
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "attention_factor": 1.25},
        ),
    ],
)
def test_scaled_frequencies(keys: dict[str, Any], rope: dict[str, Any] | None, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", LLAMA, change=lambda writer, settings: settings.update(keys))
    wanted = parse_config({**LLAMA, "rope_scaling": rope, "dtype": "float32"}, rules(LLAMA))
    assert load_config(tmp_path / "m.gguf").rope == wanted.rope


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"attention.head_count": None}, ModelError, "attention.head_count is missing"),
        ({"block_count": "two"}, ModelError, "block_count='two' must be a whole number"),
        ({"expert_count": 8}, ModelError, "expert_used_count is missing"),
        ({"attention.scale": 0.5}, UnsupportedModel, "'attention.scale': 0.5"),
        ({"rope.scaling.type": "longrope"}, UnsupportedModel, "rope.scaling.type='longrope'.*linear, yarn"),
        ({"rope.dimension_count": 32}, UnsupportedModel, "partial_rotary_factor"),
        ({"rope.scaling.yarn_ext_factor": 0.5}, UnsupportedModel, "'rope.scaling.yarn_ext_factor': 0.5"),
        ({"attention.causal": False}, UnsupportedModel, "'attention.causal': False"),
        ({"expert_group_count": 2}, UnsupportedModel, "'expert_group_count': 2"),
        ({"attention.head_count_kv": [2, 4]}, ModelError, r"attention.head_count_kv=\[2, 4\] must be a whole number"),
        ({"attention.value_length": 32}, UnsupportedModel, "attention.value_length=32"),
    ],
)
def test_settings_that_are_not_computed(
    change: dict[str, Any], error: type[ModelError], message: str, tmp_path: Path
) -> None:
    def changed(writer: Any, keys: dict[str, Any]) -> None:
        keys.update({key: value for key, value in change.items() if value is not None})
        for key, value in change.items():
            if value is None:
                del keys[key]

    write_gguf(tmp_path / "m.gguf", LLAMA, change=changed)
    with pytest.raises(error, match=message) as caught:
        load_config(tmp_path / "m.gguf")
    assert "m.gguf" in str(caught.value)


def test_settings_that_change_nothing(tmp_path: Path) -> None:
    extra = {"attention.causal": True, "expert_group_count": 1, "expert_group_used_count": 1}
    write_gguf(tmp_path / "m.gguf", LLAMA)
    write_gguf(tmp_path / "m2.gguf", LLAMA, change=lambda writer, keys: keys.update(extra))
    assert load_config(tmp_path / "m2.gguf") == load_config(tmp_path / "m.gguf")


def test_equal_numbers_for_every_layer_are_one(tmp_path: Path) -> None:
    both = {"attention.head_count_kv": [2, 2], "feed_forward_length": [512, 512]}
    write_gguf(tmp_path / "m.gguf", LLAMA, change=lambda writer, keys: keys.update(both))
    config = load_config(tmp_path / "m.gguf")
    assert (config.num_kv_heads, config.intermediate_size) == (2, 512)


@pytest.mark.parametrize(
    ("names", "ends"),
    [
        ({}, [95]),
        ({90: ("<|im_end|>", 3), 91: ("<|end|>", 4), 92: ("<|eot_id|>", 1)}, [95, 90, 91]),
        ({90: ("<turn|>", 3), 91: ("<|tool_response>", 4), 92: ("<|think|>", 3)}, [95, 90, 91]),
        ({90: ("<|flush|>", 3), 91: ("<|calls|>", 3), 92: ("<|end|>", 3), 93: ("<|tool_calls|>", 3)}, [95, 90, 91]),
        ({90: ("<|calls|>", 3), 91: ("<|end|>", 3), 92: ("<|flush|>", 1)}, [95, 90, 91]),
        ({90: ("<|return|>", 3), 91: ("<|call|>", 3), 92: ("<|end|>", 3)}, [95, 90, 91]),
    ],
)
def test_tokens_that_end_a_text(names: dict[int, tuple[str, int]], ends: list[int], tmp_path: Path) -> None:
    """The one that the file names, and those of some names that are no words; <|end|> not where a turn goes on."""

    def tokenizer(writer: Any) -> None:
        known = {**{i: (f"<{i}>", 1) for i in range(96)}, **names}
        writer.add_token_list([known[i][0] for i in range(96)])
        writer.add_token_types([known[i][1] for i in range(96)])
        writer.add_eos_token_id(95)

    write_gguf(tmp_path / "m.gguf", LLAMA, tokenizer=tokenizer)
    assert sorted(load_config(tmp_path / "m.gguf").eos_token_ids) == sorted(ends)


def test_another_architecture_is_named(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", LLAMA | {"model_type": "rwkv7"})
    with pytest.raises(UnsupportedModel, match=r"architecture='rwkv7' is not supported; supported: .*llama"):
        load_config(tmp_path / "m.gguf")


def test_a_missing_tensor_is_named_as_the_graph_names_it(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", LLAMA, change=lambda writer, keys: keys.update(block_count=3))
    graph = build_graph(load_config(tmp_path / "m.gguf"), 64)
    with pytest.raises(WeightMismatch, match=r"9 missing: model\.layers\.2\.input_layernorm\.weight"):
        open_checkpoint(tmp_path / "m.gguf", graph)


@pytest.mark.parametrize(("kind", "encoding"), [("Q8_0", "int8.g32"), ("MXFP4", "fp4.g32")])
def test_the_rows_of_heads_are_put_in_order(tmp_path: Path, kind: str, encoding: str) -> None:
    numbers = write_gguf(tmp_path / "m.gguf", LLAMA, kind)
    with Checkpoint(tmp_path / "m.gguf") as checkpoint:
        np.testing.assert_array_equal(checkpoint.encoded(Q_PROJ).decode(), numbers[Q_PROJ])
        assert checkpoint.encodings[Q_PROJ] == encoding
