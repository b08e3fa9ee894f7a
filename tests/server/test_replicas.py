"""Several engines behind one server: clients cannot tell, not even when one is killed, crashes or never starts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

from server_process import Server, wait_until

# as in poisoned_worker.py
CRASH = 0.125
TWO = ("--num-threads", "2", "-dp", "2", "--num-gpu-blocks-override", "65")


def asks(num: int = 6) -> list[dict[str, Any]]:
    """Requests that use what a move could get wrong: seeds, penalties, stops, n, logprobs, a form."""
    extras: list[dict[str, Any]] = [
        {"frequency_penalty": 0.6, "repetition_penalty": 1.1},
        {"stop": ["happy", " friend"], "logprobs": 2, "min_tokens": 20},
        {"n": 3},
        {"temperature": 0.0},
        {"guided_regex": "[a-z ]{60,80}"},
        {},
    ]
    base = {"max_tokens": 40, "temperature": 0.9, "ignore_eos": True, "return_token_ids": True}
    return [
        {**base, "prompt": "Once upon a time" + " very" * i, "seed": i, "request_id": f"r{i}", **extras[i % 6]}
        for i in range(num)
    ]


async def all_of_them(url: str, asked: list[dict[str, Any]]) -> list[httpx.Response]:
    async with httpx.AsyncClient(trust_env=False, timeout=120) as http:
        return await asyncio.gather(*(http.post(f"{url}/v1/completions", json=ask) for ask in asked))


def choices(answers: list[httpx.Response]) -> list[Any]:
    assert {answer.status_code for answer in answers} == {200}
    return [(answer.json()["choices"], answer.json()["usage"]["completion_tokens"]) for answer in answers]


@pytest.fixture(scope="module")
def expected(server: Server) -> list[Any]:
    """What one engine says."""
    return choices(asyncio.run(all_of_them(server.url, asks())))


@pytest.fixture(scope="module")
def two() -> Iterator[Server]:
    made = Server(*TWO, is_poisoned=True).wait_until_ready()
    wait_until(lambda: are_all(made, "ok"), made)
    yield made
    made.stop()


def are_all(server: Server, status: str) -> bool:
    return all(each["status"] == status for each in server.http.get("/health").json()["engines"])


def restarts(server: Server) -> list[int]:
    return [each["num_restarts"] for each in server.http.get("/health").json()["engines"]]


def prompts_of(server: Server, num: int = 6) -> list[dict[str, Any]]:
    accounts = [server.http.get(f"/v1/requests/cmpl-r{i}/explain").json() for i in range(num)]
    for account in accounts:
        assert sum(account["parts"].values()) == pytest.approx(account["wall_s"], abs=1e-9)
    return [prompt for account in accounts for prompt in account["prompts"]]


def test_two_engines_say_what_one_says_and_both_work(two: Server, expected: list[Any]) -> None:
    before = two.metrics()
    assert choices(asyncio.run(all_of_them(two.url, asks()))) == expected
    assert {prompt["engine"] for prompt in prompts_of(two)} == {0, 1}
    text = two.http.get("/metrics").text
    for engine in "01":
        lines = [line for line in text.splitlines() if f'engine="{engine}"' in line]
        (running,) = (line for line in lines if line.startswith("vllm:num_requests_running"))
        (info,) = (line for line in lines if line.startswith("vllm:cache_config_info"))
        assert running.endswith(" 0.0") and 'num_gpu_blocks="64"' in info
    assert two.metrics_since(before)["vllm:generation_tokens_total"] == sum(num for _, num in expected)
    with two.http.stream("GET", "/v1/stats") as stats:
        event = next(line for line in stats.iter_lines() if line.startswith("data: "))
    assert '"num_engines":2' in event and '"num_blocks":129' in event and event.count('"engine_bytes"') == 3


def test_a_kill_is_noticed_by_nobody_and_disturbs_no_other_engine(two: Server, expected: list[Any]) -> None:
    """One of two is killed in the middle of a step; its requests go on at once in the other."""
    before = restarts(two)

    async def killed() -> list[httpx.Response]:
        asking = asyncio.create_task(all_of_them(two.url, asks()))
        await asyncio.to_thread(two.kill_held)
        await asyncio.to_thread(wait_until, lambda: sum(restarts(two)) == sum(before) + 1, two)
        two.gate.open()
        return await asking

    two.gate.hold(5)
    assert choices(asyncio.run(killed())) == expected
    made = [after - num for after, num in zip(restarts(two), before, strict=True)]
    died = made.index(1)
    assert sorted(made) == [0, 1]
    moved = [prompt for prompt in prompts_of(two) if prompt["num_moves"]]
    assert moved and {prompt["engine"] for prompt in moved} == {1 - died}
    assert all(prompt["num_restarts"] == 0 for prompt in prompts_of(two))
    wait_until(lambda: are_all(two, "ok"), two)


def test_a_request_that_crashes_its_engine_does_not_reach_the_other(two: Server, expected: list[Any]) -> None:
    before = restarts(two)
    poisoned = {**asks()[5], "logit_bias": {"1": CRASH}, "request_id": "poison"}
    *answers, refused = asyncio.run(all_of_them(two.url, [*asks(), poisoned]))
    assert choices(answers) == expected
    assert refused.status_code == 500 and "ended the engine process 2 times" in refused.text
    wait_until(lambda: are_all(two, "ok"), two)
    assert sorted(after - num for after, num in zip(restarts(two), before, strict=True)) == [0, 2]


def test_one_that_cannot_start_is_named_and_the_other_serves(start: Any, expected: list[Any]) -> None:
    server = start(*TWO, is_poisoned=True, is_one_broken=True)
    engines = wait_until(lambda: found if "failed" in str(found := server.http.get("/health").json()) else None)[
        "engines"
    ]
    assert sorted(engines, key=str) == [
        {"status": "failed", "error": "OutOfMemory", "num_restarts": 0},
        {"status": "ok", "num_restarts": 0},
    ]
    failed = next(i for i, engine in enumerate(engines) if engine["status"] == "failed")
    server.wait_for(f"engine {failed} will not run any more: the model in /home/somebody needs more")
    assert choices(asyncio.run(all_of_them(server.url, asks()))) == expected
    assert {prompt["engine"] for prompt in prompts_of(server)} == {1 - failed}
