"""Rotary frequencies against transformers' ROPE_INIT_FUNCTIONS."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.models import load_architecture
from albireo.models.blocks.rope import base_frequencies, rope_spec
from albireo.models.config import ModelConfig
from albireo.models.config_keys import parse_config
from albireo.models.settings.rope_settings import RopeSettings
from in_turn import in_turn
from tiny_models import parse_tiny

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 3.7},
    "llama 3.1": LLAMA3 | {"factor": 8.0, "original_max_position_embeddings": 8192},
    "llama 3.2": LLAMA3 | {"factor": 32.0, "original_max_position_embeddings": 8192},
    "llama3 without original": LLAMA3 | {"factor": 8.0},
    "yarn": YARN,
    "yarn without original": {"rope_type": "yarn", "factor": 4.0},
    "yarn untruncated": YARN | {"truncate": False},
    "yarn betas": YARN | {"beta_fast": 64.0, "beta_slow": 2.0},
    "yarn attention factor": YARN | {"attention_factor": 0.8},
    "yarn mscale": YARN | {"mscale": 0.707, "mscale_all_dim": 1.2},
    "yarn mscale alone": YARN | {"mscale": 0.707},
    "yarn of a short original": YARN | {"original_max_position_embeddings": 4},
    "yarn equal bounds": YARN | {"beta_fast": 1.0, "beta_slow": 1.0, "truncate": False},
    "yarn factor 1": YARN | {"factor": 1.0},
    "yarn factor from lengths": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 4096},
}


def configs(settings: dict[str, Any], head_dim: int, theta: float) -> tuple[ModelConfig, Any]:
    """Ours and transformers' of the same file."""
    transformers = pytest.importorskip("transformers")
    architecture = load_architecture("llama")
    data = {
        **architecture.tiny,
        "head_dim": head_dim,
        "max_position_embeddings": 32768,
        "rope_theta": ...,
        "rope_scaling": ...,
        "rope_parameters": settings | {"rope_theta": theta},
    }
    data = {k: v for k, v in data.items() if v is not ...}
    ours = parse_config(data, architecture.rules)
    return ours, transformers.LlamaConfig(**{**data, "rope_parameters": dict(data["rope_parameters"])})


def transformers_frequencies(config: Any, **kwargs: Any) -> tuple[np.ndarray, float]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    kind = config.rope_parameters["rope_type"]
    function = ROPE_INIT_FUNCTIONS.get(kind, LlamaRotaryEmbedding.compute_default_rope_parameters)
    inv_freq, factor = function(config, **kwargs)
    return inv_freq.numpy(), factor


@pytest.mark.parametrize("theta", [100.0, 10000.0, 150000.0, 1e6, 8e6])
@pytest.mark.parametrize("dim", [6, 64, 96, 256])
def test_powers_are_the_nearest_numbers_whatever_the_processor(theta: float, dim: int) -> None:
    """numpy's own differ in one of five, where there is AVX-512."""
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers = [float(Decimal(theta) ** Decimal(exponent)) for exponent in exponents.tolist()]
    assert base_frequencies(theta, dim).tolist() == (np.float32(1) / np.array(powers, np.float32)).tolist()


@in_turn(("theta", [10000.0, 1e6]), ("head_dim", [8, 64, 80, 128]), ("name", SETTINGS))
def test_frequencies_equal_transformers(name: str, head_dim: int, theta: float) -> None:
    ours, theirs = configs(SETTINGS[name], head_dim, theta)
    spec = rope_spec(ours, 32768)
    inv_freq, factor = transformers_frequencies(theirs)
    # A few roundings of float32; at the edge of llama3's ramp a difference of two near numbers is multiplied by factor.
    tolerance = 5e-7 if ours.rope.rope_type != "llama3" else 1e-7 * ours.rope.factor
    assert len(spec.inv_freq) == head_dim // 2
    np.testing.assert_allclose(spec.inv_freq, inv_freq, rtol=tolerance)
    assert spec.attention_factor == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("max_model_len", [1, 32768, 32769, 100_000])
def test_dynamic_is_evaluated_at_the_longest_length(max_model_len: int) -> None:
    ours, theirs = configs({"rope_type": "dynamic", "factor": 2.5}, 64, 10000.0)
    inv_freq, _ = transformers_frequencies(theirs, seq_len=max_model_len)
    np.testing.assert_allclose(rope_spec(ours, max_model_len).inv_freq, inv_freq, rtol=5e-7)


@pytest.mark.parametrize("changes", [{"rope_parameters": ...}, {"rope_parameters": None}])
def test_a_rotation_that_mistral_small_4_does_not_say_is_refused(changes: dict[str, Any]) -> None:
    """transformers stretches a context by numbers of its own then."""
    with pytest.raises(UnsupportedModel, match="rope_parameters=None is not supported; it must be said"):
        parse_tiny("mistral4", **changes)
    assert parse_tiny("mistral4", rope_parameters={"rope_type": "default"}).rope.factor == 1.0


