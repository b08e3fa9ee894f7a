"""Requests that kill the engine process, or a step: they alone fail, and are told so."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2 as httpx
import openai
import pytest

from server_process import Server, wait_until

# as in poisoned_worker.py
CRASH, RAISE, HANG, OUT_OF_MEMORY = 0.125, 0.25, 0.5, 0.75
CRASHING_REGEX = "(crash){3}"


async def ask(client: openai.AsyncOpenAI, i: int, poison: float | str | None = None) -> str:
    form = {"structured_outputs": {"regex": poison}} if isinstance(poison, str) else {}
    answer = await client.completions.create(
        model="story",
        prompt="Once upon a time" + " very" * i,
        max_tokens=60,
        seed=i,
        temperature=0.8,
        logit_bias={"1": poison} if isinstance(poison, float) else None,  # type: ignore[dict-item]
        extra_body={"ignore_eos": True, **form},
    )
    return answer.choices[0].text


async def all_of_them(url: str, poisons: dict[int, Any]) -> list[Any]:
    async with httpx.AsyncClient(trust_env=False, timeout=120) as http:
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http)
        asking = [ask(client, i, poisons.get(i)) for i in range(8)]
        return await asyncio.gather(*asking, return_exceptions=True)


@pytest.fixture(scope="module")
def expected(killable: Server) -> list[Any]:
    return asyncio.run(all_of_them(killable.url, {}))


@pytest.mark.parametrize(
    ("poison", "num_restarts", "words"),
    [
        (CRASH, 2, "ended the engine process 2 times"),
        (OUT_OF_MEMORY, 4, "ended the engine process 4 times"),
        (RAISE, 0, "the engine failed on it \\(RuntimeError\\)"),
    ],
)
def test_only_the_guilty_request_fails(
    killable: Server, expected: list[Any], poison: float, num_restarts: int, words: str
) -> None:
    before = killable.http.get("/health").json()["num_restarts"]
    got = asyncio.run(all_of_them(killable.url, {3: poison}))
    error = got[3]
    assert isinstance(error, openai.InternalServerError)
    with pytest.raises(openai.InternalServerError, match=words):
        raise error
    assert "passwd" not in str(error) and "0x7f" not in str(error)
    assert error.response.headers["x-should-retry"] == "false"
    assert [answer for i, answer in enumerate(got) if i != 3] == [text for i, text in enumerate(expected) if i != 3]
    # others may have been over before its last crash
    wait_until(lambda: killable.http.get("/health").json() == {"status": "ok", "num_restarts": before + num_restarts})
    assert killable.metrics()["vllm:num_requests_running"] == 0


def test_two_poisons_at_once(killable: Server, expected: list[Any]) -> None:
    got = asyncio.run(all_of_them(killable.url, {0: CRASH, 5: CRASH}))
    assert [isinstance(answer, openai.InternalServerError) for answer in got] == [i in (0, 5) for i in range(8)]
    assert [answer for i, answer in enumerate(got) if i not in (0, 5)] == [
        answer for i, answer in enumerate(expected) if i not in (0, 5)
    ]


@pytest.mark.parametrize("guilty", [{2}, {0, 5}])
def test_a_grammar_that_kills_its_compiler(killable: Server, expected: list[Any], guilty: set[int]) -> None:
    """Beside others that are computed, and beside a grammar that is none the worse for it."""
    with httpx.Client(trust_env=False, timeout=60, base_url=killable.url) as http:
        innocent = http.post("/v1/completions", json={"prompt": "Once", "guided_regex": "[ab]{4}", "seed": 1})
    got = asyncio.run(all_of_them(killable.url, dict.fromkeys(guilty, CRASHING_REGEX) | {7: "[ab]{4}"}))
    assert innocent.status_code == 200 and set(got[7]) <= set("ab") and len(got[7]) == 4
    for i in guilty:
        with pytest.raises(openai.InternalServerError, match="ended the engine process 2 times"):
            raise got[i]
    others = [i for i in range(7) if i not in guilty]
    assert [got[i] for i in others] == [expected[i] for i in others]
    wait_until(lambda: killable.http.get("/health").json()["status"] == "ok")


def test_a_grammar_that_kills_its_compiler_alone(killable: Server) -> None:
    before = killable.http.get("/health").json()["num_restarts"]
    got = killable.http.post("/v1/completions", json={"prompt": "Once", "guided_regex": CRASHING_REGEX})
    assert got.status_code == 500 and "ended the engine process 2 times" in got.json()["error"]["message"]
    wait_until(lambda: killable.http.get("/health").json() == {"status": "ok", "num_restarts": before + 2})


def test_health_tells_that_nothing_gets_on(start: Any) -> None:
    server = start("--health-timeout", "0.3", "--request-timeout", "0.9", is_poisoned=True)
    server.gate.hold(0)
    asyncio.run(_hang(server.url))
    # The hung process still has the work; a request that waits for it shows it.
    with httpx.Client(trust_env=False, base_url=server.url) as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/completions", json={"prompt": "Once"}, timeout=httpx.Timeout(60, read=0.1))


async def _hang(url: str) -> None:
    """Ask until health has told it; each request ends at its deadline."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http, asyncio.timeout(60):
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http)
        statuses: set[str] = set()
        while "stalled" not in statuses:
            asking = asyncio.create_task(ask(client, 0))
            while not asking.done():
                statuses.add((await http.get(f"{url}/health")).json()["status"])
                await asyncio.sleep(0.02)
            with pytest.raises(openai.InternalServerError) as raised:
                await asking
            assert raised.value.status_code == 504
