"""/score and /rerank over HTTP: cosines that are LLM.score's, all their names, orders and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from albireo import LLM, PoolingParams
from albireo.server.errors import HttpError
from albireo.server.pooling_intake import placed
from server_process import Server

QUERY = "A cat sat on a mat."
TEXTS = ["The dog ran away.", "Once upon a time", QUERY, "The cat was happy.", "Once upon a time"]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(num_threads=1) as made:
        yield made


def wanted(llm: LLM, ones: Any, others: Any, **params: Any) -> list[float]:
    outputs = llm.score(ones, others, pooling_params=PoolingParams(**params), use_tqdm=False)
    return [output.outputs.score for output in outputs]


def num_tokens(llm: LLM, *texts: str) -> int:
    return sum(len(llm.get_tokenizer().encode(text)) for text in texts)


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
def test_scores_are_those_of_the_engine(server: Server, llm: LLM, path: str, names: tuple[str, str]) -> None:
    asked = {"model": "story", names[0]: QUERY, names[1]: TEXTS}
    got = server.http.post(path, json=asked).json()
    assert [data["score"] for data in got["data"]] == wanted(llm, QUERY, TEXTS)
    assert [(data["index"], data["object"]) for data in got["data"]] == [(i, "score") for i in range(5)]
    assert got["object"] == "list" and got["model"] == "story" and got["id"].startswith("score-")
    # a text that is there several times is computed once
    count = num_tokens(llm, *{QUERY, *TEXTS})
    assert got["usage"] == {"prompt_tokens": count, "total_tokens": count}
    each = server.http.post(path, json={names[0]: TEXTS, names[1]: TEXTS[::-1]}).json()
    assert [data["score"] for data in each["data"]] == wanted(llm, TEXTS, TEXTS[::-1])


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_the_best_documents_come_first_and_ties_by_their_place(server: Server, llm: LLM, path: str) -> None:
    found = wanted(llm, QUERY, TEXTS)
    order = sorted(range(5), key=lambda i: (-found[i], i))
    assert order[0] == 2 and order.index(4) == order.index(1) + 1
    got = server.http.post(path, json={"model": "story", "query": QUERY, "documents": TEXTS}).json()
    expected = [{"index": i, "relevance_score": found[i], "document": {"text": TEXTS[i]}} for i in order]
    assert got["results"] == expected and got["id"].startswith("rerank-") and got["model"] == "story"
    assert got["usage"]["total_tokens"] == num_tokens(llm, *{QUERY, *TEXTS})
    mixed = [TEXTS[0], *({"text": text} for text in TEXTS[1:])]
    short = {"query": QUERY, "documents": mixed, "top_n": 2, "return_documents": False}
    got = server.http.post(path, json=short).json()
    assert got["results"] == [{"index": i, "relevance_score": found[i]} for i in order[:2]]
    for most in (0, 5, 99, None):
        got = server.http.post(path, json={"query": QUERY, "documents": TEXTS, "top_n": most}).json()
        assert got["results"] == expected
    one = server.http.post(path, json={"query": QUERY, "documents": TEXTS[0]}).json()
    assert [each["relevance_score"] for each in one["results"]] == found[:1]


def test_pooling_and_cutting(server: Server, llm: LLM) -> None:
    def scores(**fields: Any) -> list[float]:
        got = server.http.post("/score", json={"text_1": QUERY, "text_2": [TEXTS[0], long], **fields}).json()
        return [data["score"] for data in got["data"]]

    long = "a fox and a bird " * 1000
    encode, decode = llm.get_tokenizer().encode, llm.get_tokenizer().decode
    cut = {"truncate_prompt_tokens": -1}
    assert scores(**cut) == wanted(llm, QUERY, [TEXTS[0], long], **cut)
    both = {"pooling_type": "MEAN", "truncate_prompt_tokens": 40, "use_activation": False}
    assert scores(**both) == wanted(llm, QUERY, [TEXTS[0], long], **both) != scores(**cut)
    # what is put round a text does not count
    texts = [decode(encode(text, add_special_tokens=False)[:4]) for text in (QUERY, TEXTS[0], long)]
    assert scores(max_tokens_per_query=4, max_tokens_per_doc=4) == wanted(llm, texts[0], texts[1:])
    assert scores(max_tokens_per_doc=4) == wanted(llm, QUERY, texts[1:])
    ranked = {"query": QUERY, "documents": [long, TEXTS[0]], "max_tokens_per_doc": 4}
    got = server.http.post("/v2/rerank", json=ranked).json()
    assert {each["relevance_score"] for each in got["results"]} == set(scores(max_tokens_per_doc=4))
    assert {each["document"]["text"] for each in got["results"]} == {long, TEXTS[0]}


def test_neutral_values_ask_for_nothing(server: Server, llm: LLM) -> None:
    names = (
        "model", "pooling_type", "use_activation", "truncate_prompt_tokens", "priority", "cache_salt", "request_id",
        "truncation_side", "padding", "mm_processor_kwargs", "instruction", "chat_template_kwargs",
        "max_tokens_per_query", "max_tokens_per_doc", "something_new",
    )  # fmt: skip
    asking_nothing = {
        "user": "someone", "truncation_side": "right", "padding": "do_not_pad", "mm_processor_kwargs": {},
        "instruction": "", "chat_template_kwargs": {}, "max_tokens_per_query": 0, "max_tokens_per_doc": 0,
        "priority": 0,
    }  # fmt: skip
    for fields in (dict.fromkeys(names), asking_nothing):
        got = server.http.post("/score", json={"text_1": QUERY, "text_2": TEXTS[:1], "queries": None, **fields}).json()
        assert [data["score"] for data in got["data"]] == wanted(llm, QUERY, TEXTS[:1])
        ranks = {"rank_fields": ["text"], "max_chunks_per_doc": None, "top_n": None, "return_documents": None}
        body = {"query": QUERY, "documents": TEXTS[:1], **ranks, **fields}
        got = server.http.post("/rerank", json=body).json()
        assert [each["relevance_score"] for each in got["results"]] == wanted(llm, QUERY, TEXTS[:1])


SCORE: dict[str, Any] = {"text_1": QUERY, "text_2": TEXTS}
RERANK: dict[str, Any] = {"query": QUERY, "documents": TEXTS}


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("/score", {"text_1": "a"}, "text_1", "texts are named text_1 and text_2, queries and documents, queries and"),
        ("/score", {}, None, "given are none"),
        ("/score", {**SCORE, "queries": "a"}, "text_1", "given are text_1, text_2, queries"),
        ("/score", {"text_1": "a", "documents": ["b"]}, "text_1", "given are text_1, documents"),
        ("/score", {"text_1": ["a", "b"], "text_2": TEXTS}, "text_1", "text_1 holds 2 texts and text_2 5"),
        ("/score", {"text_1": "a", "text_2": []}, "text_2", "text_2 holds no texts"),
        ("/score", {"text_1": [], "text_2": ["a"]}, "text_1", "text_1 holds no texts"),
        ("/score", {"text_1": "a", "text_2": [{"content": []}]}, "text_2", "text_2 has content; only texts are scored"),
        ("/score", {**SCORE, "text_2": ["a"] * 2049}, "text_2", "2049 inputs, at most 2048"),
        ("/score", {**SCORE, "text_2": ["a", " the" * 600]}, "text_2", r"text_2[1]: the prompt has 60"),
        ("/score", {**SCORE, "text_2": ["a", "b" * 100_000]}, "text_2", "text_2[1] of length 100000 cannot fit"),
        ("/score", {**SCORE, "text_1": " the" * 600}, "text_1", "the prompt has 60"),
        ("/score", {**SCORE, "truncate_prompt_tokens": 1}, "text_1", "cut to nothing"),
        ("/score", {**SCORE, "truncate_prompt_tokens": 513}, "truncate_prompt_tokens", "more than max_model_len=512"),
        ("/score", {**SCORE, "priority": 3}, "priority", "scheduling_policy"),
        ("/score", {**SCORE, "instruction": "Judge"}, "instruction", "not supported"),
        ("/score", {**SCORE, "dimensions": 3}, "dimensions", "not a field"),
        ("/rerank", {"query": QUERY}, "documents", "documents"),
        ("/rerank", {"documents": TEXTS}, "query", "query"),
        ("/rerank", {**RERANK, "documents": []}, "documents", "documents holds no texts"),
        ("/rerank", {**RERANK, "documents": [{"title": "a"}]}, "documents[0].title", "not a field"),
        ("/rerank", {**RERANK, "documents": ["a", {"text": " the" * 600}]}, "documents", "documents[1]: the prompt"),
        ("/rerank", {**RERANK, "documents": [{"text": "b" * 10**5}]}, "documents", "documents of length 100000 cannot"),
        ("/rerank", {**RERANK, "documents": ["a"] * 2049}, "documents", "2049 inputs"),
        ("/rerank", {**RERANK, "query": ["a"]}, "query", "str"),
        ("/rerank", {**RERANK, "top_n": -1}, "top_n", ">= 0"),
        ("/rerank", {**RERANK, "max_tokens_per_doc": -1}, "max_tokens_per_doc", ">= 0"),
        ("/rerank", {**RERANK, "rank_fields": ["title"]}, "rank_fields", "not supported"),
        ("/rerank", {**RERANK, "max_chunks_per_doc": 10}, "max_chunks_per_doc", "not supported"),
        ("/rerank", {**RERANK, "text_1": "a"}, "text_1", "not a field"),
    ],
)
def test_what_cannot_be_is_a_bad_request_that_names_the_field(
    server: Server, path: str, body: dict[str, Any], param: str | None, words: str
) -> None:
    got = server.http.post(path, json=body)
    assert got.status_code == 400, got.text
    error = got.json()["error"]
    assert words in error["message"] and error["param"] == param, error


def test_another_models_name_is_not_found(server: Server) -> None:
    assert server.http.post("/v1/rerank", json={**RERANK, "model": "rerank-v3.5"}).status_code == 404


def test_large_answers_are_those_of_small_ones(server: Server, llm: LLM) -> None:
    """So many values are compared in a thread."""
    texts = [f"Story {i} of a fox" for i in range(40)]
    got = server.http.post("/score", json={"text_1": QUERY, "text_2": texts * 8}).json()
    assert [data["score"] for data in got["data"]] == wanted(llm, QUERY, texts) * 8


def test_limits_keys_counts_and_accounts(pooled: Server, llm: LLM) -> None:
    server, before = pooled, pooled.metrics()
    assert server.http.post("/rerank", json=RERANK, headers={"authorization": ""}).status_code == 401
    assert server.http.post("/rerank", json=RERANK).status_code == 400
    got = server.http.post("/rerank", json={**RERANK, "documents": TEXTS[:4]}).json()
    found = wanted(llm, QUERY, TEXTS[:4], pooling_type="mean")
    assert [each["relevance_score"] for each in got["results"]] == sorted(found, reverse=True)
    metrics = server.metrics_since(before)
    assert metrics["vllm:request_success_total"] == 4, "texts, each once"
    assert metrics["vllm:prompt_tokens_total"] == got["usage"]["prompt_tokens"]
    account = server.http.get(f"/v1/requests/{got['id']}/explain").json()
    assert account["path"] == "/rerank" and len(account["prompts"]) == 4


def test_nobody_notices_that_the_engine_was_killed(slow: Server, llm: LLM) -> None:
    server = slow
    server.gate.hold(3)
    with ThreadPoolExecutor(1) as asking:
        answer = asking.submit(server.http.post, "/score", json={"text_1": QUERY, "text_2": TEXTS})
        server.kill_held()
        server.gate.open()
        got = answer.result().json()
    assert [data["score"] for data in got["data"]] == wanted(llm, QUERY, TEXTS)


def test_a_refusal_says_which_one() -> None:
    assert placed(HttpError(500, "it failed"), "documents[3]").message == "documents[3]: it failed"
    assert placed(HttpError(400, "it is long", param="documents"), "documents[3]").message == "documents[3]: it is long"
    assert placed(HttpError(400, "it is long", param="query"), "query").message == "it is long"
    assert placed(HttpError(400, "priority=3 is not", param="priority"), "documents[3]").message == "priority=3 is not"
