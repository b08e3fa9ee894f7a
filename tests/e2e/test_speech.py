"""From a sound to its text: a tiny Whisper as transformers saves it, token by token against transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from albireo import LLM, AsyncLLM, BuildConfig, SamplingParams, TranscriptionParams, build
from albireo.api.transcribe.transcription import Written, joined
from albireo.errors import ConfigError, InvalidParams, RequestError, UnsupportedFeature
from albireo.sounds.decode import Sound
from albireo.sounds.windows import Window
from e2e.media_answers import check_tokens
from tiny_speech import IDS, POSITIONS, RATE, TIMES, VOCAB, features, opened, save, sound

START, END = IDS["<|startoftranscript|>"], IDS["<|endoftext|>"]
SETTINGS = {"kv_cache_memory_bytes": 1 << 24, "max_num_seqs": 4, "use_tqdm_on_load": False}
#: Lengths of sounds, in seconds.
LENGTHS = (1.0, 0.03, 0.51, 0.7, 1.0, 0.2)
GREEDY = SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True, logprobs=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), **SETTINGS) as found:
        yield found


def asked(number: int, prompt: tuple[int, ...] = (START,)) -> dict[str, Any]:
    heard = sound(LENGTHS[number % len(LENGTHS)], number)
    return {"prompt_token_ids": list(prompt), "multi_modal_data": {"audio": (heard, RATE)}}


def theirs(
    folder: Path, samples: np.ndarray, prompt: list[int], num: int, processors: LogitsProcessorList | None = None
) -> tuple[list[int], list[float]]:
    """The likeliest tokens and their log-probabilities, by transformers, without its cache."""
    model, ids, found, logprobs = opened(folder), list(prompt), list[int](), list[float]()
    with torch.no_grad():
        heard = model.model.encoder(features(folder, samples))
        for _ in range(num):
            logits = model(encoder_outputs=heard, decoder_input_ids=torch.tensor([ids])).logits[:, -1]
            changed = logits if processors is None else processors(torch.tensor([ids]), logits.clone())
            token = int(changed[0].argmax())
            logprobs.append(float(torch.log_softmax(logits[0], -1)[token]))
            found.append(token)
            ids.append(token)
            if processors is not None and token == END:
                break
    return found, logprobs


def test_tokens_and_logprobs_as_transformers(folder: Path, llm: LLM) -> None:
    prompts = [(START,), (START, IDS["<|de|>"], IDS["<|translate|>"]), tuple(range(20))]
    given = [asked(number, prompts[number % 3]) for number in range(6)]
    outputs = llm.generate(given, GREEDY, use_tqdm=False)
    for each, output in zip(given, outputs, strict=True):
        heard = each["multi_modal_data"]["audio"][0]
        tokens, logprobs = theirs(folder, heard, each["prompt_token_ids"], 30)
        check_tokens(output, tokens, logprobs)
    assert len({tuple(output.outputs[0].token_ids) for output in outputs}) == 6, "all sounds are alike"


@pytest.fixture(scope="module")
def alone(folder: Path) -> list[list[int]]:
    with LLM(str(folder), **SETTINGS, enable_prefix_caching=False) as own:
        return [own.generate(asked(each), GREEDY, use_tqdm=False)[0].outputs[0].token_ids for each in range(6)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_num_batched_tokens": 37},
        {"max_num_batched_tokens": 16, "max_num_seqs": 2},
        {"block_size": 8},
        {"kv_cache_memory_bytes": 2_000_000 // 8, "max_num_seqs": 6},
        {"enable_prefix_caching": False},
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}},
        {"num_threads": 2},
        {"without": ("fuse_qkv_rope_kv", "fuse_norm")},
    ],
    ids=str,
)
def test_the_same_bits_however_it_runs(settings: dict[str, Any], folder: Path, alone: list[list[int]]) -> None:
    """In one batch, in pieces, preempted where blocks run out, and behind a hit."""
    with LLM(str(folder), **{**SETTINGS, **settings}) as own:
        for _ in range(2):
            outputs = own.generate([asked(each) for each in range(6)], GREEDY, use_tqdm=False)
            assert [output.outputs[0].token_ids for output in outputs] == alone


def test_a_sound_that_was_heard_before_is_in_the_cache(folder: Path) -> None:
    with LLM(str(folder), **SETTINGS) as own:
        first, again, other = (
            own.generate(asked(number, prompt), GREEDY, use_tqdm=False)[0]
            for number, prompt in ((0, (START,)), (0, (START, 5, 6)), (4, (START,)))
        )
        assert first.num_cached_tokens == 0 and other.num_cached_tokens == 0
        assert again.num_cached_tokens == POSITIONS // 16 * 16


def test_several_texts_of_one_sound(folder: Path, llm: LLM) -> None:
    params = SamplingParams(temperature=1.0, max_tokens=12, n=3, seed=5, ignore_eos=True)
    output = llm.generate(asked(2), params, use_tqdm=False)[0]
    assert len({tuple(each.token_ids) for each in output.outputs}) == 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_16_bits_near_to_float32(dtype: str, folder: Path, llm: LLM) -> None:
    exact = llm.generate(asked(0), GREEDY, use_tqdm=False)[0].outputs[0]
    with LLM(str(folder), dtype=dtype, **SETTINGS) as own:
        found = own.generate(asked(0), GREEDY, use_tqdm=False)[0].outputs[0]
    pairs = zip(found.logprobs or [], exact.logprobs or [], found.token_ids, exact.token_ids, strict=True)
    for ours, wanted, token, other in pairs:
        if token != other:
            break
        assert ours[token].logprob == pytest.approx(wanted[token].logprob, abs=0.15)


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_in_8_bits(scheme: str, folder: Path) -> None:
    """The encoder, too, where whole numbers are multiplied; from a directory that was built, the same bits."""
    settings = {**SETTINGS, "dtype": "bfloat16"}
    with LLM(str(folder), quantization=scheme, **settings) as own:
        tokens = own.generate(asked(0), GREEDY, use_tqdm=False)[0].outputs[0].token_ids
    built = folder.parent / f"built-{scheme}"
    build(str(folder), str(built), BuildConfig(quantization=scheme, dtype="bfloat16"))
    with LLM(str(built), **SETTINGS) as own:
        assert own.generate(asked(0), GREEDY, use_tqdm=False)[0].outputs[0].token_ids == tokens


def test_an_engine_directory_has_all_of_it(folder: Path, llm: LLM, tmp_path: Path) -> None:
    build(str(folder), str(tmp_path / "built"), BuildConfig())
    wanted = [output.outputs[0].token_ids for output in llm.generate([asked(n) for n in range(3)], GREEDY)]
    with LLM(str(tmp_path / "built"), **SETTINGS) as own:
        found = own.generate([asked(n) for n in range(3)], GREEDY, use_tqdm=False)
        assert [output.outputs[0].token_ids for output in found] == wanted
        assert own.transcribe((sound(0.4), RATE))[0].text == llm.transcribe((sound(0.4), RATE))[0].text


# -- transcripts -------------------------------------------------------------------------------------------------------


def _processors(folder: Path, begin: int, is_timed: bool) -> LogitsProcessorList:
    """As transformers' generate() makes them; without times none is written."""
    config = opened(folder).generation_config
    config._eos_token_tensor = None
    never = [*config.suppress_tokens, IDS["<|notimestamps|>"]]
    found = [
        SuppressTokensLogitsProcessor(never if is_timed else [*never, *range(TIMES, VOCAB)]),
        SuppressTokensAtBeginLogitsProcessor(config.begin_suppress_tokens, begin),
    ]
    return LogitsProcessorList([*found, *([WhisperTimeStampLogitsProcessor(config, begin)] if is_timed else [])])


