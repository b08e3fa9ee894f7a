"""/v1/embeddings with the real openai client: the engine's values, every input, refusals, counts, and kill -9."""

from __future__ import annotations

import asyncio
import base64
import math
import random
import struct
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import numpy as np
import openai
import pytest
import torch

from albireo import LLM, PoolingParams
from albireo.server.packing import Packing
from server_process import Server, wait_until

TEXTS = ["Once upon a time", "The cat sat on the mat.", "x"]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(num_threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    return server.client()


def wanted(llm: LLM, inputs: Any, **params: Any) -> list[list[float]]:
    return [output.outputs.embedding for output in llm.embed(inputs, PoolingParams(**params), use_tqdm=False)]


def values(answer: Any) -> list[list[float]]:
    assert answer.object == "list" and [data.index for data in answer.data] == list(range(len(answer.data)))
    assert {data.object for data in answer.data} == {"embedding"}
    return [data.embedding for data in answer.data]


def test_they_are_the_engines_in_both_encodings(client: Any, llm: LLM) -> None:
    """Left to itself the client asks for base64, and decodes it."""
    expected = wanted(llm, TEXTS)
    plain = client.embeddings.create(model="story", input=TEXTS, encoding_format="float")
    assert values(plain) == expected
    assert values(client.embeddings.create(model="story", input=TEXTS)) == expected
    num_tokens = sum(len(llm.get_tokenizer().encode(text)) for text in TEXTS)
    assert (plain.usage.prompt_tokens, plain.usage.total_tokens) == (num_tokens, num_tokens)
    assert plain.model == "story"


def test_base64_is_little_endian_float32(server: Server, llm: LLM) -> None:
    got = server.http.post("/v1/embeddings", json={"input": "Once", "encoding_format": "base64"}).json()
    (data,) = got["data"]
    assert list(struct.unpack("<256f", base64.b64decode(data["embedding"]))) == wanted(llm, "Once")[0]


def test_a_text_is_its_tokens(client: Any, llm: LLM) -> None:
    encode = llm.get_tokenizer().encode
    expected = wanted(llm, TEXTS)
    assert values(client.embeddings.create(model="story", input=TEXTS[0])) == expected[:1]
    assert values(client.embeddings.create(model="story", input=encode(TEXTS[0]))) == expected[:1]
    assert values(client.embeddings.create(model="story", input=[encode(text) for text in TEXTS])) == expected
    bare = client.embeddings.create(model="story", input=TEXTS[0], extra_body={"add_special_tokens": False})
    assert values(bare) == wanted(llm, [encode(TEXTS[0], add_special_tokens=False)]) != expected[:1]


def test_pooling_dimensions_and_length(client: Any, llm: LLM) -> None:
    create = client.embeddings.create
    mean = create(model="story", input=TEXTS, extra_body={"pooling_type": "MEAN"})
    assert values(mean) == wanted(llm, TEXTS, pooling_type="mean") != wanted(llm, TEXTS)
    (short,) = values(create(model="story", input=TEXTS[1], dimensions=16))
    assert [short] == wanted(llm, TEXTS[1], dimensions=16)
    assert len(short) == 16 and math.sqrt(sum(x * x for x in short)) == pytest.approx(1, abs=1e-6)
    assert values(create(model="story", input=TEXTS[1], dimensions=256)) == wanted(llm, TEXTS[1])
    raw = create(model="story", input=TEXTS, extra_body={"use_activation": False})
    assert values(raw) == wanted(llm, TEXTS, use_activation=False)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("order", ["native", "little", "big"])
def test_base64_of_fewer_bits_in_either_order(server: Server, llm: LLM, dtype: str, order: str) -> None:
    asked = {"input": "Once", "encoding_format": "base64", "embed_dtype": dtype, "endianness": order}
    exact = torch.tensor(wanted(llm, "Once")[0]).to(getattr(torch, dtype))
    for path, field in (("/v1/embeddings", "embedding"), ("/pooling", "data")):
        raw = base64.b64decode(server.http.post(path, json=asked).json()["data"][0][field])
        kind = np.dtype("u4" if dtype == "float32" else "u2").newbyteorder(">" if order == "big" else "<")
        bits = exact.view(torch.int32 if dtype == "float32" else torch.int16).numpy()
        assert np.frombuffer(raw, kind).tolist() == bits.view(kind.newbyteorder("=")).tolist()


def test_numbers_have_no_bytes_and_not_all_bytes_are_written(server: Server) -> None:
    for change, name in (
        ({"embed_dtype": "float16"}, "embed_dtype"),
        ({"embed_dtype": "fp8_e4m3", "encoding_format": "base64"}, "embed_dtype"),
        ({"endianness": "middle", "encoding_format": "base64"}, "endianness"),
    ):
        got = server.http.post("/v1/embeddings", json={"input": "Once", **change})
        assert (got.status_code, got.json()["error"]["param"]) == (400, name)


def test_rounding_is_torchs() -> None:
    values = torch.cat([torch.randn(4096), torch.tensor([0.0, -0.0, 1e9, -1e9, 1e-8, 65519.0, 65520.0, 1.00390625])])
    for dtype in (torch.float16, torch.bfloat16):
        got = Packing(str(dtype).removeprefix("torch.")).packed(values.numpy().astype("<f4").tobytes())
        assert got == values.to(dtype).view(torch.int16).numpy().astype("<i2").tobytes()


def test_what_is_no_number_stays_none() -> None:
    raw = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7FC00000], "<u4").tobytes()
    kept = np.frombuffer(Packing("bfloat16").packed(raw), "<u2").view(np.int16)
    assert torch.tensor(kept).view(torch.bfloat16).isnan().all()


