"""Random requests: lengths in their range, the same for the same seed."""

from __future__ import annotations

import pytest

from albireo.bench.workload import RandomWorkload, random_requests
from albireo.errors import ConfigError


def test_fixed_lengths():
    requests = random_requests(RandomWorkload(num_prompts=4, input_len=10, output_len=3), 50)
    assert [(len(each.prompt_token_ids), each.output_len) for each in requests] == [(10, 3)] * 4
    assert all(0 <= token < 50 for each in requests for token in each.prompt_token_ids)


def test_lengths_fill_their_range():
    workload = RandomWorkload(num_prompts=400, input_len=10, output_len=5, range_ratio=0.5)
    requests = random_requests(workload, 50)
    assert {len(each.prompt_token_ids) for each in requests} == set(range(5, 16))
    assert {each.output_len for each in requests} == set(range(2, 9))
    assert workload.max_len == 15 + 8


def test_short_lengths_stay_above_zero():
    requests = random_requests(RandomWorkload(num_prompts=50, input_len=1, output_len=1, range_ratio=0.9), 50)
    assert min(len(each.prompt_token_ids) for each in requests) == 1
    assert min(each.output_len for each in requests) == 1


def test_the_seed_decides():
    workload = RandomWorkload(num_prompts=3, input_len=10, output_len=3, range_ratio=0.5)
    other = RandomWorkload(num_prompts=3, input_len=10, output_len=3, range_ratio=0.5, seed=1)
    assert random_requests(workload, 50) == random_requests(workload, 50)
    assert random_requests(workload, 50) != random_requests(other, 50)


def test_a_prefix_is_shared_and_comes_on_top():
    workload = RandomWorkload(num_prompts=3, input_len=10, output_len=3, prefix_len=7)
    first, *others = random_requests(workload, 1000)
    assert len(first.prompt_token_ids) == 17
    assert workload.max_len == 20
    for each in others:
        assert each.prompt_token_ids[:7] == first.prompt_token_ids[:7]
        assert each.prompt_token_ids[7:] != first.prompt_token_ids[7:]


def test_special_tokens_are_left_out():
    requests = random_requests(RandomWorkload(num_prompts=9, input_len=50, output_len=1), 5, {0, 2, 3, 99})
    assert {token for each in requests for token in each.prompt_token_ids} == {1, 4}


def test_nothing_left_to_draw():
    with pytest.raises(ConfigError, match="nothing to draw from"):
        random_requests(RandomWorkload(num_prompts=1, input_len=1, output_len=1), 2, {0, 1})


@pytest.mark.parametrize(
    "change", [{"num_prompts": 0}, {"input_len": 0}, {"output_len": 0}, {"range_ratio": 1.0}, {"prefix_len": -1}]
)
def test_impossible_workloads(change):
    with pytest.raises(ConfigError):
        RandomWorkload(**{"num_prompts": 1, "input_len": 1, "output_len": 1} | change)
