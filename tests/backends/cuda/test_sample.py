"""Tokens drawn on the device are those that the host's sampler draws, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels import sample_gather, sample_peak, sample_search, sample_settle
from albireo.backends.cuda.kernels.parts import waiting
from albireo.params import SamplingParams
from albireo.sampling.sampler import Sampler
from albireo.step import SampleTask
from backends.cuda.draws import drawn

CPU = torch.device("cpu")


class Matcher:
    """Allows a fixed set of tokens."""

    eos_token_ids = (7,)

    def __init__(self, allowed: Sequence[int], vocab: int) -> None:
        bits = np.zeros(-(-vocab // 8) * 8, np.bool_)
        bits[list(allowed)] = True
        self.mask = np.packbits(bits, bitorder="little").tobytes()

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        return self.mask


def task(seed: int = 0, output: Sequence[int] = (), matcher: Matcher | None = None, **params: Any) -> SampleTask:
    stop = params.pop("stop", ())
    prompt = params.pop("prompt", ())
    return SampleTask(0, SamplingParams(**params), seed, prompt, output, stop, matcher)


def check(logits: np.ndarray, tasks: Sequence[SampleTask], rows: Sequence[int]) -> None:
    host = [token.token_id for token in Sampler(logits.shape[1]).sample(logits, tasks, rows)]
    assert drawn(logits, tasks, rows) == host


def random_params(rng: np.random.Generator, vocab: int) -> dict[str, Any]:
    """Some of everything."""
    params: dict[str, Any] = {"temperature": float(rng.choice([0.0, 0.3, 0.8, 1.0, 1.7, 5.0]))}

    def some(part: float) -> bool:
        return bool(rng.random() < part)

    if some(0.4):
        params["top_k"] = int(rng.choice([1, 2, 5, 20, 64, 100, vocab - 1, vocab + 5]))
    if some(0.5):
        params["top_p"] = float(rng.choice([1e-9, 0.1, 0.5, 0.9, 0.95, 0.999]))
    if some(0.3):
        params["min_p"] = float(rng.choice([1e-3, 0.05, 0.5, 1.0]))
    if some(0.25):
        params["repetition_penalty"] = float(rng.choice([0.7, 1.1, 2.0]))
    if some(0.25):
        params["frequency_penalty"] = float(rng.uniform(-2, 2))
    if some(0.25):
        params["presence_penalty"] = float(rng.uniform(-2, 2))
    if some(0.25):
        ids = rng.choice(vocab, 3, replace=False).tolist()
        params["logit_bias"] = dict(zip(ids, [3.7, -2.2, float("-inf")], strict=True))
    if some(0.2):
        params["allowed_token_ids"] = rng.choice(vocab, vocab // 3, replace=False).tolist()
    if some(0.2):
        params["bad_words"], params["bad_words_token_ids"] = ["w"], ((3,), (1, 4), (2, 9))
    if some(0.2):
        params["min_tokens"], params["max_tokens"] = 12, 99
    return params


@pytest.mark.parametrize(("vocab", "seed", "num"), [(80, 0, 32), (777, 2, 24), (4200, 3, 12)])
def test_tokens_are_those_of_the_host(vocab: int, seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((5, vocab)) * 4).astype(np.float32)
    # many equal logits, as a quantized head gives them
    logits[1] = np.round(logits[1])
    logits[2, : vocab // 2] = -np.inf
    tasks, rows = [], []
    for i in range(num):
        params = random_params(rng, vocab)
        output = [*rng.integers(0, vocab, int(rng.integers(0, 30))).tolist(), 1]
        matcher = Matcher(rng.choice(vocab, vocab // 2, replace=False).tolist(), vocab) if rng.random() < 0.2 else None
        tasks.append(
            task(
                int(rng.integers(-(2**62), 2**62)),
                output,
                matcher,
                prompt=rng.integers(0, vocab, 20).tolist(),
                stop=(7, 11, vocab + 3),
                ignore_eos=bool(rng.random() < 0.3),
                **params,
            )
        )
        rows.append(i % 5)
    check(logits, tasks, rows)


@pytest.mark.parametrize(("rank", "most", "room"), [(16, 64, 512), (30, 2048, 16384), (9, 16, 4)])
def test_tokens_are_those_of_the_host_however_they_are_found(
    monkeypatch: pytest.MonkeyPatch, rank: int, most: int, room: int
) -> None:
    """Candidates that are enough or not, searches inside a bracket and of the whole row; few programs do it all."""
    monkeypatch.setattr(sample_peak, "_RANK", rank)
    for module in (sample_gather, sample_settle):
        monkeypatch.setattr(module, "MOST", most)
    monkeypatch.setattr(sample_search, "ROOM", room)
    monkeypatch.setattr(waiting, "PROGRAMS", 3)
    logits = (np.random.default_rng(8).standard_normal((2, 4500)) * 4).astype(np.float32)
    logits[1] = np.round(logits[1] * 2) / 2
    logits[1, 4096:] += 1.0
    kinds = [
        {"top_p": 0.3, "temperature": 0.5},
        {"top_p": 0.9},
        {"top_p": 0.97, "temperature": 5.0, "min_p": 1e-4},
        {"top_k": 7},
        {"top_k": 60, "top_p": 0.8, "temperature": 2.0},
        {"top_k": 3000, "top_p": 0.9, "temperature": 3.0},
        {"temperature": 1.5},
        {"top_p": 0.6, "presence_penalty": 1.0, "temperature": 4.0},
        {"temperature": 0.0, "top_p": 0.5},
    ]
    tasks = [task(31 * i, [5, 6, 7], **kind) for i, kind in enumerate(kinds)]
    check(logits, tasks, [(i + rank) % 2 for i in range(len(tasks))])


def test_equal_logits_are_kept_from_the_lowest_id_on() -> None:
    logits = np.zeros((2, 4099), np.float32)
    logits[1, ::2] = 1.0
    tasks = [task(seed, top_p=top_p) for seed in range(2) for top_p in (0.25, 0.5, 1.0)]
    tasks.append(task(5, top_k=3))
    check(logits, tasks * 2, [0] * len(tasks) + [1] * len(tasks))


def test_an_end_stays_where_the_grammar_leaves_nothing_else() -> None:
    logits = np.zeros((2, 50), np.float32)
    logits[1, 20:] = -np.inf
    ends = {"stop": (7, 8), "min_tokens": 3, "max_tokens": 9}
    for allowed, bias in [((7,), None), ((7, 12), None), ((7, 30), None), ((7, 12), {12: float("-inf"), 7: 1.0})]:
        of_grammar = task(3, matcher=Matcher(allowed, 50), logit_bias=bias, **ends)
        host = [Sampler(50).sample(logits, [of_grammar], [row]) for row in (0, 1) if bias is None]
        wanted = [found[0].token_id for found in host] or [-1, -1]
        assert drawn(logits, [of_grammar] * 2, [0, 1]) == wanted


def test_what_cannot_be_drawn_is_told_and_harms_no_other() -> None:
    logits = np.zeros((4, 40), np.float32)
    logits[0, 3], logits[1, 4], logits[2] = np.nan, np.inf, -np.inf
    nothing = task(1, allowed_token_ids=[3], bad_words=["w"], bad_words_token_ids=((3,),))
    tasks = [task(9), task(9, temperature=0), task(9, top_k=5), task(9), nothing, task(9, top_p=0.5)]
    assert drawn(logits, tasks, [0, 0, 1, 2, 3, 3])[:5] == [-1] * 5
    check(logits, tasks[5:], [3])


def test_a_task_does_not_depend_on_the_batch() -> None:
    rng = np.random.default_rng(5)
    logits = (rng.standard_normal((3, 300)) * 3).astype(np.float32)
    tasks = [task(i, [5, 6, 5], **{"presence_penalty": 0.3, **random_params(rng, 300)}) for i in range(8)]
    together = drawn(logits, tasks, [i % 3 for i in range(8)], room=9)
    assert together[::-1] == drawn(logits, tasks[::-1], [i % 3 for i in range(8)][::-1])
    assert together[::4] == [drawn(logits[i % 3][None], [tasks[i]], [0])[0] for i in range(0, 8, 4)]


def test_launches_that_nobody_asks_for_change_nothing() -> None:
    """As in a recorded step, which has them all."""
    logits = (np.random.default_rng(6).standard_normal((1, 200)) * 3).astype(np.float32)
    tasks = [task(1), task(2, temperature=0.0), task(3, min_p=0.1)]
    assert drawn(logits, tasks, [0, 0, 0], room=4, does_all=True) == drawn(logits, tasks, [0, 0, 0])


def test_tokens_come_as_often_as_their_probabilities_say() -> None:
    logits = np.array([[0.0, 1.0, -1.0, 2.0, 0.5, -np.inf]], np.float32)
    found = np.bincount(drawn(logits, [task(seed, temperature=1.5) for seed in range(120)], [0] * 120), minlength=6)
    weights = np.exp(logits[0].astype(np.float64) / 1.5)
    expected = (120 * weights / weights.sum())[:5]
    assert found[5] == 0
    # 18.5: exceeded once in a thousand times with 4 degrees of freedom
    assert ((found[:5] - expected) ** 2 / expected).sum() < 18.5