def test_neutral_values_ask_for_nothing(server: Server, llm: LLM) -> None:
    names = (
        "dimensions", "encoding_format", "pooling_type", "use_activation", "priority", "cache_salt", "request_id",
        "add_special_tokens", "truncate_prompt_tokens", "model", "something_new", "mm_processor_kwargs",
    )  # fmt: skip
    neutral = {"user": "someone", "truncation_side": "right", "padding": "do_not_pad"}
    neutral |= {"embed_dtype": "float32", "endianness": "little"}
    body = {"input": "Once", **neutral, **dict.fromkeys(names)}
    for path in ("/v1/embeddings", "/pooling"):
        refused = server.http.post(path, json={**body, "endianness": "big"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "endianness")
    got = server.http.post("/v1/embeddings", json=body).json()
    assert [data["embedding"] for data in got["data"]] == wanted(llm, "Once")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/pooling"])
def test_a_chat_is_embedded_as_its_template_writes_it(server: Server, path: str) -> None:
    """Unlike one that is to be answered, without what an answer begins with."""
    said = [{"role": "user", "content": "Once"}, {"role": "assistant", "content": " upon a"}]

    def of(body: dict[str, Any]) -> tuple[list[float], int]:
        got = server.http.post(path, json=body)
        assert got.status_code == 200, got.text
        (data,) = got.json()["data"]
        return data["embedding" if path == "/v1/embeddings" else "data"], got.json()["usage"]["prompt_tokens"]

    for options in ({}, {"add_generation_prompt": True}, {"continue_final_message": True}):
        chat = {"messages": said, "add_generation_prompt": False, **options}
        ids = server.http.post("/tokenize", json=chat).json()["tokens"]
        assert of({"messages": said, **options}) == of({"input": ids}) and len(ids) > 3
        assert of({"messages": said, **options, "truncate_prompt_tokens": 2}) == of({"input": ids[:2]})


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({}, "input", "give input or messages"),
        ({"input": "a", "messages": [{"role": "user", "content": "a"}]}, "input", "one of them"),
        ({"messages": []}, "messages", "length"),
        ({"messages": [{"role": "user"}], "add_special_tokens": True}, "add_special_tokens", "its template writes"),
        ({"messages": [{"content": "a"}]}, "messages", "a role is a word"),
        ({"messages": [{"role": "user", "content": "a"}], "chat_template": "{{ 1 }}"}, "chat_template", "trust"),
        ({"messages": [{"role": "user", "content": "very " * 600}]}, "messages", "max_model_len=512"),
        ({"input": "a", "add_generation_prompt": True}, "add_generation_prompt", "goes with messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            "messages",
            "this model reads text",
        ),
    ],
)
def test_what_no_chat_is_embedded_of(server: Server, changes: dict[str, Any], param: str, words: str) -> None:
    got = server.http.post("/v1/embeddings", json=changes)
    assert got.status_code == 400 and words in got.text and got.json()["error"]["param"] == param, got.text


