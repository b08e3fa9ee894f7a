"""From a sound to its text: a tiny Canary as transformers saves it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from albireo import LLM, BuildConfig, SamplingParams, TranscriptionParams, build
from albireo.errors import InvalidParams, UnsupportedFeature
from e2e.media_answers import check_tokens
from tiny_canary import NAMES, save, theirs
from tiny_parakeet import RATE, tones

SETTINGS = {"kv_cache_memory_bytes": 1 << 26, "max_num_seqs": 4, "num_threads": 1, "use_tqdm_on_load": False}
#: Of sounds, in seconds: of one that ends in the middle of everything, and of a very short one.
LENGTHS = (0.9, 2.34567, 0.05)
FORCED = SamplingParams(temperature=0.0, max_tokens=6, min_tokens=6, logprobs=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("canary"))


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), dtype="float32", **SETTINGS) as found:
        yield found


def asked(number: int, prompt: list[int]) -> dict[str, Any]:
    given = tones(LENGTHS[number % len(LENGTHS)], number)
    return {"prompt_token_ids": prompt, "multi_modal_data": {"audio": (given, RATE)}}


def test_tokens_and_logprobs_as_transformers(folder: Path, llm: LLM) -> None:
    given = [asked(number, [[6], [6, 77, 80, 99]][number % 2]) for number in range(len(LENGTHS))]
    outputs = llm.generate(given, FORCED, use_tqdm=False)
    for each, output in zip(given, outputs, strict=True):
        tokens, values = theirs(folder, each["multi_modal_data"]["audio"][0], each["prompt_token_ids"], 6)
        check_tokens(output, tokens, values)
    assert len({tuple(output.outputs[0].token_ids) for output in outputs}) == len(LENGTHS), "all sounds are alike"


def test_what_is_said_is_written_down(folder: Path, llm: LLM, tmp_path: Path) -> None:
    """In the language that is asked for, or in English; from an engine directory, too."""
    few = SamplingParams(temperature=0.0, max_tokens=8)
    found = []
    for language, task, spoken, written in (
        (None, "transcribe", "en", "en"),
        ("uk", "transcribe", "uk", "uk"),
        ("de", "translate", "de", "en"),
    ):
        names = ("<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>", f"<|{spoken}|>", f"<|{written}|>",
                 "<|pnc|>", "<|noitn|>", "<|notimestamp|>", "<|nodiarize|>")  # fmt: skip
        prompt = [NAMES.index(name) for name in names]
        (wanted,) = llm.generate(asked(1, prompt), few, use_tqdm=False)
        params = TranscriptionParams(language=language, task=task)
        (text,) = llm.transcribe((tones(LENGTHS[1], 1), RATE), params, few, use_tqdm=False)
        assert text.text == wanted.outputs[0].text.strip() and text.task == task
        found.append(text.text)
    assert len(set(found)) > 1
    for bad, told in (
        (TranscriptionParams(prompt="x"), "is told nothing"),
        (TranscriptionParams(language="ja"), "none"),
    ):
        with pytest.raises((InvalidParams, UnsupportedFeature), match=told):
            llm.transcribe((tones(0.9), RATE), bad)
    build(folder, tmp_path / "engine", BuildConfig(dtype="float32"))
    with LLM(str(tmp_path / "engine"), dtype="float32", **SETTINGS) as own:
        assert own.generate(asked(1, prompt), few, use_tqdm=False)[0].outputs[0].text == wanted.outputs[0].text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"decoder_config": {"num_key_value_heads": 2}}, "num_key_value_heads=2"),
        ({"decoder_config": {"hidden_size": 48, "head_dim": 12}}, "hidden_size=40 is not the decoder's 48|shape"),
        ({"encoder_config": {"model_type": "whisper"}}, "model_type='whisper'"),
    ],
)
def test_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = save(tmp_path) / "config.json"
    data = json.loads(path.read_text())
    for key, value in changes.items():
        data[key] = {**data[key], **value}
    path.write_text(json.dumps(data))
    with pytest.raises(Exception, match=told):
        LLM(str(tmp_path), **SETTINGS)