@pytest.mark.parametrize("is_timed", [False, True])
@pytest.mark.parametrize(("language", "task"), [("en", "transcribe"), ("de", "translate")])
def test_written_as_transformers_would(language: str, task: Any, is_timed: bool, folder: Path, llm: LLM) -> None:
    params = TranscriptionParams(language=language, task=task, timestamps=is_timed, temperatures=())
    prompt = [START, IDS[f"<|{language}|>"], IDS[f"<|{task}|>"], *([] if is_timed else [IDS["<|notimestamps|>"]])]
    model_tokenizer = llm.get_tokenizer()
    for number in range(2):
        samples = sound(LENGTHS[number], number)
        tokens, _ = theirs(folder, samples, prompt, 64 - len(prompt), _processors(folder, len(prompt), is_timed))
        text = [token for token in tokens if token < END]
        (found,) = llm.transcribe((samples, RATE), params, use_tqdm=False)
        assert found.text == model_tokenizer.decode(text).strip()
        assert found.language == language and found.task == task
        assert found.duration == pytest.approx(len(samples) / RATE)
        if is_timed:
            assert sorted(token for each in found.segments for token in each.token_ids) == sorted(text)
            assert all(0 <= each.start <= each.end <= found.duration for each in found.segments)


def test_how_likely_it_is_that_nothing_is_said(folder: Path, llm: LLM) -> None:
    model = opened(folder)
    for number in range(3):
        samples = sound(LENGTHS[number], number)
        with torch.no_grad():
            logits = model(features(folder, samples), decoder_input_ids=torch.tensor([[START]])).logits[0, -1]
        wanted = float(torch.softmax(logits, -1)[IDS["<|nospeech|>"]])
        for language in ("en", None):
            params = TranscriptionParams(language=language, timestamps=True, temperatures=())
            (found,) = llm.transcribe((samples, RATE), params, use_tqdm=False)
            assert [each.no_speech_prob for each in found.segments] == pytest.approx([wanted] * len(found.segments))


