"""From a message with a video to an answer of models that show each moment of one as a picture: GLM-4V, InternVL,
LLaVA-OneVision, SmolVLM, Gemma 4, Kimi K2.5 and MiniMax M3, against transformers' models on random weights. Which
frames and what text, tests/videos asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, SamplingParams
from albireo.errors import TemplateError
from albireo.videos.decode import as_video
from albireo.videos.processor import open_video_processor
from sight_inputs import channels_first
from tiny_films import video
from tiny_sights import Theirs, picture, save

torch = pytest.importorskip("torch")

NUM_TOKENS = 8
GREEDY = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True, logprobs=1)
#: Family -> what its template writes for a video, and what its file says of these.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "glm4v": (
        "<|begin_of_video|><|video|><|end_of_video|>",
        {"patch_size": 8, "size": {"shortest_edge": 512, "longest_edge": 8192}, "fps": 4},
    ),
    "glm4v_moe": (
        "<|begin_of_video|><|video|><|end_of_video|>",
        {"patch_size": 8, "size": {"shortest_edge": 512, "longest_edge": 8192}}
        | {"video_processor_type": "Glm46VVideoProcessor"},
    ),
    "internvl": ("<video>\n", {"size": {"height": 32, "width": 32}, "num_frames": 3}),
    "llava_onevision": ("<video>", {"size": {"height": 36, "width": 36}, "num_frames": 3}),
    # which has a template of its own for videos, and no token for one
    "smolvlm": ("", {}),
    # clips of two frames, and one more
    "kimi_k25": (
        "<|kimi_k25_video_placeholder|>",
        {"patch_size": 8, "size": {"max_height": 4, "max_width": 4}, "temporal_patch_size": 2, "num_frames": 3},
    ),
    # two moments, the last of one frame, which see each other, and one more
    "minimax_m3_vl": (
        "]<]video[>[",
        {"patch_size": 8, "min_pixels": 256, "max_pixels": 1024, "vision_segment_max_frames": 2, "num_frames": 5},
    ),
    "gemma4": ("<|video|>", {}),
    "gemma4_unified": ("<|video|>", {}),
}


def said(*parts: Any) -> list[dict[str, Any]]:
    kinds = {str: "text", tuple: "video"}
    content = [{"type": kind, kind: part} for part in parts for kind in [kinds.get(type(part), "image")]]
    return [{"role": "user", "content": content}]


CHATS = [
    said(video(9, 50, 30, fps=8.0), "What is it?"),
    said("First ", video(12, 40, 60, 1, fps=6.0), " then ", video(4, 48, 48, 3, fps=4.0), ": which?"),
]
#: transformers' GLM-4V takes rows of videos for those of pictures where a prompt has both.
BESIDE_A_PICTURE = said("Look: ", picture(40, 40, 1), " and ", video(12, 40, 60, 1, fps=6.0), "?")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path, (mark, held) = save(tmp_path_factory.mktemp(request.param), request.param), FAMILIES[request.param]
    template = (path / "chat_template.jinja").read_text()
    end = "{% endif %}{% endfor %}<|im_end|>"
    shown = f"{{% elif part['type'] == 'video' %}}{mark}{end}"
    (path / "chat_template.jinja").write_text(template.replace(end, shown))
    if held:
        (path / "video_preprocessor_config.json").write_text(json.dumps(held))
    if request.param == "internvl":
        add_token(path, "<video>")
    return request.param, path


def add_token(path: Path, token: str) -> None:
    """One more that the tokenizer knows: behind all others, so that no row of a table is its own."""
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    last = max(each["id"] for each in tokenizer["added_tokens"])
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "id": last + 1, "content": token})
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    said = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**said, "video_token": token}))


class Seen(Theirs):
    """What transformers' model is given of the frames that are read."""

    def inputs(self, messages: list[dict[str, Any]], prompt: list[int]) -> Any:
        parts = [part for message in messages for part in message["content"]]
        processor = open_video_processor(self._folder, json.loads((self._folder / "config.json").read_text()))
        kept = [{**each, "content": [p for p in each["content"] if p["type"] != "video"]} for each in messages]
        given = super().inputs(kept, prompt)
        prepared = [processor.prepare(as_video(p["video"], processor.choose)) for p in parts if p["type"] == "video"]
        tiles = [processor.normalized(tile) for each in prepared for tile in each.tiles]
        if "<IMG_CONTEXT>" in self._ids:
            return {**given, "pixel_values": in_order(tiles, given.get("pixel_values"))}
        if "<|kimi_k25_video_placeholder|>" in self._ids:
            return {**given, **clips(tiles)}
        if "]<]video[>[" in self._ids:
            return {**given, **segments(tiles)}
        if "<global-img>" in self._ids:
            of_picture = given["pixel_values"][0] if "pixel_values" in given else None
            return {**given, "pixel_values": in_order(tiles, of_picture)[None]}
        if "<video>" in self._ids:
            shown = torch.stack(channels_first([tile[:, :36] for tile in tiles]))
            return {**given, "pixel_values_videos": shown.unflatten(0, (-1, 3))}
        if "<image|>" in self._ids:
            return {**given, **self.of_gemma4(prompt, tiles, [len(each.tiles) for each in prepared])}
        grids = [[len(each.tiles), *(2 * side for side in each.grid)] for each in prepared]
        types = np.cumsum(
            [(t == self._ids["<|begin_of_video|>"]) - (t == self._ids["<|end_of_video|>"]) for t in prompt]
        )
        rows = np.array([t == self._ids["<|image|>"] for t in prompt])
        given |= {"pixel_values_videos": torch.cat([patches(tile) for tile in tiles])}
        given |= {"video_grid_thw": torch.tensor(grids)}
        return given | {"mm_token_type_ids": torch.tensor([(rows * (1 + types)).tolist()])}

    def of_gemma4(self, prompt: list[int], tiles: list[Any], counts: list[int]) -> dict[str, Any]:
        """Frames are given as pictures are, under names of their own; their rows are 2."""
        assert self.family.inputs is not None
        found = self.family.inputs(prompt, self._ids, tiles)
        rows = torch.tensor([[2 * (token == self._ids["<|video|>"]) for token in prompt]])
        return {
            "pixel_values_videos": found["pixel_values"],
            "video_position_ids": found["image_position_ids"],
            "num_frames_per_video": torch.tensor(counts),
            "mm_token_type_ids": rows + found["mm_token_type_ids"],
        }


