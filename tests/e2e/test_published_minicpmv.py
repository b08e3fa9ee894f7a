"""MiniCPM-V as its authors publish it, from a message to an answer, beside what transformers computes of its parts."""

from __future__ import annotations

from pathlib import Path

import pytest

import published_minicpmv as minicpmv
from albireo import LLM
from e2e.test_published_sights import CHATS, GREEDY, check_answers
from tiny_sights import picture, save_tokenizer

torch = pytest.importorskip("torch")

TOKENS = ("<unk>", "<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>")


def test_minicpmv(tmp_path: Path) -> None:
    """Pictures of one tile, and of a grid; a prompt that spells where its picture is is that of a chat."""
    ids = save_tokenizer(tmp_path, TOKENS, "(<image>./</image>)")
    _, model = minicpmv.save(tmp_path, vocab_size=len(ids), tokens=ids)
    chats = [*CHATS[:2], [{"role": "user", "content": [{"type": "image", "image": picture(130, 90)}]}]]
    check_answers(
        tmp_path, chats, ids["<unk>"], model.llm, lambda tiles: torch.cat([model.rows(tile) for tile in tiles])
    )
    turns = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    with LLM(str(tmp_path), dtype="float32", num_threads=1, block_size=8) as llm:
        (chat,) = llm.chat(chats[:1], GREEDY, use_tqdm=False)
        asked = {"prompt": turns.format("(<image>./</image>)What is it?")}
        (found,) = llm.generate(asked | {"multi_modal_data": {"image": picture(50, 30)}}, GREEDY, use_tqdm=False)
        assert found.prompt == asked["prompt"]
        assert found.prompt_token_ids == chat.prompt_token_ids
        assert found.outputs[0].token_ids == chat.outputs[0].token_ids
