"""From a message with videos to an answer, against transformers' models on random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from albireo import LLM, BuildConfig, build
from albireo.errors import InvalidParams, RequestError, TemplateError
from e2e.media_answers import check_same_bits, check_tokens, greedy, of_some
from tiny_films import MARK, SIZES, save_model, video
from tiny_sights import Theirs, picture, save

NUM_TOKENS = 10
GREEDY = greedy(NUM_TOKENS)
FAMILIES = ("exaone4_5", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5")


def said(*parts: Any) -> list[dict[str, Any]]:
    """A turn of texts, pictures and videos."""
    kinds = {str: "text", tuple: "video"}
    content = [{"type": kind, kind: part} for part in parts for kind in [kinds.get(type(part), "image")]]
    return [{"role": "user", "content": content}]


#: transformers 5.24 lets the text behind a video begin at the larger side of its grid, whatever the time; the models'
#: own code begins at one more than the greatest of all three axes. Here that is the same: videos are short, or wide.
CHATS: dict[str, list[dict[str, Any]]] = {
    "one": said(video(8, 50, 30), "What is it?"),
    "behind a picture": said("Look: ", picture(40, 40, 1), " and ", video(5, 40, 60, 1), "?"),
    "before a picture": said(video(9, 192, 20, 2, fps=3.0), picture(50, 30, 3), "And?"),
    "two": said("First ", video(4, 48, 48, 3), " then ", video(12, 40, 48, 4), ": which?"),
}


class Seen(Theirs):
    """What transformers' model is given of frames, made by what its papers say, not by us."""

    def inputs(self, messages: list[dict[str, Any]], prompt: list[int]) -> Any:
        parts = [part for message in messages for part in message["content"]]
        pictures = [
            {**message, "content": [p for p in message["content"] if p["type"] != "video"]} for message in messages
        ]
        given = super().inputs(pictures, prompt)
        is_new = self.family.class_name.startswith("Qwen3")
        pixels, grids, seconds = [], [], []
        for part in parts:
            if part["type"] == "video":
                frames, known = part["video"]
                rows, grid, second = shown(frames, known["fps"], is_new)
                pixels.append(rows)
                grids.append(grid)
                seconds.append(second)
        types = [1 if t == self._ids["<|image_pad|>"] else 2 if t == self._ids["<|video_pad|>"] else 0 for t in prompt]
        given |= {"pixel_values_videos": torch.cat(pixels), "video_grid_thw": torch.tensor(grids)}
        if not self.family.class_name.startswith("Exaone"):
            given["mm_token_type_ids"] = torch.tensor([types])
        if self.family.class_name.startswith("Qwen2_5"):
            given["second_per_grid_ts"] = torch.tensor(seconds)
        return given