def in_order(of_videos: list[Any], of_picture: Any) -> Any:
    """Tiles of videos, behind those of a picture where there is one."""
    found = channels_first(of_videos)
    return torch.stack(found if of_picture is None else [*of_picture, *found])


def clips(tiles: list[Any]) -> dict[str, Any]:
    """Of Kimi K2.5: patches in reading order, of frames one above another, which the width tells."""
    found, grids = [], []
    for tile in tiles:
        count = tile.shape[1] % 16 + 1
        frames = torch.tensor(tile[:, : tile.shape[1] - count + 1]).unflatten(0, (count, -1))
        cut = frames.unflatten(2, (-1, 8)).unflatten(1, (-1, 8)).permute(0, 1, 3, 5, 2, 4)
        found.append(cut.reshape(-1, 3, 8, 8))
        grids.append([count, *(side // 8 for side in frames.shape[1:3])])
    return {"pixel_values_videos": torch.cat(found), "video_grid_thw": torch.tensor(grids)}


def segments(tiles: list[Any]) -> dict[str, Any]:
    """Of MiniMax M3: patches in blocks of what is merged, of moments one above another, which the width tells."""
    found, grids = [], []
    for tile in tiles:
        count = tile.shape[1] % 16 + 1
        moments = np.split(tile[:, : tile.shape[1] - count + 1], count)
        found += [patches(moment) for moment in moments]
        grids.append([count, *(side // 8 for side in moments[0].shape[:2])])
    return {"pixel_values_videos": torch.cat(found), "video_grid_thw": torch.tensor(grids)}


def patches(tile: np.ndarray) -> Any:
    """[T, 3 * 2 * 8 * 8] of two frames."""
    tall, wide = (side // 8 for side in tile.shape[:2])
    cut = torch.tensor(tile).reshape(tall // 2, 2, 8, wide // 2, 2, 8, 2, 3)
    return cut.permute(0, 3, 1, 4, 7, 6, 2, 5).reshape(tall * wide, -1)


def test_answers_are_those_of_transformers(folder: tuple[str, Path]) -> None:
    name, path = folder
    theirs = Seen(path, name)
    with LLM(str(path), dtype="float32", num_threads=1, block_size=8) as llm:
        chats = [*CHATS, *([] if name.startswith("glm") else [BESIDE_A_PICTURE])]
        for chat, output in zip(chats, llm.chat(chats, GREEDY, use_tqdm=False), strict=True):
            _, tokens, values = theirs.answer(chat, NUM_TOKENS, output.prompt_token_ids)
            assert output.outputs[0].token_ids == tokens
            found = [step[token].logprob for step, token in zip(output.outputs[0].logprobs, tokens, strict=True)]
            np.testing.assert_allclose(found, values, atol=2e-4)


def test_a_tokenizer_without_a_place_for_videos_leaves_pictures_as_they_are(tmp_path: Path) -> None:
    with LLM(str(save(tmp_path, "internvl")), dtype="float32", num_threads=1) as llm:
        assert llm.chat(said(picture(40, 40), "?"), GREEDY, use_tqdm=False)[0].outputs[0].token_ids
        with pytest.raises(TemplateError, match="has no video_token"):
            llm.chat(said(video(4, 40, 40), "?"), GREEDY, use_tqdm=False)
