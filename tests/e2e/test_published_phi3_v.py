"""Phi-3.5-vision from a message to an answer, beside what transformers computes of its parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

import published_phi3_v as phi3_v
from albireo import LLM
from e2e.test_published_sights import CHATS, GREEDY, check_answers
from tiny_sights import picture, save_tokenizer

pytest.importorskip("torch")


def test_phi3_v(tmp_path: Path) -> None:
    """Behind a picture a text begins again, as its authors' processor has it: each piece is encoded by itself."""
    ids = save_tokenizer(tmp_path, ("<|image|>", "<s>"), "<|image|>")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", ids["<s>"])])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    _, model = phi3_v.save(tmp_path, ids)
    check_answers(tmp_path, CHATS[:2], ids["<|image|>"], model.text[0], lambda tiles: model.rows(*tiles))
    asked = "<|im_start|>user\n<|image_1|>{}<|image_2|>What?<|im_end|>\n"
    pictures = [picture(50, 30), picture(20, 90)]
    with LLM(str(tmp_path), dtype="float32", num_threads=1, block_size=8) as llm:
        given = {"prompt": asked.format(" or "), "multi_modal_data": {"image": pictures}}
        (found,) = llm.generate(given, GREEDY, use_tqdm=False)
    pieces = ("<|im_start|>user\n", " or ", "What?<|im_end|>\n")
    encoded = [tokenizer.encode(piece).ids for piece in pieces]
    assert [piece[0] for piece in encoded] == [ids["<s>"]] * 3
    # of two lines of two blocks, and of four of one
    wanted = [*encoded[0], *[ids["<|image|>"]] * 27, *encoded[1], *[ids["<|image|>"]] * 31, *encoded[2]]
    assert found.prompt_token_ids == wanted