def test_longer_inputs_are_cut_when_asked(client: Any, llm: LLM) -> None:
    long = "a fox and a bird " * 1000
    encode = llm.get_tokenizer().encode
    for inputs in ([long, TEXTS[0]], [encode(long), encode(TEXTS[0])]):
        for most, kept in ((-1, 512), (20, 20)):
            got = client.embeddings.create(model="story", input=inputs, extra_body={"truncate_prompt_tokens": most})
            assert values(got) == wanted(llm, [encode(long)[:kept], encode(TEXTS[0])])
            assert got.usage.prompt_tokens == kept + len(encode(TEXTS[0]))
    ids = encode(long)
    for inputs, last in ((long, [ids[0], *ids[-19:]]), (ids, ids[-20:])):
        extra = {"truncate_prompt_tokens": 20, "truncation_side": "left"}
        got = client.embeddings.create(model="story", input=inputs, extra_body=extra)
        assert values(got) == wanted(llm, [last])


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"input": ""}, "input", "input is empty"),
        ({"input": []}, "input", "input is empty"),
        ({"input": ["a", ""]}, "input", r"input\[1\] is empty"),
        ({"input": [[1], []]}, "input", r"input\[1\] is empty"),
        ({"input": ["a", 1]}, "input", "mixes"),
        ({"input": [1, -1]}, "input", "-1|>= 0"),
        ({"input": [4096]}, "input", "4096 is outside the vocabulary"),
        ({"input": ["a", " the" * 600]}, "input", r"input\[1\]: the prompt has 60\d tokens, max_model_len=512"),
        ({"input": [7] * 513}, "input", "513 tokens, max_model_len=512"),
        ({"input": "a" * 100_000}, "input", "cannot fit"),
        ({"input": ["a"] * 2049}, "input", "2049 inputs, at most 2048"),
        ({"dimensions": 257}, "dimensions", "more than this model's 256"),
        ({"dimensions": 0}, "dimensions", ">= 1"),
        ({"encoding_format": "int8"}, "encoding_format", "int8"),
        ({"extra_body": {"pooling_type": "sum"}}, "pooling_type", "last or mean or max or cls"),
        ({"extra_body": {"pooling_type": "cls"}}, "pooling_type", "first token, which sees no other"),
        ({"extra_body": {"priority": 3}}, "priority", "scheduling_policy"),
        ({"extra_body": {"truncate_prompt_tokens": 0}}, "truncate_prompt_tokens", "at least 1, or -1"),
        ({"extra_body": {"truncate_prompt_tokens": -2}}, "truncate_prompt_tokens", ">= -1"),
        ({"extra_body": {"truncate_prompt_tokens": 513}}, "truncate_prompt_tokens", "tokens=513 is more than"),
        ({"extra_body": {"truncate_prompt_tokens": 1}}, "input", "cut to nothing"),
        ({"extra_body": {"truncation_side": "middle"}}, "truncation_side", "middle"),
        ({"extra_body": {"messages": [{"role": "user", "content": "a"}]}}, "input", "one of them"),
    ],
)
def test_what_cannot_be_is_a_bad_request_that_names_the_field(
    client: Any, changes: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=words) as raised:
        client.embeddings.create(**{"model": "story", "input": "a", **changes})
    assert raised.value.param == param
    if "max_model_len" in words or "fit" in words:
        assert raised.value.code == "context_length_exceeded"


