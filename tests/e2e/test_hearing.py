"""From a message with sounds to an answer, against transformers' extractor and model on random weights."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from albireo import LLM, BuildConfig, SamplingParams, TranscriptionParams, build
from albireo.api.machine.devices import planning_device
from albireo.api.media.perception import open_perception
from albireo.api.sources.source import open_source
from albireo.errors import InvalidParams, TemplateError, UnsupportedFeature
from albireo.models.vision.tower import sees
from albireo.sounds.decode import Sound
from e2e.media_answers import check_same_bits, check_tokens, greedy, of_some
from tiny_hearers import FAMILIES, NUM_SPECIAL, RATE, TEKKEN, Theirs, publish_first, save, sound

NUM_TOKENS = 12
GREEDY = greedy(NUM_TOKENS)


def said(*parts: Any) -> list[dict[str, Any]]:
    """A turn of texts and sounds."""
    kinds = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "audio", "audio": (part, RATE)}
        for part in parts
    ]
    return [{"role": "user", "content": kinds}]


#: Of up to a second, and of more where the model hears more.
CHATS: dict[str, list[dict[str, Any]]] = {
    "one": said(sound(0.8), "What is it?"),
    "behind the text": said("Listen: ", sound(0.51, 1)),
    "two": said("First ", sound(1.0, 2), " then ", sound(0.3, 3), ": which?"),
    "none": said("Hello"),
}
LONG: list[list[dict[str, Any]]] = [said(sound(2.7, 4), "?"), said("", sound(1.25, 5), sound(3.0013, 6))]


def chats_of(name: str) -> list[list[dict[str, Any]]]:
    return [*CHATS.values(), *(LONG if FAMILIES[name].longest > 1 else [])]


of = of_some(FAMILIES)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, save(tmp_path_factory.mktemp(request.param), request.param)


def test_answers_are_those_of_transformers(folder: tuple[str, Path]) -> None:
    name, path = folder
    theirs, chats = Theirs(path, name), chats_of(name)
    with LLM(str(path), dtype="float32", num_threads=1, block_size=8, enable_prefix_caching=False) as llm:
        for chat, output in zip(chats, llm.chat(chats, GREEDY, use_tqdm=False), strict=True):
            prompt, tokens, values = theirs.answer(chat, NUM_TOKENS)
            assert output.prompt_token_ids == prompt
            check_tokens(output, tokens, values)


@of("qwen2_audio", "voxtral")
def test_answers_do_not_depend_on_who_else_runs(folder: tuple[str, Path]) -> None:
    """Alone, beside others, in pieces, without blocks for all, and after the same sound was heard: the same bits."""
    name, path = folder
    chats = chats_of(name)
    # a sound of Gemma 3n has 188 rows, however long it is
    blocks, longest = (64, 500) if name == "gemma3n" else (36, 260)
    few_blocks = {"num_gpu_blocks_override": blocks, "max_model_len": longest}
    guessing = {"speculative_config": {"method": "ngram", "prompt_lookup_min": 1}}
    check_same_bits(path, chats, GREEDY, few_blocks, guessing)


@of("qwen3_asr")
def test_sounds_of_one_length_are_told_apart(folder: tuple[str, Path]) -> None:
    """Their prompts are the same tokens, so only what they are keeps the prefix cache from taking one for the other."""
    _, path = folder
    chats = [said(sound(0.9, seed), "What is it?") for seed in (1, 2, 1)]
    with LLM(str(path), dtype="float32", num_threads=1, block_size=8) as llm:
        found = [llm.chat([chat], GREEDY, use_tqdm=False)[0] for chat in chats]
    assert found[0].prompt_token_ids == found[1].prompt_token_ids
    values = [output.outputs[0].cumulative_logprob for output in found]
    assert values[0] != values[1] and values[0] == values[2]
    num_cached = [output.num_cached_tokens for output in found]
    assert num_cached[0] == 0 and num_cached[1] < 24 and num_cached[2] > len(found[0].prompt_token_ids) - 16


@of("glmasr")
def test_prompts_may_be_texts_and_token_ids(folder: tuple[str, Path]) -> None:
    name, path = folder
    mark, given = FAMILIES[name].mark, (sound(0.5, 7), RATE)
    with LLM(str(path), dtype="float32", num_threads=1) as llm:
        text = f"Hear {mark} and say"
        ids = llm.get_tokenizer().encode(text)
        prompts = [{"prompt": text}, {"prompt_token_ids": ids}]
        found = llm.generate(
            [{**each, "multi_modal_data": {"audio": [given]}} for each in prompts], GREEDY, use_tqdm=False
        )
        assert found[0].prompt_token_ids == found[1].prompt_token_ids
        assert len(found[0].prompt_token_ids) > len(ids)
        assert found[0].outputs[0].token_ids == found[1].outputs[0].token_ids


@of("qwen2_audio", "voxtral")
def test_what_cannot_be_heard_is_refused(folder: tuple[str, Path]) -> None:
    name, path = folder
    mark = FAMILIES[name].mark
    one = (sound(0.5), RATE)
    with LLM(str(path), dtype="float32", num_threads=1, limit_mm_per_prompt={"audio": 2}) as llm:
        for chat, told in (
            (said(sound(0.1), sound(0.1), sound(0.1)), "the prompt has 3 sounds; limit_mm_per_prompt allows 2"),
            ([{"role": "user", "content": [{"type": "audio", "path": "/etc/passwd"}]}], "allowed-local-media-path"),
            ([{"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": "http://127.0.0.1:1/a"}}]}],
             "allowed-media-domains"),
            ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}], "no WAV|sound"),
        ):  # fmt: skip
            with pytest.raises(InvalidParams, match=told):
                llm.chat(chat, GREEDY)
        picture = [{"role": "user", "content": [{"type": "image", "image": b""}]}]
        if sees(json.loads((path / "config.json").read_text())):
            with pytest.raises(InvalidParams, match="no picture"):
                llm.chat(picture, GREEDY)
        else:
            with pytest.raises(TemplateError, match="this model hears, and sees none"):
                llm.chat(picture, GREEDY)
        with pytest.raises(TemplateError, match="without audio or audio_url"):
            llm.chat([{"role": "user", "content": [{"type": "audio"}]}], GREEDY)
        with pytest.raises(InvalidParams, match=r"2 places for sounds .* and 1 sounds"):
            llm.generate({"prompt": mark * 2, "multi_modal_data": {"audio": one}}, GREEDY)
        (output,) = llm.chat([said(f"is {mark} a mark?", sound(0.2))], GREEDY, use_tqdm=False)
        assert len(output.outputs[0].token_ids) == NUM_TOKENS
        if name == "voxtral":  # before it is decoded: the context has room for 2,048 rows
            file = io.BytesIO()
            soundfile.write(file, np.zeros(RATE * 90, np.float32), RATE, format="FLAC")
            with pytest.raises(InvalidParams, match="a sound lasts 90 s; at most 83 s are read"):
                llm.chat([{"role": "user", "content": [{"type": "audio", "audio": file.getvalue()}]}], GREEDY)
        if FAMILIES[name].longest == 1:
            with pytest.raises(InvalidParams, match=r"takes 1.50 s, and this model hears up to 1 s"):
                llm.chat(said(sound(1.5)), GREEDY)
    with LLM(str(path), dtype="float32", num_threads=1, limit_mm_per_prompt={"audio": 0}) as llm:
        with pytest.raises(TemplateError, match="limit_mm_per_prompt leaves the part"):
            llm.chat(said(sound(0.3)), GREEDY)
        assert len(llm.chat(said("text"), GREEDY, use_tqdm=False)[0].outputs[0].token_ids) == NUM_TOKENS


@of("glmasr")
def test_an_engine_directory_hears(folder: tuple[str, Path], tmp_path: Path) -> None:
    name, path = folder
    out, chats = tmp_path / "engine", chats_of(name)
    build(path, out, BuildConfig(dtype="float32"))
    found = []
    for model in (path, out):
        with LLM(str(model), dtype="float32", num_threads=1, verify_hashes=model == out) as llm:
            found.append([o.outputs[0].token_ids for o in llm.chat(chats, GREEDY, use_tqdm=False)])
    assert found[0] == found[1]


def test_a_model_as_it_was_first_published(tmp_path: Path) -> None:
    found = []
    for path in (save(tmp_path / "a", "qwen3_asr"), publish_first(save(tmp_path / "b", "qwen3_asr"))):
        with LLM(str(path), dtype="float32", num_threads=1) as llm:
            outputs = llm.chat(chats_of("qwen3_asr"), GREEDY, use_tqdm=False)
            found.append([(o.prompt_token_ids, o.outputs[0].token_ids) for o in outputs])
    assert found[0] == found[1]


def _written_by(theirs: Theirs, text: str, samples: np.ndarray, num_tokens: int) -> str:
    """What transformers writes behind a text with a place for a sound."""
    given, lengths = theirs.family.heard(theirs.family.extractor(), [samples])
    before, behind = theirs.family.around
    ids = theirs.tokenizer.encode(text.replace(theirs.family.row, f"{before}{theirs.family.row * lengths[0]}{behind}"))
    with torch.no_grad():
        found = theirs.model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=num_tokens, do_sample=False,
            **given, **theirs.family.asked,
        )  # fmt: skip
    return str(theirs.tokenizer.decode(found[0, len(ids) :], skip_special_tokens=True))


#: What a family is asked, where language and words are given; and what it does not do.
ASKED = {
    "audioflamingo3": (
        TranscriptionParams(),
        "<|im_start|>user\nTranscribe the input speech.<sound><|im_end|>\n<|im_start|>assistant\n",
    ),
    "fun_asr_nano": (
        TranscriptionParams(prompt="Ulm"),
        "<|im_start|>user\n<|object_ref_start|>Ulm<|im_end|>\n<|im_start|>assistant\n",
    ),
    "gemma3n": (
        TranscriptionParams(language="de", prompt="Ulm"),
        "<|im_start|>user\n<audio_soft_token>Transcribe this audio into German. Ulm<|im_end|>\n<|im_start|>assistant\n",
    ),
    "gemma4": (
        TranscriptionParams(task="translate", language="fr"),
        "<|im_start|>user\n<|audio|>Translate this audio from French into English.<|im_end|>\n<|im_start|>assistant\n",
    ),
    "gemma4_unified": (
        TranscriptionParams(),
        "<|im_start|>user\n<|audio|>Transcribe this audio.<|im_end|>\n<|im_start|>assistant\n",
    ),
    "glmasr": (
        TranscriptionParams(),
        "<|im_start|>user\n<|begin_of_audio|><|pad|><|end_of_audio|>Please transcribe this audio into text<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "granite_speech": (
        TranscriptionParams(),
        "<|im_start|>user\n<|audio|>can you transcribe the speech into a written format?<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "granite_speech_plus": (
        TranscriptionParams(task="translate"),
        "<|im_start|>user\n<|audio|>translate the speech to English<|im_end|>\n<|im_start|>assistant\n",
    ),
    "phi4_multimodal": (
        TranscriptionParams(task="translate"),
        "<|im_start|>user\n<|audio|>Translate the audio to English.<|im_end|>\n<|im_start|>assistant\n",
    ),
    "qwen2_5_omni": (
        TranscriptionParams(language="de", prompt="Ulm"),
        "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>Transcribe this audio into German. Ulm<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "qwen3_omni_moe": (
        TranscriptionParams(task="translate"),
        "<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|>Translate this audio into English.<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "qwen3_asr": (
        TranscriptionParams(language="de", prompt="Ulm"),
        "<|im_start|>system\nUlm<|im_end|>\n<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n"
        "<|im_start|>assistant\nlanguage German<asr_text>",
    ),
    "voxtral": (TranscriptionParams(language="de"), "<s>[INST][BEGIN_AUDIO][AUDIO][/INST]lang:de[TRANSCRIBE]"),
}


def test_sounds_are_written_down(folder: tuple[str, Path]) -> None:
    name, path = folder
    limit = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
    with LLM(str(path), dtype="float32", num_threads=1, limit_mm_per_prompt={"image": 0}) as llm:
        if name not in ASKED:
            with pytest.raises(UnsupportedFeature, match="talks about them; ask it in a chat"):
                llm.transcribe((sound(0.5), RATE))
            return
        asked, text = ASKED[name]
        (found,) = llm.transcribe((sound(0.9), RATE), asked, limit, use_tqdm=False)
        assert found.text == _written_by(Theirs(path, name), text, sound(0.9), NUM_TOKENS).strip()
        assert found.language == (asked.language or "") and found.duration == 0.9 and not found.segments
        knows = name.startswith(("qwen", "gemma"))
        translates = any(part in name for part in ("omni", "granite", "gemma", "phi4"))
        for bad, told in (
            (TranscriptionParams(timestamps=True), "does not say when"),
            *(() if translates else ((TranscriptionParams(task="translate"), "as it is said"),)),
            (TranscriptionParams(language="eo"), "language=eo is none that this model knows") if knows else
            (TranscriptionParams(language="en"), "is not told one here") if name == "fun_asr_nano" else
            (TranscriptionParams(prompt="x"), "is told nothing beside"),
        ):  # fmt: skip
            with pytest.raises((InvalidParams, UnsupportedFeature), match=told):
                llm.transcribe((sound(0.5), RATE), bad)


def test_voxtral_with_the_tokenizer_that_it_was_published_with(tmp_path: Path) -> None:
    """A tekken.json and no template: prompts are those that Mistral's own library writes."""
    folder = save(tmp_path, "voxtral", with_tekken=True)

    def ids(*parts: str | int) -> list[int]:
        """Of special tokens, of texts, and of so many rows of sounds."""
        found: list[int] = []
        for part in parts:
            if isinstance(part, int):
                found += [TEKKEN["[AUDIO]"]] * part
            else:
                found += [TEKKEN[part]] if part in TEKKEN else [NUM_SPECIAL + byte for byte in part.encode()]
        return found

    chat = [{"role": "system", "content": "Be brief."}, *said(sound(0.9), sound(1.2, 1), "Which?")]
    heard = ids("<s>", "[SYSTEM_PROMPT]", "Be brief.", "[/SYSTEM_PROMPT]", "[INST]")
    heard += ids("[BEGIN_AUDIO]", 25, "[BEGIN_AUDIO]", 50, "Which?", "[/INST]")
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        assert llm.chat(chat, GREEDY, use_tqdm=False)[0].prompt_token_ids == heard
        transcriber = llm._admission.transcriber
        for language, said_so in ((None, ()), ("de", ("lang:de",))):
            asked = TranscriptionParams(language=language)
            (window,) = transcriber.windows(Sound(sound(0.9), RATE))
            prompt, params = transcriber.prompt(window, asked, GREEDY)
            wanted = ids("<s>", "[INST]", "[BEGIN_AUDIO]", 25, "[/INST]", *said_so, "[TRANSCRIBE]")
            assert llm._admission.submission(prompt, params).prompt_token_ids == wanted
        (found,) = llm.transcribe((sound(2.2), RATE), use_tqdm=False, sampling_params=SamplingParams(max_tokens=3))
        assert found.duration == 2.2


