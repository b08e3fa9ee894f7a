"""AsyncLLM over a toy model: streams, aborts, cancellation, refusals, errors, shutdown."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest

from albireo.api.async_llm import AsyncLLM
from albireo.api.engine_thread import EngineThread
from albireo.api.llm import LLM
from albireo.errors import EngineError, InvalidParams, InvariantError, PromptTooLong, TemplateError, UnsupportedFeature
from albireo.models.settings.generation import GenerationDefaults
from albireo.outputs import RequestOutput
from albireo.params import RequestOutputKind, SamplingParams
from albireo.step import StepPlan

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
DELTA, FINAL_ONLY = RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY
ENDLESS = GREEDY.clone(max_tokens=None)
#: Room for a request that runs until it is told to end.
VAST = {"max_model_len": 10**6, "num_blocks": 10**6 // 16 + 2}


def run(house: Any, body: Callable[[AsyncLLM], Awaitable[None]], **config: Any) -> None:
    """Run body with an AsyncLLM; afterwards nothing may be left in the engine."""

    async def main() -> None:
        async with AsyncLLM.from_loaded(house.loaded(**config)) as llm:
            await asyncio.wait_for(body(llm), 60)
            await idle(llm)

    asyncio.run(main())


async def idle(llm: AsyncLLM) -> None:
    """Returns when the engine holds nothing. A later request's end shows that earlier commands were obeyed."""
    async for _ in llm.generate("flush", SamplingParams(max_tokens=1)):
        pass
    stats = llm.stats()
    assert (stats.num_requests_running, stats.num_requests_waiting, stats.kv_cache_usage) == (0, 0, 0.0)


async def last(llm: AsyncLLM, *args: Any, **kwargs: Any) -> RequestOutput:
    outputs = [output async for output in llm.generate(*args, **kwargs)]
    assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
    return outputs[-1]


def test_outputs_hold_what_is_new_or_come_once(house: Any) -> None:
    async def body(llm: AsyncLLM) -> None:
        asked = SamplingParams(n=3, seed=5, max_tokens=40, logprobs=1, prompt_logprobs=0)
        whole = await last(llm, "one two three", asked)
        (only,) = [each async for each in llm.generate("one two three", asked.clone(output_kind=FINAL_ONLY))]
        assert plain(only) == plain(whole)
        parts = [each async for each in llm.generate("one two three", asked.clone(output_kind=DELTA))]
        assert [each.finished for each in parts] == [False] * (len(parts) - 1) + [True]
        assert parts[0].prompt_logprobs == whole.prompt_logprobs
        assert not any(each.prompt_logprobs for each in parts[1:])
        for wanted in whole.outputs:
            news = [each for part in parts for each in part.outputs if each.index == wanted.index]
            assert "".join(each.text for each in news) == wanted.text
            assert [i for each in news for i in each.token_ids] == wanted.token_ids
            assert [entry for each in news for entry in each.logprobs or ()] == wanted.logprobs
            assert [each.finish_reason for each in news] == [None] * (len(news) - 1) + [wanted.finish_reason]
            assert news[-1].cumulative_logprob == wanted.cumulative_logprob

    run(house, body)
    with pytest.raises(InvalidParams, match="output_kind='new' must be a RequestOutputKind"):
        SamplingParams(output_kind="new")  # type: ignore[arg-type]
    with LLM.from_loaded(house.loaded()) as llm, pytest.raises(UnsupportedFeature, match="goes with AsyncLLM"):
        llm.generate("one", GREEDY.clone(output_kind=DELTA), use_tqdm=False)


def plain(output: RequestOutput) -> Any:
    return (output.prompt, output.prompt_token_ids, output.outputs, output.finished, output.prompt_logprobs)


# -- streams -----------------------------------------------------------------------------------------------------------


def test_outputs_grow_and_the_last_is_finished(house: Any) -> None:
    async def body(llm: AsyncLLM) -> None:
        outputs = [output async for output in llm.generate("a", GREEDY)]
        assert outputs[-1].finished and len(outputs[-1].outputs[0].token_ids) == 12
        for before, after in pairwise(outputs):
            old, new = before.outputs[0], after.outputs[0]
            assert len(old.token_ids) < len(new.token_ids) or after.finished
            assert new.token_ids[: len(old.token_ids)] == old.token_ids
            assert new.text.startswith(old.text)

    run(house, body)


def test_a_reader_in_step_sees_every_token(house: Any) -> None:
    gate = threading.Semaphore(0)

    async def body(llm: AsyncLLM) -> None:
        house.toy.on_step = lambda plan: gate.acquire() and None
        gate.release()
        lengths = []
        async for output in llm.generate("a", GREEDY.clone(logprobs=0)):
            only = output.outputs[0]
            lengths.append(len(only.token_ids))
            assert only.logprobs is not None and len(only.logprobs) == len(only.token_ids)
            gate.release()
        assert lengths == list(range(1, 13))

    run(house, body)