def test_dynamic_of_one_pair_is_refused() -> None:
    ours, _ = configs({"rope_type": "dynamic", "factor": 2.0}, 2, 10000.0)
    with pytest.raises(UnsupportedModel, match="head_dim=2"):
        rope_spec(ours, 64)


def test_numbers_are_float32() -> None:
    ours, _ = configs(SETTINGS["llama 3.1"], 64, 500000.0)
    inv_freq = rope_spec(ours, 64).inv_freq
    assert all(type(f) is float and f == float(np.float32(f)) for f in inv_freq)
    assert inv_freq[0] == 1.0 and sorted(inv_freq, reverse=True) == list(inv_freq)


def test_frequencies_divided_one_by_one() -> None:
    """What GGUF files of Llama 3 hold instead of its rule."""
    plain, scaled = (rope_spec(configs(SETTINGS[n], 64, 500000.0)[0], 64).inv_freq for n in ("default", "llama 3.1"))
    factors = [float(np.float32(a / b)) for a, b in zip(plain, scaled, strict=True)]
    ours, _ = configs(SETTINGS["llama 3.1"], 64, 500000.0)
    rope = RopeSettings("freq_factors", 500000.0, freq_factors=tuple(factors))
    np.testing.assert_allclose(rope_spec(replace(ours, rope=rope), 64).inv_freq, scaled, rtol=2e-7)
    with pytest.raises(ModelError, match="freq_factors has 31 numbers; heads of 64 need 32"):
        rope_spec(replace(ours, rope=replace(rope, freq_factors=tuple(factors[1:]))), 64)


@pytest.mark.parametrize(("max_model_len", "factor"), [(128, 1.25), (129, 1.4)])
def test_longrope_may_say_attention_factors_by_length(max_model_len: int, factor: float) -> None:
    """Phi-3.5-MoE's, which are what its class in transformers multiplies cosines by."""
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.phimoe.modeling_phimoe")
    architecture = load_architecture("phimoe")
    spec = rope_spec(parse_config(architecture.tiny, architecture.rules), max_model_len)
    theirs = modeling.PhimoeRotaryEmbedding(modeling.PhimoeConfig(**architecture.tiny))
    cos, _ = theirs(torch.zeros(1), torch.tensor([[0, max_model_len - 1]]))
    assert spec.attention_factor == factor == pytest.approx(float(cos[0, 0, 0]))
    rope = architecture.tiny["rope_scaling"]
    missing = {key: value for key, value in rope.items() if key != "long_mscale"}
    with pytest.raises(ModelError, match="long_mscale is missing"):
        parse_config({**architecture.tiny, "rope_scaling": missing}, architecture.rules)
    with pytest.raises(UnsupportedModel, match=r"'short_mscale': 1\.25"):
        parse_config({**load_architecture("phi3").tiny, "rope_scaling": rope}, load_architecture("phi3").rules)


@pytest.mark.parametrize("changes", [{}, {"factor": 16.0}, {"attention_factor": 1.3}])
@pytest.mark.parametrize("max_model_len", [4096, 4097])
def test_longrope_takes_factors_by_the_longest_sequence(max_model_len: int, changes: dict[str, Any]) -> None:
    """Phi-4-mini's: 96 of 128 channels, short factors up to the context of pretraining, long ones beyond."""
    transformers = pytest.importorskip("transformers")
    architecture = load_architecture("phi3")
    scaling = {"type": "longrope", "short_factor": [1.0 + 0.01 * i for i in range(48)], **changes}
    scaling["long_factor"] = [1.0 + i for i in range(48)]
    data = {
        **architecture.tiny,
        "hidden_size": 512,
        "partial_rotary_factor": 0.75,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "rope_scaling": scaling,
    }
    ours = rope_spec(parse_config(data, architecture.rules), max_model_len)
    theirs = transformers.Phi3Config(**{**data, "rope_scaling": dict(scaling)})
    inv_freq, factor = transformers_frequencies(theirs, seq_len=max_model_len)
    assert ours.inv_freq[48:] == (0.0,) * 16
    np.testing.assert_allclose(ours.inv_freq[:48], inv_freq, rtol=5e-7)
    assert ours.attention_factor == pytest.approx(factor, rel=1e-12)
    with pytest.raises(ModelError, match="long_factor has 47 numbers; heads of 96 need 48"):
        short = {**scaling, "long_factor": scaling["long_factor"][1:]}
        rope_spec(parse_config({**data, "rope_scaling": short}, architecture.rules), max_model_len)


def test_parts_of_yarns_attention_factor_by_other_names_say_nothing_where_they_are_one() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    llama = load_architecture("llama")

    def read(**more: float) -> RopeSettings:
        return parse_config({**llama.tiny, "rope_scaling": {**yarn, **more}}, llama.rules).rope

    assert read(attn_factor=1.0, extrapolation_factor=1) == read()
    for key in ("attn_factor", "extrapolation_factor"):
        with pytest.raises(UnsupportedModel, match=f"'{key}': 0.9"):
            read(**{key: 0.9})
