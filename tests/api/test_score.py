"""LLM.score and AsyncLLM.score: cosines of embeddings, against numpy; each text embedded once; refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from albireo import (
    LLM,
    AsyncLLM,
    InvalidParams,
    PoolingParams,
    PromptTooLong,
    ScoringRequestOutput,
    UnsupportedFeature,
)
from albireo.api.requests.scoring import Part, Place, plan_cosines

QUERY = "A cat sat on a mat."
TEXTS = ["The dog ran away.", "Once upon a time", QUERY, "The cat was happy.", "Once upon a time"]
MEAN = PoolingParams(pooling_type="mean")


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(num_threads=1) as made:
        yield made


def cosines(llm: LLM, ones: list[str], others: list[str], params: PoolingParams | None = None) -> list[float]:
    def embedded(texts: list[str]) -> Any:
        return np.array([output.outputs.embedding for output in llm.embed(texts, params, use_tqdm=False)], np.float64)

    a, b = embedded(ones), embedded(others)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: list[float] = ((a * b).sum(1) / lengths).tolist()
    return found


def scores(outputs: list[ScoringRequestOutput]) -> list[float]:
    return [output.outputs.score for output in outputs]


@pytest.mark.parametrize("params", [None, MEAN, PoolingParams(dimensions=9), PoolingParams(use_activation=False)])
def test_one_against_many_is_the_cosine(llm: LLM, params: PoolingParams | None) -> None:
    outputs = llm.score(QUERY, TEXTS, pooling_params=params, use_tqdm=False)
    assert [type(output) for output in outputs] == [ScoringRequestOutput] * 5
    assert scores(outputs) == pytest.approx(cosines(llm, [QUERY] * 5, TEXTS, params), abs=1e-14)
    assert scores(outputs)[1] == scores(outputs)[4] and scores(outputs)[2] == 1
    encode = llm.get_tokenizer().encode
    assert [output.prompt_token_ids for output in outputs] == [encode(QUERY) + encode(text) for text in TEXTS]
    assert all(output.finished for output in outputs)


@pytest.mark.parametrize("dimensions", [None, 9])
def test_tokens_are_compared_where_that_is_asked_for(llm: LLM, dimensions: int | None) -> None:
    params = PoolingParams(pooling_type="all", dimensions=dimensions)
    outputs = [out.outputs.data for out in llm.encode([QUERY, *TEXTS], params, use_tqdm=False)]
    query, *texts = (rows.astype(np.float64) for rows in outputs)
    wanted = [float((query @ text.T).max(axis=1).sum()) for text in texts]
    assert scores(llm.score(QUERY, TEXTS, pooling_params=params, use_tqdm=False)) == pytest.approx(wanted, rel=1e-12)

    async def main() -> list[ScoringRequestOutput]:
        async with AsyncLLM(num_threads=1) as engine:
            return await engine.score(QUERY, TEXTS, pooling_params=params)

    assert scores(asyncio.run(main())) == scores(llm.score(QUERY, TEXTS, pooling_params=params, use_tqdm=False))


def test_long_texts_are_compared_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(2, 50, 4)).astype(np.float32)
    plan = plan_cosines([Part("a")], [Part("b")], width=4)
    (whole,) = plan.scores([each.reshape(-1).tolist() for each in values])
    wanted = (values[0].astype(np.float64) @ values[1].astype(np.float64).T).max(axis=1).sum()
    assert whole == pytest.approx(wanted, rel=1e-12)
    for most in (1, 50, 333):
        monkeypatch.setattr("albireo.api.requests.scoring._PRODUCTS", most)
        assert list(plan.scores([each.reshape(-1).tolist() for each in values])) == [whole]


def test_as_many_as_there_are_and_single_ones(llm: LLM) -> None:
    both = llm.score(TEXTS, TEXTS[::-1], use_tqdm=False)
    assert scores(both) == pytest.approx(cosines(llm, TEXTS, TEXTS[::-1]), abs=1e-14)
    assert scores(llm.score(QUERY, TEXTS[0], use_tqdm=False)) == scores(llm.score([QUERY], TEXTS[:1], use_tqdm=False))
    assert scores(llm.score(QUERY, TEXTS[0], use_tqdm=False)) == scores(llm.score(TEXTS[0], QUERY, use_tqdm=False))


def test_each_text_is_embedded_once() -> None:
    plan = plan_cosines([Part("q")], [Part("a"), Part("q"), Part("a"), Part("a", 3)])
    assert plan.prompts == [(Part("q"),), (Part("a"),), (Part("a", 3),)]
    assert plan.pairs == [(0, 1), (0, 0), (0, 1), (0, 2)]
    assert plan.places == [Place(0, 0), Place(1, 0), Place(1, 3)]
    with LLM(num_threads=1) as fresh:
        fresh.score(QUERY, [*TEXTS * 3, QUERY], use_tqdm=False)
        once = sum(len(fresh.get_tokenizer().encode(text)) for text in {QUERY, *TEXTS})
        assert fresh.stats().prompt_tokens == once


def test_a_sum_is_rounded_once_and_of_nothing_is_nothing() -> None:
    plan = plan_cosines([Part("a")], [Part("b"), Part("c")])
    big, half = [3e38, 1.0, -3e38], [1.0, 0.5, 1.0]
    found = list(plan.scores([big, half, [0.0] * 3]))
    assert found == [pytest.approx(0.5 / (np.linalg.norm(big) * 1.5), rel=1e-15), 0.0]
    assert found[0] > 0, "a sum in order would lose it"


@pytest.mark.parametrize(
    ("data_1", "data_2", "params", "error", "words"),
    [
        (["a", "b"], ["c", "d", "e"], None, InvalidParams, "data_1 holds 2 texts and data_2 3; give one, or as many"),
        (["a", "b"], "c", None, InvalidParams, "data_1 holds 2 texts and data_2 1"),
        ([], ["c"], None, InvalidParams, "data_1 holds no texts"),
        ("a", [], None, InvalidParams, "data_2 holds no texts"),
        ("a", [1, 2], None, InvalidParams, "data_2 must be a text or a list of texts"),
        (3, "a", None, InvalidParams, "data_1 must be a text or a list of texts, got 3"),
        ("a", [{"content": []}], None, UnsupportedFeature, "data_2 holds what is no text"),
        ({"content": []}, "a", None, UnsupportedFeature, "data_1 holds what is no text"),
        ("a", ["b", "the " * 600], None, PromptTooLong, "max_model_len=512"),
        ("a", "b", PoolingParams(dimensions=257), InvalidParams, "dimensions=257"),
        ("a", "b", 3, InvalidParams, "must be PoolingParams, got int"),
    ],
)
def test_what_cannot_be_scored_is_refused_and_nothing_is_left(
    llm: LLM, data_1: Any, data_2: Any, params: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        llm.score(data_1, data_2, pooling_params=params, use_tqdm=False)
    stats = llm.stats()
    assert (stats.num_requests_running, stats.num_requests_waiting) == (0, 0)


def test_long_texts_are_cut_when_asked(llm: LLM) -> None:
    long = "the fox and the bird " * 200
    cut = llm.score(QUERY, [long], pooling_params=PoolingParams(truncate_prompt_tokens=-1), use_tqdm=False)
    ids = llm.get_tokenizer().encode(long)[:512]
    assert cut[0].prompt_token_ids == llm.get_tokenizer().encode(QUERY) + ids


def test_async_scores_are_the_same_and_a_refusal_leaves_nothing(llm: LLM) -> None:
    wanted = scores(llm.score(QUERY, TEXTS, pooling_params=MEAN, use_tqdm=False))

    async def main() -> None:
        async with AsyncLLM(num_threads=1) as engine:
            assert scores(await engine.score(QUERY, TEXTS, pooling_params=MEAN)) == wanted
            with pytest.raises(PromptTooLong):
                await engine.score(QUERY, [*TEXTS, "the " * 600])
            with pytest.raises(InvalidParams, match="data_1 holds 2"):
                await engine.score([QUERY] * 2, TEXTS)
            await engine.embed("Once")
            stats = engine.stats()
            assert (stats.num_requests_running, stats.num_requests_waiting) == (0, 0)

    asyncio.run(main())