def shown(frames: np.ndarray, fps: float, is_new: bool) -> tuple[torch.Tensor, list[int], float]:
    """Patches [T, 3 * 2 * 8 * 8] of the frames that are read, their grid, and seconds from tile to tile."""
    total = len(frames)
    if is_new:
        count = min(max(int(total / fps * 2), 4), total)
        chosen = np.linspace(0, total - 1, count).round().astype(int)
    else:
        count = int(min(max(total / fps * 2, 4), total // 2 * 2)) // 2 * 2
        chosen = np.arange(0, total, total / count).astype(int)
    height, width = size(frames.shape[1], frames.shape[2], len(chosen), is_new)
    from PIL import Image

    resized = [np.asarray(Image.fromarray(frames[n]).resize((width, height), Image.Resampling.BICUBIC)) for n in chosen]
    resized += resized[-1:] * (len(resized) % 2)
    mean = (0.5,) * 3 if is_new else (0.48145466, 0.4578275, 0.40821073)
    std = (0.5,) * 3 if is_new else (0.26862954, 0.26130258, 0.27577711)
    x = (torch.tensor(np.stack(resized)).float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    tall, wide = height // 8, width // 8
    cut = x.reshape(len(resized) // 2, 2, tall // 2, 2, 8, wide // 2, 2, 8, 3)
    rows = cut.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, 3 * 2 * 8 * 8)
    return rows, [len(resized) // 2, tall, wide], 2 * total / fps / len(chosen)


def size(height: int, width: int, count: int, is_new: bool) -> tuple[int, int]:
    """Multiples of 16 that stay near to the proportions and within the bounds of SIZES."""
    frames = round(count / 2) * 2 if is_new else 1
    few, most = SIZES["qwen3" if is_new else "qwen2"].values()
    share = count if is_new else 1
    tall, wide = round(height / 16) * 16, round(width / 16) * 16
    if frames * tall * wide > most:
        beta = (share * height * width / most) ** 0.5
        tall, wide = (max(16, int(side / beta / 16) * 16) for side in (height, width))
    assert frames * tall * wide >= few
    return tall, wide


of = of_some(FAMILIES)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, save_model(tmp_path_factory.mktemp(request.param), request.param)


def test_answers_are_those_of_transformers(folder: tuple[str, Path]) -> None:
    name, path = folder
    theirs = Seen(path, name)
    with LLM(str(path), dtype="float32", num_threads=1, block_size=8, enable_prefix_caching=False) as llm:
        for chat, output in zip(CHATS.values(), llm.chat(list(CHATS.values()), GREEDY, use_tqdm=False), strict=True):
            _, tokens, values = theirs.answer(chat, NUM_TOKENS, output.prompt_token_ids)
            check_tokens(output, tokens, values)


@of("qwen2_5_vl", "qwen3_5")
def test_answers_do_not_depend_on_who_else_runs(folder: tuple[str, Path]) -> None:
    """Alone, beside others, in pieces, without blocks for all, and after the same video was seen: the same bits."""
    _, path = folder
    chats = list(CHATS.values())
    few_blocks = {"num_gpu_blocks_override": 26, "max_model_len": 200}
    check_same_bits(path, chats, GREEDY, few_blocks)


@of("qwen2_vl", "qwen3_vl")
def test_videos_of_one_size_are_told_apart(folder: tuple[str, Path]) -> None:
    """Their prompts are the same tokens, so only what they are, and when, keeps the cache from taking one for the
    other."""
    name, path = folder
    chats = [said(video(8, 50, 30, seed), "What?") for seed in (1, 2, 1)]
    chats += [said(video(8, 50, 30, 1, fps=fps), "What?") for fps in (16.0, 4.0)]
    with LLM(str(path), dtype="float32", num_threads=1, block_size=8) as llm:
        found = [llm.chat([chat], GREEDY, use_tqdm=False)[0] for chat in chats]
    told = [[step[token].logprob for step, token in zip(o.logprobs, o.token_ids, strict=True)] for o in outputs(found)]
    cached = [output.num_cached_tokens for output in found]
    assert found[0].prompt_token_ids == found[1].prompt_token_ids
    assert told[0] != told[1] and cached[1] < cached[2]
    assert told[2] == told[0] == told[3]
    if name in ("qwen2_vl", "exaone4_5"):  # whose tiles follow each other, however long that takes
        assert told[4] == told[0]
    else:
        assert told[4] != told[0] and cached[4] < cached[3]


def outputs(found: list[Any]) -> list[Any]:
    return [output.outputs[0] for output in found]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_a_prompt_marks_its_places(name: str, tmp_path: Path) -> None:
    """As templates do, of text or of ids, with pictures between; arrays, lists of pictures, with and without a rate."""
    path = save_model(tmp_path, name)
    film, frames = video(8, 50, 30), [picture(40, 40, n) for n in range(4)]
    with LLM(str(path), dtype="float32", num_threads=1, enable_prefix_caching=False) as llm:
        (chat,) = llm.chat(said("A", film, picture(40, 40, 9), (frames, {"fps": 24}), "B"), GREEDY, use_tqdm=False)
        text = f"<|im_start|>user\nA{MARK}<|vision_start|><|image_pad|><|vision_end|>{MARK}B<|im_end|>\n"
        text += "<|im_start|>assistant\n"
        data = {"video": [film, frames], "image": picture(40, 40, 9)}
        ids = llm.get_tokenizer().encode(text, add_special_tokens=False)
        for prompt in ({"prompt": text}, {"prompt_token_ids": ids}):
            (found,) = llm.generate({**prompt, "multi_modal_data": data}, GREEDY, use_tqdm=False)
            assert found.prompt_token_ids == chat.prompt_token_ids
            assert found.outputs[0].token_ids == chat.outputs[0].token_ids
        ids = llm.get_tokenizer().encode(f"{MARK}?", add_special_tokens=False)
        one = [
            llm.generate({"prompt_token_ids": ids, "multi_modal_data": {"video": each}}, GREEDY, use_tqdm=False)[0]
            for each in (frames, np.stack([np.asarray(frame) for frame in frames]), [frames])
        ]
        assert len({tuple(each.outputs[0].token_ids) for each in one}) == 1


def test_what_is_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path, "qwen2_5_vl")
    film = video(8, 50, 30)
    with LLM(str(path), dtype="float32", num_threads=1, max_model_len=40, limit_mm_per_prompt={"video": 1}) as llm:
        refused: tuple[tuple[Any, type[Exception], str], ...] = (
            (said(film, film), InvalidParams, "has 2 videos; limit_mm_per_prompt allows 1"),
            (
                said(video(200, 192, 20, fps=25.0)),
                InvalidParams,
                "prompt's video 1 of 1: a video of 8.0 s is .* tokens",
            ),
            (said((np.zeros((4, 8, 1700, 3), np.uint8), {"fps": 2})), InvalidParams, "200 to 1"),
            ([{"role": "user", "content": [{"type": "video"}]}], TemplateError, "without video or url"),
            ([{"role": "user", "content": [{"type": "file", "file": "x"}]}], TemplateError, "type 'file'"),
        )
        for chat, error, says in refused:
            with pytest.raises(error, match=says):
                llm.chat(chat, GREEDY, use_tqdm=False)
        with pytest.raises(InvalidParams, match=r"has 0 places for videos \(<\|video_pad\|>\) and 1"):
            llm.generate({"prompt": "x", "multi_modal_data": {"video": film}}, GREEDY, use_tqdm=False)
        assert llm.chat(said("Hello"), GREEDY, use_tqdm=False)[0].outputs[0].token_ids
    with LLM(str(path), dtype="float32", num_threads=1, limit_mm_per_prompt={"video": 0}) as llm:
        with pytest.raises(RequestError, match="limit_mm_per_prompt allows none; raise it"):
            llm.chat(said(film), GREEDY, use_tqdm=False)
        assert llm.chat(said(picture(40, 40), "?"), GREEDY, use_tqdm=False)[0].outputs[0].token_ids


def test_a_model_that_reads_pictures_alone_says_so(tmp_path: Path) -> None:
    for model, says in ((str(save(tmp_path, "gemma3")), "pictures alone are read here"), (None, "reads text only")):
        with LLM(model, num_threads=1) as llm, pytest.raises(TemplateError, match=f"type 'video'; .*{says}"):
            llm.chat(said(video(4, 40, 40)), GREEDY, use_tqdm=False)


def test_an_engine_directory_has_all_of_it(tmp_path: Path) -> None:
    path = save_model(tmp_path / "model", "qwen3_vl")
    build(str(path), str(tmp_path / "built"), BuildConfig())
    answers = []
    for directory in (path, tmp_path / "built"):
        with LLM(str(directory), num_threads=1) as llm:
            answers.append(llm.chat(CHATS["two"], GREEDY, use_tqdm=False)[0].outputs[0].token_ids)
    assert answers[0] == answers[1]
