"""Profiles: the table, and that what is asked for goes before it."""

from __future__ import annotations

import pytest

from albireo.profiles import DEFAULT, PROFILES, Profile, StepLimits, resolve


@pytest.mark.parametrize(
    ("profile", "seqs", "tokens", "itl_ms", "want"),
    [
        (None, None, None, None, (64, 960, 500)),
        ("balanced", None, None, None, (64, 960, 500)),
        ("throughput", None, None, None, (256, 4096, 0)),
        ("latency", None, None, None, (64, 512, 100)),
        ("latency", 8, None, None, (8, 512, 100)),
        ("throughput", None, 100, 30, (256, 100, 30)),
        (None, 1, 1, 0, (1, 1, 0)),
    ],
)
def test_resolve(
    profile: Profile | None, seqs: int | None, tokens: int | None, itl_ms: int | None, want: tuple[int, int, int]
) -> None:
    assert resolve(profile, seqs, tokens, itl_ms) == StepLimits(*want)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_gpu_takes_longer_steps(profile: Profile) -> None:
    here, there = resolve(profile, None, None), resolve(profile, None, None, is_gpu=True)
    assert there.max_num_seqs > here.max_num_seqs
    assert there.max_num_batched_tokens > here.max_num_batched_tokens
    assert resolve(profile, 3, 5, 7, is_gpu=True) == StepLimits(3, 5, 7)


def test_the_temperaments_differ_as_their_names_say() -> None:
    balanced, throughput, latency = PROFILES[DEFAULT], PROFILES["throughput"], PROFILES["latency"]
    assert latency.max_num_batched_tokens < balanced.max_num_batched_tokens < throughput.max_num_batched_tokens
    assert throughput.max_num_seqs > balanced.max_num_seqs
    assert 0 == throughput.target_itl_ms < latency.target_itl_ms < balanced.target_itl_ms
    # Whoever decodes has a token of every step: seats never exceed the budget.
    assert all(limits.max_num_seqs <= limits.max_num_batched_tokens for limits in PROFILES.values())
