"""SpeculativeConfig: what callers give, and what is refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.speculative_config import SpeculativeConfig


@pytest.mark.parametrize(
    "given",
    [
        {"method": "ngram", "num_speculative_tokens": 3},
        '{"method": "ngram", "num_speculative_tokens": 3}',
        SpeculativeConfig(method="ngram", num_speculative_tokens=3),
    ],
)
def test_the_ways_to_say_it(given: Any) -> None:
    found = EngineConfig(speculative_config=given).speculative_config
    assert found == SpeculativeConfig(
        method="ngram", num_speculative_tokens=3, prompt_lookup_max=5, prompt_lookup_min=2
    )
    assert EngineConfig().speculative_config is None


def test_names_of_vllm_by_model_mean_its_layer() -> None:
    for name in ("qwen3_next_mtp", "deepseek_mtp", "glm4_moe_mtp"):
        assert SpeculativeConfig.of({"method": name}) == SpeculativeConfig(method="mtp")


def test_a_model_means_a_draft_model() -> None:
    found = SpeculativeConfig.of({"model": "small", "num_speculative_tokens": 3})
    assert found == SpeculativeConfig(method="draft_model", model="small", num_speculative_tokens=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_speculative_tokens": 3}, "names no method; there is ngram"),
        ({"method": "medusa"}, "method='medusa' is unknown; there is ngram, draft_model, mtp, eagle, eagle3"),
        ({"method": "eagle3"}, "method eagle3 needs a model: where the head is that was trained for this one"),
        ({"method": "eagle", "quantization": "int8"}, "method eagle needs a model"),
        (
            {"method": "ngram", "draft_vocab_size": 64},
            "draft_vocab_size=64 is of a head that drafts, mtp",
        ),
        ({"method": "mtp", "draft_vocab_size": -1}, "must be a whole number from 0 .all. to 16777216"),
        ({"method": "mtp", "draft_vocab_size": True}, "draft_vocab_size=True is not allowed"),
        ({"method": "mtp", "prompt_lookup_max": 7}, "prompt_lookup_max and prompt_lookup_min are of method ngram"),
        ({"method": None}, "method=None is unknown"),
        ({"method": ["ngram"]}, r"method=\['ngram'\] is unknown"),
        ({"method": "ngram", "num_speculative_token": 3}, "did you mean num_speculative_tokens"),
        ({"method": "ngram", "zzz": 3}, "its keys are method, num_speculative_tokens"),
        ({"method": "ngram", "num_speculative_tokens": 0}, "from 1 to 64"),
        ({"method": "ngram", "num_speculative_tokens": 65}, "num_speculative_tokens=65 is not allowed"),
        ({"method": "ngram", "num_speculative_tokens": True}, "num_speculative_tokens=True"),
        ({"method": "ngram", "num_speculative_tokens": 2.0}, "num_speculative_tokens=2.0"),
        ({"method": "ngram", "num_speculative_tokens": 10**5000}, "too long to be shown"),
        ({"method": "ngram", "prompt_lookup_max": 100}, "prompt_lookup_max=100"),
        ({"method": "ngram", "prompt_lookup_min": 0}, "prompt_lookup_min=0"),
        ({"method": "ngram", "prompt_lookup_min": 4, "prompt_lookup_max": 3}, "exceeds prompt_lookup_max=3"),
        ({"method": "draft_model"}, "needs a model, or a quantization in which the model itself is the draft model"),
        ({"method": "draft_model", "model": 5}, "speculative_config.model=5 is not allowed; it must be a name"),
        ({"method": "ngram", "model": "a"}, "speculative_config.model='a' is of method draft_model, or of a head"),
        ({"method": "ngram", "quantization": "int4"}, "quantization='int4' is of method draft_model"),
        ({"model": "a", "prompt_lookup_max": 7}, "prompt_lookup_max and prompt_lookup_min are of method ngram"),
        ("{method: ngram}", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("5", "must be an object"),
        (5, "must be an object"),
    ],
)
def test_what_is_refused_says_why(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineConfig(speculative_config=given)