def test_streams_side_by_side_equal_the_blocking_calls(house: Any) -> None:
    toy = house.toy
    toy.script("stopping", toy.ids("Hello", "Ġworld", "! and"))
    requests: list[tuple[Any, SamplingParams]] = [
        (f"prompt {i}", GREEDY.clone(temperature=1.0, seed=i, max_tokens=5 + i)) for i in range(10)
    ]
    requests += [
        ("stopping", SamplingParams(temperature=0, stop="wor", logprobs=2)),
        (house.toy.ids("Hello"), GREEDY.clone(n=3, temperature=0.5, seed=3)),
        ({"prompt": "logs"}, GREEDY.clone(prompt_logprobs=1)),
        ("no text", GREEDY.clone(detokenize=False)),
    ]
    prompts, params = zip(*requests, strict=True)
    expected = LLM.from_loaded(house.loaded()).generate(list(prompts), list(params))

    async def body(llm: AsyncLLM) -> None:
        outputs = await asyncio.gather(*(last(llm, *request) for request in requests))
        assert [plain(o) for o in outputs] == [plain(o) for o in expected]

    run(house, body, max_num_seqs=4)


def test_no_parameters_are_the_models_own(house: Any) -> None:
    async def body(llm: AsyncLLM) -> None:
        assert llm.get_default_sampling_params() == SamplingParams(max_tokens=5)
        assert len((await last(llm, "x")).outputs[0].token_ids) == 5
        tokenizer = llm.get_tokenizer()
        assert tokenizer is llm.get_tokenizer() and tokenizer("a b").input_ids == house.tokenizer.encode("a b")

    run(house, body, defaults=GenerationDefaults(max_tokens=5))


def test_chat_streams(house: Any) -> None:
    toy = house.toy
    toy.script("[user] hi\n[assistant] ", toy.ids("Hello"))

    async def body(llm: AsyncLLM) -> None:
        messages = [{"role": "user", "content": "hi"}]
        outputs = [o async for o in llm.chat(messages, SamplingParams(temperature=0), "talk")]
        assert (outputs[-1].request_id, outputs[-1].outputs[0].text) == ("talk", "Hello")
        with pytest.raises(TemplateError, match="empty"):
            await anext(llm.chat([]))

    run(house, body)


