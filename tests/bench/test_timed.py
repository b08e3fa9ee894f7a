"""TimedEngine: what runs is what was asked for, every step is seen, and runs do not help each other."""

from __future__ import annotations

import pytest

from albireo.bench.timed import Sampling, TimedEngine
from albireo.bench.workload import BenchRequest, RandomWorkload, random_requests
from albireo.config import EngineConfig
from albireo.errors import ConfigError, RequestError


@pytest.fixture(scope="module")
def engine():
    return TimedEngine(EngineConfig())


@pytest.fixture(scope="module")
def requests(engine):
    workload = RandomWorkload(num_prompts=3, input_len=40, output_len=5, range_ratio=0.4)
    return random_requests(workload, *engine.vocabulary())


def test_counts(engine, requests):
    run = engine.run(requests, Sampling())
    assert run.num_prompt_tokens == sum(len(each.prompt_token_ids) for each in requests)
    assert run.num_output_tokens == sum(each.output_len for each in requests)
    assert len(run.first_token_s) == 3
    assert 0 < max(run.first_token_s) <= run.elapsed_s
    assert sum(step.seconds for step in run.steps) <= run.elapsed_s
    computed = sum(step.shape.num_tokens for step in run.steps)
    assert computed == run.num_prompt_tokens + run.num_output_tokens - 3  # the last token is not computed


def test_runs_are_alike_and_do_not_share_the_prefix_cache(engine, requests):
    first, second = engine.run(requests, Sampling()), engine.run(requests, Sampling())
    assert first.outputs_sha256 == second.outputs_sha256
    assert second.num_cached_tokens == first.num_cached_tokens == 0
    assert [step.shape for step in first.steps] == [step.shape for step in second.steps]


def test_the_way_of_drawing_counts(engine, requests):
    drawn = engine.run(requests, Sampling())
    assert engine.run(requests, Sampling(seed=1)).outputs_sha256 != drawn.outputs_sha256
    greedy = engine.run(requests, Sampling(temperature=0.0))
    assert greedy.outputs_sha256 != drawn.outputs_sha256
    assert any(step.shape.num_top_rows for step in greedy.steps)
    assert not any(step.shape.num_top_rows for step in drawn.steps)


def test_special_tokens_are_not_drawn(engine):
    size, special = engine.vocabulary()
    assert size == 4096
    assert set(engine.loaded.eos_token_ids) <= special


def test_too_long(engine):
    engine.check_fits(512)
    with pytest.raises(ConfigError, match="takes 513 tokens, the context is 512"):
        engine.check_fits(513)


def test_a_refused_request_is_an_error(engine):
    with pytest.raises(RequestError):
        engine.run([BenchRequest([10**9], 1)], Sampling())
