"""Profiles: the table, and that what is asked for goes before it."""

from __future__ import annotations

import pytest

from albireo.profiles import DEFAULT, PROFILES, Profile, StepLimits, resolve


@pytest.mark.parametrize(
    ("profile", "seqs", "tokens", "want"),
    [
        (None, None, None, (64, 960)),
        ("balanced", None, None, (64, 960)),
        ("throughput", None, None, (256, 4096)),
        ("latency", None, None, (64, 512)),
        ("latency", 8, None, (8, 512)),
        ("throughput", None, 100, (256, 100)),
        (None, 1, 1, (1, 1)),
    ],
)
def test_resolve(profile: Profile | None, seqs: int | None, tokens: int | None, want: tuple[int, int]) -> None:
    assert resolve(profile, seqs, tokens) == StepLimits(*want)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_gpu_takes_longer_steps(profile: Profile) -> None:
    here, there = resolve(profile, None, None), resolve(profile, None, None, is_gpu=True)
    assert there.max_num_seqs > here.max_num_seqs
    assert there.max_num_batched_tokens > here.max_num_batched_tokens
    assert resolve(profile, 3, 5, is_gpu=True) == StepLimits(3, 5)


def test_the_temperaments_differ_as_their_names_say() -> None:
    balanced, throughput, latency = PROFILES[DEFAULT], PROFILES["throughput"], PROFILES["latency"]
    assert latency.max_num_batched_tokens < balanced.max_num_batched_tokens < throughput.max_num_batched_tokens
    assert throughput.max_num_seqs > balanced.max_num_seqs
    # Whoever decodes has a token of every step: seats never exceed the budget.
    assert all(limits.max_num_seqs <= limits.max_num_batched_tokens for limits in PROFILES.values())
