"""LLM.embed and AsyncLLM.embed on the bundled model: shapes, refusals, failures, and company."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest

from albireo import (
    LLM,
    AsyncLLM,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    EngineError,
    InvalidParams,
    PoolingParams,
    PromptTooLong,
    SamplingParams,
    UnsupportedFeature,
)
from albireo.api.load import load
from albireo.config import EngineConfig
from albireo.step import StepPlan, StepResult

TEXTS = ["Once upon a time", "The cat sat on the mat.", "Once upon a time"]
MEAN = PoolingParams(pooling_type="mean")


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(num_threads=1) as made:
        yield made


def vectors(outputs: list[EmbeddingRequestOutput]) -> list[list[float]]:
    return [output.outputs.embedding for output in outputs]


def test_one_vector_a_prompt_of_length_one(llm: LLM) -> None:
    outputs = llm.embed(TEXTS, use_tqdm=False)
    assert [type(output) for output in outputs] == [EmbeddingRequestOutput] * 3
    assert [output.prompt_token_ids for output in outputs] == [llm.get_tokenizer().encode(text) for text in TEXTS]
    first, second, third = vectors(outputs)
    assert first == third != second
    assert outputs[0].finished and outputs[0].metrics is not None and outputs[0].metrics.finished_s is not None
    assert outputs[0].outputs.hidden_size == len(first) == 256
    assert math.sqrt(sum(x * x for x in first)) == pytest.approx(1, abs=1e-6)
    assert llm.stats().generation_tokens == 0


def test_prompts_in_every_shape_and_parameters_one_each(llm: LLM) -> None:
    ids = llm.get_tokenizer().encode(TEXTS[0])
    shapes: list[Any] = [TEXTS[0], ids, {"prompt": TEXTS[0]}, {"prompt_token_ids": ids, "cache_salt": "a"}]
    wanted = vectors(llm.embed(TEXTS[0], use_tqdm=False))
    assert vectors(llm.embed(shapes, use_tqdm=False)) == wanted * 4
    last, mean, short, raw = vectors(
        llm.embed(
            [ids] * 4,
            [PoolingParams(), MEAN, PoolingParams(dimensions=5), PoolingParams(use_activation=False)],
            use_tqdm=False,
        )
    )
    assert [last] == wanted and mean != last and len(short) == 5
    length = math.sqrt(sum(x * x for x in raw))
    assert raw == pytest.approx([x * length for x in last], rel=1e-6) and length > 1.5
    assert short == pytest.approx([x / math.sqrt(sum(y * y for y in raw[:5])) for x in raw[:5]], rel=1e-6)


def test_generating_goes_on_beside_and_the_cache_is_shared(llm: LLM) -> None:
    """What one leaves in the cache serves the other: not the mean, which looks at every token."""
    long = "Once upon a time there was a fox who lived in a hole. " * 3
    greedy = SamplingParams(temperature=0, max_tokens=4)
    with LLM(num_threads=1) as fresh:
        cold = fresh.embed(long, use_tqdm=False)[0]
        mean = fresh.embed(long, MEAN, use_tqdm=False)[0]
        assert fresh.generate(long, greedy, use_tqdm=False)[0].num_cached_tokens == 32
        warm = fresh.embed(long, use_tqdm=False)[0]
    assert (cold.num_cached_tokens, mean.num_cached_tokens, warm.num_cached_tokens) == (0, 0, 32)
    assert warm.outputs == cold.outputs == llm.embed(long, use_tqdm=False)[0].outputs


def test_a_prompt_that_fills_the_context_is_embedded(llm: LLM) -> None:
    assert len(llm.embed([[5] * 512], use_tqdm=False)) == 1


def test_a_longer_prompt_is_cut_when_asked(llm: LLM) -> None:
    """Texts and token ids at their end; what goes before a text counts."""
    text = "Once upon a time there was a fox. " * 80
    ids = llm.get_tokenizer().encode(text)
    assert len(ids) > 512
    for most, kept in ((1, 1), (7, 7), (512, 512), (-1, 512)):
        params = PoolingParams(truncate_prompt_tokens=most)
        outputs = llm.embed([text, ids, "Once"], params, use_tqdm=False) if most > 1 or most < 0 else []
        outputs = outputs or llm.embed([ids] * 3, params, use_tqdm=False)
        assert [output.prompt_token_ids for output in outputs[:2]] == [ids[:kept]] * 2
        assert outputs[2].prompt_token_ids == (llm.get_tokenizer().encode("Once") if kept > 1 else ids[:1])
        assert vectors(outputs[:1]) == vectors(llm.embed([ids[:kept]], use_tqdm=False))


@pytest.mark.parametrize(
    ("prompts", "params", "error", "words"),
    [
        ([[5] * 513], None, PromptTooLong, "513 tokens, max_model_len=512"),
        ([[]], None, InvalidParams, "no tokens"),
        ([[5, 4096]], None, InvalidParams, "4096"),
        (["a"], PoolingParams(dimensions=257), InvalidParams, "dimensions=257 is more than this model's 256"),
        (
            ["a"],
            PoolingParams(truncate_prompt_tokens=513),
            InvalidParams,
            "truncate_prompt_tokens=513 is more than max_model_len=512",
        ),
        (["the cat"], PoolingParams(truncate_prompt_tokens=1), PromptTooLong, "cut to nothing; keep 2 or more"),
        (["a"], [PoolingParams()] * 2, InvalidParams, "1 prompts and 2 pooling_params"),
        (["a"], SamplingParams(), InvalidParams, "PoolingParams, got SamplingParams"),
        ([{"prompt": "a", "multi_modal_data": {"image": 1}}], None, UnsupportedFeature, "this model reads text only"),
    ],
)
def test_what_cannot_be_embedded_is_refused_and_nothing_is_left(
    llm: LLM, prompts: Any, params: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        llm.embed(["fine", *prompts] if not isinstance(params, list) else prompts, params, use_tqdm=False)
    stats = llm.stats()
    assert (stats.num_requests_running, stats.num_requests_waiting) == (0, 0)


def test_many_async_ones_beside_a_stream_are_the_same(llm: LLM) -> None:
    texts = [f"Story {i}: " + "a fox and a bird " * (i % 7) for i in range(24)]
    params = [(PoolingParams(), MEAN, PoolingParams(dimensions=7))[i % 3] for i in range(24)]
    wanted = vectors(llm.embed(texts, params, use_tqdm=False))
    greedy = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    story = llm.generate("Once", greedy, use_tqdm=False)[0].outputs[0].token_ids

    async def main() -> tuple[list[list[float]], list[int]]:
        async with AsyncLLM(num_threads=1, max_num_batched_tokens=40) as engine:

            async def told() -> list[int]:
                outputs = [output async for output in engine.generate("Once", greedy)]
                return outputs[-1].outputs[0].token_ids

            telling = asyncio.create_task(told())
            found = await asyncio.gather(*(engine.embed(*pair) for pair in zip(texts, params, strict=True)))
            return vectors(list(found)), await telling

    assert asyncio.run(main()) == (wanted, story)


def test_async_refusals_and_aborts_raise() -> None:
    """A request is left while its first step, of 500, is held."""
    loaded = load(EngineConfig(num_threads=1, max_num_batched_tokens=1))
    begun, gate = threading.Event(), threading.Event()

    def held(plan: StepPlan) -> StepResult:
        begun.set()
        gate.wait(60)
        return loaded.execute(plan)

    async def hold(asked: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        begun.clear()
        gate.clear()
        task = asyncio.create_task(asked)
        await asyncio.to_thread(begun.wait, 60)
        return task

    async def main() -> None:
        async with AsyncLLM.from_loaded(replace(loaded, execute=held)) as engine:
            with pytest.raises(PromptTooLong):
                await engine.embed([5] * 600)
            with pytest.raises(InvalidParams, match="dimensions"):
                await engine.embed("a", PoolingParams(dimensions=1000))
            waiting = await hold(engine.embed([5] * 500, request_id="slow"))
            await engine.abort("slow")
            gate.set()
            with pytest.raises(EngineError, match="request slow of 500 tokens was not computed: it was aborted"):
                await waiting
            cancelled = await hold(engine.embed([5] * 500))
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            gate.set()
            while engine.stats().num_requests_running:
                await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_one_that_fails_is_named_and_the_engine_goes_on() -> None:
    with LLM(num_threads=1) as llm:
        assert llm.loaded is not None and llm._driver is not None
        execute = llm.loaded.execute

        def failing(plan: Any) -> Any:
            if any(work.pooling is not None and 77 in work.token_ids for work in plan.work):
                raise RuntimeError("the device is on fire")
            return execute(plan)

        llm._driver._guarded._execute = failing
        with pytest.raises(EngineError, match="of 3 tokens was not computed: RuntimeError: the device is on fire"):
            llm.embed([[5, 6], [5, 77, 6]], use_tqdm=False)
        assert llm.embed([[5, 6]], use_tqdm=False)[0].outputs.hidden_size == 256


def test_outputs_are_plain() -> None:
    output = EmbeddingRequestOutput("r", EmbeddingOutput([0.5, -0.5]), [1])
    assert (output.finished, output.outputs.hidden_size, output.num_cached_tokens) == (True, 2, 0)