def test_what_is_made_up_of_silence_is_left_out(llm: LLM) -> None:
    transcriber, text = llm._admission.transcriber, [TIMES, 65, 66, TIMES + 9, END]
    windows = transcriber.windows(Sound(sound(2.5, 1), RATE))[:2]
    spoken = Written(text, -0.3, 0.01)
    for silent, is_left_out in (
        (Written(text, -1.2, 0.7), True),
        (Written(text, -0.9, 0.7), False),  # it is sure of its words
        (Written(text, -1.2, 0.5), False),
    ):
        params = TranscriptionParams(language="en", timestamps=True)
        found = transcriber.transcript(windows, [spoken, silent], params)
        assert len(found.segments) == 2 - is_left_out
        assert len(found.text) == len(transcriber.text(text)) * (2 - is_left_out) + (not is_left_out)


def test_a_translation_is_english(llm: LLM) -> None:
    """Words of windows are apart, whatever language was spoken."""
    transcriber, windows = llm._admission.transcriber, [Window(0.0, sound(1)), Window(1.0, sound(1))]
    written = [Written([65, 66, END], -0.3, 0.0)] * 2
    spoken, translated = (
        transcriber.transcript(windows, written, TranscriptionParams(language="yue", task=task)).text
        for task in ("transcribe", "translate")
    )
    assert " " not in spoken and translated.replace(" ", "") == spoken and translated.count(" ") == 1


def test_the_model_says_what_is_spoken(folder: Path, llm: LLM) -> None:
    """As transformers' detect_language does; what is written then is what is written where it is told."""
    model = opened(folder)
    for number in range(4):
        samples = sound(LENGTHS[number], number)
        wanted = model.detect_language(input_features=features(folder, samples))
        (found,) = llm.transcribe((samples, RATE), use_tqdm=False)
        assert IDS[f"<|{found.language}|>"] == int(wanted[0])
        (told,) = llm.transcribe((samples, RATE), TranscriptionParams(language=found.language), use_tqdm=False)
        # the opening takes three of the context's positions, as the prompt does
        assert told.text == found.text


def test_long_sounds_are_windows(llm: LLM) -> None:
    samples = sound(4.3, 1)
    params = TranscriptionParams(language="yue", timestamps=True, temperatures=())
    (found,) = llm.transcribe((samples, RATE), params, use_tqdm=False)
    windows = llm._admission.transcriber.windows(Sound(samples, RATE))
    assert len(windows) >= 5
    alone = [llm.transcribe((each.samples, RATE), params, use_tqdm=False)[0] for each in windows]
    assert found.text == joined([each.text for each in alone], "yue")
    flat = [
        (window.start_s + each.start, each.text)
        for window, one in zip(windows, alone, strict=True)
        for each in one.segments
    ]
    assert [each.text for each in found.segments] == [text for _, text in flat]
    assert [each.start for each in found.segments] == pytest.approx([start for start, _ in flat])
    assert [each.id for each in found.segments] == list(range(len(found.segments)))


def test_several_sounds_at_once(llm: LLM) -> None:
    sounds = [(sound(length, number), RATE) for number, length in enumerate((0.5, 2.2, 1.0))]
    together = llm.transcribe(sounds, use_tqdm=False)
    assert together == [llm.transcribe(each, use_tqdm=False)[0] for each in sounds]
    assert llm.transcribe([]) == []


def test_a_prompt_changes_what_is_written(llm: LLM) -> None:
    texts = {
        llm.transcribe((sound(0.5), RATE), TranscriptionParams(language="en", prompt=prompt), use_tqdm=False)[0].text
        for prompt in ("", "Albireo is a double star.", "x" * 5000)
    }
    assert len(texts) == 3


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ({"prompt_token_ids": [START]}, "no sound|0 sounds"),
        ("hello", "0 sounds"),
        ({"prompt": "", "multi_modal_data": {"audio": [(sound(0.1), RATE)] * 2}}, "2 sounds"),
        ({"prompt": "", "multi_modal_data": {"audio": (sound(1.2), RATE)}}, "1.20 s"),
        ({"prompt": "", "multi_modal_data": {"audio": b"no sound"}}, "no sound"),
        ({"prompt": "", "multi_modal_data": {"audio": 3}}, "no sound"),
        (asked(0, tuple([5] * 64)), "max_model_len=114"),
    ],
)
def test_prompts_that_cannot_be(prompt: Any, says: str, llm: LLM) -> None:
    with pytest.raises(RequestError, match=says):
        llm.generate(prompt, GREEDY, use_tqdm=False)