def test_another_models_name_is_not_found(client: Any) -> None:
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="text-embedding-3-small", input="a")


@pytest.mark.parametrize("field", ["dimensions", "priority", "input", "use_activation", "pooling_type", "user"])
def test_hostile_values_get_a_4xx_in_bounded_time(server: Server, field: str) -> None:
    values = ("-1", str(2**31), str(2**63), "1e18", "1e400", "NaN", '"\\ud800"', "{}", "9" * 5000, "[" * 50_000)
    for value in values:
        body = '{"input": "a", ' * (field != "input") + "{" * (field == "input") + f'"{field}": {value}}}'
        got = server.http.post("/v1/embeddings", content=body)
        assert got.status_code == 400 or (field == "user" and got.status_code == 200), (value[:20], got.text[:200])


def test_counts_are_exact_and_all_returns_to_zero(pooled: Server, llm: LLM) -> None:
    server, before = pooled, pooled.metrics()
    refused = server.http.post("/v1/embeddings", json={"input": "a"}, headers={"authorization": ""})
    assert refused.status_code == 401
    assert server.http.post("/v1/embeddings", json={"input": ["a"] * 5}).status_code == 400
    for _ in range(3):
        got = server.http.post("/v1/embeddings", json={"input": TEXTS}).json()
    ask = {"input": TEXTS, "pooling_type": "last", "request_id": "team/a/7"}
    last = server.http.post("/v1/embeddings", json=ask).json()
    for answer, kind in ((got, "mean"), (last, "last")):
        assert [data["embedding"] for data in answer["data"]] == wanted(llm, TEXTS, pooling_type=kind)
    found = server.metrics_since(before)
    num_prompt = 4 * got["usage"]["prompt_tokens"]
    assert found["vllm:prompt_tokens_total"] == num_prompt == found["vllm:request_prompt_tokens_sum"]
    assert found["vllm:request_success_total"] == 12 == found["vllm:e2e_request_latency_seconds_count"]
    assert found["vllm:request_prefill_time_seconds_count"] == 12
    assert found["vllm:generation_tokens_total"] == 0 == found["vllm:time_to_first_token_seconds_count"]
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert found[f"vllm:{name}"] == 0
    account = server.http.get(f"/v1/requests/{got['id']}/explain").json()
    assert account["path"] == "/v1/embeddings" and len(account["prompts"]) == 3
    assert sum(account["parts"].values()) == pytest.approx(account["wall_s"], abs=1e-9)
    assert account["parts"]["prefill_s"] > 0
    assert server.http.get(f"/v1/requests/{last['id']}/explain").json()["id"] == last["id"] == "embd-team/a/7"


def test_a_client_that_leaves_lets_its_blocks_go(slow: Server, open_stream: Any) -> None:
    server, before = slow, slow.metrics()
    # the mean needs every token computed: thousands of steps
    server.gate.hold(5)
    asked = {"input": [[7] * 500] * 200, "pooling_type": "mean"}
    connection = open_stream(server, asked, path="/v1/embeddings")
    wait_until(server.gate.is_holding, server)
    connection.close()
    wait_until(lambda: server.metrics_since(before)["vllm:request_success_total"] == 200)
    assert server.metrics_since(before)["vllm:request_prefill_time_seconds_count"] == 0, "none was computed"
    # The engine hears in order: once it has answered another, a third is all that it has.
    server.gate.open()
    assert server.http.post("/v1/embeddings", json={"input": "Once"}).status_code == 200
    server.gate.hold(3)
    open_stream(server, {"input": [8] * 40}, path="/v1/embeddings")
    wait_until(server.gate.is_holding, server)
    wait_until(lambda: server.metrics()["vllm:num_requests_running"] == 1)
    found = server.metrics()
    assert found["vllm:num_requests_waiting"] == 0 and 0 < found["vllm:kv_cache_usage_perc"] <= 3 / 64
    server.gate.open()
    # Nor does the next test count its tokens.
    wait_until(lambda: server.metrics()["vllm:num_requests_running"] == 0)


