"""The sampler's promises: order of operations, exact distribution, independence of the batch, resumability, errors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvalidParams, InvariantError
from albireo.params import SamplingParams
from albireo.sampling.sampler import Sampler
from albireo.step import SampledToken, SampleTask
from in_turn import in_turn


def task(
    seq_id: int = 0,
    seed: int = 0,
    prompt: Sequence[int] = (),
    output: Sequence[int] = (),
    stop: tuple[int, ...] = (),
    **params: Any,
) -> SampleTask:
    return SampleTask(seq_id, SamplingParams(**params), seed, prompt, output, stop)


def one(logits: Sequence[float] | np.ndarray, the_task: SampleTask) -> SampledToken:
    row = np.array(logits, np.float32)
    return Sampler(row.size).sample(row[None], [the_task], [0])[0]


def mixed_params() -> list[dict[str, Any]]:
    return [
        {"temperature": 0},
        {"temperature": 0, "logprobs": 3, "repetition_penalty": 1.3},
        {"temperature": 1.0, "logprobs": 0},
        {"temperature": 0.7, "top_k": 20, "logprobs": 5},
        {"temperature": 1.2, "top_p": 0.9},
        {"temperature": 1.0, "min_p": 0.05, "frequency_penalty": 0.5},
        {"temperature": 0.8, "top_k": 50, "top_p": 0.8, "min_p": 0.01, "presence_penalty": 1.0, "logprobs": 2},
        {"temperature": 1.0, "allowed_token_ids": list(range(0, 3000, 7)), "logit_bias": {14: 2.0}},
        {
            "temperature": 1.0,
            "bad_words": ["w"],
            "bad_words_token_ids": ((1, 2), (5,)),
            "min_tokens": 50,
            "max_tokens": 50,
        },
    ]


def mixed_batch() -> tuple[np.ndarray, list[SampleTask], list[int]]:
    rng = np.random.default_rng(11)
    logits = (rng.standard_normal((6, 3001)) * 3).astype(np.float32)
    tasks, rows = [], []
    for i, (params, _) in enumerate(itertools.product(mixed_params(), range(4))):
        prompt, output = rng.integers(0, 3001, 30).tolist(), rng.integers(0, 3001, i).tolist()
        tasks.append(task(i, 100 + i % 5, prompt, output, (7, 8), **params))
        rows.append(int(rng.integers(6)))
    return logits, tasks, rows


def test_greedy_takes_the_lowest_id_among_equals_and_no_random_number() -> None:
    for seed in range(20):
        assert one([1, 3, 0, 3], task(seed=seed, temperature=0, top_p=0.1, top_k=1)).token_id == 1
        assert one([1, 3, 0, 3], task(seed=seed, temperature=9e-6)).token_id == 1


def test_order_greedy_sees_masks_bias_and_penalties() -> None:
    logits = [5.0, 4.0, 3.0, 2.0]
    assert one(logits, task(temperature=0, allowed_token_ids=[2, 3])).token_id == 2
    assert one(logits, task(temperature=0, bad_words=["w"], bad_words_token_ids=((0,),))).token_id == 1
    assert one(logits, task(temperature=0, min_tokens=1, stop=(0, 1))).token_id == 2
    assert one(logits, task(temperature=0, logit_bias={3: 3.5})).token_id == 3
    assert one(logits, task(temperature=0, output=[0], frequency_penalty=1.5)).token_id == 1
    assert one(logits, task(temperature=0, prompt=[0], repetition_penalty=2.0)).token_id == 1


def test_order_logprobs_are_of_the_raw_logits() -> None:
    everything = {
        "allowed_token_ids": [1, 2],
        "logit_bias": {2: 100.0},
        "temperature": 0.5,
        "repetition_penalty": 3.0,
        "top_k": 1,
    }
    logits = np.array([3.0, 2.0, 1.0, 0.0], np.float32)
    got = one(logits, task(prompt=[0, 1], logprobs=2, **everything))
    assert got.token_id == 2 and got.logprobs is not None
    assert got.logprobs.token_ids == [2, 0, 1] and got.logprobs.ranks == [3, 1, 2]
    raw = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    assert got.logprobs.logprobs == pytest.approx(raw[[2, 0, 1]].tolist())
    named = one(logits, task(prompt=[0, 1], logprobs=0, logprob_token_ids=[3, 1], **everything)).logprobs
    assert named is not None and named.token_ids == [2, 3, 1]
    assert named.logprobs == pytest.approx(raw[[2, 3, 1]].tolist())
    assert one(logits, task()).logprobs is None


def test_order_penalties_act_before_temperature() -> None:
    # Before: (2 - 1) / 0.5 = 2 against 1 / 0.5 = 2, an even draw; after, 2 / 0.5 - 1 = 3 against 2.
    draws = [
        one([2.0, 1.0], task(seed=seed, output=[0], presence_penalty=1.0, temperature=0.5)).token_id
        for seed in range(2000)
    ]
    assert abs(sum(draws) - 1000) < 4 * (2000 / 4) ** 0.5


TRUNCATED: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.6},
    {"temperature": 1.0, "top_k": 7},
    {"temperature": 1.5, "top_p": 0.8},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 1.2, "min_p": 0.02, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.2},
]


@in_turn(("params", TRUNCATED), ("along", ["positions", "seeds"]), ids=str)
def test_draws_follow_the_exact_probabilities(params: dict[str, Any], along: str) -> None:
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers.generation.logits_process")
    row = (np.random.default_rng(7).standard_normal(40) * 2).astype(np.float32)
    prompt = [3, 5, 8]
    scores = torch.from_numpy(row.astype(np.float64))[None]
    chain = [processors.TemperatureLogitsWarper(params["temperature"])]
    if "repetition_penalty" in params:
        chain.insert(0, processors.RepetitionPenaltyLogitsProcessor(params["repetition_penalty"]))
    if "min_p" in params:
        chain.append(processors.MinPLogitsWarper(params["min_p"]))
    if "top_k" in params:
        chain.append(processors.TopKLogitsWarper(params["top_k"]))
    if "top_p" in params:
        chain.append(processors.TopPLogitsWarper(params["top_p"]))
    for processor in chain:
        scores = processor(torch.tensor([prompt]), scores)
    exact = torch.softmax(scores, dim=-1)[0].numpy()

    num = 6000
    if along == "positions":
        # A token of the prompt repeated, so that the length of the output moves the stream and no penalty.
        tasks = [task(i, 5, prompt, _Repeated(3, i), **params) for i in range(num)]
    else:
        tasks = [task(i, 1000 + i, prompt, **params) for i in range(num)]
    if along == "positions" and "repetition_penalty" in params:
        tasks = tasks[:: num // 300]
    drawn = Sampler(40).sample(row[None], tasks, [0] * len(tasks))
    counts = np.bincount([d.token_id for d in drawn], minlength=40)
    assert not counts[exact == 0].any()

    # Tokens expected less than 5 times are pooled with the next likely, as the test's approximation asks.
    order = np.argsort(-exact)
    expected, seen = [0.0], [0]
    for i in order:
        expected[-1] += exact[i] * len(tasks)
        seen[-1] += int(counts[i])
        if expected[-1] >= 5:
            expected.append(0.0)
            seen.append(0)
    expected[-2] += expected.pop()
    seen[-2] += seen.pop()
    chi_square = sum((s - e) ** 2 / e for s, e in zip(seen, expected, strict=True))
    degrees = len(expected) - 1
    # Wilson & Hilferty 1931: the cube root of chi^2 / degrees is nearly normal; 4 standard deviations.
    bound = degrees * (1 - 2 / (9 * degrees) + 4 * (2 / (9 * degrees)) ** 0.5) ** 3
    assert chi_square < bound


class _Repeated(Sequence[int]):
    """A long output that costs nothing to make: one id many times."""

    def __init__(self, token_id: int, length: int) -> None:
        self.token_id, self.length = token_id, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, slice):
            return [self.token_id] * len(range(*idx.indices(self.length)))
        if not -self.length <= idx < self.length:
            raise IndexError(idx)
        return self.token_id


def test_results_do_not_depend_on_the_batch() -> None:
    logits, tasks, rows = mixed_batch()
    sampler = Sampler(logits.shape[1])
    together = sampler.sample(logits, tasks, rows)
    alone = [sampler.sample(logits[r : r + 1].copy(), [t], [0])[0] for t, r in zip(tasks, rows, strict=True)]
    assert alone == together  # dataclass equality: token, and every logprob to the last bit
    assert sampler.sample(logits, tasks[::-1], rows[::-1])[::-1] == together
    assert len({t.token_id for t in together}) > 10


@pytest.mark.parametrize("layout", ["column-major", "strided", "misaligned"])
def test_results_do_not_depend_on_the_layout(layout: str) -> None:
    logits, tasks, rows = mixed_batch()
    expected = Sampler(3001).sample(logits, tasks, rows)
    if layout == "column-major":
        moved = np.asfortranarray(logits)
    elif layout == "strided":
        moved = np.repeat(logits, 2, axis=1)[:, ::2]
    else:
        moved = np.empty(logits.size + 3, np.float32)[3:].reshape(logits.shape)
        moved[:] = logits
    assert Sampler(3001).sample(moved, tasks, rows) == expected


def test_logits_are_not_written_to() -> None:
    logits, tasks, rows = mixed_batch()
    logits.flags.writeable = False
    assert len(Sampler(3001).sample(logits, tasks, rows)) == len(tasks)


def test_a_sequence_resumes_where_it_was() -> None:
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((30, 500)).astype(np.float32)
    sampler, params = Sampler(500), SamplingParams(temperature=1.0, top_p=0.95, presence_penalty=0.5)

    def run(output: list[int], until: int) -> list[int]:
        while len(output) < until:
            position = len(output)
            output.append(sampler.sample_one(logits[position], SampleTask(9, params, 77, [1], output)).token_id)
        return output

    whole = run([], 30)
    for cut in (1, 13, 29):
        assert run(whole[:cut], 30) == whole
    assert len(set(whole)) > 10


def test_tasks_that_share_a_row_differ_by_their_seeds_only() -> None:
    logits = np.random.default_rng(1).standard_normal((1, 200)).astype(np.float32)
    tasks = [task(i, seed=i % 8, temperature=1.0, output=[4], presence_penalty=1.0) for i in range(16)]
    drawn = [d.token_id for d in Sampler(200).sample(logits, tasks, [0] * 16)]
    assert drawn[:8] == drawn[8:] and len(set(drawn[:8])) > 4


def test_prompt_logprobs_checks_and_passes_on() -> None:
    logits = np.zeros((2, 4), np.float32)
    got = Sampler(4).prompt_logprobs(logits, [3], 1)
    assert [e.token_ids for e in got] == [[3, 0]] and got[0].logprobs == pytest.approx([-np.log(4)] * 2)
    with pytest.raises(InvariantError, match=r"\(2, 4\).*5"):
        Sampler(5).prompt_logprobs(logits, [3], 1)


@pytest.mark.parametrize("bad", [np.zeros((1, 3), np.float32), np.zeros(4, np.float32), np.zeros((1, 4))])
def test_logits_of_another_shape_or_dtype_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InvariantError, match="expected float32"):
        Sampler(4).sample(bad, [task()], [0])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("bad", "words"),
    [(np.nan, "1 NaN, 0 \\+inf"), (np.inf, "0 NaN, 1 \\+inf")],
)
def test_a_damaged_row_names_its_sequence_and_harms_no_other(temperature: float, bad: float, words: str) -> None:
    logits = np.zeros((2, 6), np.float32)
    logits[1, 4] = bad
    tasks = [task(3, temperature=temperature), task(8, temperature=temperature)]
    with pytest.raises(InvariantError, match=f"sequence 8: {words}"):
        Sampler(6).sample(logits, tasks, [0, 1])
    assert Sampler(6).sample_one(logits[0], tasks[0]).seq_id == 3


def test_a_row_of_minus_infinity_is_damaged() -> None:
    with pytest.raises(InvariantError, match="6 -inf among its 6"):
        one([-np.inf] * 6, task())


def test_parameters_that_leave_nothing_are_the_requests_fault() -> None:
    nothing = task(4, allowed_token_ids=[1], bad_words=["w"], bad_words_token_ids=((1,),))
    with pytest.raises(InvalidParams, match=r"sequence 4.*leave none of 3 tokens"):
        one([1, 2, 3], nothing)
    with pytest.raises(InvalidParams, match="repetition_penalty=1e-40"):
        one([1, 2, 3], task(4, prompt=[1], repetition_penalty=1e-40))


def best_of(logits: np.ndarray, counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """What the head gives: the best of each row, of equals the lowest id first, then -1 and -inf."""
    ids = np.full((len(logits), 65), -1, np.int32)
    values = np.full((len(logits), 65), -np.inf, np.float32)
    for row, count in enumerate(counts):
        best = np.argsort(-logits[row], kind="stable")[:count]
        ids[row, : len(best)], values[row, : len(best)] = best, logits[row, best]
    return ids, values


TOP_PARAMS = [
    {"temperature": 0},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 0.7, "top_k": 20},
    {"temperature": 1.3, "top_k": 64},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.6},
    {"temperature": 2.0, "top_k": 33, "min_p": 0.2},
    {"temperature": 5.0, "top_k": 64, "top_p": 0.95, "min_p": 0.001},
]


@pytest.mark.parametrize("vocab", [3, 40, 64, 65, 3000])
def test_the_best_logits_give_the_token_that_all_of_them_give(vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    for seed in range(60):
        logits = (rng.standard_normal((len(TOP_PARAMS), vocab)) * 3).astype(np.float32)
        tasks = [task(i, seed=seed, output=[1] * seed, **params) for i, params in enumerate(TOP_PARAMS)]
        rows = list(range(len(tasks)))
        ids, values = best_of(logits, [t.params.num_top + (not t.params.is_greedy) for t in tasks])
        wanted = Sampler(vocab).sample(logits, tasks, rows)
        assert Sampler(vocab).sample_top(ids, values, tasks, rows) == wanted
        # nor need there be a place behind the last token
        assert Sampler(vocab).sample_top(ids[:, :vocab], values[:, :vocab], tasks, rows) == wanted


def test_equals_of_the_last_one_kept_are_left_to_all_logits() -> None:
    """Top-k keeps all that equal the k-th: with one more than k it shows that there are such, not which."""
    logits = np.zeros((1, 100), np.float32)
    logits[0, :3] = 5
    for top_k, is_decided in ((2, False), (3, True), (4, False)):
        tasks = [task(temperature=1.0, top_k=top_k)]
        found = Sampler(100).sample_top(*best_of(logits, [top_k + 1]), tasks, [0])
        assert (found is not None) == is_decided


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_best_logits_that_are_no_numbers_are_left_to_all_logits(bad: float) -> None:
    logits = np.full((1, 9), bad, np.float32)
    logits[0, 1:4] = 1, 2, 3
    ids, values = best_of(np.nan_to_num(logits, nan=np.inf, posinf=np.inf, neginf=-np.inf), [6])
    for width in (65, 5):
        tasks = [task(temperature=1.0, top_k=5)]
        assert Sampler(9).sample_top(ids[:, :width], values[:, :width], tasks, [0]) is None
