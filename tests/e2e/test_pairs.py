"""Texts and pictures in one space (CLIP, SigLIP): embeddings of both, and scores of one with another, against
transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import albireo
from albireo import LLM, PoolingParams
from albireo.errors import InvalidParams, ModelError, UnsupportedFeature
from e2e.serving import spoil
from tiny_encoders import change_config
from tiny_pairs import IMAGE, NAMES, TEXTS, Theirs, pictures, save_pair


def opened(folder: Path, **config: Any) -> LLM:
    llm = LLM(str(folder), use_tqdm_on_load=False, num_threads=1, **config)
    assert llm.loaded is not None
    spoil(llm.loaded.model)
    return llm


def shown(image: Any, text: str = "") -> dict[str, Any]:
    return {"prompt": text, "multi_modal_data": {"image": image}}


def embedded(llm: LLM, prompts: Any, **params: Any) -> np.ndarray:
    return np.array([out.outputs.embedding for out in llm.embed(prompts, PoolingParams(**params), use_tqdm=False)])


def of_length_1(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    folder = save_pair(tmp_path / "model", name)
    theirs = Theirs(folder, name)
    texts, images = theirs.texts(TEXTS), theirs.pictures(pictures())
    llm = opened(folder)
    prompts = [*TEXTS, *map(shown, pictures())]
    together = embedded(llm, prompts)
    assert np.abs(together - of_length_1(np.concatenate([texts, images]))).max() < 1e-5
    plain = embedded(llm, prompts, use_activation=False)
    assert np.abs(plain[: len(TEXTS)] - texts).max() < 1e-4 and np.abs(plain[len(TEXTS) :] - images).max() < 1e-4
    alone = opened(folder, enable_prefix_caching=False)
    assert all(np.array_equal(embedded(alone, [each])[0], row) for each, row in zip(prompts, together, strict=True))
    albireo.build(folder, tmp_path / "built")
    assert np.array_equal(embedded(opened(tmp_path / "built"), prompts), together)


def test_pixels_that_fill_no_patch_are_left_out(tmp_path: Path) -> None:
    """As of google/siglip-so400m-patch14-384: a square of 24 pixels has 3 patches of 7 on its side, and 3 pixels."""
    folder = save_pair(tmp_path, "siglip", vision_config={**IMAGE, "hidden_size": 48, "patch_size": 7})
    wanted = of_length_1(Theirs(folder, "siglip").pictures(pictures()))
    assert np.abs(embedded(opened(folder), [*map(shown, pictures())]) - wanted).max() < 1e-5


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = save_pair(tmp_path_factory.mktemp(request.param), request.param)
    return folder, Theirs(folder, request.param)


def test_texts_are_scored_with_a_picture(pair: Any) -> None:
    folder, theirs = pair
    image, *others = pictures()
    cosines = of_length_1(theirs.pictures([image])) @ of_length_1(theirs.texts(TEXTS)).T
    llm = opened(folder)
    given: Any = {"content": [{"type": "image", "image": image}]}
    found = [out.outputs.score for out in llm.score(given, TEXTS, use_tqdm=False)]
    assert np.abs(np.array(found) - cosines[0]).max() < 1e-5
    more: Any = [{"content": [{"type": "image_pil", "image_pil": each}]} for each in others]
    among = of_length_1(theirs.pictures([image])) @ of_length_1(theirs.pictures(others)).T
    found = [out.outputs.score for out in llm.score(given, more, use_tqdm=False)]
    assert np.abs(np.array(found) - among[0]).max() < 1e-5
    assert llm.loaded is not None and llm.loaded.pooling_rule.says.startswith("gives embeddings of texts and of pictu")


def test_prompts_that_no_pair_embeds(pair: Any) -> None:
    llm, image = opened(pair[0]), pictures()[0]
    for prompt, words in (
        (shown(image, "a cat"), "a text beside its picture"),
        (shown([image, image]), "the prompt has 2 pictures"),
    ):
        with pytest.raises(InvalidParams, match=words):
            llm.embed(prompt, use_tqdm=False)
    with pytest.raises(InvalidParams, match="pooling_type=mean: this model's embedding of a text is that of its last"):
        llm.embed("a", PoolingParams(pooling_type="mean"), use_tqdm=False)
    with pytest.raises(UnsupportedFeature, match="it gives no embeddings of tokens"):
        llm.encode("a", pooling_task="token_embed", use_tqdm=False)
    with pytest.raises(UnsupportedFeature, match="writes no text"):
        llm.generate("a", use_tqdm=False)
    for content, words in (
        ([], r"data_1 has content=\[\]"),
        ([{"type": "audio", "audio": "x"}], "data_1 has a content"),
    ):
        with pytest.raises(InvalidParams, match=words):
            llm.score({"content": content}, "a", use_tqdm=False)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("clip", {"projection_dim": 64}, "embeddings of 64 values|projection_dim=64"),
        ("siglip", {"vision_use_head": False}, "what makes one row of all patches"),
    ],
)
def test_models_that_are_not_paired_so(name: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = save_pair(tmp_path, name)
    config = json.loads((folder / "config.json").read_text())
    vision = {**config["vision_config"], **changes}
    change_config(folder, vision_config=vision, **({} if name == "siglip" else changes))
    llm = opened(folder)
    with pytest.raises(UnsupportedFeature, match=words):
        llm.embed(shown(pictures()[0]), use_tqdm=False)


def test_the_space_of_texts_is_as_wide_as_they_are(tmp_path: Path) -> None:
    folder = save_pair(tmp_path, "siglip")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change_config(folder, text_config={**text, "projection_size": 64})
    with pytest.raises(ModelError, match="embeddings of 64 values, and texts are computed with hidden_size=48"):
        opened(folder)


def test_older_files_say_the_same(tmp_path: Path) -> None:
    """As OpenAI's have it: parts are said twice, and sizes are numbers."""
    folder = save_pair(tmp_path / "model", "clip")
    prompts = ["a cat", shown(pictures()[0])]
    wanted = embedded(opened(folder), prompts)
    config = json.loads((folder / "config.json").read_text())
    parts = {f"{part}_config": {**config[f"{part}_config"], "hidden_size": 8} for part in ("text", "vision")}
    again = {f"{part}_config_dict": config[f"{part}_config"] for part in ("text", "vision")}
    change_config(folder, **parts, **again, projection_dim=48, logit_scale_init_value=2.6592)
    prepared = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 24, "crop_size": 24, "do_center_crop": True}
    (folder / "preprocessor_config.json").write_text(json.dumps({**prepared, "do_resize": True, "resample": 3}))
    assert np.array_equal(embedded(opened(folder), prompts), wanted)
