"""From a sound to what Voxtral Realtime writes of it, against transformers on random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, BuildConfig, SamplingParams, TranscriptionParams, build
from albireo.errors import InvalidParams, UnsupportedFeature
from e2e.media_answers import check_tokens
from tiny_hearers import NUM_SPECIAL, RATE, sound
from tiny_realtime import BEFORE, BEHIND, Theirs, save

#: As many tokens as the sound has room for.
ALL = SamplingParams(temperature=0.0, max_tokens=None, ignore_eos=True, logprobs=1)
SOUNDS = [sound(1.0), sound(0.31, 1), sound(2.77, 2), sound(0.04, 3)]


def prompts(sounds: list[np.ndarray]) -> list[dict[str, Any]]:
    return [{"prompt": "[AUDIO]", "multi_modal_data": {"audio": (each, RATE)}} for each in sounds]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("realtime"))


def test_what_is_written_is_what_transformers_writes(folder: Path) -> None:
    """A token for each 80 ms that are left behind the prompt, to the last; each has heard what is before it."""
    theirs = Theirs(folder)
    with LLM(str(folder), dtype="float32", num_threads=1, block_size=8, enable_prefix_caching=False) as llm:
        for samples, output in zip(SOUNDS, llm.generate(prompts(SOUNDS), ALL, use_tqdm=False), strict=True):
            prompt, tokens, values = theirs.written(samples)
            assert output.prompt_token_ids == prompt and output.outputs[0].finish_reason == "length"
            assert len(prompt) + len(tokens) == -(-len(samples) // 1280) + BEFORE + BEHIND
            check_tokens(output, tokens, values)


def test_bits_do_not_depend_on_who_else_runs(folder: Path) -> None:
    """Alone, beside others, in pieces, without blocks for all, behind a hit, with drafts, from an engine directory."""

    def answers(**settings: Any) -> list[list[tuple[int, float]]]:
        with LLM(str(folder), dtype="float32", num_threads=2, block_size=8, **settings) as llm:
            llm.generate(prompts(SOUNDS[:1]), ALL, use_tqdm=False)
            found = [output.outputs[0] for output in llm.generate(prompts(SOUNDS), ALL, use_tqdm=False)]
            return [
                [(token, step[token].logprob) for token, step in zip(o.token_ids, o.logprobs or [], strict=True)]
                for o in found
            ]

    alone = answers(max_num_seqs=1, enable_prefix_caching=False)
    guessing = {"method": "ngram", "prompt_lookup_min": 1}
    for settings in (
        {"enable_prefix_caching": False},
        {"max_num_batched_tokens": 8},
        {"num_gpu_blocks_override": 22, "max_model_len": 128},
        {"speculative_config": guessing},
    ):
        assert answers(**settings) == alone, settings


def test_an_engine_directory_hears(folder: Path, tmp_path: Path) -> None:
    build(folder, tmp_path / "engine", BuildConfig(dtype="float32"))
    found = []
    for model in (folder, tmp_path / "engine"):
        with LLM(str(model), dtype="float32", num_threads=1) as llm:
            found.append([o.outputs[0].token_ids for o in llm.generate(prompts(SOUNDS), ALL, use_tqdm=False)])
    assert found[0] == found[1]


def test_sounds_are_written_down(folder: Path) -> None:
    """Control tokens are no text; a sound longer than there is room for is cut."""
    theirs = Theirs(folder)
    sampling = SamplingParams(temperature=0.0, max_tokens=None, ignore_eos=True)
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        (found,) = llm.transcribe((SOUNDS[2], RATE), None, sampling, use_tqdm=False)
        text = bytes(t - NUM_SPECIAL for t in theirs.written(SOUNDS[2])[1] if t >= NUM_SPECIAL)
        assert found.text == text.decode(errors="replace").strip() and found.duration == 2.77
        for asked, told in (
            (TranscriptionParams(timestamps=True), "does not say when"),
            (TranscriptionParams(task="translate"), "as it is said"),
            (TranscriptionParams(language="de"), "is told nothing beside"),
        ):
            with pytest.raises(UnsupportedFeature, match=told):
                llm.transcribe((SOUNDS[0], RATE), asked)
    with LLM(str(folder), dtype="float32", num_threads=1, max_model_len=80) as llm:
        (found,) = llm.transcribe((sound(5.3), RATE), None, sampling, use_tqdm=False)
        assert found.duration == 5.3 and found.text


def test_what_cannot_be_written_down_is_refused(folder: Path) -> None:
    one = {"audio": (sound(0.5), RATE)}
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        with pytest.raises(InvalidParams, match=r"there are 4 tokens before it, and this model writes down one sound"):
            llm.generate({"prompt": "abc[AUDIO]", "multi_modal_data": one}, ALL)
        with pytest.raises(InvalidParams, match=r"there are 39 tokens before it"):
            llm.generate({"prompt": "[AUDIO][AUDIO]", "multi_modal_data": {"audio": [one["audio"]] * 2}}, ALL)
        with pytest.raises(InvalidParams, match=r"has 139 tokens, and what is heard is 56 rows"):
            llm.generate({"prompt": f"[AUDIO]{'x' * 100}", "multi_modal_data": one}, ALL)
        with pytest.raises(InvalidParams, match=r"takes 180.10 s, and this model hears up to 180 s"):
            llm.generate({"prompt": "[AUDIO]", "multi_modal_data": {"audio": (sound(180.1), RATE)}}, ALL)
        few = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True)
        assert len(llm.generate(prompts(SOUNDS[:1]), few, use_tqdm=False)[0].outputs[0].token_ids) == 3
        # text alone hears nothing, and is as long as it is asked to be
        assert len(llm.generate("abc", few, use_tqdm=False)[0].outputs[0].token_ids) == 3


def test_in_8_bits(folder: Path) -> None:
    found = []
    for more in ({}, {"quantization": "int8"}):
        with LLM(str(folder), dtype="float32", num_threads=1, **more) as llm:
            outputs = llm.generate(prompts(SOUNDS), ALL, use_tqdm=False)
            found.append([next(iter(o.outputs[0].logprobs[0].items())) for o in outputs])
    alike = [(one.logprob, other.logprob) for (a, one), (b, other) in zip(*found, strict=True) if a == b]
    assert len(alike) >= 2 and 0 < max(abs(one - other) for one, other in alike) < 0.5
