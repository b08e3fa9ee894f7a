"""What a model of speech may write next, against transformers' processors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from albireo.params import SamplingParams
from albireo.sampling.sampler import Sampler
from albireo.sampling.speech import follow_rules
from albireo.speech_rules import SpeechRules
from albireo.step import SampleTask

V, END, WITHOUT, TIMES = 300, 100, 120, 121
NEVER, NEVER_FIRST = (3, 7, 110), (5, END)


def _rules(**changes: object) -> SpeechRules:
    said = {"never": (*NEVER, WITHOUT), "never_first": NEVER_FIRST, "times": TIMES, "text_end": END, "is_timed": True}
    return SpeechRules(**{**said, **changes})  # type: ignore[arg-type]


def _history(rng: np.random.Generator) -> list[int]:
    """Texts and times that go on."""
    found, time = list[int](), TIMES
    for _ in range(rng.integers(0, 8)):
        if rng.random() < 0.5:
            time = int(rng.integers(time, min(V, time + 20)))
        found.append(time if rng.random() < 0.6 else int(rng.integers(0, END)))
    return found


@pytest.mark.parametrize("last_first_time", [None, 5, 50])
def test_times_as_transformers(last_first_time: int | None) -> None:
    config = GenerationConfig(eos_token_id=END, bos_token_id=END)
    config.no_timestamps_token_id, config.max_initial_timestamp_index = WITHOUT, last_first_time
    processors = [
        SuppressTokensLogitsProcessor(list(NEVER)),
        SuppressTokensAtBeginLogitsProcessor(list(NEVER_FIRST), 3),
        WhisperTimeStampLogitsProcessor(config, begin_index=3),
    ]
    rng, forced = np.random.default_rng(0), 0
    for turn in range(600):
        output, row = _history(rng), (rng.standard_normal(V) * 3).astype(np.float32)
        row[TIMES:] -= 2 * (turn % 3)
        ids, wanted = torch.tensor([[1, 2, 3, *output]]), torch.tensor(row[None])
        for processor in processors:
            wanted = processor(ids, wanted)
        ours = row.copy()
        follow_rules(ours, _rules(last_first_time=last_first_time), output)
        assert np.array_equal(ours, wanted[0].numpy()), output
        forced += bool(output) and np.isneginf(ours[:TIMES]).all()
    assert forced > 20, "times were never likelier"


def test_without_times_none_comes() -> None:
    row = np.zeros(V, np.float32)
    follow_rules(row, _rules(is_timed=False), [1, 2])
    assert np.flatnonzero(np.isneginf(row)).tolist() == [*NEVER, *range(WITHOUT, V)]


def test_the_opening_comes_first_and_then_the_text_begins() -> None:
    rules = _rules(opening=((11, 12), (20,)), is_timed=False)
    left = []
    for output in ([], [12], [12, 20], [12, 20, 1]):
        row = np.zeros(V, np.float32)
        follow_rules(row, rules, output)
        left.append(np.flatnonzero(~np.isneginf(row)))
    assert left[0].tolist() == [11, 12] and left[1].tolist() == [20]
    assert not {*NEVER_FIRST} & {*left[2].tolist()} and {*NEVER_FIRST} <= {*left[3].tolist()}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_sampler_follows_them(temperature: float) -> None:
    rules = _rules(opening=((11, 12),))
    params = SamplingParams(temperature=temperature, speech_rules=rules, repetition_penalty=5.0)
    assert params.needs_logits and params.changes_logits and not params.ignores_output
    logits = np.random.default_rng(1).standard_normal((1, V)).astype(np.float32)
    logits[0, 11:13] = 1.0, 0.5
    found = set()
    for seed in range(50):
        task = SampleTask(0, params, seed, [11], [])
        # the likeliest, whatever the temperature and penalties
        assert Sampler(V).sample(logits, [task], [0])[0].token_id == 11
        found.add(Sampler(V).sample(logits, [task.after([11])], [0])[0].token_id)
    assert min(found) >= TIMES and (len(found) > 1) == (temperature > 0)
    # from there on penalties count as everywhere
    logits[0, TIMES : TIMES + 2] = 9.0, 8.9
    params = SamplingParams(temperature=0.0, speech_rules=rules, repetition_penalty=2.0)
    for prompt, token in ([], TIMES), ([TIMES], TIMES + 1):
        task = SampleTask(0, params, 0, prompt, [12])
        assert Sampler(V).sample(logits, [task], [0])[0].token_id == token


def test_log_probabilities_are_of_what_may_be_written_and_silence_of_all() -> None:
    rules = _rules(opening=((11, 12),), silence=110)
    params = SamplingParams(temperature=0.0, speech_rules=rules, logprobs=0)
    logits = np.random.default_rng(1).standard_normal((1, V)).astype(np.float32)
    task = SampleTask(0, params, 1, [1], [])
    first = Sampler(V).sample(logits, [task], [0])[0].logprobs
    assert first is not None and first.token_ids[1:] == [110]
    raw, pair = (torch.log_softmax(torch.tensor(row), -1) for row in (logits[0], logits[0, 11:13]))
    assert first.logprobs == pytest.approx([float(pair.max()), float(raw[110])])
    row = logits[0].copy()
    follow_rules(row, rules, [11])
    then = Sampler(V).sample(logits, [task.after([11])], [0])[0].logprobs
    assert then is not None and len(then.token_ids) == 1
    assert then.logprobs == pytest.approx([float(torch.log_softmax(torch.tensor(row), -1).max())])
