"""LLM.beam_search and AsyncLLM.beam_search over a toy model: shapes, texts, ends, refusals, errors, aborts."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import Any

import pytest

from albireo.api.async_llm import AsyncLLM
from albireo.api.llm import LLM
from albireo.api.requests.beam_search import NEUTRAL, beam_sampling
from albireo.beam_search_params import BeamSearchParams
from albireo.errors import InvalidParams, InvariantError, UnsupportedFeature
from albireo.params import FILLED_FIELDS, SamplingParams
from albireo.step import StepPlan

THREE = BeamSearchParams(3, 5, ignore_eos=True)


def idle(llm: LLM | AsyncLLM) -> bool:
    stats = llm.stats()
    return (stats.num_requests_running, stats.num_requests_waiting, stats.kv_cache_usage) == (0, 0, 0.0)


def test_every_shape_of_prompt_gives_the_same_beams(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded())
    ids = house.tokenizer.encode("same")
    shapes: list[Any] = ["same", ids, {"prompt": "same"}, {"prompt_token_ids": ids}]
    outputs = [llm.beam_search(shape, THREE)[0] for shape in shapes] + llm.beam_search(shapes, THREE)
    assert all(output == outputs[0] for output in outputs)
    assert llm.beam_search(shapes, THREE, concurrency_limit=1) == outputs[:4]
    assert llm.beam_search([], THREE) == [] and idle(llm)
    sequences = outputs[0].sequences
    assert len(sequences) == 3 == len({tuple(each.tokens) for each in sequences})
    for each in sequences:
        assert each.tokens[: len(ids)] == ids and len(each.tokens) == len(ids) + 5 == len(each.logprobs) + len(ids)
        assert each.text == house.tokenizer.decode(each.tokens) and (each.text or "").startswith("same")
        assert each.cum_logprob == sum(next(iter(entry.values())).logprob for entry in each.logprobs)
        assert all(6 <= len(entry) <= 7 for entry in each.logprobs)
    assert [each.cum_logprob for each in sequences] == sorted((each.cum_logprob for each in sequences), reverse=True)


def test_an_end_of_text_ends_a_beam_and_is_no_part_of_its_text(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded())
    house.toy.script("now", house.toy.ids("x", "y"))
    (end,) = house.toy.ids("</s>")
    (output,) = llm.beam_search("now", BeamSearchParams(2, 30, length_penalty=0.0))
    best = output.sequences[0]
    assert best.tokens == house.toy.ids("now", "x", "y", "</s>") and best.text == "nowxy"
    assert (best.finish_reason, best.stop_reason, best.cum_logprob) == ("stop", None, -1.5)
    # the other goes by another letter first; nothing that comes later is as likely as these two
    assert output.sequences[1].tokens[-1] == end and house.toy.num_steps < 10
    ignoring = llm.beam_search("now", BeamSearchParams(2, 6, True, length_penalty=0.0))[0].sequences
    assert {each.finish_reason for each in ignoring} == {"length"}
    assert ignoring[0].tokens[-4:] == [end] * 4 and ignoring[0].text == "nowxy"


def test_what_is_no_search_is_refused_before_anything_runs(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded())
    with pytest.raises(InvalidParams, match="params must be BeamSearchParams, got SamplingParams"):
        llm.beam_search("a", SamplingParams())  # type: ignore[arg-type]
    with pytest.raises(InvalidParams, match="concurrency_limit=0"):
        llm.beam_search("a", THREE, concurrency_limit=0)
    for wrong in ({"beam_width": 0}, {"beam_width": True}, {"max_tokens": 0}, {"length_penalty": float("nan")}):
        with pytest.raises(InvalidParams, match=next(iter(wrong))):
            BeamSearchParams(**{"beam_width": 2, "max_tokens": 3, **wrong})
    with pytest.raises(UnsupportedFeature, match=r"temperature=0\.5"):
        BeamSearchParams(2, 3, temperature=0.5)
    assert house.toy.num_steps == 0


def test_each_sampling_parameter_is_kept_or_refused() -> None:
    """A new one has to be thought of."""
    kept = {"detokenize", "skip_special_tokens", "spaces_between_special_tokens", "logprobs", "prompt_logprobs"}
    kept |= {"truncate_prompt_tokens", "truncation_side", "output_kind"}
    own = {"n", "best_of", "max_tokens", "ignore_eos", "temperature", "include_stop_str_in_output"}
    names = {field.name for field in fields(SamplingParams)} - set(FILLED_FIELDS)
    assert names == {*NEUTRAL, *own, *kept, "skip_reading_prefix_cache"}
    defaults = {field.name: getattr(SamplingParams(), field.name) for field in fields(SamplingParams)}
    neutral = {name: defaults[name] for name in names}  # what asks for nothing
    assert beam_sampling({**neutral, "n": 4}, 4) == beam_sampling({"max_tokens": 16, "temperature": 1}, 4)
    with pytest.raises(UnsupportedFeature, match=r"top_p=0\.9 is not supported in a beam search"):
        beam_sampling({"top_p": 0.9}, 4)
    with pytest.raises(UnsupportedFeature, match="n=2"):
        beam_sampling({"n": 2}, 4)


def test_a_search_that_fails_ends_whole_and_disturbs_no_other(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded())
    wanted = llm.beam_search("good", THREE)

    def fail(plan: StepPlan) -> None:
        bad = [task.seq_id for work in plan.work for task in work.samples if len(task.output_token_ids) == 2]
        bad = [seq_id for seq_id in bad if seq_id < 6]
        if bad:
            raise InvariantError(f"sequence {bad[-1]}: no numbers")

    house.toy.on_step = fail
    bad, good = llm.beam_search(["bad", "good"], THREE)
    assert [good] == wanted and idle(llm)
    assert {each.finish_reason for each in bad.sequences} == {"error"}
    assert all("no numbers" in str(each.stop_reason) and each.text == "bad" for each in bad.sequences)


def test_searches_of_an_event_loop(house: Any) -> None:
    """They are the same, and leave nothing behind when they are aborted or given up."""
    wanted = LLM.from_loaded(house.loaded()).beam_search("a", THREE)[0]
    endless = BeamSearchParams(3, None, ignore_eos=True)

    async def main() -> None:
        async with AsyncLLM.from_loaded(house.loaded(max_model_len=10**6, num_blocks=10**6)) as llm:
            ended = asyncio.create_task(llm.beam_search("b", endless, "b"))
            left = asyncio.create_task(llm.beam_search("c", endless))
            assert await asyncio.gather(*(llm.beam_search("a", THREE) for _ in range(3))) == [wanted] * 3
            await llm.abort("b")
            assert {each.finish_reason for each in (await ended).sequences} == {"abort"}
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
            assert await llm.beam_search("a", THREE) == wanted
            while not idle(llm):
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 60))
