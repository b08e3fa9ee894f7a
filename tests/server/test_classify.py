"""Classifiers over HTTP: /classify, /score and /rerank give what LLM gives; other routes say what the model is."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from albireo import LLM, PoolingParams
from server_process import Server, lasting
from tiny_classifiers import save_classifier

QUERY = "the cat sat on a mat ."
TEXTS = ["a dog ran", "once upon a time , the cats", "the", QUERY]
LABELS = ("bad", "fair", "good")


class Served(NamedTuple):
    server: Server
    llm: LLM

    def post(self, path: str, **body: Any) -> Any:
        return self.server.http.post(path, json=body)


def served(ending: ExitStack, folder: Path, labels: tuple[str, ...]) -> Iterator[Served]:
    save_classifier(folder, "Bert", labels)
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        for server in lasting(ending, str(folder), "--dtype", "float32", "--served-model-name", "tiny"):
            yield Served(server, llm)


@pytest.fixture(scope="module")
def reranker(ending: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from served(ending, tmp_path_factory.mktemp("reranker"), ("LABEL_0",))


@pytest.fixture(scope="module")
def judge(ending: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from served(ending, tmp_path_factory.mktemp("judge"), LABELS)


def scores(llm: LLM, ones: Any, others: Any, **params: Any) -> list[float]:
    outputs = llm.score(ones, others, pooling_params=PoolingParams(**params), use_tqdm=False)
    return [output.outputs.score for output in outputs]


def test_a_cross_encoder_scores_and_ranks(reranker: Served) -> None:
    found = scores(reranker.llm, QUERY, TEXTS)
    got = reranker.post("/v1/score", text_1=QUERY, text_2=TEXTS).json()
    assert [data["score"] for data in got["data"]] == found and len(set(found)) == 4
    encode = reranker.llm.get_tokenizer().encode_prompt
    count = sum(len(encode(QUERY, text).ids) for text in TEXTS)
    assert got["usage"] == {"prompt_tokens": count, "total_tokens": count} and got["model"] == "tiny"
    got = reranker.post("/rerank", model="tiny", query=QUERY, documents=TEXTS, top_n=3).json()
    best = sorted(range(4), key=lambda i: -found[i])[:3]
    assert [(each["index"], each["relevance_score"]) for each in got["results"]] == [(i, found[i]) for i in best]
    raw = reranker.post("/score", text_1=TEXTS, text_2=TEXTS[::-1], use_activation=False).json()
    assert [data["score"] for data in raw["data"]] == scores(reranker.llm, TEXTS, TEXTS[::-1], use_activation=False)


def test_pairs_are_cut_or_refused_by_name(reranker: Served) -> None:
    long = "the cat sat on a mat , " * 20
    got = reranker.post("/score", queries="the", documents=[TEXTS[0], long], truncate_prompt_tokens=-1).json()
    assert [data["score"] for data in got["data"]] == scores(
        reranker.llm, "the", [TEXTS[0], long], truncate_prompt_tokens=-1
    )
    got = reranker.post("/v2/rerank", query="the cat", documents=["a dog ran once", long], max_tokens_per_doc=2).json()
    wanted = scores(reranker.llm, "the cat", ["a dog", "the cat"])
    assert sorted(each["relevance_score"] for each in got["results"]) == sorted(wanted)
    got = reranker.post("/rerank", query="the", documents=[TEXTS[0], long])
    error = got.json()["error"]
    assert (got.status_code, error["param"], error["code"]) == (400, "documents", "context_length_exceeded")
    assert error["message"].startswith("documents[1]: the prompt has ")
    error = reranker.post("/rerank", query=long, documents=["the", "a"], truncate_prompt_tokens=-1).json()["error"]
    assert error["message"].startswith("documents[0]: the first text and the tokens put round both are ")


def test_spaces_are_no_tokens(reranker: Served) -> None:
    """What is far longer than any text of so many tokens may be of few."""
    got = reranker.post("/score", text_1=QUERY, text_2=" " * 100_000 + "the").json()
    assert [data["score"] for data in got["data"]] == scores(reranker.llm, QUERY, "the")


def test_classes_have_the_models_labels(judge: Served) -> None:
    tokens = judge.llm.get_tokenizer().encode(QUERY)
    for inputs in (TEXTS, [tokens], TEXTS[0]):
        expected = judge.llm.classify(inputs, use_tqdm=False)
        got = judge.post("/classify", model="tiny", input=inputs).json()
        assert [data["probs"] for data in got["data"]] == [output.outputs.probs for output in expected]
        for index, data in enumerate(got["data"]):
            best = max(range(3), key=data["probs"].__getitem__)
            assert (data["index"], data["label"], data["num_classes"]) == (index, LABELS[best], 3)
            assert sum(data["probs"]) == pytest.approx(1, abs=1e-6)
    assert (got["object"], got["model"], got["usage"]["prompt_tokens"]) == ("list", "tiny", 5)
    assert got["id"].startswith("classify-")
    params = PoolingParams(use_activation=False, truncate_prompt_tokens=4)
    raw = judge.post("/classify", input=TEXTS, use_activation=False, truncate_prompt_tokens=4, user="me").json()
    expected = judge.llm.classify(TEXTS, pooling_params=params, use_tqdm=False)
    assert [data["probs"] for data in raw["data"]] == [output.outputs.probs for output in expected]


CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "the cat"}], "max_tokens": 4}
TEXT_ROUTES = [
    ("/v1/completions", {"prompt": "the cat"}),
    ("/v1/chat/completions", CHAT),
    ("/v1/messages", CHAT),
    ("/v1/responses", {"input": "the cat"}),
]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        *((path, body, "it writes no text") for path, body in TEXT_ROUTES),
        ("/v1/embeddings", {"input": "the cat"}, "it gives no embeddings"),
        ("/score", {"text_1": "the", "text_2": "cat"}, "a score of two texts is that of one label"),
        ("/rerank", {"query": "the", "documents": ["cat"]}, "a score of two texts is that of one label"),
    ],
)
def test_what_the_model_is_not_is_a_bad_request(judge: Served, path: str, body: dict[str, Any], words: str) -> None:
    got = judge.post(path, **body)
    message = got.json()["error"]["message"]
    assert got.status_code == 400 and words in message, got.text
    assert "this model gives scores of 3 labels (classify, score, /classify)" in message


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"input": []}, "input", "input is empty"),
        ({"input": ["the", ""]}, "input", "input[1] is empty"),
        ({"input": ["the", "the " * 100]}, "input", "input[1]: the prompt has 102 tokens"),
        ({"input": "the", "dimensions": 2}, "dimensions", "not a field"),
        ({"input": "the", "pooling_type": "mean"}, "pooling_type", "leave it out"),
        ({"input": "the", "truncate_prompt_tokens": 1000}, "truncate_prompt_tokens", "more than max_model_len"),
        ({"messages": []}, "messages", "length"),
    ],
)
def test_what_cannot_be_classified_is_named(judge: Served, body: dict[str, Any], param: str, words: str) -> None:
    got = judge.post("/classify", **body)
    error = got.json()["error"]
    assert got.status_code == 400 and error["param"] == param and words in error["message"], error


def test_a_model_that_writes_text_is_no_classifier(server: Server) -> None:
    got = server.http.post("/classify", json={"input": "Once"})
    error = got.json()["error"]
    assert (got.status_code, error["param"], error["code"]) == (400, "model", "unsupported")
    assert "writes text (generate, chat) and gives embeddings" in error["message"]


def test_other_routes_are_as_ever(judge: Served) -> None:
    assert judge.server.http.get("/health").status_code == 200
    assert judge.server.http.get("/v1/models").json()["data"][0]["id"] == "tiny"
    tokens = judge.post("/tokenize", prompt=QUERY).json()["tokens"]
    assert tokens == judge.llm.get_tokenizer().encode(QUERY)
    assert judge.server.metrics()["vllm:num_requests_running"] == 0


def test_pooling_gives_the_numbers_without_their_names(judge: Served, server: Server) -> None:
    expected = [each["probs"] for each in judge.post("/classify", input=TEXTS).json()["data"]]
    got = judge.post("/pooling", input=TEXTS, task="classify", model="tiny").json()
    assert [(each["index"], each["object"], each["data"]) for each in got["data"]] == [
        (index, "pooling", probs) for index, probs in enumerate(expected)
    ]
    assert got["id"].startswith("pool-") and got["object"] == "list" and got["model"] == "tiny"
    packed = judge.post("/pooling", input=TEXTS[0], encoding_format="base64", add_special_tokens=False).json()
    bare = judge.post("/classify", input=TEXTS[0], add_special_tokens=False).json()["data"][0]["probs"]
    assert list(struct.unpack("<3f", base64.b64decode(packed["data"][0]["data"]))) == bare
    for fields, param in (({"dimensions": 2}, "dimensions"), ({"task": "embed"}, "model"), ({"data": 1}, "data")):
        refusal = judge.post("/pooling", input="the", **fields)
        assert (refusal.status_code, refusal.json()["error"]["param"]) == (400, param), refusal.text
    asked = {"input": ["the cat", "a dog"], "dimensions": 8, "truncate_prompt_tokens": 2}
    vectors = [each["embedding"] for each in server.http.post("/v1/embeddings", json=asked).json()["data"]]
    found = server.http.post("/pooling", json=asked).json()
    assert [each["data"] for each in found["data"]] == vectors and found["usage"]["prompt_tokens"] == 4
