"""Gemma 4 with pictures and sounds in one prompt, against transformers on random weights: what is seen, and what is
heard, whoever else is beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sight_inputs
from albireo import LLM
from albireo.api.machine.devices import planning_device
from albireo.api.media.perception import open_perception
from albireo.api.sources.source import open_source
from albireo.config import EngineConfig
from albireo.errors import TemplateError
from albireo.images.processor import open_processor
from e2e.media_answers import check_tokens, greedy
from tiny_hearers import FAMILIES, RATE, Theirs, save, sound
from tiny_sights import picture

NUM_TOKENS = 8
GREEDY = greedy(NUM_TOKENS)
_OF_PICTURES = {"gemma4": sight_inputs.of_gemma4, "gemma4_unified": sight_inputs.of_gemma4_unified}


def said(*parts: Any) -> list[dict[str, Any]]:
    """A turn of texts, pictures and sounds."""
    kinds = [("text" if isinstance(p, str) else "audio" if isinstance(p, np.ndarray) else "image", p) for p in parts]
    content = [{"type": kind, kind: (part, RATE) if kind == "audio" else part} for kind, part in kinds]
    return [{"role": "user", "content": content}]


CHATS = [
    said(picture(16, 24), sound(0.8), "What is it?"),
    said("Hear ", sound(1.3, 1), " see ", picture(32, 16, 1), " hear ", sound(0.4, 2), "?"),
    said(sound(3.1, 3), "Hm"),
    said(picture(24, 16, 3), "And?"),
]


class Both(Theirs):
    """transformers' model, given our tiles of pictures, where prompts are ours."""

    def answered(self, chat: list[dict[str, Any]], prompt: list[int]) -> tuple[list[int], list[float]]:
        parts = chat[0]["content"]
        sounds = [part["audio"][0] for part in parts if part["type"] == "audio"]
        given, lengths = self.family.heard(self.family.extractor(), sounds) if sounds else ({}, [])
        ids = {token: self.tokenizer.convert_tokens_to_ids(token) for token in ("<|image|>", "<|audio|>")}
        assert prompt.count(ids["<|audio|>"]) == sum(lengths)
        pictures = [part["image"] for part in parts if part["type"] == "image"]
        types = torch.tensor([[(token == ids["<|image|>"]) + 3 * (token == ids["<|audio|>"]) for token in prompt]])
        given = {**given, "mm_token_type_ids": types}
        if pictures:
            processor = open_processor(self.folder, json.loads((self.folder / "config.json").read_text()))
            tiles = [processor.normalized(processor.prepare(each).tiles[0]) for each in pictures]
            given = {**given, **_OF_PICTURES[self.name](prompt, ids, tiles), "mm_token_type_ids": types}
        inputs = torch.tensor([prompt])
        with torch.no_grad():
            found = self.model.generate(
                inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=NUM_TOKENS, do_sample=False,
                output_logits=True, return_dict_in_generate=True, **given, **self.family.asked,
            )  # fmt: skip
        tokens = found.sequences[0, len(prompt) :].tolist()
        rows = zip(found.logits, tokens, strict=True)
        return tokens, [torch.log_softmax(row[0], -1)[token].item() for row, token in rows]

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name)
        self.name = name


@pytest.fixture(scope="module", params=_OF_PICTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, save(tmp_path_factory.mktemp(request.param), request.param)


def test_answers_are_those_of_transformers(folder: tuple[str, Path]) -> None:
    """Of 12B tokens of a picture see all of it, those of a sound what is before them."""
    name, path = folder
    theirs = Both(path, name)
    with LLM(str(path), dtype="float32", num_threads=1, block_size=8, enable_prefix_caching=False) as llm:
        for chat, output in zip(CHATS, llm.chat(CHATS, GREEDY, use_tqdm=False), strict=True):
            check_tokens(output, *theirs.answered(chat, output.prompt_token_ids))


def test_the_same_bits_in_pieces_and_behind_a_hit(folder: tuple[str, Path]) -> None:
    """A sound may be cut between two steps, also where a picture may not."""
    _, path = folder

    def answers(**settings: Any) -> list[list[tuple[int, float]]]:
        with LLM(str(path), dtype="float32", num_threads=1, block_size=8, **settings) as llm:
            llm.chat(CHATS[1], GREEDY, use_tqdm=False)
            found = llm.chat(CHATS, GREEDY, use_tqdm=False)
        steps = [zip(o.outputs[0].token_ids, o.outputs[0].logprobs, strict=True) for o in found]
        return [[(token, step[token].logprob) for token, step in each] for each in steps]

    whole = answers()
    assert answers(max_num_batched_tokens=16, max_num_seqs=4) == whole
    assert answers(enable_prefix_caching=False) == whole


@pytest.mark.parametrize(("left_out", "told"), [("audio", "of type 'audio'"), ("image", "of type 'image'")])
def test_either_is_left_out(left_out: str, told: str, folder: tuple[str, Path]) -> None:
    _, path = folder
    with LLM(str(path), dtype="float32", num_threads=1, limit_mm_per_prompt={left_out: 0}) as llm:
        with pytest.raises(TemplateError, match=f"{told}.*limit_mm_per_prompt leaves the part"):
            llm.chat(CHATS[0], GREEDY)
        other = CHATS[3 if left_out == "audio" else 2]
        assert len(llm.chat(other, GREEDY, use_tqdm=False)[0].outputs[0].token_ids) == NUM_TOKENS


def test_a_model_that_has_no_tower_for_sounds(tmp_path: Path) -> None:
    """As 26B and 31B are published."""
    path = save(tmp_path, "gemma4") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"audio_config": None}))
    config = EngineConfig(dtype="float32")
    perception = open_perception(config, open_source(tmp_path, config), planning_device(config))
    assert perception.ear == "this model hears none" and FAMILIES["gemma4"].parts is not None
