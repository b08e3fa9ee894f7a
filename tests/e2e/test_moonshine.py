"""From a sound to its text: a tiny Moonshine as transformers saves it, whose sounds are as long as they are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from albireo import LLM, BuildConfig, SamplingParams, TranscriptionParams, build
from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.models.hearing.moonshine import open_moonshine
from albireo.models.speech.moonshine import FEWEST, num_rows
from e2e.media_answers import check_tokens
from tiny_moonshine import RATE, opened, save, theirs
from tiny_speech import sound

SETTINGS = {"kv_cache_memory_bytes": 1 << 26, "max_num_seqs": 4, "num_threads": 1, "use_tqdm_on_load": False}
#: Of sounds, in seconds: of the shortest that is heard, of one that ends in the middle of everything.
LENGTHS = (0.9, FEWEST / RATE, 2.34567, 0.31)
#: What is written ends with no token before.
FORCED = SamplingParams(temperature=0.0, max_tokens=16, min_tokens=16, logprobs=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("moonshine"))


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), dtype="float32", **SETTINGS) as found:
        yield found


def asked(number: int, prompt: tuple[int, ...] = (1,)) -> dict[str, Any]:
    heard = sound(LENGTHS[number % len(LENGTHS)], number)
    return {"prompt_token_ids": list(prompt), "multi_modal_data": {"audio": (heard, RATE)}}


def test_tokens_and_logprobs_as_transformers(folder: Path, llm: LLM) -> None:
    given = [asked(number, ((1,), (1, 77, 80, 99))[number % 2]) for number in range(len(LENGTHS))]
    outputs = llm.generate(given, FORCED, use_tqdm=False)
    for each, output in zip(given, outputs, strict=True):
        tokens, values = theirs(folder, each["multi_modal_data"]["audio"][0], each["prompt_token_ids"], 16)
        check_tokens(output, tokens, values)
    assert len({tuple(output.outputs[0].token_ids) for output in outputs}) == len(LENGTHS), "all sounds are alike"


@pytest.mark.parametrize("settings", [{"max_num_batched_tokens": 500}, {"enable_prefix_caching": False}], ids=str)
def test_the_same_bits_however_it_runs(settings: dict[str, Any], folder: Path, llm: LLM) -> None:
    """In one batch with others, in pieces, and behind a hit: two texts of a sound share its positions."""

    def answers(own: LLM) -> list[list[tuple[int, float]]]:
        given = [asked(0), asked(2), asked(0, (1, 55)), asked(3), asked(2)]
        found = (output.outputs[0] for output in own.generate(given, FORCED, use_tqdm=False))
        return [[(t, step[t].logprob) for t, step in zip(o.token_ids, o.logprobs, strict=True)] for o in found]

    with LLM(str(folder), dtype="float32", **{**SETTINGS, **settings}) as own:
        assert answers(own) == answers(llm) == answers(own)


def test_rows_are_those_of_transformers(folder: Path) -> None:
    data = json.loads((folder / "config.json").read_text())
    tower = open_moonshine(data, "float32", "config.json")
    from albireo.backends.cpu.catalog import CpuCatalog
    from albireo.backends.cpu.machine import isa_levels, thread_pool
    from albireo.backends.cpu.model import CpuModel
    from albireo.execution.vision import VisionRunner, num_blocks, vision_programs
    from albireo.models.vision.tensors import tower_tensors

    tensors, pool = tower_tensors(folder), thread_pool(1)
    programs = vision_programs(tower, CpuCatalog(isa_levels()), tower.patches(*tower.largest))
    runner = VisionRunner(tower, tensors, programs, lambda p, weights: CpuModel(p, weights, pool, num_blocks(p)))
    tensors.close()
    exact, theirs_32 = (opened(folder, kind).model.encoder for kind in ("float64", "float32"))
    for seconds in LENGTHS:
        given = sound(seconds)
        with torch.no_grad():
            wanted = exact(torch.tensor(given, dtype=torch.float64)[None]).last_hidden_state[0].numpy()
            rough = theirs_32(torch.tensor(given)[None]).last_hidden_state[0].numpy()
        ours = runner.rows(given[:, None])
        assert ours.shape == wanted.shape == (num_rows(len(given)), 48)
        noise = np.linalg.norm(rough - wanted)
        assert noise < 4e-6 * np.linalg.norm(wanted), "too rough to prove anything"
        assert np.linalg.norm(ours - wanted) < 4 * noise


def test_what_is_said_is_written_down(folder: Path, llm: LLM) -> None:
    """As much as anybody says in the time, or up to what ends it; what is longer than 30 s in windows."""
    heard = sound(2.34567, 2)
    (found,) = llm.transcribe((heard, RATE), use_tqdm=False)
    most = math.ceil(6.5 * len(heard) / RATE)
    with torch.no_grad():
        ids = opened(folder).generate(torch.tensor(heard)[None], max_new_tokens=most, do_sample=False)[0, 1:]
    assert found.text == llm.get_tokenizer().decode(ids.tolist(), skip_special_tokens=True).strip()
    assert (found.duration, found.language) == (len(heard) / RATE, "")
    (found,) = llm.transcribe((sound(31.0), RATE), use_tqdm=False, sampling_params=SamplingParams(max_tokens=2))
    assert found.duration == 31.0
    for bad, told in (
        (TranscriptionParams(task="translate"), "as it is said"),
        (TranscriptionParams(timestamps=True), "does not say when"),
        (TranscriptionParams(language="en"), "is told nothing beside"),
        (TranscriptionParams(prompt="x"), "is told nothing beside"),
    ):
        with pytest.raises(UnsupportedFeature, match=told):
            llm.transcribe((heard, RATE), bad)
    with pytest.raises(InvalidParams, match=r"takes 31.00 s, and this model hears 30 s at a time"):
        llm.generate({"prompt_token_ids": [1], "multi_modal_data": {"audio": (sound(31.0), RATE)}}, FORCED)


def test_an_engine_directory_hears(folder: Path, llm: LLM, tmp_path: Path) -> None:
    build(folder, tmp_path / "engine", BuildConfig(dtype="float32"))
    with LLM(str(tmp_path / "engine"), dtype="float32", **SETTINGS) as own:
        found = [each.generate(asked(2), FORCED, use_tqdm=False)[0].outputs[0].token_ids for each in (llm, own)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("file", "changes", "told"),
    [
        (
            "config.json",
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
            "rope_type='yarn' is not supported; supported: default",
        ),
        ("config.json", {"encoder_num_key_value_heads": 2}, "encoder_num_key_value_heads=2 is not supported"),
        ("config.json", {"decoder_num_key_value_heads": 2}, "decoder_num_key_value_heads=2 is not supported"),
        ("config.json", {"attention_bias": True}, "attention_bias"),
        ("preprocessor_config.json", {"do_normalize": True}, "do_normalize"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "sampling_rate=8000 must be 16000"),
    ],
)
def test_refused(file: str, changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    folder = save(tmp_path)
    data = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**data, **changes}))
    with pytest.raises(Exception, match=told):
        LLM(str(folder), **SETTINGS)
