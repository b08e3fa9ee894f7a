"""Which frames of a video SmolVLM reads, and what stands for them: as transformers has it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from albireo import LLM, SamplingParams
from albireo.api.media.places import Place, Places, Standing
from albireo.errors import ModelError, TemplateError, UnsupportedModel
from albireo.image_input import Tile
from albireo.videos.decode import Footage
from albireo.videos.processor import VideoProcessor, open_video_processor
from albireo.videos.words import in_words
from images.without_torchvision import imported
from tiny_films import video
from tiny_sights import save
from videos.test_processor import FOOTAGES, frames

pytest.importorskip("transformers")

_CONFIG = {"model_type": "smolvlm", "scale_factor": 2, "vision_config": {"image_size": 32, "patch_size": 8}}
_SIDE = {"max_image_size": {"longest_edge": 32}}
_SAMPLED = {"video_sampling": {"fps": 1, "max_frames": 8, "video_size": {"longest_edge": 64}}}
_THEIRS = "transformers.models.smolvlm"


def opened(folder: Path, pictures: dict[str, Any], held: dict[str, Any] | None = None) -> VideoProcessor:
    """Args: held: of videos; None: there is no such file, as of published models."""
    (folder / "preprocessor_config.json").write_text(json.dumps({**_SIDE, **pictures}))
    if held is not None:
        (folder / "video_preprocessor_config.json").write_text(json.dumps({**_SIDE, **held}))
    return open_video_processor(folder, _CONFIG)


@pytest.mark.parametrize(
    ("pictures", "held", "wanted"),
    [
        (_SAMPLED, None, (1, 8)),
        ({}, {"fps": 2, "num_frames": 5}, (2, 5)),
        (_SAMPLED, {"fps": 0.5, "num_frames": 3}, (0.5, 3)),
        ({}, None, (1, 64)),
    ],
    ids=str,
)
@pytest.mark.parametrize("given", [*FOOTAGES, (9000, 25.0, 64, 48), (40, 10.0, 64, 48)], ids=str)
def test_frames_are_those_of_transformers(
    tmp_path: Path, pictures: dict[str, Any], held: Any, wanted: tuple[float, int], given: Any
) -> None:
    footage = Footage(*given)
    kind = imported(f"{_THEIRS}.video_processing_smolvlm").SmolVLMVideoProcessor
    fps, count = wanted

    class Metadata(SimpleNamespace):
        def __getitem__(self, key: str) -> Any:
            return getattr(self, key)

    metadata = Metadata(total_num_frames=footage.num_frames, fps=footage.rate, duration=footage.seconds)
    theirs = kind.sample_frames(SimpleNamespace(), metadata, num_frames=count, fps=fps)
    assert list(opened(tmp_path, pictures, held).choose(footage)) == theirs.tolist()


@pytest.mark.parametrize("given", [(9, 3.0, 80, 60), (200, 0.5, 30, 90), (2, 24.0, 33, 33)], ids=str)
def test_what_stands_for_a_video_is_as_transformers_has_it(tmp_path: Path, given: Any) -> None:
    footage = Footage(*given)
    processor = opened(tmp_path, {**_SAMPLED, "size": {"longest_edge": 48}})
    prepared = processor.prepare(frames(processor.choose(footage), footage))
    module = imported(f"{_THEIRS}.processing_smolvlm")
    numbers, theirs = frames(processor.choose(footage), footage), imported(f"{_THEIRS}.video_processing_smolvlm")
    tokens = {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>"}
    whole = SimpleNamespace(**tokens, global_image_token="<global-img>", image_seq_len=4)
    seconds = [number / footage.rate for number in numbers.numbers]
    metadata = SimpleNamespace(fps=footage.rate, timestamps=seconds, duration=footage.seconds)
    shown = np.stack(prepared.tiles)[None]
    module.num2words = in_words
    text = module.SmolVLMProcessor.replace_video_token(whole, {"pixel_values": shown, "video_metadata": [metadata]}, 0)
    assert prepared.text == text
    # what a file says of sizes goes before what it says of those of videos
    high, wide = theirs.get_resize_output_image_size(np.zeros((1, 3, footage.height, footage.width)).view(_Sized), 48)
    first = [image.resize((wide, high), 1).resize((32, 32), 1) for image in numbers.images]
    assert all(np.array_equal(tile, image) for tile, image in zip(prepared.tiles, first, strict=True))
    assert processor.num_rows(3, 32, 32) == 12 and prepared.grid == (2, 2)
    wanted = prepared.tiles[0][0, 0] / 127.5 - 1
    np.testing.assert_allclose(processor.normalized(prepared.tiles[0])[0, 0], wanted, atol=1e-6)


class _Sized(np.ndarray):
    """As torch says of what size something is."""

    def size(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.shape


def test_numbers_in_words() -> None:
    """As num2words has them, which is not installed."""
    assert [in_words(n) for n in (0, 8, 13, 20, 64, 100, 768)] == [
        *("zero", "eight", "thirteen", "twenty", "sixty-four", "one hundred", "seven hundred and sixty-eight")
    ]
    assert [in_words(n) for n in (1000, 1001, 1101, 65536)] == [
        *("one thousand", "one thousand and one", "one thousand, one hundred and one"),
        "sixty-five thousand, five hundred and thirty-six",
    ]


def test_words_are_one_text_with_those_around_them() -> None:
    """Of a tokenizer whose tokens have the blanks before words, as where a prompt is encoded whole."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    texts = ["User: You are provided the following\n\nFrame from 00:01:\n\nWhat\n\n\nis it? \n\n"] * 3
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    backend.add_special_tokens([AddedToken(each, special=True) for each in ("<mark>", "<row>")])
    standing = Standing("You are provided\n\nFrame from 00:01:<row>\n\n", (Tile(1, 1, b"", 1),), is_prose=True)

    class Films(Place):
        kind = "video"

        def standing(self, given: Any) -> Standing:
            return standing

    class Tokens:
        special_ids = frozenset(backend.token_to_id(each) for each in ("<mark>", "<row>"))
        token_to_id = staticmethod(backend.token_to_id)

        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return list(backend.encode(text).ids)

        def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
            return str(backend.decode(ids, skip_special_tokens=skip_special_tokens))

    tokens: Any = Tokens()
    places = Places(tokens, Films("<mark>", "<row>", None))
    for before, behind in (("User: ", "What is it?"), ("", ""), ("User:", "\nWhat"), ("<row>", "<row>")):
        ids, _ = places.placed(tokens.encode(f"{before}<mark>{behind}"), {"video": [None]})
        if behind.startswith("\n"):
            # blanks behind are tokens of what was written there
            assert backend.decode(ids, skip_special_tokens=False) == f"{before}{standing.text}{behind}"
            continue
        assert ids == tokens.encode(f"{before}{standing.text}{behind}"), (before, behind)


