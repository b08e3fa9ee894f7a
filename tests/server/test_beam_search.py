"""use_beam_search over HTTP: what the same search in Python finds, to the bit, also when the engine is killed."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2 as httpx
import pytest

from albireo import LLM, BeamSearchParams
from server_process import Server, wait_until

ASK: dict[str, Any] = {
    "prompt": "The cat and the",
    "use_beam_search": True,
    "n": 3,
    "max_tokens": 20,
    "length_penalty": 0.5,
    "return_token_ids": True,
    "logprobs": 1,
}


@pytest.fixture(scope="module")
def expected() -> list[tuple[list[int], str, str | None, list[float]]]:
    """Of ASK: tokens, text, finish reason, log-probabilities."""
    with LLM(num_threads=1) as llm:
        (found,) = llm.beam_search(ASK["prompt"], BeamSearchParams(3, 20, length_penalty=0.5))
        num_prompt = len(llm.get_tokenizer().encode(ASK["prompt"]))
    return [
        (each.tokens[num_prompt:], (each.text or "")[len(ASK["prompt"]) :], each.finish_reason, _chosen(each.logprobs))
        for each in found.sequences
    ]


def _chosen(entries: Any) -> list[float]:
    return [next(iter(entry.values())).logprob for entry in entries]


def told(answer: Any) -> list[tuple[list[int], str, str | None, list[float]]]:
    choices = answer["choices"]
    return [(c["token_ids"], c["text"], c["finish_reason"], c["logprobs"]["token_logprobs"]) for c in choices]


def test_the_choices_are_the_beams_the_best_first(server: Server, expected: Any) -> None:
    before = server.metrics()
    answer = server.http.post("/v1/completions", json=ASK).json()
    assert told(answer) == expected
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    num = sum(len(ids) for ids, *_ in expected)
    assert answer["usage"]["completion_tokens"] == num
    after = server.metrics()
    gained = {name: after[f"vllm:{name}"] - before[f"vllm:{name}"] for name in ("generation_tokens_total",)}
    assert gained == {"generation_tokens_total": num}
    assert after["vllm:time_to_first_token_seconds_count"] == before["vllm:time_to_first_token_seconds_count"] + 1


def test_a_stream_brings_each_beam_at_its_end(server: Server, expected: Any) -> None:
    stream = server.client().completions.create(model="story", stream=True, extra_body=ASK, prompt=ASK["prompt"])
    chunks = [choice for chunk in stream for choice in chunk.choices]
    assert sorted(chunk.index for chunk in chunks) == [0, 1, 2]
    assert [(c.text, c.finish_reason) for c in sorted(chunks, key=lambda c: c.index)] == [e[1:3] for e in expected]


def test_a_chat_is_searched_too(server: Server) -> None:
    ask = {"messages": [{"role": "user", "content": "A dog"}], "use_beam_search": True, "n": 2, "max_tokens": 8}
    wide = server.http.post("/v1/chat/completions", json={**ask, "logprobs": True}).json()["choices"]
    scores = [sum(entry["logprob"] for entry in choice["logprobs"]["content"]) for choice in wide]
    assert scores == sorted(scores, reverse=True) and len({choice["message"]["content"] for choice in wide}) == 2


NEUTRAL = {"temperature": 1.0, "top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1.0, "stop": [], "best_of": 3}
NEUTRAL |= {"seed": -1}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"top_p": 0.9}, "top_p"),
        ({"seed": 0}, "seed"),
        ({"stop": ["cat"]}, "stop"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"min_tokens": 3}, "min_tokens"),
        ({"guided_regex": "[a-z]+"}, "guided_regex"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"length_penalty": 11}, "length_penalty"),
        ({"best_of": 4}, "best_of"),
        ({"n": 65}, "n"),
        ({"use_beam_search": False}, "length_penalty"),
    ],
)
def test_what_a_search_does_not_have_is_a_400_that_names_it(more: dict[str, Any], param: str, server: Server) -> None:
    answer = server.http.post("/v1/completions", json={**ASK, **more})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_neutral_values_are_fine(server: Server, expected: Any) -> None:
    assert told(server.http.post("/v1/completions", json={**ASK, **NEUTRAL}).json()) == expected


def test_a_killed_engine_is_survived_and_a_search_that_is_left_frees_all(killable: Server, expected: Any) -> None:
    """It dies in the middle of the search, and begins anew in the next process, among others."""
    server = killable
    before = server.num_restarts()
    server.gate.hold(9)

    async def asked() -> list[Any]:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as http:
            others = {"prompt": "Once upon", "max_tokens": 40, "n": 2, "seed": 1, "ignore_eos": True}
            asking = [http.post("/v1/completions", json=each) for each in (ASK, others, ASK)]
            killing = asyncio.to_thread(_kill, server)
            *answers, _ = await asyncio.gather(*asking, killing)
            return [answer.json() for answer in answers]

    first, _, second = asyncio.run(asked())
    assert told(first) == told(second) == expected
    assert server.num_restarts() == before + 1
    explained = server.http.get(f"/v1/requests/{first['id']}/explain").json()
    assert explained["prompts"][0]["num_restarts"] == 1
    _leave(server)


def _kill(server: Server) -> None:
    server.kill_held()
    server.gate.open()


def _leave(server: Server) -> None:
    server.gate.hold(5)
    with pytest.raises(httpx.TimeoutException):
        server.http.post("/v1/completions", json={**ASK, "ignore_eos": True, "max_tokens": 400}, timeout=0.5)
    server.gate.open()
    wait_until(
        lambda: server.metrics()["vllm:kv_cache_usage_perc"] == 0 == server.metrics()["vllm:num_requests_running"]
    )
