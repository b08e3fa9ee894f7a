"""Rows of sounds, against transformers; what files may say, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvariantError, ModelError, UnsupportedModel, WeightMismatch
from albireo.models import load_config
from albireo.models.settings.text_part import inner
from albireo.models.vision.tower import has_tower, hears, listens, open_ear, open_tower
from albireo.sounds.processor import open_sound_processor
from in_turn import in_turn
from tiny_hearers import FAMILIES, Theirs, opened, publish_first, save, sound, tiles

#: Seconds: of the longest that all hear, of one that ends in the middle of everything, and of a very short one.
LENGTHS = (1.0, 0.7713, 0.07)


def distance(ours: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))


@in_turn(("dtype", ["float32", "bfloat16"]), ("name", FAMILIES))
def test_as_near_to_exact_as_transformers(name: str, dtype: str, tmp_path: Path) -> None:
    """Exact is the same weights in float64; in 16 bits transformers rounds after every operation, and we less often."""
    folder = save(tmp_path, name, dtype=dtype)
    given = [
        sound(each, place) for place, each in enumerate((*LENGTHS, *((4.31,) if FAMILIES[name].longest > 1 else ())))
    ]
    exact, theirs = ([Theirs(folder, name, kind).rows(each) for each in given] for kind in ("float64", dtype))
    runner = opened(folder, dtype)
    ours = [np.concatenate([runner.rows(tile) for tile in tiles(folder, each)]) for each in given]
    assert [rows.shape for rows in ours] == [rows.shape for rows in exact]
    noise = max(map(distance, theirs, exact))
    assert noise < {"bfloat16": 0.05, "float32": 4e-6}[dtype], "too rough to prove anything"
    assert max(map(distance, ours, exact)) < noise * (4 if dtype == "float32" else 1.0)
    assert min(float(np.abs(rows - rows[:1]).max()) for rows in ours if len(rows) > 1) > 0.1, "all rows are alike"


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_counted_before_they_are_computed(name: str, tmp_path: Path) -> None:
    data = json.loads((save(tmp_path, name) / "config.json").read_text())
    assert has_tower(data) and hears(data) and not listens(data)
    data = inner(data)
    tower, processor = open_ear(data, "float32", "config.json"), open_sound_processor(tmp_path, data)
    runner = opened(tmp_path)
    for tile in [tile for each in LENGTHS for tile in tiles(tmp_path, sound(each))]:
        assert tower.rows(*tile.shape) == processor.rows(*tile.shape) == len(runner.rows(tile))
    with pytest.raises(InvariantError, match="this tower hears"):
        tower.rows(processor.largest_tile()[0] + 1, 8)
    with pytest.raises(InvariantError, match="of 9 bands"):
        tower.rows(99, 9)


def test_bits_do_not_depend_on_sounds_before_nor_on_threads(tmp_path: Path) -> None:
    for name in FAMILIES:
        folder = save(tmp_path / name, name, dtype="bfloat16")
        first, second = (tiles(folder, sound(seconds, 3))[0] for seconds in (1.0, 0.4))
        runner = opened(folder, "bfloat16")
        alone = runner.rows(second)
        runner.rows(first)
        assert np.array_equal(runner.rows(second), alone)
        assert np.array_equal(opened(folder, "bfloat16", 2).rows(second), alone)


def test_names_of_tensors_as_first_published(tmp_path: Path) -> None:
    tile = tiles(save(tmp_path / "a", "qwen3_asr"), sound(0.9))[0]
    wanted = opened(tmp_path / "a").rows(tile)
    assert np.array_equal(opened(publish_first(save(tmp_path / "b", "qwen3_asr"))).rows(tile), wanted)


# -- what files may say ------------------------------------------------------------------------------------------------

_QWEN3_ASR_TEXT = {
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 65536,
    "model_type": "qwen3_asr_text",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {
        "interleaved": True,
        "mrope_interleaved": True,
        "mrope_section": [24, 20, 20],
        "rope_type": "default",
        "type": "default",
    },
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
#: What config.json of published models says, and what it makes of 30 s.
PUBLISHED: dict[str, tuple[dict[str, Any], tuple[int, int], int, int]] = {
    "Qwen2-Audio-7B-Instruct": (
        {
            "architectures": ["Qwen2AudioForConditionalGeneration"],
            "audio_config": {
                "model_type": "qwen2_audio_encoder",
                "num_mel_bins": 128,
                "encoder_layers": 32,
                "encoder_attention_heads": 20,
                "encoder_ffn_dim": 5120,
                "encoder_layerdrop": 0.0,
                "d_model": 1280,
                "dropout": 0.0,
                "attention_dropout": 0.0,
                "activation_function": "gelu",
                "activation_dropout": 0.0,
                "scale_embedding": False,
                "init_std": 0.02,
                "max_source_positions": 1500,
            },
            "audio_token_index": 151646,
            "ignore_index": -100,
            "model_type": "qwen2_audio",
            "text_config": {
                "bos_token_id": 151643,
                "eos_token_id": 151645,
                "intermediate_size": 11008,
                "max_position_embeddings": 8192,
                "model_type": "qwen2",
                "rms_norm_eps": 1e-05,
                "rope_theta": 10000,
                "torch_dtype": "bfloat16",
                "vocab_size": 156032,
            },
            "torch_dtype": "bfloat16",
            "vocab_size": 156032,
        },
        (3001, 128),
        750,
        4096,
    ),
    "Qwen3-ASR-1.7B": (
        {
            "architectures": ["Qwen3ASRForConditionalGeneration"],
            "model_type": "qwen3_asr",
            "support_languages": ["Chinese", "English"],
            "thinker_config": {
                "audio_config": {
                    "activation_function": "gelu",
                    "conv_chunksize": 500,
                    "d_model": 1024,
                    "downsample_hidden_size": 480,
                    "encoder_attention_heads": 16,
                    "encoder_ffn_dim": 4096,
                    "encoder_layers": 24,
                    "max_source_positions": 1500,
                    "model_type": "qwen3_asr_audio_encoder",
                    "n_window": 50,
                    "n_window_infer": 800,
                    "num_hidden_layers": 24,
                    "num_mel_bins": 128,
                    "output_dim": 2048,
                    "scale_embedding": False,
                    "is_encoder_decoder": False,
                    "top_k": 50,
                },
                "audio_end_token_id": 151670,
                "audio_start_token_id": 151669,
                "audio_token_id": 151676,
                "dtype": "bfloat16",
                "model_type": "qwen3_asr_thinker",
                "text_config": _QWEN3_ASR_TEXT,
            },
        },
        (800, 128),
        104,
        2048,
    ),
    "Voxtral-Mini-3B-2507": (
        {
            "architectures": ["VoxtralForConditionalGeneration"],
            "audio_config": {
                "activation_dropout": 0.0,
                "activation_function": "gelu",
                "attention_dropout": 0.0,
                "dropout": 0.0,
                "head_dim": 64,
                "hidden_size": 1280,
                "initializer_range": 0.02,
                "intermediate_size": 5120,
                "layerdrop": 0.0,
                "max_source_positions": 1500,
                "model_type": "voxtral_encoder",
                "num_attention_heads": 20,
                "num_hidden_layers": 32,
                "num_key_value_heads": 20,
                "num_mel_bins": 128,
                "scale_embedding": False,
                "vocab_size": 51866,
            },
            "audio_token_id": 24,
            "hidden_size": 3072,
            "model_type": "voxtral",
            "projector_hidden_act": "gelu",
            "text_config": {
                "attention_bias": False,
                "attention_dropout": 0.0,
                "head_dim": 128,
                "hidden_act": "silu",
                "hidden_size": 3072,
                "intermediate_size": 8192,
                "max_position_embeddings": 131072,
                "mlp_bias": False,
                "model_type": "llama",
                "num_attention_heads": 32,
                "num_hidden_layers": 30,
                "num_key_value_heads": 8,
                "rms_norm_eps": 1e-05,
                "rope_scaling": None,
                "rope_theta": 100000000.0,
                "vocab_size": 131072,
            },
            "torch_dtype": "bfloat16",
            "vocab_size": 131072,
        },
        (3001, 128),
        375,
        3072,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files(name: str, tmp_path: Path) -> None:
    data, size, rows, width = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps(data))
    config = load_config(tmp_path, "bfloat16")
    assert (config.dtype, config.hidden_size) == ("bfloat16", width) and config.num_layers in (28, 30, 32)
    tower = open_tower(data, "bfloat16", "config.json")
    assert tower.rows(*size) == rows


def _changed(folder: Path, **changes: Any) -> dict[str, Any]:
    """Keys of audio_config that differ."""
    data: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return {**data, "audio_config": {**data["audio_config"], **changes}}


@pytest.mark.parametrize(
    ("name", "changes", "error", "says"),
    [
        ("qwen2_audio", {"scale_embedding": True}, UnsupportedModel, "scale_embedding=True"),
        ("qwen2_audio", {"model_type": "whisper"}, UnsupportedModel, "model_type='whisper'"),
        ("qwen2_audio", {"d_model": 42}, ModelError, "encoder_attention_heads=4 must cut"),
        ("qwen2_audio", {"activation_function": "mish"}, UnsupportedModel, "activation_function='mish'"),
        ("qwen2_audio", {"use_weighted_layer_sum": True}, UnsupportedModel, "use_weighted_layer_sum"),
        ("glmasr", {"intermediate_size": 96}, ModelError, "intermediate_size=96 must be 4"),
        (
            "glmasr",
            {"rope_parameters": {"partial_rotary_factor": 0.25}},
            ModelError,
            "must leave an even part of heads of 12",
        ),
        ("glmasr", {"rope_parameters": {"rope_type": "yarn"}}, UnsupportedModel, "rope_type='yarn'"),
        ("voxtral", {"intermediate_size": 81}, ModelError, "intermediate_size=81 must be a multiple"),
        ("voxtral", {"max_source_positions": 51}, ModelError, "cuts 51 positions evenly"),
        (
            "qwen3_asr",
            {"n_window_infer": 250},
            ModelError,
            "n_window_infer=250 must be a multiple of twice n_window=50",
        ),
        ("voxtral", {"head_dim": 20}, UnsupportedModel, "head_dim=20 is not supported; supported: 10"),
        ("qwen3_asr", {"output_dim": 64}, ModelError, "output_dim=64 must be hidden_size=48"),
    ],
)
def test_refused(name: str, changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    data = _changed(save(tmp_path, name), **changes)
    with pytest.raises(error, match=says):
        open_tower(data, "float32", "config.json")


def test_a_tower_of_other_weights(tmp_path: Path) -> None:
    data = _changed(save(tmp_path, "qwen3_asr"), encoder_ffn_dim=81)
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(WeightMismatch, match="fc1"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "error", "says"),
    [
        ("qwen2_audio", {"feature_size": 80}, ModelError, "feature_size=80 must be num_mel_bins=8"),
        ("qwen2_audio", {"chunk_length": 2}, ModelError, "chunk_length=2 makes 200 frames, max_source_positions=50"),
        ("voxtral", {"chunk_length": 2}, ModelError, "chunk_length=2 makes 200 frames"),
        ("glmasr", {"chunk_length": 30}, ModelError, "max_position_embeddings=100 of config.json hears 200"),
        ("voxtral", {"feature_extractor_type": "Gemma4AudioFeatureExtractor"}, UnsupportedModel, "supported: Whisper"),
        ("qwen3_asr", {"feature_extractor_type": "WhisperFeatureExtractor", "n_fft": 401}, ModelError, "n_fft=401"),
        ("voxtral", {"dither": 0.1}, UnsupportedModel, "dither"),
    ],
)
def test_extractors_that_are_refused(
    name: str, changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    path = save(tmp_path, name) / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(error, match=says):
        open_sound_processor(tmp_path, json.loads((tmp_path / "config.json").read_text()))
