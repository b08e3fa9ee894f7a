"""The front doors over a real model: the text that its own reference gives, blocking and streaming."""

from __future__ import annotations

import asyncio
import json
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import albireo
from albireo import LLM, AsyncLLM, SamplingParams
from albireo.api.sleeping import give_back
from albireo.errors import EngineError, InvalidParams
from tiny_models import shared_data

BUNDLED = Path(albireo.__file__).parent / "models" / "bundled" / "story"
SETTINGS: dict[str, Any] = {"dtype": "float32", "kv_cache_memory_bytes": 32 << 20, "num_threads": 1}
GREEDY = SamplingParams(temperature=0, max_tokens=256)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    pytest.importorskip("albireo._native")
    with LLM(str(shared_data("models", "stories260k")), **SETTINGS) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    expected = json.loads(shared_data("models", "stories260k", "expected.json").read_text())
    found: list[dict[str, Any]] = expected["cases"]
    return found


def test_greedy_stories_are_those_of_the_reference(llm: LLM, cases: list[dict[str, Any]]) -> None:
    outputs = llm.generate([case["prompt"] for case in cases], GREEDY)
    for case, output in zip(cases, outputs, strict=True):
        only = output.outputs[0]
        assert output.prompt_token_ids == case["prompt_ids"]
        eos = only.token_ids[len(case["greedy_ids"]) :]
        assert only.token_ids[: len(case["greedy_ids"])] == case["greedy_ids"]
        assert (case["prompt"] + only.text).strip() == case["text"].strip()
        if case["stopped"]:
            assert (only.finish_reason, only.stop_reason) == ("stop", None) and eos[0] in (1, 2)
        else:
            assert (only.finish_reason, eos) == ("length", [])


def test_the_best_next_tokens_are_those_of_the_reference(llm: LLM, cases: list[dict[str, Any]]) -> None:
    prompts = [{"prompt_token_ids": case["prompt_ids"]} for case in cases]
    outputs = llm.generate(prompts, GREEDY.clone(max_tokens=1, logprobs=5))
    decode = llm.get_tokenizer().decode
    for case, output in zip(cases, outputs, strict=True):
        (entry,) = output.outputs[0].logprobs or []
        best = [token_id for token_id, _ in case["next_top5"]]
        assert list(entry) == best
        assert [value.rank for value in entry.values()] == [1, 2, 3, 4, 5]
        first_logit, first = case["next_top5"][0][1], entry[best[0]].logprob
        for token_id, logit in case["next_top5"]:
            assert entry[token_id].logprob - first == pytest.approx(logit - first_logit, abs=2e-3)
            # Its text within a text, with the space that the very beginning would lose.
            assert entry[token_id].decoded_token == decode([best[0], token_id]).removeprefix(decode([best[0]]))


def test_a_stop_string_in_a_real_story(llm: LLM, cases: list[dict[str, Any]]) -> None:
    case = next(case for case in cases if case["prompt"] == "Once upon a time")
    story = case["text"].removeprefix(case["prompt"])
    stop = story[150:156]
    output = llm.generate(case["prompt"], GREEDY.clone(stop=stop))[0].outputs[0]
    assert output.text == story[: story.index(stop)]
    assert (output.finish_reason, output.stop_reason) == ("stop", stop)
    assert output.token_ids == case["greedy_ids"][: len(output.token_ids)]


def test_streams_equal_the_blocking_calls(llm: LLM, cases: list[dict[str, Any]]) -> None:
    prompts = [case["prompt"] for case in cases] * 2
    params = [GREEDY.clone(max_tokens=40, temperature=0.8, seed=i, n=1 + i % 2) for i in range(len(prompts))]
    expected = [output.outputs for output in llm.generate(prompts, params)]

    async def read(engine: AsyncLLM, i: int) -> Any:
        shown = ""
        async for output in engine.generate(prompts[i], params[i]):
            assert output.outputs[0].text.startswith(shown)
            shown = output.outputs[0].text
        return output.outputs

    async def main() -> list[Any]:
        async with AsyncLLM(str(shared_data("models", "stories260k")), **SETTINGS) as engine:
            return await asyncio.gather(*(read(engine, i) for i in range(len(prompts))))

    assert asyncio.run(main()) == expected


def test_the_bundled_model_tells_a_story() -> None:
    pytest.importorskip("albireo._native")
    from albireo.api.sources.locate import BUNDLED

    if not (BUNDLED / "model.safetensors").exists():
        pytest.skip("the bundled model is not in this checkout")
    with LLM(kv_cache_memory_bytes=32 << 20, num_threads=1) as llm:
        output = llm.generate("Once upon a time", SamplingParams(temperature=0, max_tokens=24))[0].outputs[0]
    words = output.text.split()
    assert len(words) >= 10 and all(word.isprintable() for word in words)


