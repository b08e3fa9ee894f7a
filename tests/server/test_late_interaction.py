"""Models that give each token an embedding of its own: /score, /rerank and /pooling, and LLM.score()."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from albireo import LLM, PoolingParams
from albireo.api.requests.scoring import Part, plan_cosines
from albireo.engine.settings import EngineSettings
from albireo.models.settings.pooling_rule import PoolingRule
from albireo.server.endpoints.embeddings import data_of
from albireo.server.endpoints.scoring import computed
from albireo.server.errors import HttpError
from albireo.server.pooling_intake import check_values
from albireo.server.protocol.pooled import Pooled
from server_process import Server, lasting
from tiny_classifiers import save_model
from tiny_tokenizers import bert_tokenizer

QUERY = "the cat sat on a mat ."
TEXTS = ["a dog ran", "once upon a time , the cats", "the", QUERY]


class Served(NamedTuple):
    server: Server
    llm: LLM

    def post(self, path: str, **body: Any) -> Any:
        return self.server.http.post(path, json=body)


@pytest.fixture(scope="module")
def colbert(ending: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("colbert")
    save_model(folder, "Bert", "Model", bert_tokenizer())
    weight = np.random.default_rng(3).normal(0, 0.2, (8, 64)).astype(np.float32)
    save_file(load_file(folder / "model.safetensors") | {"linear.weight": weight}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        for server in lasting(ending, str(folder), "--dtype", "float32"):
            yield Served(server, llm)


def vectors(llm: LLM, texts: list[str]) -> list[Any]:
    return [out.outputs.data.astype(np.float64) for out in llm.encode(texts, use_tqdm=False)]


def test_scores_are_sums_of_the_nearest(colbert: Served) -> None:
    query, *texts = vectors(colbert.llm, [QUERY, *TEXTS])
    assert query.shape[1] == 8 and np.allclose(np.linalg.norm(query, axis=1), 1.0)
    wanted = [float((query @ text.T).max(axis=1).sum()) for text in texts]
    found = [out.outputs.score for out in colbert.llm.score(QUERY, TEXTS, use_tqdm=False)]
    assert found == pytest.approx(wanted, rel=1e-12) and found[3] == pytest.approx(len(query)) == max(found)
    got = colbert.post("/score", text_1=QUERY, text_2=TEXTS).json()
    assert [each["score"] for each in got["data"]] == found
    ranked = colbert.post("/rerank", query=QUERY, documents=TEXTS).json()["results"]
    assert [(each["index"], each["relevance_score"]) for each in ranked] == sorted(
        enumerate(found), key=lambda each: -each[1]
    )
    # the first text is the query: it is not the same the other way round
    assert [out.outputs.score for out in colbert.llm.score(TEXTS[:2], [QUERY] * 2, use_tqdm=False)] != found[:2]


def test_pooling_gives_the_numbers_of_each_token(colbert: Served) -> None:
    wanted = vectors(colbert.llm, TEXTS)
    got = colbert.post("/pooling", input=TEXTS).json()
    assert [each["index"] for each in got["data"]] == [0, 1, 2, 3]
    for each, rows in zip(got["data"], wanted, strict=True):
        assert each["data"] == rows.tolist()
    packed = colbert.post("/pooling", input=TEXTS[1], task="token_embed", encoding_format="base64").json()
    flat = np.frombuffer(base64.b64decode(packed["data"][0]["data"]), "<f4")
    assert np.array_equal(flat.reshape(-1, 8), wanted[1])
    short = colbert.post("/pooling", input=TEXTS[1], dimensions=3).json()["data"][0]["data"]
    assert np.array(short).shape == (len(wanted[1]), 3)


def test_of_whole_texts_where_that_is_asked_for(colbert: Served) -> None:
    params = PoolingParams(pooling_type="mean")
    found = [out.outputs.score for out in colbert.llm.score(QUERY, TEXTS, pooling_params=params, use_tqdm=False)]
    got = colbert.post("/score", text_1=QUERY, text_2=TEXTS, pooling_type="mean").json()
    assert [each["score"] for each in got["data"]] == found and found[3] == max(found) == 1


def test_what_a_server_pools_by_default_is_of_whole_texts(pooled: Server) -> None:
    key = {"authorization": "Bearer sesame"}
    body = {"input": "Once upon a time", "task": "token_embed"}
    (rows,) = pooled.http.post("/pooling", json=body, headers=key).json()["data"]
    assert len(rows["data"]) > 3
    asked = pooled.http.post("/pooling", json={**body, "pooling_type": "mean"}, headers=key)
    assert asked.status_code == 400 and "token_embed is of all tokens" in asked.json()["error"]["message"]


def test_many_values_are_written_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    tracked: Any = SimpleNamespace(embedding=values.tobytes())
    for most in (4, 24, 1 << 18):
        monkeypatch.setattr("albireo.server.endpoints.embeddings._BYTES_AT_ONCE", most)
        (made,) = asyncio.run(data_of(None, [tracked], Pooled, [3]))
        assert json.loads(bytes(made))["data"] == values.tolist()


def test_values_of_one_request_have_a_limit(server: Server) -> None:
    ask = {"input": [[3] * 140] * 2048, "task": "token_embed"}
    refusal = server.http.post("/pooling", json=ask)
    assert refusal.status_code == 400 and refusal.json()["error"]["param"] == "input"
    assert "tokens have 73400320 values in all, at most 67108864 are given" in refusal.json()["error"]["message"]
    few = server.http.post("/pooling", json={"input": [[3] * 70] * 3, "task": "token_embed"}).json()
    assert [len(each["data"]) for each in few["data"]] == [70] * 3


def test_entries_of_a_vocabulary_are_values_too() -> None:
    made: Any = SimpleNamespace(prompt_token_ids=[1] * 9, pooling=PoolingParams())
    rule = PoolingRule(pooling_type="max", vocabulary="log1p")
    settings = EngineSettings(
        num_blocks=8, max_model_len=64, vocab_size=250_000, embedding_size=250_000, pooling_rule=rule
    )
    check_values([made] * 268, settings, "input")
    with pytest.raises(HttpError, match="the inputs have 67250000 values in all, at most 67108864"):
        check_values([made] * 269, settings, "input")


def test_values_that_are_compared_elsewhere_give_the_same_scores() -> None:
    in_thread = list[int]()

    async def done(work: Any) -> Any:
        in_thread.append(1)
        return work()

    serving: Any = SimpleNamespace(in_thread=done)
    plan = plan_cosines([Part("a")], [Part("b"), Part("c")])
    rows = np.random.default_rng(0).normal(size=(3, 30_000)).astype(np.float32)
    for width, num in ((100, 0), (30_000, 1)):
        requests: list[Any] = [SimpleNamespace(embedding=row[:width].tobytes()) for row in rows]
        found = asyncio.run(computed(serving, plan, requests))
        assert found == list(plan.scores([row[:width].tolist() for row in rows])) and len(in_thread) == num


def test_what_it_does_not_do(colbert: Served, server: Server) -> None:
    for path, body in (("/v1/embeddings", {}), ("/pooling", {"task": "embed"}), ("/pooling", {"task": "classify"})):
        refusal = colbert.post(path, input="the", **body)
        assert refusal.status_code == 400, refusal.text
        assert "this model gives an embedding of each token (encode, score, /pooling)" in refusal.text
    refusal = server.http.post("/v1/embeddings", json={"input": "the", "pooling_type": "all"})
    assert refusal.status_code == 400 and "/pooling with this task" in refusal.json()["error"]["message"]
    refusal = server.http.post("/pooling", json={"input": "the", "task": "token_classify"})
    assert refusal.status_code == 400 and "it is no classifier of tokens" in refusal.json()["error"]["message"]


def test_any_model_of_text_gives_its_tokens(server: Server) -> None:
    ask = {"input": "Once upon a time", "task": "token_embed"}
    got = server.http.post("/pooling", json=ask).json()
    rows = got["data"][0]["data"]
    assert len(rows) == got["usage"]["prompt_tokens"] > 3
    (last,) = server.http.post("/v1/embeddings", json={"input": ask["input"], "pooling_type": "last"}).json()["data"]
    assert rows[-1] == last["embedding"]
