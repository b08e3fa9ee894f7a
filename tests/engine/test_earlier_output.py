"""Requests that come with output already: another engine goes on where one stopped, at any step."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.errors import InvalidParams
from in_turn import in_turn

REQUESTS = [
    {"prompt": [1, 2, 3], "max_tokens": 12},
    {"prompt": [5] * 20, "max_tokens": 30, "n": 3},
    {"prompt": [7, 8], "max_tokens": 9, "ignore_eos": False, "min_tokens": 6, "stop_token_ids": (3, 11, 25)},
    {"prompt": [5] * 17, "max_tokens": 25, "logprobs": 0},
]


def ask(run: Any, spec: dict[str, Any], **kwargs: Any) -> None:
    run.add(**{**spec, **kwargs})


@in_turn(
    ("num_steps", range(0, 30, 3)),
    ("settings", [{}, {"num_blocks": 9}, {"max_num_batched_tokens": 5}, {"max_num_seqs": 2}]),
)
def test_another_engine_goes_on_with_the_same_tokens(bench: Any, num_steps: int, settings: dict[str, Any]) -> None:
    first, second = bench(**settings), bench(**settings)
    for spec in REQUESTS:
        ask(first, spec)
    for _ in range(num_steps):
        first.step()
    for i, spec in enumerate(REQUESTS):
        name, n = str(i), spec.get("n", 1)
        ends = {key: end for key, end in first.ends.items() if key[0] == name}
        second.ends |= ends
        known = {(name, k): first.tokens.get((name, k), []) for k in range(n)}
        second.tokens |= known
        if len(ends) == n:
            second.added[name], second.last[name] = first.added[name], first.last[name]
            continue
        ask(second, spec, request_id=name, earlier=[None if key in ends else list(known[key]) for key in known])
    second.run()
    second.ends, second_ends = {}, second.ends
    for (name, k), end in second_ends.items():
        prompt, params = second.added[name]
        second.ends[name, k] = end
        second._check_end(name, k, prompt, params)
    assert len(second.ends) == 6


@pytest.mark.parametrize(
    ("n", "earlier", "words"),
    [
        (1, [[1], [2]], "for 2 continuations"),
        (2, [None, None], "all continuations have ended"),
        (1, [[1] * 5], "5 tokens after a prompt of 2"),
    ],
)
def test_output_that_cannot_be_is_refused(bench: Any, n: int, earlier: Any, words: str) -> None:
    run = bench()
    with pytest.raises(InvalidParams, match=words):
        run.add([1, 2], n=n, max_tokens=5, earlier=earlier)
    assert not run.engine.has_work()


def test_earlier_output_is_output_not_prompt(bench: Any) -> None:
    run = bench()
    run.add([1, 2], max_tokens=6, earlier=[[4, 4, 4]])
    run.run()
    assert len(run.tokens["0", 0]) == 3
    stats = run.engine.stats()
    assert (stats.prompt_tokens, stats.generation_tokens) == (0, 3)
