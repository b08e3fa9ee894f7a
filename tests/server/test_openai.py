"""The real openai client against the server: shapes, streams, logprobs, echo, exceptions."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2 as httpx
import openai
import pytest

from albireo import LLM, SamplingParams

PROMPT = "Once upon a time"
GREEDY: dict[str, Any] = {"model": "story", "prompt": PROMPT, "temperature": 0, "max_tokens": 12}
CHAT: dict[str, Any] = {
    "model": "story",
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": 0,
    "max_tokens": 12,
}


@pytest.fixture(scope="module")
def llm() -> Any:
    with LLM(num_threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: Any) -> Any:
    return server.client()


def test_a_completion_is_the_engines(client: Any, llm: Any) -> None:
    params = llm.get_default_sampling_params().clone(n=2, temperature=0.8, seed=11, max_tokens=20, logprobs=3)
    wanted = llm.generate(PROMPT, params, use_tqdm=False)[0]
    got = client.completions.create(
        model="story", prompt=PROMPT, n=2, temperature=0.8, seed=11, max_tokens=20, logprobs=3
    )
    assert [choice.text for choice in got.choices] == [output.text for output in wanted.outputs]
    for choice, output in zip(got.choices, wanted.outputs, strict=True):
        chosen = [place[token] for place, token in zip(output.logprobs, output.token_ids, strict=True)]
        assert choice.logprobs.token_logprobs == [entry.logprob for entry in chosen]
        assert choice.logprobs.tokens == [entry.decoded_token for entry in chosen]
        assert choice.logprobs.text_offset[0] == 0
        assert [len(top) for top in choice.logprobs.top_logprobs] == [len(place) for place in output.logprobs]
        assert choice.finish_reason == output.finish_reason
    assert got.usage.completion_tokens == sum(len(output.token_ids) for output in wanted.outputs)
    assert got.usage.prompt_tokens == len(wanted.prompt_token_ids)


def test_a_chat_is_the_engines(client: Any, llm: Any) -> None:
    wanted = llm.chat(CHAT["messages"], SamplingParams(temperature=0, max_tokens=12, logprobs=2), use_tqdm=False)[0]
    got = client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=2)
    (choice,) = got.choices
    assert choice.message.content == wanted.outputs[0].text and choice.message.role == "assistant"
    for entry, place, token in zip(
        choice.logprobs.content, wanted.outputs[0].logprobs, wanted.outputs[0].token_ids, strict=True
    ):
        assert entry.logprob == place[token].logprob
        assert bytes(entry.bytes).decode("utf-8", "replace") == entry.token == place[token].decoded_token
        assert len(entry.top_logprobs) == 2
        assert entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob


@pytest.mark.parametrize("extra", [{}, {"n": 3, "temperature": 0.9, "seed": 3}, {"logprobs": 2}, {"echo": True}])
def test_a_stream_adds_up_to_the_whole(client: Any, extra: dict[str, Any]) -> None:
    ask = {**GREEDY, **extra}
    whole = client.completions.create(**ask)
    texts, reasons = [""] * len(whole.choices), [None] * len(whole.choices)
    tokens: list[list[str]] = [[] for _ in whole.choices]
    usage = None
    for chunk in client.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
            if choice.logprobs is not None:
                tokens[choice.index] += choice.logprobs.tokens
        usage = chunk.usage or usage
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert (usage.completion_tokens, usage.prompt_tokens) == (whole.usage.completion_tokens, whole.usage.prompt_tokens)
    if "logprobs" in extra:
        assert tokens == [choice.logprobs.tokens for choice in whole.choices]


def test_a_chat_stream_adds_up_too(client: Any) -> None:
    whole = client.chat.completions.create(**CHAT)
    chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 12
    assert [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason] == ["length"]


def test_counts_in_every_chunk(client: Any) -> None:
    options = {"continuous_usage_stats": True}
    chunks = list(client.completions.create(**GREEDY, stream=True, stream_options=options))
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts) and counts[-1] == 12


def test_several_prompts_of_any_kind(client: Any, server: Any) -> None:
    ids = [server.http.post("/tokenize", json={"prompt": p}).json()["tokens"] for p in ("Once", "A cat")]
    texts = client.completions.create(**{**GREEDY, "prompt": ["Once", "A cat"]})
    by_ids = client.completions.create(**{**GREEDY, "prompt": ids})
    assert [c.index for c in texts.choices] == [0, 1]
    assert [c.text for c in texts.choices] == [c.text for c in by_ids.choices]
    alone = client.completions.create(**{**GREEDY, "prompt": ids[1]})
    assert alone.choices[0].text == texts.choices[1].text


def test_echo_with_logprobs_scores_the_prompt(client: Any, llm: Any) -> None:
    got = client.completions.create(**GREEDY, echo=True, logprobs=1)
    wanted = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=12, prompt_logprobs=1), use_tqdm=False)[0]
    logprobs = got.choices[0].logprobs
    num = len(wanted.prompt_token_ids)
    assert logprobs.token_logprobs[0] is None
    assert logprobs.token_logprobs[1:num] == [
        place[token].logprob
        for place, token in zip(wanted.prompt_logprobs[1:], wanted.prompt_token_ids[1:], strict=True)
    ]
    assert got.choices[0].text == PROMPT + wanted.outputs[0].text
    scored = client.completions.create(**{**GREEDY, "max_tokens": 0}, echo=True, logprobs=1)
    assert scored.choices[0].text == PROMPT and scored.usage.completion_tokens == 0
    assert scored.choices[0].logprobs.token_logprobs == logprobs.token_logprobs[:num]


def test_stop_strings_and_stop_tokens(client: Any) -> None:
    whole = client.completions.create(**{**GREEDY, "max_tokens": 30}).choices[0].text
    word = whole.split()[4]
    cut = client.completions.create(**{**GREEDY, "max_tokens": 30}, stop=[word])
    assert cut.choices[0].text == whole[: whole.index(word)]
    assert cut.choices[0].finish_reason == "stop" and cut.choices[0].stop_reason == word
    assert cut.usage.completion_tokens < 30
    kept = client.completions.create(
        **{**GREEDY, "max_tokens": 30}, stop=word, extra_body={"include_stop_str_in_output": True}
    )
    assert kept.choices[0].text == whole[: whole.index(word)] + word


def test_vllms_fields(client: Any, llm: Any) -> None:
    extra = {
        "top_k": 5,
        "min_p": 0.05,
        "repetition_penalty": 1.2,
        "min_tokens": 10,
        "ignore_eos": True,
        "stop_token_ids": [5],
        "bad_words": ["upon"],
        "skip_special_tokens": False,
    }
    ask = {"temperature": 0.9, "seed": 4, "max_tokens": 25, "presence_penalty": 0.2, "frequency_penalty": 0.1}
    got = client.completions.create(
        model="story",
        prompt=PROMPT,
        **ask,
        logit_bias={"7": 2.0},
        extra_body={**extra, "return_token_ids": True, "prompt_logprobs": 1},
    )
    params = llm.get_default_sampling_params().clone(**ask, **extra, logit_bias={7: 2.0}, prompt_logprobs=1)
    wanted = llm.generate(PROMPT, params, use_tqdm=False)[0]
    choice = got.choices[0]
    assert choice.token_ids == wanted.outputs[0].token_ids
    assert choice.prompt_token_ids == wanted.prompt_token_ids
    assert [p and {int(k): v["logprob"] for k, v in p.items()} for p in choice.prompt_logprobs] == [
        p and {k: v.logprob for k, v in p.items()} for p in wanted.prompt_logprobs
    ]
    assert choice.text == wanted.outputs[0].text


def test_neutral_values_and_nulls_ask_for_nothing(server: Any) -> None:
    plain = server.http.post("/v1/completions", json=GREEDY).json()
    neutral = {
        "best_of": 1, "n": 1, "logprobs": None, "echo": False, "suffix": None, "stop": None, "top_k": -1, "min_p": 0,
        "repetition_penalty": 1.0, "length_penalty": 1.0, "use_beam_search": False, "user": "me", "logit_bias": None,
        "response_format": {"type": "text"}, "guided_json": None, "stream": False, "stream_options": None,
        "presence_penalty": 0, "frequency_penalty": 0.0, "some_new_field": None, "priority": 0, "metadata": {"a": "b"},
    }  # fmt: skip
    got = server.http.post("/v1/completions", json={**GREEDY, **neutral}).json()
    assert got["choices"] == plain["choices"]
    neutral = {
        "tools": None, "tool_choice": None, "parallel_tool_calls": None, "top_logprobs": 0, "logprobs": False,
        "response_format": {"type": "text"}, "store": False, "service_tier": "auto", "modalities": ["text"],
        "reasoning_effort": None, "max_completion_tokens": 12, "chat_template_kwargs": {}, "functions": None,
    }  # fmt: skip
    assert server.http.post("/v1/chat/completions", json={**CHAT, **neutral}).status_code == 200


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("completions", {"suffix": "x"}, "suffix"),
        ("completions", {"best_of": 3}, "best_of"),
        ("completions", {"length_penalty": 2.0}, "length_penalty"),
        ("completions", {"some_new_field": 1}, "some_new_field"),
        ("completions", {"temperature": -1}, "temperature"),
        ("completions", {"top_p": 1.5}, "top_p"),
        ("completions", {"logprobs": 21}, "logprobs"),
        ("completions", {"n": 1000}, "n"),
        ("completions", {"stop": ["x"] * 65}, "stop"),
        ("completions", {"max_tokens": 5000}, "max_tokens"),
        ("completions", {"prompt": "very " * 600}, "prompt"),
        ("completions", {"prompt": [100000]}, "prompt"),
        ("completions", {"prompt": [1, "a"]}, "prompt"),
        ("completions", {"logit_bias": {"999999": 1}}, "logit_bias"),
        ("completions", {"priority": 5}, "priority"),
        ("chat/completions", {"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ("chat/completions", {"messages": []}, "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": 5}]}, "messages"),
        ("chat/completions", {"chat_template": "{{ 1 }}"}, "chat_template"),
        ("chat/completions", {"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ("chat/completions", {"chat_template_kwargs": {"add_generation_prompt": False}}, "chat_template_kwargs"),
        ("chat/completions", {"top_logprobs": 3}, "top_logprobs"),
        ("chat/completions", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ("completions", {"logprobs": 21}, "logprobs"),
    ],
)
def test_what_cannot_be_done_is_a_400_that_names_the_field(
    client: Any, path: str, change: dict[str, Any], param: str
) -> None:
    ask = {**(GREEDY if path == "completions" else CHAT), **change}
    with pytest.raises(openai.BadRequestError) as raised:
        client.post(f"/{path}", body=ask, cast_to=object)
    assert raised.value.param == param
    assert raised.value.type == "invalid_request_error" and raised.value.body["message"]  # type: ignore[index]


@pytest.mark.parametrize("prompt", ["Once upon a time", "<|endoftext|>Once upon", [0, 764, 516]])
def test_text_offsets_point_into_the_text(client: Any, prompt: Any) -> None:
    """Also where the beginning of the prompt is a token that its text does not show."""
    ask = {**GREEDY, "prompt": prompt, "max_tokens": 9, "echo": True, "logprobs": 0}
    (whole,) = client.completions.create(**ask).choices
    pieces = list(zip(whole.logprobs.tokens, whole.logprobs.text_offset, strict=True))
    assert [whole.text[at : at + len(piece)] for piece, at in pieces if piece != "<|endoftext|>"] == [
        piece for piece, _ in pieces if piece != "<|endoftext|>"
    ]
    offsets = [
        at
        for chunk in client.completions.create(**ask, stream=True)
        for choice in chunk.choices
        for at in (choice.logprobs.text_offset if choice.logprobs else ())
    ]
    assert offsets == whole.logprobs.text_offset


@pytest.mark.parametrize("change", [{}, {"echo": True}, {"stop": ["the cat and", "\ufffd\ufffd"], "seed": 4}])
def test_text_offsets_of_a_stream_are_those_of_the_whole(client: Any, change: dict[str, Any]) -> None:
    """Where characters are several tokens, bytes are no text, or a stop string holds text back."""
    ask = {"model": "story", "prompt": "日本", "seed": 3, "temperature": 3.0, "max_tokens": 60, "logprobs": 0, **change}
    (whole,) = client.completions.create(**ask).choices
    streamed = [
        at
        for chunk in client.completions.create(**ask, stream=True)
        for choice in chunk.choices
        for at in (choice.logprobs.text_offset if choice.logprobs else ())
    ]
    assert streamed == whole.logprobs.text_offset == sorted(streamed)
    told = zip(whole.logprobs.tokens, whole.logprobs.text_offset, strict=True)
    plain = [(piece, at) for piece, at in told if "\ufffd" not in piece and piece != "<|endoftext|>"]
    assert plain and [whole.text[at : at + len(piece)] for piece, at in plain] == [piece for piece, _ in plain]


def test_a_template_of_the_servers(start: Any, tmp_path: Any) -> None:
    path = tmp_path / "template.jinja"
    path.write_text("{% for m in messages %}{{ m.content }} there{% endfor %}{% if thinking %} was{% endif %}")
    server = start("--chat-template", str(path))
    plain = server.http.post("/v1/completions", json={**GREEDY, "prompt": f"{PROMPT} there was"}).json()
    chat = server.http.post("/v1/chat/completions", json={**CHAT, "chat_template_kwargs": {"thinking": True}}).json()
    # The completion begins with a token that this template leaves out.
    assert chat["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"] - 1
    assert chat["choices"][0]["message"]["content"]


def test_typed_exceptions(client: Any, guarded: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'gpt-9' does not exist"):
        client.completions.create(**{**GREEDY, "model": "gpt-9"})
    with pytest.raises(openai.NotFoundError, match="no such route"):
        client.images.generate(prompt="a fox")
    with pytest.raises(openai.AuthenticationError):
        guarded.client(api_key="wrong").completions.create(**GREEDY)
    for key in ("sesame", "other"):
        assert guarded.client(api_key=key).completions.create(**GREEDY).choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("//v1/chat/completions", "/v1/chat/completions"),
        ("/v1/tokenize", "/tokenize"),
        ("/v1/v1/messages", "/v1/messages"),
    ],
)
def test_a_base_url_that_is_not_quite_right(server: Any, path: str, there: str) -> None:
    got = server.http.post(f"{server.url}{path}", json=CHAT)
    assert got.status_code == 404
    assert f"no such route; there is {there}: a client's base URL" in got.json()["error"]["message"]


def test_a_slash_at_the_end_leads_to_the_route(server: Any) -> None:
    got = server.http.post("/v1/chat/completions/?a=b", json=CHAT)
    assert (got.status_code, got.headers["location"]) == (307, "../completions?a=b")
    answer = server.http.post("/v1/chat/completions/", json=CHAT, follow_redirects=True)
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    got = server.http.get("/v1/responses/%E6%97%A5%20%3Fb/?c=%ff")
    assert (got.status_code, got.headers["location"]) == (307, "../%E6%97%A5%20%3Fb?c=%ff")
    got = server.http.get("/v1//models/")
    assert (got.status_code, got.headers["location"]) == (307, "/v1/models")
    assert server.http.get("/v1/models/").json() == server.http.get("/v1/models").json()
    for path in ("/", "/nowhere/", "/v1/", "//example.com/"):
        assert "location" not in server.http.get(f"{server.url}{path}").headers


def test_models(client: Any) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.max_model_len, model.owned_by) == ("story", 512, "albireo")
    assert client.models.retrieve("story").id == "story"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_tokens_there_and_back(server: Any) -> None:
    made = server.http.post("/tokenize", json={"prompt": PROMPT, "return_token_strs": True}).json()
    assert made["count"] == len(made["tokens"]) == len(made["token_strs"]) and made["max_model_len"] == 512
    back = server.http.post("/detokenize", json={"tokens": made["tokens"]}).json()
    assert back["prompt"].endswith(PROMPT)
    none = server.http.post("/detokenize", json={"tokens": [1, 4096]})
    assert none.status_code == 400 and "token id 4096 is outside" in none.json()["error"]["message"]
    chat = server.http.post("/tokenize", json={"messages": CHAT["messages"]}).json()
    assert chat["count"] > 0


def test_many_at_once(server: Any) -> None:
    async def ask_all() -> list[str]:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, http_client=http)
            answers = await asyncio.gather(
                *(client.completions.create(**{**GREEDY, "temperature": 0.8}, seed=i % 4) for i in range(24))
            )
            return [answer.choices[0].text for answer in answers]

    texts = asyncio.run(ask_all())
    assert [texts[i] for i in range(4)] * 6 == texts and len(set(texts)) == 4
