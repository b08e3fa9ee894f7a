"""From messages with pictures, videos and sounds in one to an answer, against transformers on random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from albireo import LLM, BuildConfig, SamplingParams, build
from albireo.api.machine.devices import planning_device
from albireo.api.sources.source import open_source
from albireo.bench.plan import PlanWorkload, plan_model
from albireo.bench.plan_report import plan_lines
from albireo.cli.facts import media_facts
from albireo.config import EngineConfig
from albireo.errors import TemplateError
from tiny_films import picture, video
from tiny_hearers import FAMILIES, RATE, Theirs, publish_whole, save, sound

NUM_TOKENS = 10
GREEDY = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True, logprobs=1)
NAMES = [name for name, family in FAMILIES.items() if family.images]
_KINDS = {str: "text", np.ndarray: "audio", tuple: "video"}


def said(*parts: Any) -> list[dict[str, Any]]:
    """A turn of texts, pictures, videos and sounds."""
    kinds = [(_KINDS.get(type(part), "image"), part) for part in parts]
    return [{"role": "user", "content": [{"type": k, k: (part, RATE) if k == "audio" else part} for k, part in kinds]}]


#: Of each video a second is two frames, which are read, so that its tiles are whole steps of time apart.
CHATS: dict[str, list[dict[str, Any]]] = {
    "a picture and a sound": said(picture(40, 50), sound(0.8), "What is it?"),
    "a sound and pictures": said("Hear ", sound(1.3, 1), " see ", picture(48, 32, 1), picture(64, 64, 2), "?"),
    "a video and a sound": said(video(8, 48, 32, fps=2.0), sound(0.9, 2), "And?"),
    "all": said(sound(0.4, 3), video(6, 32, 32, 1, fps=2.0), picture(40, 50, 3), sound(2.1, 4), ": which?"),
    "a picture": said(picture(40, 50, 4), "?"),
}


class Omni(Theirs):
    """transformers' model, given what its own processors make of pictures; of frames, too, a pair of them at a time."""

    def inputs(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        parts = [part for message in messages for part in message["content"]]
        processor = Qwen2VLImageProcessorPil(**self.family.images)
        marks = [mark.split(">")[1] + ">" for mark in self.family.sights]
        counts: list[list[int]] = [[], []]
        more: dict[str, Any] = {}
        pictures = [part["image"] for part in parts if part["type"] == "image"]
        if pictures:
            given = processor(pictures, return_tensors="pt")
            more |= {"pixel_values": given["pixel_values"], "image_grid_thw": given["image_grid_thw"]}
            counts[0] = [int(grid.prod()) // 4 for grid in given["image_grid_thw"]]
        rows, grids = [], []
        for part in parts:
            if part["type"] == "video":
                frames, _ = part["video"]
                one = processor(list(frames), return_tensors="pt")
                tall, wide = one["image_grid_thw"][0, 1:].tolist()
                # each frame is there twice: of two that follow each other the first half and the second
                cut = one["pixel_values"].reshape(len(frames) // 2, 2, tall * wide, 3, 2, 64)
                rows.append(torch.stack([cut[:, 0, :, :, 0], cut[:, 1, :, :, 0]], dim=3).reshape(-1, 3 * 2 * 64))
                grids.append([len(frames) // 2, tall, wide])
                counts[1].append(len(frames) // 2 * tall * wide // 4)
        if rows:
            more |= {"pixel_values_videos": torch.cat(rows), "video_grid_thw": torch.tensor(grids)}
            more["video_second_per_grid"] = torch.ones(len(grids))
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        sounds = [part["audio"][0] for part in parts if part["type"] == "audio"]
        heard, lengths = self.family.heard(self.family.extractor(), sounds) if sounds else ({}, [])
        for mark, counted in zip((*marks, self.family.row), (*counts, lengths), strict=True):
            first, *others = text.split(mark)
            assert len(others) == len(counted)
            text = first + "".join(mark * n + rest for n, rest in zip(counted, others, strict=True))
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)), **heard, **more}


@pytest.fixture(scope="module", params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, save(tmp_path_factory.mktemp(request.param), request.param)


def test_answers_are_those_of_transformers(folder: tuple[str, Path]) -> None:
    name, path = folder
    theirs, chats = Omni(path, name), list(CHATS.values())
    with LLM(str(path), dtype="float32", num_threads=1, block_size=8, enable_prefix_caching=False) as llm:
        for chat, output in zip(chats, llm.chat(chats, GREEDY, use_tqdm=False), strict=True):
            prompt, tokens, values = theirs.answer(chat, NUM_TOKENS)
            assert output.prompt_token_ids == prompt
            assert output.outputs[0].token_ids == tokens
            found = [step[token].logprob for step, token in zip(output.outputs[0].logprobs, tokens, strict=True)]
            np.testing.assert_allclose(found, values, atol=2e-4)


def test_the_same_bits_in_pieces_and_behind_a_hit(folder: tuple[str, Path]) -> None:
    _, path = folder

    def answers(**settings: Any) -> list[list[tuple[int, float]]]:
        with LLM(str(path), dtype="float32", num_threads=1, block_size=8, **settings) as llm:
            llm.chat(CHATS["all"], GREEDY, use_tqdm=False)
            found = llm.chat(list(CHATS.values()), GREEDY, use_tqdm=False)
        return [
            [(token, step[token].logprob) for token, step in zip(o.token_ids, o.logprobs, strict=True)]
            for o in (output.outputs[0] for output in found)
        ]

    alone = answers(max_num_seqs=1, enable_prefix_caching=False)
    assert answers() == alone
    assert answers(max_num_batched_tokens=8) == alone


def test_as_published_with_what_speaks_left_aside(tmp_path: Path) -> None:
    """And from an engine directory."""
    name = "qwen3_omni_moe"
    found = []
    part, whole = save(tmp_path / "part", name), publish_whole(save(tmp_path / "whole", name), name)
    build(str(whole), str(tmp_path / "built"), BuildConfig(dtype="float32"))
    for path in (part, whole, tmp_path / "built"):
        with LLM(str(path), dtype="float32", num_threads=1) as llm:
            outputs = llm.chat(list(CHATS.values()), GREEDY, use_tqdm=False)
            found.append([(o.prompt_token_ids, o.outputs[0].token_ids) for o in outputs])
    assert found[0] == found[1] == found[2]
    config = EngineConfig(model=str(whole), dtype="float32")
    facts = dict(media_facts(config, open_source(whole, config), planning_device(config)))
    assert facts["speech"] == "not computed: talker_config left aside; it answers in text"


@pytest.mark.parametrize(("left_out", "kept"), [("image", "audio"), ("audio", "image")])
def test_either_part_may_be_left_out(left_out: str, kept: str, tmp_path: Path) -> None:
    path = save(tmp_path, "qwen2_5_omni")
    chats = {"image": said(picture(40, 50), "?"), "audio": said(sound(0.8), "?")}
    with LLM(str(path), dtype="float32", num_threads=1) as llm:
        wanted = llm.chat(chats[kept], GREEDY, use_tqdm=False)[0].outputs[0].token_ids
    with LLM(str(path), dtype="float32", num_threads=1, limit_mm_per_prompt={left_out: 0}) as llm:
        assert llm.chat(chats[kept], GREEDY, use_tqdm=False)[0].outputs[0].token_ids == wanted
        with pytest.raises(TemplateError, match="limit_mm_per_prompt leaves the part"):
            llm.chat(chats[left_out], GREEDY, use_tqdm=False)


def test_a_tower_that_is_not_computed_leaves_the_other(tmp_path: Path) -> None:
    path = save(tmp_path, "qwen3_omni_moe")
    data = json.loads((path / "config.json").read_text())
    data["audio_config"]["activation_function"] = "swoosh"
    (path / "config.json").write_text(json.dumps(data))
    with LLM(str(path), dtype="float32", num_threads=1) as llm:
        assert llm.chat(CHATS["a picture"], GREEDY, use_tqdm=False)[0].outputs[0].token_ids
        with pytest.raises(TemplateError, match="activation_function='swoosh'"):
            llm.chat(CHATS["all"], GREEDY, use_tqdm=False)


def test_plan_counts_both(tmp_path: Path) -> None:
    """What a picture is, and a sound, and the memory of both towers."""
    path = save(tmp_path, "qwen2_5_omni")
    config = EngineConfig(model=str(path), dtype="float32")
    figures = plan_model(config, PlanWorkload(input_len=16, output_len=4))
    told = "\n".join(plan_lines(figures))
    assert "a sound" in told and "an image" in told and "a video" in told and "what sees and what hears" in told
    facts = dict(media_facts(config, open_source(path, config), planning_device(config)))
    assert set(facts) == {"images", "videos", "sounds"} and "125 tokens, 4 tiles" in facts["sounds"]
    assert figures["images"]["tokens"] == 12 and figures["videos"]["tokens"]
    assert figures["sounds"] == {"seconds": 5, "tiles": 4, "tokens": 125}
    eye = plan_model(EngineConfig(model=str(path), dtype="float32", limit_mm_per_prompt={"audio": 0}),
                     PlanWorkload(input_len=16, output_len=4))  # fmt: skip
    assert eye["sounds"] is None
    weights = sum(rows.nbytes for key, rows in load_file(path / "model.safetensors").items() if "audio_tower" in key)
    more = figures["memory"]["vision_bytes"] - eye["memory"]["vision_bytes"]
    assert more > weights - load_file(path / "model.safetensors")["audio_tower.audio_bos_eos_token.weight"].nbytes


def test_a_head_that_is_tied_is_not_one_because_the_text_part_says_so(tmp_path: Path) -> None:
    """transformers writes tie_word_embeddings of both, and asks the whole."""
    path = save(tmp_path, "qwen2_5_omni")
    data = json.loads((path / "config.json").read_text())
    data["text_config"]["tie_word_embeddings"], data["tie_word_embeddings"] = True, False
    (path / "config.json").write_text(json.dumps(data))
    tensors = load_file(path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"][::-1].copy()
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    theirs = Omni(path, "qwen2_5_omni")
    with LLM(str(path), dtype="float32", num_threads=1) as llm:
        (output,) = llm.chat(CHATS["a picture"], GREEDY, use_tqdm=False)
    assert output.outputs[0].token_ids == theirs.answer(CHATS["a picture"], NUM_TOKENS)[1]