@pytest.mark.parametrize("is_named", [True, False])
def test_a_model_whose_configs_name_no_eos_stops_at_the_tokenizers(is_named: bool, tmp_path: Path) -> None:
    from albireo.api.sources.locate import BUNDLED

    model = tmp_path / "story"
    shutil.copytree(BUNDLED, model)
    for name, change in (("config.json", {}), ("generation_config.json", {"eos_token_id": 1} if is_named else {})):
        fields = json.loads((model / name).read_text())
        fields.pop("eos_token_id", None)
        (model / name).write_text(json.dumps(fields | change))
    eos = json.loads((BUNDLED / "config.json").read_text())["eos_token_id"]
    with LLM(str(model), **SETTINGS) as llm:
        params = SamplingParams(temperature=0, max_tokens=5, logit_bias={eos: 100.0})
        (only,) = llm.generate(["Once upon"], params)[0].outputs
    assert only.finish_reason == ("length" if is_named else "stop")
    assert len(only.token_ids) == (5 if is_named else 1)


def test_it_sleeps_and_the_next_call_has_the_same_bits(cases: list[dict[str, Any]]) -> None:
    prompt = {"prompt_token_ids": [7] * 60}
    params = GREEDY.clone(max_tokens=12, logprobs=3)
    with LLM(str(shared_data("models", "stories260k")), **SETTINGS) as llm:
        first = llm.generate(prompt, params)[0]
        assert llm.generate(prompt, params)[0].num_cached_tokens == 48
        assert llm.reset_prefix_cache()
        again = llm.generate(prompt, params)[0]
        assert (again.num_cached_tokens, again.outputs) == (0, first.outputs)
        assert llm.loaded is not None
        model = weakref.ref(llm.loaded.model)
        llm.sleep()
        assert model() is None and llm.loaded is None
        assert llm.reset_prefix_cache() and llm.loaded is None, "it has nothing to forget"
        with pytest.raises(EngineError, match="sleeps"):
            llm.stats()
        assert llm.get_tokenizer().encode("Once")
        last = llm.generate(prompt, params)[0]
        assert (last.num_cached_tokens, last.outputs, last.request_id) == (0, first.outputs, "3")
        llm.sleep(2)
        llm.wake_up(["weights"])
        assert llm.loaded is not None
        for wrong in (lambda: llm.sleep(3), lambda: llm.wake_up(["all"])):
            with pytest.raises(InvalidParams, match="is not known"):
                wrong()
        llm.sleep()
    with pytest.raises(EngineError, match="closed"):
        llm.wake_up()


def test_weights_that_were_written_while_it_slept_are_those_that_wake(tmp_path: Path) -> None:
    """As someone who trains a model and lets it write in between."""
    torch, files = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    shutil.copytree(BUNDLED, tmp_path / "model")
    path = next((tmp_path / "model").glob("*.safetensors"))
    ask: dict[str, Any] = {"prompts": "Once upon a time", "sampling_params": GREEDY.clone(max_tokens=12, logprobs=2)}
    with LLM(str(tmp_path / "model"), num_threads=1, prefix_cache_dir=str(tmp_path / "kept")) as llm:
        before = llm.generate(**ask)[0].outputs
        llm.sleep()
        weights = files.load_file(path)
        torch.manual_seed(0)
        noisy = {
            name: each + 0.02 * torch.randn_like(each) if "layers" in name else each for name, each in weights.items()
        }
        files.save_file(noisy, path, metadata={"format": "pt"})
        after = llm.generate(**ask)[0].outputs
    with LLM(str(tmp_path / "model"), num_threads=1) as fresh:
        assert fresh.generate(**ask)[0].outputs == after != before


def test_the_streaming_one_sleeps_and_the_next_request_wakes_it() -> None:
    async def last(llm: AsyncLLM, params: SamplingParams = GREEDY) -> Any:
        return [output async for output in llm.generate({"prompt_token_ids": [7] * 60}, params)][-1]

    async def main() -> None:
        async with AsyncLLM(str(shared_data("models", "stories260k")), **SETTINGS) as llm:
            first = await last(llm)
            assert (await last(llm)).num_cached_tokens == 48
            assert await llm.reset_prefix_cache() and (await last(llm)).num_cached_tokens == 0
            reader = llm.generate("Once", GREEDY.clone(ignore_eos=True, max_tokens=400))
            await anext(reader)
            with pytest.raises(EngineError, match="1 requests"):
                await llm.sleep()
            await reader.aclose()
            assert llm.loaded is not None
            model = weakref.ref(llm.loaded.model)
            await llm.sleep()
            await llm.sleep()
            assert model() is None and await llm.is_sleeping() and await llm.reset_prefix_cache()
            with pytest.raises(EngineError, match="sleeps"):
                llm.stats()
            both = await asyncio.gather(last(llm), last(llm))
            assert [each.outputs for each in both] == [first.outputs] * 2 and not await llm.is_sleeping()
            await llm.sleep()
            await llm.wake_up()
            assert not await llm.is_sleeping()
        with pytest.raises(EngineError, match="shut down"):
            await llm.wake_up()

    asyncio.run(main())


def test_what_torch_keeps_is_given_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    give_back("cpu")
    assert not emptied
    give_back("cuda")
    assert emptied