def test_a_model_with_a_token_for_videos_and_the_template_of_its_own(tmp_path: Path) -> None:
    """Chats are written by the processor's template; one that callers name writes the token."""
    greedy = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
    chat = [{"role": "user", "content": [{"type": "video", "video": video(4, 40, 30)}, {"type": "text", "text": "?"}]}]
    with LLM(str(save(tmp_path, "smolvlm")), dtype="float32", num_threads=1) as llm:
        (found,) = llm.chat(chat, greedy, use_tqdm=False)
        text = llm.get_tokenizer().decode(found.prompt_token_ids, skip_special_tokens=False)
        begin = "<|im_start|>User: You are provided the following series of one frames from a 0:00:00 [H:MM:SS] video."
        assert text.startswith(begin) and text.endswith("\n\n?<end_of_utterance>\nAssistant:")
        parts = "{% for p in m['content'] %}{{ '<global-img>' if p['type'] == 'video' else p['text'] }}{% endfor %}"
        own = f"{{% for m in messages %}}{parts}{{% endfor %}}"
        (named,) = llm.chat(chat, greedy, use_tqdm=False, chat_template=own)
        assert len(named.prompt_token_ids) < len(found.prompt_token_ids)
        (given,) = llm.generate(
            {"prompt": "<global-img>?", "multi_modal_data": {"video": video(4, 40, 30)}}, greedy, use_tqdm=False
        )
        assert given.outputs[0].token_ids
    with (
        LLM(str(tmp_path), dtype="float32", num_threads=1, limit_mm_per_prompt={"video": 0}) as llm,
        pytest.raises(TemplateError, match="limit_mm_per_prompt allows none"),
    ):
        llm.chat(chat, greedy)
    (tmp_path / "tokenizer.json").write_text('{"content": "<video>"}')
    assert open_video_processor(tmp_path, _CONFIG).mark == "<video>"


@pytest.mark.parametrize(
    ("pictures", "held", "error", "says"),
    [
        ({"image_mean": [0, 0, 0]}, {}, UnsupportedModel, r"image_mean=None .*as of pictures, which"),
        ({}, {"max_image_size": {"longest_edge": 64}}, ModelError, "max_image_size is 64, but .* image_size=32"),
        ({}, {"size": {"height": 64, "width": 64}}, ModelError, "size: longest_edge is missing"),
        ({}, {"num_frames": 0}, ModelError, "num_frames=0"),
        ({}, {"fps": 0}, ModelError, "fps=0"),
        ({}, {"do_center_crop": True}, UnsupportedModel, "do_center_crop"),
        ({}, {"video_sampling": {"fps": 1, "every": 2}}, UnsupportedModel, "'every': 2"),
        ({}, {"video_processor_type": "Glm4vVideoProcessor"}, UnsupportedModel, "SmolVLMVideoProc"),
    ],
)
def test_what_files_may_not_say(tmp_path: Path, pictures: Any, held: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        opened(tmp_path, pictures, held)
