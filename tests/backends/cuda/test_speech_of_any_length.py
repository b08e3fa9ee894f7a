"""Sounds that are as long as they are, on the executor for GPUs, its kernels interpreted: the CPU's tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_canary
import tiny_cohere
import tiny_moonshine
import tiny_parakeet
import tiny_wav2vec2
from albireo import LLM, SamplingParams
from albireo.api import load
from albireo.execution.ahead import AheadRunner
from backends.cuda.test_end_to_end import StandIn, check_logprobs
from e2e.test_lasr import save as save_lasr
from tiny_speech import RATE, sound

SETTINGS = {"kv_cache_memory_bytes": 1 << 26, "max_num_seqs": 4, "num_threads": 1, "use_tqdm_on_load": False}

#: What saves a tiny model, and ids that its text begins with.
LISTENERS: dict[str, tuple[Callable[[Path], Path], tuple[int, ...]]] = {
    "moonshine": (tiny_moonshine.save, (1,)),
    "cohere_asr": (tiny_cohere.save, (4,)),
    "canary": (tiny_canary.save, (4,)),
}


def told(folder: Path, prompts: list[Any], params: SamplingParams, **settings: Any) -> list[Any]:
    with LLM(str(folder), dtype="float32", **{**SETTINGS, **settings}) as llm:
        outputs = [output.outputs[0] for output in llm.generate(prompts, params, use_tqdm=False)]
        assert llm.stats().num_failed_steps == 0
        if settings.get("device") == "cuda" and "enforce_eager" not in settings and params.max_tokens:
            assert llm.loaded is not None
            execute: Any = llm.loaded.execute
            assert isinstance(execute.__self__, AheadRunner) and execute.__self__.num_found > 0
        return outputs


def check(ours: list[Any], theirs: list[Any]) -> None:
    assert len({tuple(each.token_ids) for each in theirs}) == len(theirs), "all sounds are alike"
    for found, wanted in zip(ours, theirs, strict=True):
        assert found.token_ids == wanted.token_ids
        check_logprobs(found.logprobs, wanted.logprobs)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("moonshine", {}),
        ("moonshine", {"max_num_batched_tokens": 500, "enforce_eager": True}),
        ("cohere_asr", {}),
        pytest.param("canary", {}, marks=pytest.mark.thorough),
    ],
)
def test_what_listens_hears_what_there_is(
    name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sounds of three lengths side by side, and a longer text; steps are begun ahead, or pieces of sounds are."""
    save, begin = LISTENERS[name]
    folder, params = save(tmp_path), SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True, logprobs=1)
    prompts = [
        {"prompt_token_ids": [*begin, *more], "multi_modal_data": {"audio": (sound(seconds, i), RATE)}}
        for i, (seconds, more) in enumerate(((0.6, ()), (0.31, (77, 80)), (0.21, ())))
    ]
    wanted = told(folder, prompts, params)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    check(told(folder, prompts, params, device="cuda", **settings), wanted)


#: Of the families like wav2vec 2.0 those whose scores have added what rows say by distance.
_COLUMNS = "bert", "wavlm"
FRAMES: dict[str, Callable[[Path], Path]] = {
    **{kind: lambda folder, kind=kind: tiny_parakeet.save(folder, kind) for kind in ("ctc", "tdt")},
    "streaming": lambda folder: tiny_parakeet.save(folder, tiny_parakeet.STREAMING[0]),
    "lasr": save_lasr,
    **{kind: lambda folder, kind=kind: tiny_wav2vec2.save(folder, kind) for kind in ("base", "large", *_COLUMNS)},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.thorough) if name in ("large", "wavlm") else name for name in FRAMES]
)
def test_what_frames_say(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, params = FRAMES[name](tmp_path), SamplingParams(temperature=0.0, max_tokens=None, logprobs=0)
    prompts = [
        {"prompt_token_ids": [0], "multi_modal_data": {"audio": (tiny_parakeet.tones(seconds, i), RATE)}}
        for i, seconds in enumerate((0.5, 0.21))
    ]
    wanted = told(folder, prompts, params)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    check(told(folder, prompts, params, device="cuda"), wanted)