def test_what_is_not_done(folder: Path, llm: LLM) -> None:
    with pytest.raises(UnsupportedFeature, match="prompt_logprobs"):
        llm.generate(asked(0), GREEDY.clone(prompt_logprobs=1), use_tqdm=False)
    with pytest.raises(UnsupportedFeature, match="images"):
        llm.generate({**asked(0), "multi_modal_data": {"image": "x"}}, GREEDY, use_tqdm=False)
    with pytest.raises(UnsupportedFeature, match="gives no embeddings"):
        llm.embed("hello")
    with pytest.raises(InvalidParams, match=r"language=fr .*de, en, yue"):
        llm.transcribe((sound(0.1), RATE), TranscriptionParams(language="fr"))
    with pytest.raises(UnsupportedFeature, match="n=2"):
        llm.transcribe((sound(0.1), RATE), None, SamplingParams(n=2))
    for settings, says in (
        ({"enable_lora": True}, "enable_lora"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size"),
        ({"speculative_config": {"method": "draft_model", "quantization": "int8"}}, "speculative_config"),
    ):
        with pytest.raises(ConfigError, match=says):
            LLM(str(folder), **SETTINGS, **settings)
    with LLM(**SETTINGS) as story:
        with pytest.raises(UnsupportedFeature, match="hears none"):
            story.transcribe((sound(0.1), RATE))
        with pytest.raises(UnsupportedFeature, match="reads text only"):
            story.generate({"prompt": "a", "multi_modal_data": {"audio": (sound(0.1), RATE)}})


def test_async_transcripts_are_those_of_llm(folder: Path, llm: LLM) -> None:
    """Of sounds of several windows beside each other; one that is refused disturbs no other."""
    sounds = [(sound(2.6, 1), RATE), (sound(0.6, 2), RATE)]

    async def heard() -> list[Any]:
        async with AsyncLLM(str(folder), **SETTINGS) as own:
            asking = [own.transcribe(each) for each in sounds]
            asking.append(own.transcribe(sounds[0], TranscriptionParams(language="de", timestamps=True)))
            asking.append(own.transcribe(sounds[0], TranscriptionParams(language="eo")))
            return await asyncio.gather(*asking, return_exceptions=True)

    *found, timed, refused = asyncio.run(heard())
    assert found == llm.transcribe(sounds, use_tqdm=False)
    (wanted,) = llm.transcribe(sounds[0], TranscriptionParams(language="de", timestamps=True), use_tqdm=False)
    assert timed == wanted and isinstance(refused, InvalidParams)


def drawing(temperature: float) -> SamplingParams:
    return SamplingParams(temperature=temperature, seed=0, max_tokens=None)


def test_a_doubtful_text_is_written_again(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next temperature, with draws that do not depend on what else is written; what is not stays."""
    transcriber = llm._admission.transcriber
    long, hotter = (sound(2.6, 1), RATE), TranscriptionParams(language="en", timestamps=True, temperatures=(0.3, 0.9))
    cold = replace(hotter, temperatures=())
    (first,) = llm.transcribe(long, cold, use_tqdm=False)
    drawn = [llm.transcribe(long, cold, params)[0] for params in (drawing(0.3), drawing(0.9))]
    monkeypatch.setattr(type(transcriber), "is_doubtful", lambda self, written: written.temperature < 0.9)
    assert llm.transcribe(long, hotter, use_tqdm=False) == [drawn[1]]
    assert {each.temperature for each in drawn[1].segments} == {0.9}
    monkeypatch.setattr(type(transcriber), "is_doubtful", lambda self, written: False)
    assert llm.transcribe(long, hotter, use_tqdm=False) == [first]
    monkeypatch.setattr(type(transcriber), "is_doubtful", lambda self, written: True)
    assert llm.transcribe(long, hotter, use_tqdm=False) == [drawn[1]], "the last, where all are doubtful"
    assert llm.transcribe(long, hotter, drawing(0.3)) == [drawn[0]]


def test_what_is_doubtful(llm: LLM) -> None:
    transcriber = llm._admission.transcriber
    texts = "A little star.", "star " * 40
    once, again = (llm.get_tokenizer().encode(text, add_special_tokens=False) for text in texts)
    for ids, mean, no_speech, wanted in (
        (once, -0.9, 0.1, False),
        (once, -1.1, 0.1, True),
        (once, -1.1, 0.7, False),  # nothing is said
        (again, -0.1, 0.1, True),
    ):
        assert transcriber.is_doubtful(Written(ids, mean, no_speech)) is wanted
