"""The protocol of text-embeddings-inference, with huggingface_hub's client and by hand: our own routes' values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from albireo import LLM, PoolingParams
from albireo.server.endpoints.tei import weights_of
from server_process import Server, lasting
from tiny_classifiers import logits_of, save_classifier, save_model
from tiny_tokenizers import bert_tokenizer

TEXTS = ["a dog ran", "once upon a time , the cats", "the"]
MANY = {"inputs": {"source_sentence": "the", "sentences": ["the"] * 2049}}
PROMPTS = {"query": "the cat : ", "document": ""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = tmp_path_factory.mktemp("embedder")
    save_model(made, "Bert", "Model", bert_tokenizer())
    (made / "config_sentence_transformers.json").write_text(json.dumps({"prompts": PROMPTS}))
    return made


@pytest.fixture(scope="module")
def embedder(ending: ExitStack, folder: Any) -> Iterator[Server]:
    yield from lasting(ending, str(folder), "--dtype", "float32")


@pytest.fixture(scope="module")
def llm(folder: Any) -> Iterator[LLM]:
    with LLM(str(folder), dtype="float32", num_threads=1) as made:
        yield made


def vectors(llm: LLM, texts: list[str], name: str | None = None, **params: Any) -> list[list[float]]:
    found = llm.embed(texts, PoolingParams(**params), prompt_name=name, use_tqdm=False)
    return [out.outputs.embedding for out in found]


def post(server: Server, path: str, **body: Any) -> Any:
    return server.http.post(path, json=body)


def test_prompts_go_before_texts_by_their_names(embedder: Server, llm: LLM) -> None:
    wanted = vectors(llm, [PROMPTS["query"] + text for text in TEXTS])
    assert vectors(llm, TEXTS, "query") == wanted != vectors(llm, TEXTS) == vectors(llm, TEXTS, "document")
    tokens = llm.encode(TEXTS[0], pooling_task="token_embed", prompt_name="query", use_tqdm=False)[0]
    assert len(tokens.outputs.data) == len(tokens.prompt_token_ids) == 5 + len(TEXTS[0].split())
    got = post(embedder, "/v1/embeddings", input=TEXTS, prompt_name="query").json()
    assert [each["embedding"] for each in got["data"]] == wanted
    assert post(embedder, "/pooling", input=TEXTS[0], prompt_name="query").json()["data"][0]["data"] == wanted[0]
    assert post(embedder, "/embed", inputs=TEXTS, prompt_name="query").json() == wanted
    for body, words in (
        ({"input": "the", "prompt_name": "passage"}, "is none of this model's; its files name query, document"),
        ({"input": [3, 4], "prompt_name": "query"}, "goes with a text, and there are token ids"),
        ({"messages": [{"role": "user", "content": "the"}], "prompt_name": "query"}, "there is a chat"),
    ):
        refusal = post(embedder, "/v1/embeddings", **body)
        assert refusal.status_code == 400 and words in refusal.json()["error"]["message"], refusal.text
        assert refusal.json()["error"]["param"] == "prompt_name"


def test_embeddings(embedder: Server, llm: LLM) -> None:
    wanted = vectors(llm, TEXTS)
    client = huggingface_hub.InferenceClient(model=embedder.url, token="none")
    assert np.array_equal(client.feature_extraction(TEXTS[0]), np.array(wanted[:1], np.float32))
    bare = client.feature_extraction(TEXTS[1], normalize=False, prompt_name="query", truncate=True)
    assert np.array_equal(bare, np.array(vectors(llm, TEXTS[1:2], "query", use_activation=False), np.float32))
    assert post(embedder, "/embed", inputs=TEXTS, dimensions=8).json() == vectors(llm, TEXTS, dimensions=8)
    ids = llm.get_tokenizer().encode(TEXTS[0])
    assert post(embedder, "/embed", inputs=[ids, ids]).json() == wanted[:1] * 2
    tokens = [
        out.outputs.data.tolist()
        for out in llm.encode(TEXTS, PoolingParams(use_activation=False), use_tqdm=False, pooling_task="token_embed")
    ]
    assert post(embedder, "/embed_all", inputs=TEXTS).json() == tokens


def test_what_does_not_fit_is_cut_unless_that_is_refused(embedder: Server, llm: LLM) -> None:
    long = " ".join(["the cat", *["ran"] * 100])
    side = post(embedder, "/embed", inputs=long, truncation_direction="Left").json()
    assert side == vectors(llm, [long], truncate_prompt_tokens=-1, truncation_side="left")
    assert post(embedder, "/embed", inputs=long).json() == vectors(llm, [long], truncate_prompt_tokens=-1) != side
    refusal = post(embedder, "/embed", inputs=["the", long], truncate=False)
    assert refusal.status_code == 400 and refusal.json()["error_type"] == "Validation"
    assert refusal.json()["error"].startswith("inputs[1]: the prompt has 104 tokens")


def test_similarity(embedder: Server, llm: LLM) -> None:
    wanted = [out.outputs.score for out in llm.score(TEXTS[0], TEXTS, use_tqdm=False)]
    client = huggingface_hub.InferenceClient(model=embedder.url, token="none")
    assert client.sentence_similarity(TEXTS[0], other_sentences=TEXTS) == wanted
    begun: dict[str, Any] = {"source_sentence": TEXTS[0], "sentences": TEXTS}
    named = post(embedder, "/similarity", inputs=begun, parameters={"prompt_name": "query"}).json()
    both = [PROMPTS["query"] + text for text in TEXTS]
    assert named == [out.outputs.score for out in llm.score(both[0], both, use_tqdm=False)] != wanted
    ranked = post(embedder, "/rerank", query=TEXTS[0], texts=TEXTS, return_text=True).json()
    assert [(each["score"], each["text"]) for each in ranked] == sorted(zip(wanted, TEXTS, strict=True), reverse=True)


def test_weights_are_those_that_are_not_zero() -> None:
    values = np.array([0, 0.1, -0.0, 3e-45, -2, 0], "<f4")
    told = json.loads(bytes(weights_of(values.tobytes())))
    wanted = [{"index": at, "value": value} for at, value in enumerate(values.tolist()) if value]
    assert told == wanted and [each["index"] for each in told] == [1, 3, 4]
    assert bytes(weights_of(bytes(8))) == b"[]"


def test_weights_of_a_vocabulary(ending: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("splade")
    save_model(folder, "Bert", "ForMaskedLM", bert_tokenizer())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertSpladeSparseEmbeddingModel"]}))
    for server in lasting(ending, str(folder), "--dtype", "float32"):
        whole = post(server, "/v1/embeddings", input=TEXTS).json()["data"]
        wanted = [
            [{"index": at, "value": value} for at, value in enumerate(each["embedding"]) if value] for each in whole
        ]
        assert 0 < len(wanted[0]) < config["vocab_size"]
        for path in ("/embed_sparse", "/"):
            assert post(server, path, inputs=TEXTS).json() == wanted
        assert server.http.get("/info").json()["model_type"] == {"embedding": {"pooling": "splade"}}


def test_what_is_served_and_refused(embedder: Server) -> None:
    told = embedder.http.get("/info").json()
    assert told["model_type"] == {"embedding": {"pooling": "cls"}}
    assert told["max_input_length"] == 66 and told["auto_truncate"] and told["version"]
    for path, body, words in (
        ("/predict", {"inputs": "the"}, "it is no classifier of texts"),
        ("/embed_sparse", {"inputs": "the"}, "its embeddings are not sparse; take /embed"),
        ("/embed", {"inputs": []}, "inputs"),
        ("/embed", {"inputs": "the", "nobody": 1}, "nobody"),
        ("/embed", {"inputs": "the", "prompt_name": "passage"}, "prompt_name='passage' is none of this model's"),
        ("/similarity", {"inputs": {"source_sentence": "the", "sentences": []}}, "sentences holds no texts"),
        ("/similarity", {**MANY, "parameters": {"prompt_name": "passage"}}, "sentences holds 2049 inputs"),
    ):
        refusal = post(embedder, path, **body)
        assert refusal.status_code == 400 and words in refusal.json()["error"], refusal.text
        assert refusal.json()["error_type"] == "Validation"
    # the page is there still
    assert embedder.http.get("/").headers["content-type"].startswith("text/html")


def test_classes_of_texts_and_pairs(ending: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("nli")
    model, tokenizer = save_classifier(folder, "Bert", ("yes", "maybe", "no"))
    pair = ["a dog ran", "the cat sat"]

    def wanted(*texts: str, raw: bool = False) -> list[tuple[str, float]]:
        scores = np.array(logits_of(model, tokenizer, *texts))
        powers = np.exp(scores - scores.max())
        named = zip(("yes", "maybe", "no"), scores if raw else powers / powers.sum(), strict=True)
        return sorted(named, key=lambda each: -each[1])

    def found(answer: list[dict[str, Any]]) -> list[tuple[str, float]]:
        return [(each["label"], pytest.approx(each["score"], abs=1e-5)) for each in answer]

    for server in lasting(ending, str(folder), "--dtype", "float32"):
        assert found(post(server, "/predict", inputs=TEXTS[0]).json()) == wanted(TEXTS[0])
        assert found(post(server, "/predict", inputs=pair).json()) == wanted(*pair)
        assert found(post(server, "/", inputs=pair, raw_scores=True, parameters={}).json()) == wanted(*pair, raw=True)
        several = post(server, "/predict", inputs=[pair, [TEXTS[2]], TEXTS[1]]).json()
        assert [found(each) for each in several] == [wanted(*pair), wanted(TEXTS[2]), wanted(TEXTS[1])]
        refusal = post(server, "/predict", inputs=["a", "b", "c"])
        assert refusal.status_code == 400 and "inputs has 3 texts; give one, or two" in refusal.json()["error"]
        assert set(server.http.get("/info").json()["model_type"]["classifier"]["label2id"]) == {"yes", "maybe", "no"}


def test_a_reranker(ending: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("reranker")
    model, tokenizer = save_classifier(folder, "Roberta", ("LABEL_0",))
    scores = [logits_of(model, tokenizer, TEXTS[0], text)[0] for text in TEXTS]
    for server in lasting(ending, str(folder), "--dtype", "float32"):
        for path in ("/rerank", "/"):
            raw = post(server, path, query=TEXTS[0], texts=TEXTS, raw_scores=True).json()
            assert [each["index"] for each in raw] == sorted(range(3), key=lambda at: -scores[at])
            assert [each["score"] for each in raw] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
        likely = post(server, "/rerank", query=TEXTS[0], texts=TEXTS).json()
        assert [each["score"] for each in likely] == pytest.approx(
            [1 / (1 + np.exp(-score)) for score in sorted(scores, reverse=True)], abs=1e-6
        )
        # the same route as others have it
        (best, *_) = post(server, "/rerank", query=TEXTS[0], documents=TEXTS).json()["results"]
        assert (best["index"], best["relevance_score"]) == (likely[0]["index"], likely[0]["score"])
        assert list(server.http.get("/info").json()["model_type"]) == ["reranker"]


def test_texts_are_told_as_tokens_with_their_places(embedder: Server, folder: Any) -> None:
    """By the tokenizers library itself, whose places are characters, and are told in bytes."""
    from tokenizers import Tokenizer

    text = "the caf\u00e9 ran ."
    (got,) = post(embedder, "/tokenize", inputs=text).json()
    wanted = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text)
    assert [each["id"] for each in got] == wanted.ids
    ends = (got[0], got[-1])
    assert all(each["special"] and each["start"] is each["stop"] is None for each in ends)
    assert [each["text"] for each in ends] == [wanted.tokens[0], wanted.tokens[-1]]
    for each, (start, stop) in zip(got[1:-1], wanted.offsets[1:-1], strict=True):
        if not each["special"]:
            assert (each["start"], each["stop"]) == (len(text[:start].encode()), len(text[:stop].encode()))
            assert each["text"] == text[start:stop]
    bare, named = (
        post(embedder, "/tokenize", inputs=TEXTS, **beside).json()
        for beside in ({"add_special_tokens": False}, {"prompt_name": "query"})
    )
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for told, prompt, special in ((bare, "", False), (named, PROMPTS["query"], True)):
        wanted_ids = [library.encode(prompt + each, add_special_tokens=special).ids for each in TEXTS]
        assert [[token["id"] for token in each] for each in told] == wanted_ids
    ids = [[token["id"] for token in each] for each in named]
    assert post(embedder, "/decode", ids=ids).json() == [library.decode(each) for each in ids]
    assert post(embedder, "/decode", ids=ids[0]).json() == post(embedder, "/decode", ids=ids[:1]).json()
    assert post(embedder, "/decode", ids=ids[0], skip_special_tokens=False).json()[0].startswith("[CLS]")


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/tokenize", {"inputs": 3}, "inputs"),
        ("/tokenize", {"inputs": []}, "inputs"),
        ("/tokenize", {"inputs": "x", "prompt": "x"}, "prompt"),
        ("/tokenize", {"inputs": "x", "prompt_name": "other"}, "prompt_name"),
        ("/decode", {"ids": []}, "ids"),
        ("/decode", {"ids": [1, [2]]}, "one kind"),
        ("/decode", {"ids": [1 << 30]}, "outside the vocabulary"),
        ("/decode", {"ids": ["a"]}, "ids"),
    ],
)
def test_what_is_no_text_and_no_id_is_refused(embedder: Server, path: str, body: dict[str, Any], said: str) -> None:
    answer = post(embedder, path, **body)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"] and answer.json()["error_type"] == "Validation"