def test_nobody_notices_that_the_engine_was_killed(slow: Server, llm: LLM) -> None:
    """Lists of inputs, streams beside them, and an engine process that dies again."""
    server, before, num_before = slow, slow.metrics(), slow.num_restarts()
    dice = random.Random(3)
    inputs = [[[dice.randrange(3, 4000) for _ in range(dice.randrange(1, 60))] for _ in range(6)] for _ in range(4)]
    kinds = ["last", "mean"] * 2
    expected = [wanted(llm, each, pooling_type=kind) for each, kind in zip(inputs, kinds, strict=True)]
    story = {"model": "story", "prompt": "Once upon a time", "max_tokens": 60, "temperature": 0}

    async def main() -> tuple[list[Any], list[str]]:
        async with httpx.AsyncClient(trust_env=False, timeout=120) as http:
            client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, http_client=http)
            texts = [(await client.completions.create(**story)).choices[0].text]
            server.gate.hold(10)  # steps of each process: all lists take dozens
            asking = [
                asyncio.create_task(
                    client.embeddings.create(
                        model="story", input=each, extra_body={"pooling_type": kind, "request_id": str(i)}
                    )
                )
                for i, (each, kind) in enumerate(zip(inputs, kinds, strict=True))
            ]
            telling = asyncio.create_task(client.completions.create(**story, extra_body={"request_id": "told"}))
            for name in ("cmpl-told", *(f"embd-{i}" for i in range(len(inputs)))):
                while not (await http.get(f"{server.url}/v1/requests/{name}/explain")).is_success:
                    await asyncio.sleep(0.01)
            for _ in range(2):
                await asyncio.to_thread(server.kill_held)
            server.gate.open()
            answers = await asyncio.gather(*asking)
            texts.append((await telling).choices[0].text)
            return answers, texts

    answers, texts = asyncio.run(main())
    assert [values(answer) for answer in answers] == expected
    assert texts[0] == texts[1]
    assert server.http.get("/health").json() == {"status": "ok", "num_restarts": num_before + 2}
    account = server.http.get("/v1/requests/embd-3/explain").json()
    assert max(prompt["num_restarts"] for prompt in account["prompts"]) == 2
    made = server.metrics_since(before)["vllm:prompt_tokens_total"]
    assert made == sum(len(ids) for each in inputs for ids in each) + 2 * len(
        llm.get_tokenizer().encode("Once upon a time")
    )


def test_what_tokens_were_given_before_a_death_is_computed_again(slow: Server, llm: LLM) -> None:
    """The rows lie in the engine process until the prompt is over: the next process has them all, each once."""
    ids = [random.Random(5).randrange(3, 4000) for _ in range(90)]
    (expected,) = llm.encode([{"prompt_token_ids": ids}], pooling_task="token_embed", use_tqdm=False)
    slow.gate.hold(3)  # steps of each process, in which some of the prompt is computed

    async def main() -> Any:
        async with httpx.AsyncClient(trust_env=False, timeout=120) as http:
            body = {"input": ids, "task": "token_embed", "request_id": "rows"}
            asking = asyncio.create_task(http.post(f"{slow.url}/pooling", json=body))
            while not (await http.get(f"{slow.url}/v1/requests/pool-rows/explain")).is_success:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(slow.kill_held)
            slow.gate.open()
            return (await asking).json()

    (found,) = asyncio.run(main())["data"]
    assert found["data"] == expected.outputs.data.tolist()
    (prompt,) = slow.http.get("/v1/requests/pool-rows/explain").json()["prompts"]
    assert prompt["num_restarts"] == 1
