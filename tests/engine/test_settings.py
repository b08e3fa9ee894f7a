"""Settings: resolved numbers, refused when impossible."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.config import EngineConfig
from albireo.engine.settings import EngineSettings
from albireo.errors import ConfigError

GOOD: dict[str, Any] = {"num_blocks": (9,), "max_model_len": 100, "vocab_size": 10}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_blocks": (1,)}, "num_blocks"),
        ({"num_blocks": ()}, "num_blocks"),
        ({"num_blocks": (9, 1)}, "num_blocks"),
        ({"block_size": 7}, "block_size=7"),
        ({"max_num_seqs": 0}, "max_num_seqs=0"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens=0"),
        ({"max_model_len": 0}, "max_model_len=0"),
    ],
)
def test_impossible_numbers_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineSettings(**{**GOOD, **change})


def test_capacity_is_that_of_the_smallest_group_without_the_null_block() -> None:
    assert EngineSettings(**{**GOOD, "num_blocks": (9, 5), "block_size": 8}).capacity_tokens == 32


def test_everything_the_user_may_set_arrives() -> None:
    config = EngineConfig(
        block_size=32,
        max_num_seqs=3,
        max_num_batched_tokens=77,
        enable_prefix_caching=False,
        scheduling_policy="priority",
        seed=5,
    )
    settings = EngineSettings.from_config(
        config, num_blocks=(9,), max_model_len=50, vocab_size=10, eos_token_ids=frozenset({2})
    )
    for name in ("block_size", "max_num_seqs", "max_num_batched_tokens", "enable_prefix_caching", "seed"):
        assert getattr(settings, name) == getattr(config, name)
    assert settings.scheduling_policy == "priority"
    assert (settings.num_blocks, settings.max_model_len, settings.vocab_size) == ((9,), 50, 10)
    assert settings.eos_token_ids == {2}
