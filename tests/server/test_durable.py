"""kill -9 of the engine process in the middle of everything: no client notices, and no token is another one."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import Any

import httpx2 as httpx
import openai

from server_process import Server, wait_until

NUM_STREAMS, NUM_KILLS = 16, 4


def asks() -> list[dict[str, Any]]:
    """Requests that use what a restart could get wrong: seeds, penalties, stops, minimum lengths, n, logprobs."""
    made = []
    for i in range(NUM_STREAMS):
        ask: dict[str, Any] = {"prompt": "Once upon a time" + " there was" * (i % 5), "max_tokens": 80}
        extra: dict[str, Any] = {"ignore_eos": True, "return_token_ids": True}
        if i % 8 != 7:
            ask |= {"seed": i, "temperature": 0.9 if i % 8 else 0.0}
        if i % 4 == 1:
            ask |= {"frequency_penalty": 0.6, "presence_penalty": 0.3}
            extra["repetition_penalty"] = 1.1
        if i % 4 == 2:
            ask |= {"stop": ["happy", " friend"], "logprobs": 2}
            extra |= {"min_tokens": 40, "ignore_eos": False}
        if i % 16 == 3:
            ask["n"] = 3
        made.append({**ask, "extra_body": extra})
    return made


async def one(client: openai.AsyncOpenAI, ask: dict[str, Any]) -> dict[str, Any]:
    """Everything a stream said, put together."""
    said: dict[str, Any] = {}
    stream = await client.completions.create(model="story", stream=True, stream_options={"include_usage": True}, **ask)
    async for chunk in stream:
        if chunk.usage is not None:
            said["usage"] = chunk.usage.completion_tokens
        for choice in chunk.choices:
            text, ids, logprobs, _ = said.setdefault(choice.index, ["", [], [], None])
            ids += choice.token_ids  # type: ignore[attr-defined]
            if choice.logprobs is not None:
                logprobs += choice.logprobs.token_logprobs
            said[choice.index] = [text + choice.text, ids, logprobs, choice.finish_reason]
    return said


async def rounds(url: str, num: int) -> list[list[dict[str, Any]]]:
    async with httpx.AsyncClient(trust_env=False, timeout=120) as http:
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http)
        return [await asyncio.gather(*(one(client, ask) for ask in asks())) for _ in range(num)]


def seeded(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [answer for i, answer in enumerate(answers) if i % 8 != 7]


def test_no_client_notices_that_the_engine_was_killed(killable: Server) -> None:
    server = killable
    before = server.num_restarts()
    (expected,) = asyncio.run(rounds(server.url, 1))
    assert all(said[0][3] in ("length", "stop") for said in expected)
    dice = random.Random(5)

    async def killer() -> None:
        for num_killed in range(NUM_KILLS):
            await asyncio.sleep(dice.random() * 0.25)
            # Not before it runs again: a process that is killed while it loads has nothing to lose.
            wanted = {"status": "ok", "num_restarts": before + num_killed}
            while (await asyncio.to_thread(server.http.get, "/health")).json() != wanted:
                await asyncio.sleep(0.01)
            for worker in server.workers():
                os.kill(worker, signal.SIGKILL)

    async def both() -> list[list[dict[str, Any]]]:
        killing = asyncio.create_task(killer())
        found = []
        while not killing.done():
            found += await rounds(server.url, 1)
        await killing
        return found

    found = asyncio.run(both())
    for answers in found:
        for answer, wanted in zip(seeded(answers), seeded(expected), strict=True):
            assert answer == wanted
        assert [answer["usage"] for answer in answers] == [
            sum(len(choice[1]) for key, choice in answer.items() if key != "usage") for answer in answers
        ]
    # The last kill may have come when all was answered.
    wait_until(
        lambda: server.http.get("/health").json() == {"status": "ok", "num_restarts": before + NUM_KILLS}, server
    )
    assert not server.http.get("/v1/requests/none/explain").is_success


def test_a_request_without_a_seed_goes_on_as_itself(killable: Server) -> None:
    server = killable
    ask = {"model": "story", "prompt": "Once", "max_tokens": 300, "temperature": 1.0}
    server.gate.hold(6)
    with server.client().completions.create(**ask, stream=True, extra_body={"ignore_eos": True}) as stream:
        server.kill_held()
        server.gate.open()
        chunks = list(stream)
    name, text = chunks[0].id, "".join(chunk.choices[0].text for chunk in chunks)
    account = server.http.get(f"/v1/requests/{name}/explain").json()
    (prompt,) = account["prompts"]
    assert prompt["num_restarts"] == 1 and account["parts"]["restart_s"] > 0
    again = server.client().completions.create(**ask, seed=prompt["seed"], extra_body={"ignore_eos": True})
    assert again.choices[0].text == text