@pytest.mark.parametrize(
    ("folder", "scheme"),
    [
        pytest.param(name, scheme, marks=() if (i + j) % 2 else pytest.mark.thorough)
        for i, name in enumerate(FAMILIES)
        for j, scheme in enumerate(("int8", "fp8"))
    ],
    indirect=["folder"],
)
def test_in_8_bits(scheme: str, folder: tuple[str, Path], tmp_path: Path) -> None:
    """The tower's layers, too, where whole numbers are multiplied; from a directory that was built, the same bits."""
    name, path = folder
    chats = chats_of(name)
    build(path, tmp_path / "built", BuildConfig(quantization=scheme, dtype="float32"))
    found = []
    for model, more in ((path, {}), (path, {"quantization": scheme}), (tmp_path / "built", {})):
        with LLM(str(model), dtype="float32", num_threads=1, **more) as llm:
            answers = [output.outputs[0] for output in llm.chat(chats, GREEDY, use_tqdm=False)]
            pairs = [pair for o in answers for pair in zip(o.token_ids, o.logprobs, strict=True)]
            found.append([(token, step[token].logprob) for token, step in pairs])
            config = llm.loaded.config
        perception = open_perception(config, open_source(model, config), planning_device(config))
        kernels = {call.kernel for program in perception.all_programs for call in program.calls}
        is_rounded = scheme == "int8" and bool(more or model != path)
        assert any(".int8" in kernel for kernel in kernels) == is_rounded
    assert found[1] == found[2] and found[0] != found[1]
    firsts = [values[::NUM_TOKENS] for values in found[:2]]
    alike = [(one, other) for (token, one), (same, other) in zip(*firsts, strict=True) if token == same]
    assert len(alike) >= len(chats) // 2
    assert max(abs(one - other) for one, other in alike) < 0.5
