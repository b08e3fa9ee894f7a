"""Answers about pictures on the executor for GPUs, its kernels interpreted: the tokens of the CPU's kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from albireo import LLM, SamplingParams
from albireo.api import load
from albireo.api.load import Loaded
from albireo.execution.ahead import AheadRunner
from backends.cuda.test_end_to_end import StandIn, check_logprobs
from e2e.test_images import said
from tiny_hearers import RATE, sound
from tiny_realtime import save as save_realtime
from tiny_sights import picture, save

#: Sizes of pictures that are few patches.
SMALL = {"idefics3": (32, 10), "qwen3_vl": (48, 16), "gemma3": (30, 20), "qwen3_5": (32, 16)}
SMALL |= dict.fromkeys(("gemma4", "gemma4, embeddings of layers"), (32, 16))
GREEDY = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True, logprobs=1)


def answers(folder: Path, name: str, device: str, **settings: Any) -> tuple[list[Any], Loaded]:
    """About a picture, beside a prompt without one; and what gave them, which is closed."""
    chats = [said("A ", picture(*SMALL[name], seed=1), "?"), said("B")]
    settings = {"max_num_seqs": 2, "max_model_len": 128, "block_size": 8, **settings}
    with LLM(str(folder), device=device, dtype="float32", num_threads=1, **settings) as llm:
        assert llm.loaded is not None
        return [output.outputs[0] for output in llm.chat(chats, GREEDY, use_tqdm=False)], llm.loaded


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of exp in gelu's tanh form, where it gives the limit
@pytest.mark.parametrize(
    ("name", "budget"),
    [
        pytest.param("idefics3", 8, marks=pytest.mark.thorough),  # rows in pieces as those of qwen3_vl, but not turned
        ("qwen3_vl", 8),
        ("gemma3", 64),
        pytest.param("gemma4", 64, marks=pytest.mark.thorough),  # between gemma3 and the next
        pytest.param("gemma4, embeddings of layers", 8, marks=pytest.mark.thorough),
        ("qwen3_5", 64),
    ],
)
def test_answers_about_pictures_are_those_of_the_cpu(
    name: str, budget: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the tower, in one step or in pieces; rotations of three axes, behind which steps are begun ahead; rows
    behind further layers; tokens of a picture that see all of it, in all layers or in some, or count as others where
    each layer has an embedding of a token."""
    folder = save(tmp_path, name)
    wanted, on_cpu = answers(folder, name, "cpu")
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    found, on_gpu = answers(folder, name, "cuda", max_num_batched_tokens=budget)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.token_ids == theirs.token_ids
        check_logprobs(ours.logprobs, theirs.logprobs)
    execute: Any = on_gpu.execute
    assert isinstance(execute.__self__, AheadRunner) and execute.__self__.num_found > 0
    assert on_cpu.settings.image_problem == on_gpu.settings.image_problem == ""


def test_pictures_beside_all_else_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests than seats, who is preempted, two continuations of one, a prompt found again, penalties."""
    folder = save(tmp_path, "qwen3_vl")
    chats = [said("A ", picture(32, 32, 1), "?"), said("B ", picture(48, 16, 2)), said("A ", picture(32, 32, 1), "!")]
    params = [GREEDY, GREEDY.clone(temperature=0.8, top_p=0.9, seed=3, n=2), GREEDY.clone(repetition_penalty=1.3)]

    def tokens(device: str) -> list[list[list[int]]]:
        settings = {"max_num_seqs": 3, "max_model_len": 64, "block_size": 8, "num_gpu_blocks_override": 9}
        with LLM(str(folder), device=device, dtype="float32", num_threads=1, **settings) as llm:
            found = llm.chat(chats, params, use_tqdm=False) + llm.chat(chats[:1], GREEDY, use_tqdm=False)
            stats = llm.stats()
            assert stats.num_failed_steps == 0 and stats.num_preemptions > 0 and stats.prefix_cache_hits > 0
            return [[list(one.token_ids) for one in output.outputs] for output in found]

    wanted = tokens("cpu")
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    assert tokens("cuda") == wanted


def test_rows_of_a_sound_beside_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token has a row, in the prompt and behind it, so that no step of theirs is begun ahead; beside a prompt
    without a sound, whose steps are."""
    folder = save_realtime(tmp_path)
    prompts: list[Any] = [
        {"prompt": "[AUDIO]", "multi_modal_data": {"audio": (sound(seconds, i), RATE)}}
        for i, seconds in enumerate((0.31, 0.04))
    ]
    prompts.append({"prompt_token_ids": [5, 9, 7]})
    params = GREEDY.clone(max_tokens=6)

    def written(device: str) -> tuple[list[Any], int]:
        settings = {"max_num_seqs": 3, "max_model_len": 128, "block_size": 8, "max_num_batched_tokens": 48}
        with LLM(str(folder), device=device, dtype="float32", num_threads=1, **settings) as llm:
            found = [output.outputs[0] for output in llm.generate(prompts, params, use_tqdm=False)]
            assert llm.loaded is not None
            execute: Any = llm.loaded.execute
            return found, getattr(execute.__self__, "num_found", 0)

    wanted, _ = written("cpu")
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    found, num_ahead = written("cuda")
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.token_ids == theirs.token_ids
        check_logprobs(ours.logprobs, theirs.logprobs)
    assert 0 < num_ahead <= 5


def test_without_pictures_nothing_of_them_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path, "qwen3_vl")
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    sizes = []
    for limit in (1, 0):
        settings = {"max_model_len": 128, "block_size": 8, "limit_mm_per_prompt": {"image": limit}}
        with LLM(str(folder), device="cuda", dtype="float32", num_threads=1, **settings) as llm:
            assert llm.loaded is not None
            sizes.append((llm.loaded.memory.weight_bytes, llm.loaded.memory.arena_bytes))
            model: Any = llm.loaded.model
            assert ("rope_positions" in model.placed.staging._columns) == (limit == 1)
    assert sizes[0] > sizes[1] and sizes[0][1] > sizes[1][1]
