"""classify() and score() of classifiers, against transformers; and what models that write no text refuse."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from albireo import (
    LLM,
    AsyncLLM,
    ClassificationRequestOutput,
    InvalidParams,
    PoolingParams,
    PromptTooLong,
    ScoringRequestOutput,
    UnsupportedFeature,
)
from tiny_classifiers import logits_of, save_classifier, save_model
from tiny_tokenizers import bert_tokenizer

QUERY = "the cat sat on a mat ."
TEXTS = ["a dog ran", "once upon a time , the cats", "the", QUERY]
LABELS = ("bad", "fair", "good")
LOGITS = PoolingParams(use_activation=False)


class Subject(NamedTuple):
    llm: LLM
    model: Any
    tokenizer: Any
    folder: Path

    def logits(self, *texts: str, **options: Any) -> list[float]:
        return logits_of(self.model, self.tokenizer, *texts, **options)


def subject(folder: Path, kind: str, labels: tuple[str, ...], **config: Any) -> Iterator[Subject]:
    model, tokenizer = save_classifier(folder, kind, labels, **config)
    with LLM(str(folder), num_threads=1, dtype="float32") as llm:
        yield Subject(llm, model, tokenizer, folder)


@pytest.fixture(scope="module", params=["Bert", "Roberta", "DistilBert", "Qwen3"])
def reranker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    yield from subject(tmp_path_factory.mktemp(request.param), request.param, ("LABEL_0",))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    yield from subject(tmp_path_factory.mktemp("judge"), "Bert", LABELS)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    folder = tmp_path_factory.mktemp("encoder")
    save_model(folder, "Bert", "Model", bert_tokenizer())
    with LLM(str(folder), num_threads=1, dtype="float32") as llm:
        yield llm


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def scores(outputs: list[ScoringRequestOutput]) -> list[float]:
    return [output.outputs.score for output in outputs]


def test_a_pair_is_scored_as_transformers_does(reranker: Subject) -> None:
    expected = [reranker.logits(QUERY, text)[0] for text in TEXTS]
    assert max(expected) - min(expected) > 0.05, "else anything would do"
    outputs = reranker.llm.score(QUERY, TEXTS, use_tqdm=False)
    assert [type(output) for output in outputs] == [ScoringRequestOutput] * 4
    assert scores(outputs) == pytest.approx([sigmoid(x) for x in expected], abs=1e-5)
    assert [output.prompt_token_ids for output in outputs] == [reranker.tokenizer.encode(QUERY, t) for t in TEXTS]
    assert all(output.metrics is not None for output in outputs)
    raw = reranker.llm.score(QUERY, TEXTS, pooling_params=LOGITS, use_tqdm=False)
    assert scores(raw) == pytest.approx(expected, abs=1e-4)
    each = reranker.llm.score(TEXTS, TEXTS[::-1], pooling_params=LOGITS, use_tqdm=False)
    assert scores(each) == pytest.approx(
        [reranker.logits(*p)[0] for p in zip(TEXTS, TEXTS[::-1], strict=True)], abs=1e-4
    )


def test_the_second_text_of_a_pair_is_cut(reranker: Subject) -> None:
    long = "the cat sat on a mat , " * 20
    with pytest.raises(PromptTooLong, match="max_model_len"):
        reranker.llm.score(QUERY, [TEXTS[0], long], use_tqdm=False)
    for most in (-1, 40):
        params = PoolingParams(use_activation=False, truncate_prompt_tokens=most)
        got = reranker.llm.score("the", [TEXTS[0], long], pooling_params=params, use_tqdm=False)
        limit = reranker.llm._driver._engine._settings.max_model_len if most < 0 else most  # type: ignore[union-attr]
        options = {"truncation": "only_second", "max_length": limit}
        assert scores(got) == pytest.approx(
            [reranker.logits("the", t, **options)[0] for t in (TEXTS[0], long)], abs=1e-4
        )
    with pytest.raises(PromptTooLong, match="the first text and the tokens put round both"):
        reranker.llm.score(long, "the", pooling_params=PoolingParams(truncate_prompt_tokens=-1), use_tqdm=False)


def test_classes_are_those_of_transformers(judge: Subject) -> None:
    outputs = judge.llm.classify(TEXTS, use_tqdm=False)
    assert [type(output) for output in outputs] == [ClassificationRequestOutput] * 4
    for text, output in zip(TEXTS, outputs, strict=True):
        logits = judge.logits(text)
        total = sum(map(math.exp, logits))
        assert output.outputs.probs == pytest.approx([math.exp(x) / total for x in logits], abs=1e-5)
        assert output.outputs.num_classes == 3 and output.prompt_token_ids == judge.tokenizer.encode(text)
    raw = judge.llm.classify(judge.tokenizer.encode(QUERY), pooling_params=LOGITS, use_tqdm=False)
    assert raw[0].outputs.probs == pytest.approx(judge.logits(QUERY), abs=1e-4)
    assert judge.llm.loaded is not None and judge.llm.loaded.pooling_rule.labels == LABELS


def test_async_ones_are_the_same(judge: Subject, reranker: Subject) -> None:
    async def main() -> None:
        async with AsyncLLM(str(judge.folder), num_threads=1, dtype="float32") as engine:
            found = await asyncio.gather(*(engine.classify(text) for text in TEXTS))
            wanted = judge.llm.classify(TEXTS, use_tqdm=False)
            assert [each.outputs for each in found] == [each.outputs for each in wanted]
            with pytest.raises(UnsupportedFeature, match="gives scores of 3 labels"):
                await engine.score("a", "b")
            with pytest.raises(UnsupportedFeature, match="it writes no text"):
                async for _ in engine.generate("a"):
                    pass
        async with AsyncLLM(str(reranker.folder), num_threads=1, dtype="float32") as engine:
            assert scores(await engine.score(QUERY, TEXTS)) == scores(reranker.llm.score(QUERY, TEXTS, use_tqdm=False))
            with pytest.raises(PromptTooLong):
                await engine.score(QUERY, [*TEXTS, "the " * 100])

    asyncio.run(main())


def test_what_a_classifier_is_not_is_said(judge: Subject) -> None:
    says = r"this model gives scores of 3 labels \(classify, score, /classify\); it "
    chat = [{"role": "user", "content": "the cat"}]
    for call, words in (
        (lambda: judge.llm.generate("the cat", use_tqdm=False), says + "writes no text"),
        (lambda: judge.llm.generate([5, 6], use_tqdm=False), says + "writes no text"),
        (lambda: judge.llm.chat(chat, use_tqdm=False), says + "writes no text"),
        (lambda: judge.llm.embed("the cat", use_tqdm=False), says + "gives no embeddings"),
        (lambda: judge.llm.score("the", "cat", use_tqdm=False), "scores of 3 labels .* that of one label"),
    ):
        with pytest.raises(UnsupportedFeature, match=words):
            call()
    for params in (PoolingParams(pooling_type="mean"), PoolingParams(dimensions=2)):
        with pytest.raises(InvalidParams, match="leave it out"):
            judge.llm.classify("the cat", pooling_params=params, use_tqdm=False)
    assert judge.llm.stats().num_requests_running == 0


def test_what_an_encoder_is_not_is_said(encoder: LLM) -> None:
    embedded = [output.outputs.embedding for output in encoder.embed(TEXTS[:2], use_tqdm=False)]
    cosine = sum(x * y for x, y in zip(*embedded, strict=True)) / math.prod(math.hypot(*each) for each in embedded)
    assert scores(encoder.score(*TEXTS[:2], use_tqdm=False)) == [pytest.approx(cosine, abs=1e-12)]
    with pytest.raises(UnsupportedFeature, match=r"this model gives embeddings .*; it writes no text"):
        encoder.chat([{"role": "user", "content": "the cat"}], use_tqdm=False)
    with pytest.raises(UnsupportedFeature, match=r"this model gives embeddings .*; it is no classifier"):
        encoder.classify("the cat", use_tqdm=False)


def test_a_model_that_writes_text_is_no_classifier() -> None:
    with LLM(num_threads=1) as llm, pytest.raises(UnsupportedFeature, match=r"writes text .* and gives embeddings"):
        llm.classify("Once", use_tqdm=False)