def test_readers_on_two_loops(house: Any) -> None:
    llm = AsyncLLM.from_loaded(house.loaded())
    found: list[RequestOutput] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(last(llm, "a", GREEDY)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    llm.shutdown()
    assert len(found) == 2 and found[0].outputs == found[1].outputs


# -- ends --------------------------------------------------------------------------------------------------------------


def test_abort_ends_the_stream_with_what_there_is(house: Any) -> None:
    async def body(llm: AsyncLLM) -> None:
        outputs: list[RequestOutput] = []
        async for output in llm.generate("a", ENDLESS.clone(n=2), "mine"):
            if not outputs:
                await llm.abort("mine")
                await llm.abort("nobody's")
            outputs.append(output)
        assert outputs[-1].finished
        assert [o.finish_reason for o in outputs[-1].outputs] == ["abort"] * 2
        assert all(o.token_ids and o.text for o in outputs[-1].outputs)
        await llm.abort("mine")

    run(house, body, **VAST)


def test_abort_of_a_request_whose_prompt_is_being_encoded(house: Any) -> None:
    async def body(llm: AsyncLLM) -> None:
        stream = asyncio.create_task(last(llm, "a", ENDLESS, "mine"))
        await asyncio.sleep(0)  # the stream has begun: its prompt is on the way to another thread
        await llm.abort("mine")
        assert (await stream).outputs[0].finish_reason == "abort"
        with pytest.raises(PromptTooLong):
            await last(llm, [1] * 10**6, GREEDY, "mine")
        assert (await last(llm, "b", GREEDY, "mine")).outputs[0].finish_reason == "length"

    run(house, body, **VAST)


def test_what_cannot_be_compared_or_named_takes_nobody_along(house: Any) -> None:
    async def body(llm: AsyncLLM) -> None:
        fine = asyncio.create_task(last(llm, "fine", GREEDY))
        for priority in ("x", None, 1.5, True):
            with pytest.raises(InvalidParams, match="priority"):
                await last(llm, "x", GREEDY, priority=priority)
        with pytest.raises(InvalidParams, match="request_id=5"):
            await last(llm, "x", GREEDY, 5)
        await llm.abort(["no", "name"])  # type: ignore[arg-type]
        assert (await fine).outputs[0].finish_reason == "length"

    run(house, body, scheduling_policy="priority")


def test_closing_the_iterator_aborts_the_request(house: Any) -> None:
    async def body(llm: AsyncLLM) -> None:
        async with aclosing(llm.generate("a", ENDLESS)) as outputs:
            await anext(outputs)
        await idle(llm)
        assert llm.stats().finished["abort"] == 1

    run(house, body, **VAST)


def test_leaving_the_loop_aborts_the_request(house: Any) -> None:
    async def read_a_little(llm: AsyncLLM) -> None:
        async for _ in llm.generate("a", ENDLESS):
            break

    async def body(llm: AsyncLLM) -> None:
        await read_a_little(llm)
        gc.collect()
        await asyncio.sleep(0)  # the loop closes forgotten iterators in a task
        await asyncio.sleep(0)
        await idle(llm)
        assert llm.stats().finished["abort"] == 1

    run(house, body, **VAST)


def test_cancelling_a_reader_aborts_its_request_alone(house: Any) -> None:
    async def body(llm: AsyncLLM) -> None:
        started = asyncio.Event()

        async def read() -> None:
            async for _ in llm.generate("a", ENDLESS):
                started.set()

        task = asyncio.create_task(read())
        await started.wait()
        task.cancel()
        assert (await last(llm, "b", GREEDY)).outputs[0].finish_reason == "length"
        with pytest.raises(asyncio.CancelledError):
            await task
        await idle(llm)
        assert llm.stats().finished["abort"] == 1

    run(house, body, **VAST)


def test_a_slow_reader_gets_the_newest_and_the_end(house: Any) -> None:
    gate = threading.Semaphore(1)
    house.toy.on_step = lambda plan: gate.acquire() and None

    async def body(llm: AsyncLLM) -> None:
        outputs = llm.generate("a", GREEDY)
        first = await anext(outputs)
        gate.release(100)
        await last(llm, "b", GREEDY.clone(max_tokens=40))
        rest = [output async for output in outputs]
        assert len(first.outputs[0].token_ids) == 1
        assert len(rest) == 1 and rest[0].finished and len(rest[0].outputs[0].token_ids) == 12

    run(house, body)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_refused_request_raises_in_its_own_iterator(house: Any) -> None:
    async def body(llm: AsyncLLM) -> None:
        fine = asyncio.create_task(last(llm, "fine", GREEDY))
        with pytest.raises(PromptTooLong, match="30"):
            await last(llm, "x" * 31, GREEDY)
        with pytest.raises(InvalidParams, match="logprobs=21"):
            await last(llm, "x", GREEDY.clone(logprobs=21))
        with pytest.raises(InvalidParams, match="None"):
            await last(llm, None)
        with pytest.raises(UnsupportedFeature, match="image"):
            await last(llm, {"prompt": "x", "image": 3})
        with pytest.raises(InvalidParams, match="priority=3"):
            await last(llm, "x", GREEDY, priority=3)
        assert (await fine).outputs[0].finish_reason == "length"

    run(house, body, max_model_len=30)


def test_an_id_in_use_is_refused_and_its_owner_goes_on(house: Any) -> None:
    async def body(llm: AsyncLLM) -> None:
        owner = llm.generate("a", ENDLESS, "mine")
        await anext(owner)
        with pytest.raises(InvalidParams, match="'mine' is in use"):
            await last(llm, "b", GREEDY, "mine")
        assert not (await anext(owner)).finished
        await owner.aclose()
        assert (await last(llm, "b", GREEDY, "mine")).outputs[0].finish_reason == "length"

    run(house, body, **VAST)


def test_one_bad_request_does_not_take_the_others_along(house: Any) -> None:
    def fail(plan: StepPlan) -> None:
        for work in plan.work:
            for task in work.samples:
                if list(task.prompt_token_ids) == house.toy.ids("bad") and len(task.output_token_ids) == 3:
                    raise InvariantError(f"sequence {task.seq_id}: 3 NaN among its logits")

    expected = [o.outputs for o in LLM.from_loaded(house.loaded()).generate(["a", "b"], GREEDY)]
    house.toy.on_step = fail

    async def body(llm: AsyncLLM) -> None:
        bad, *good = await asyncio.gather(*(last(llm, prompt, GREEDY) for prompt in ("bad", "a", "b")))
        assert (bad.outputs[0].finish_reason, len(bad.outputs[0].token_ids)) == ("error", 3)
        assert [output.outputs for output in good] == expected
        assert (await last(llm, "later", GREEDY)).outputs[0].finish_reason == "length"

    run(house, body)


def test_a_step_that_fails_for_all_ends_all_and_the_engine_goes_on(house: Any) -> None:
    async def body(llm: AsyncLLM) -> None:
        house.toy.on_step = lambda plan: 1 // 0 and None
        outputs = await asyncio.gather(*(last(llm, prompt, GREEDY) for prompt in "abc"))
        assert [o.outputs[0].finish_reason for o in outputs] == ["error"] * 3
        assert "ZeroDivisionError" in str(outputs[0].outputs[0].stop_reason)
        house.toy.on_step = lambda plan: None
        assert (await last(llm, "a", GREEDY)).outputs[0].finish_reason == "length"

    run(house, body)


def test_when_the_engine_itself_dies_every_reader_hears_of_it(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        llm = AsyncLLM.from_loaded(house.loaded(**VAST))
        reader = llm.generate("a", ENDLESS)
        await anext(reader)

        def die(*_: Any) -> None:
            raise RuntimeError("a bug of ours")

        monkeypatch.setattr("albireo.api.driver.Driver.step", die)
        with pytest.raises(EngineError, match="a bug of ours"):
            async for _ in reader:
                pass
        with pytest.raises(EngineError, match="a bug of ours"):
            await last(llm, "b", GREEDY)
        llm.shutdown()

    asyncio.run(main())


# -- life --------------------------------------------------------------------------------------------------------------


def test_prefixes_that_cannot_be_forgotten_are_told_of(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no disk")

    async def main() -> None:
        llm = AsyncLLM.from_loaded(house.loaded())
        assert await llm.reset_prefix_cache()
        with monkeypatch.context() as patch:
            patch.setattr("albireo.engine.engine.Engine.reset_prefix_cache", fail)
            with pytest.raises(OSError, match="no disk"):
                await llm.reset_prefix_cache()
        assert (await last(llm, "a", GREEDY)).finished, "it goes on"
        assert llm._thread is not None
        llm._thread.stop()
        with pytest.raises(EngineError, match="does not run any more"):
            await llm.reset_prefix_cache()
        llm.shutdown()

    asyncio.run(main())


def test_shutdown_aborts_what_runs(house: Any) -> None:
    async def main() -> None:
        llm = AsyncLLM.from_loaded(house.loaded(**VAST))
        reader = llm.generate("a", ENDLESS)
        await anext(reader)
        llm.shutdown()
        rest = [output async for output in reader]
        assert rest[-1].finished and rest[-1].outputs[0].finish_reason == "abort"
        llm.shutdown()
        for call in (llm.stats, llm.get_tokenizer):
            with pytest.raises(EngineError, match="shut down"):
                call()
        with pytest.raises(EngineError, match="shut down"):
            await last(llm, "a", GREEDY)
        await llm.abort("nothing happens")

    asyncio.run(main())


def test_an_engine_nobody_holds_ends_its_thread(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    start = EngineThread.__init__

    def noting(self: EngineThread, *given: Any) -> None:
        start(self, *given)
        threads.append(self._thread)

    monkeypatch.setattr(EngineThread, "__init__", noting)
    llm = AsyncLLM.from_loaded(house.loaded())
    asyncio.run(last(llm, "a", GREEDY))
    gone = weakref.ref(llm)
    del llm
    gc.collect()
    assert gone() is None
    assert [thread.is_alive() for thread in threads] == [False]


def test_a_reader_whose_loop_is_gone_is_dropped(house: Any) -> None:
    llm = AsyncLLM.from_loaded(house.loaded(**VAST))
    loop = asyncio.new_event_loop()
    reader = llm.generate("a", ENDLESS)
    loop.run_until_complete(anext(reader))
    loop.close()
    # The other reader's end is after the engine's attempt to reach the first.
    assert asyncio.run(last(llm, "b", GREEDY)).finished
    assert llm.stats().finished["abort"] == 1
    asyncio.run(llm.sleep())  # nobody is waited for who cannot come back
    assert asyncio.run(llm.is_sleeping())
    llm.shutdown()
    del reader
    gc.collect()


def test_several_are_aborted_at_once(house: Any) -> None:
    async def body(llm: AsyncLLM) -> None:
        asking = [asyncio.create_task(last(llm, "a", ENDLESS, name)) for name in ("one", "two")]
        while llm.stats().num_requests_running < 2:
            await asyncio.sleep(0.01)
        await llm.abort(["one", "two", "nobody"])
        assert [each.outputs[0].finish_reason for each in await asyncio.gather(*asking)] == ["abort"] * 2

    run(house, body, **VAST)


def test_its_health_by_vllms_names(house: Any) -> None:
    async def main() -> None:
        llm = AsyncLLM.from_loaded(house.loaded())
        await llm.check_health()
        assert (llm.is_running, llm.is_stopped, llm.errored) == (True, False, False)
        llm.shutdown()
        assert (llm.is_running, llm.is_stopped, llm.errored) == (False, True, True)
        with pytest.raises(EngineError, match="was shut down"):
            await llm.check_health()

    asyncio.run(main())
