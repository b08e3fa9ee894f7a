"""What is said in sounds, on the executor for GPUs, its kernels interpreted: the CPU's tokens and texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from albireo import LLM, BuildConfig, SamplingParams, TranscriptionParams, build
from albireo.api import load
from albireo.execution.ahead import AheadRunner
from backends.cuda.test_end_to_end import StandIn, check_logprobs
from e2e.test_speech import SETTINGS, START, asked
from tiny_speech import RATE, save, sound

GREEDY = SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True, logprobs=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    yield


def opened(folder: Path, **settings: Any) -> LLM:
    return LLM(str(folder), **{**SETTINGS, "num_threads": 1, **settings})


def told(llm: LLM, params: SamplingParams) -> list[Any]:
    """Of two sounds, one of them twice, with a prompt of one token and of three."""
    prompts = [asked(0), asked(1, (START, 5, 6)), asked(0, (START, 5))]
    return [output.outputs[0] for output in llm.generate(prompts, params, use_tqdm=False)]


@pytest.mark.parametrize(
    "settings", [{}, {"max_num_batched_tokens": 16, "block_size": 8, "max_num_seqs": 2, "enforce_eager": True}], ids=str
)
def test_tokens_are_those_of_the_cpu(settings: dict[str, Any], folder: Path, request: pytest.FixtureRequest) -> None:
    """A sound at once, and in pieces; steps are begun ahead behind both."""
    with opened(folder) as llm:
        wanted = told(llm, GREEDY)
    request.getfixturevalue("on_gpu")
    with opened(folder, device="cuda", **settings) as llm:
        found = told(llm, GREEDY)
        assert llm.loaded is not None
        execute: Any = llm.loaded.execute
        assert isinstance(execute.__self__, AheadRunner) and execute.__self__.num_found > 0
        assert llm.stats().num_failed_steps == 0
    assert len({tuple(each.token_ids) for each in wanted}) == 3
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.token_ids == theirs.token_ids
        check_logprobs(ours.logprobs, theirs.logprobs)


def test_preempted_and_found_again(folder: Path, request: pytest.FixtureRequest) -> None:
    """Blocks for two sounds of three; who comes again finds its own in the cache."""
    settings = {"block_size": 8, "num_gpu_blocks_override": 16, "kv_cache_memory_bytes": None}
    params = GREEDY.clone(max_tokens=6, logprobs=None)
    with opened(folder) as llm:
        wanted = [each.token_ids for each in told(llm, params)]
    request.getfixturevalue("on_gpu")
    with opened(folder, device="cuda", **settings) as llm:
        assert [[each.token_ids for each in told(llm, params)] for _ in range(2)] == [wanted] * 2
        stats = llm.stats()
        assert stats.num_failed_steps == 0 and stats.num_preemptions > 0 and stats.prefix_cache_hits > 0


def test_what_is_written_down_is_what_the_cpu_writes(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With times and without, and a language that nobody named. The host draws, which knows the rules."""
    folder = save(tmp_path, max_target_positions=14)
    wishes = [
        TranscriptionParams(language="de", timestamps=True, temperatures=()),
        TranscriptionParams(timestamps=False, temperatures=()),
    ]

    def written(llm: LLM) -> list[tuple[str, str, list[tuple[float, float, str]]]]:
        found = [llm.transcribe((sound(0.7, 3), RATE), wish, use_tqdm=False)[0] for wish in wishes]
        return [(each.text, each.language, [(s.start, s.end, s.text) for s in each.segments]) for each in found]

    with opened(folder) as llm:
        wanted = written(llm)
    request.getfixturevalue("on_gpu")
    with opened(folder, device="cuda") as llm:
        assert written(llm) == wanted


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "bfloat16", "quantization": "int8"},
        pytest.param({"dtype": "bfloat16"}, marks=pytest.mark.thorough),
    ],
    ids=str,
)
def test_in_fewer_bits_near_to_the_cpu(settings: dict[str, Any], folder: Path, request: pytest.FixtureRequest) -> None:
    params = GREEDY.clone(max_tokens=1)
    with opened(folder, **settings) as llm:
        wanted = told(llm, params)
    request.getfixturevalue("on_gpu")
    with opened(folder, device="cuda", **settings) as llm:
        for ours, theirs in zip(told(llm, params), wanted, strict=True):
            (found,), (exact,) = ours.logprobs, theirs.logprobs
            shared = set(found) & set(exact)
            assert shared
            for token in shared:
                assert found[token].logprob == pytest.approx(exact[token].logprob, abs=0.1)


def test_a_directory_built_for_a_gpu_has_all_of_it(
    folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with opened(folder) as llm:
        wanted = [each.token_ids for each in told(llm, GREEDY)]
    build(str(folder), str(tmp_path / "built"), BuildConfig(target="cuda:90"))
    request.getfixturevalue("on_gpu")
    with opened(tmp_path / "built", device="cuda") as llm:
        assert [each.token_ids for each in told(llm, GREEDY)] == wanted
