"""Settings: resolved numbers, refused when impossible."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.config import EngineConfig
from albireo.engine.settings import EngineSettings
from albireo.errors import ConfigError

GOOD: dict[str, Any] = {"num_blocks": 9, "max_model_len": 100, "vocab_size": 10}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_blocks": 1}, "num_blocks"),
        ({"num_blocks": 2, "windows": (None, 4)}, "one more for each of 2 groups"),
        ({"block_size": 7}, "block_size=7"),
        ({"max_num_seqs": 0}, "max_num_seqs=0"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens=0"),
        ({"max_model_len": 0}, "max_model_len=0"),
    ],
)
def test_impossible_numbers_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineSettings(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("windows", "capacity"),
    # of 32 blocks; 9 positions and 5 new ones lie in 3 blocks at most, 2 and 5 new ones in 2
    [((None,), 32 * 8), ((None, None), 16 * 8), ((None, 9), 29 * 8), ((None, 9, 2), 27 * 8), ((None, 999), 16 * 8)],
)
def test_capacity_is_that_of_all_groups_together_without_the_null_block(
    windows: tuple[int | None, ...], capacity: int
) -> None:
    settings = {**GOOD, "num_blocks": 33, "block_size": 8, "max_num_batched_tokens": 5, "windows": windows}
    assert EngineSettings(**settings).capacity_tokens == capacity


def test_a_sequence_whose_every_layer_has_a_window_goes_on_without_end() -> None:
    settings = {**GOOD, "num_blocks": 4, "block_size": 8, "max_num_batched_tokens": 5, "windows": (9,)}
    assert EngineSettings(**settings).capacity_tokens > 10**8
    assert EngineSettings(**settings | {"num_blocks": 3}).capacity_tokens == 16


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
        config, num_blocks=9, max_model_len=50, vocab_size=10, eos_token_ids=frozenset({2})
    )
    for name in ("block_size", "max_num_seqs", "max_num_batched_tokens", "enable_prefix_caching", "seed"):
        assert getattr(settings, name) == getattr(config, name)
    assert settings.scheduling_policy == "priority"
    assert (settings.num_blocks, settings.max_model_len, settings.vocab_size) == (9, 50, 10)
    assert settings.eos_token_ids == {2}
