"""A server that guesses ahead says what another one says, and counts its guesses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from server_process import Server, lasting

CONFIG = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1}
ASKS: list[dict[str, Any]] = [
    {"prompt": "Tom had a ball. Tom had a ball. Tom had", "max_tokens": 80, "temperature": 0, "ignore_eos": True},
    {"prompt": "Tom had a ball. Tom had a ball. Tom had", "max_tokens": 80, "seed": 3, "logprobs": 2, "n": 2},
    {"prompt": "Once upon a time, once upon a", "max_tokens": 80, "temperature": 0, "stop": ["day"], "logprobs": 0},
]


@pytest.fixture(scope="module")
def mine(ending: ExitStack) -> Iterator[Server]:
    """One that guesses."""
    yield from lasting(ending, "--speculative-config", json.dumps(CONFIG), is_poisoned=True)


def num_given(server: Any) -> float:
    """Tokens that it gave so far."""
    return float(server.metrics().get("vllm:generation_tokens_total", 0))


def answers(server: Any) -> list[Any]:
    found = [server.http.post("/v1/completions", json=ask).json() for ask in ASKS]
    return [(each["choices"], each["usage"]) for each in found]


def test_the_same_answers_and_what_was_guessed(mine: Server, server: Any) -> None:
    before = num_given(mine)
    assert answers(mine) == answers(server)
    found = mine.metrics()
    drafts, accepted = (found[f"vllm:spec_decode_num_{kind}_tokens_total"] for kind in ("draft", "accepted"))
    assert 0 <= accepted <= drafts <= 3 * found["vllm:spec_decode_num_drafts_total"]
    assert found["vllm:spec_decode_num_accepted_tokens_per_pos_total"] == accepted
    # At the beginning nothing is known of what a row costs, and drafts are tried.
    assert drafts > 0
    text = mine.http.get("/metrics").text
    assert [f'position="{place}"' in text for place in range(4)] == [True, True, True, False]
    wanted = sum(usage["completion_tokens"] for _, usage in answers(server))
    assert found["vllm:generation_tokens_total"] - before == wanted, "what came behind a stop string counts not at all"
    assert "spec_decode" not in server.http.get("/metrics").text


def streamed(server: Any) -> tuple[str, list[str], list[float], int]:
    """Text, tokens and their log-probabilities of a stream, and in how many chunks they came."""
    ask = {**ASKS[0], "logprobs": 1, "stream": True}
    text, tokens, logprobs, num = "", [], [], 0
    with server.http.stream("POST", "/v1/completions", json=ask) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                text += choice["text"]
                num += bool(choice["text"])
                if choice["logprobs"] is not None:
                    tokens += choice["logprobs"]["tokens"]
                    logprobs += choice["logprobs"]["token_logprobs"]
    return text, tokens, logprobs, num


def test_a_stream_has_the_tokens_of_a_step_together(mine: Server, server: Any) -> None:
    *wanted, num_chunks = streamed(server)
    *got, _ = streamed(mine)
    assert got == wanted
    assert len(wanted[1]) == 80 >= num_chunks


def test_after_the_death_of_the_process_the_same_answer(mine: Server, server: Any) -> None:
    before = num_given(mine)
    ask = {**ASKS[0], "max_tokens": 120}
    wanted = server.http.post("/v1/completions", json=ask).json()["choices"]
    mine.gate.hold(20)
    with ThreadPoolExecutor(1) as beside:
        answer = beside.submit(lambda: mine.http.post("/v1/completions", json=ask).json()["choices"])
        mine.kill_held()
        mine.gate.open()
        assert answer.result(60) == wanted
    assert num_given(mine) - before == 120
