"""Whether a model reads pictures, and what is said where it does not: text is served all the same."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, BuildConfig, SamplingParams, build
from albireo.api.machine.cpu_device import CpuDevice
from albireo.artifact.tuning_files import cache_path, write_table
from albireo.config import EngineConfig
from albireo.errors import ModelError, TemplateError
from albireo.graph.program import Program
from albireo.graph.tuning import BUCKETS, Tuning
from tiny_sights import picture, save
from tuning_tables import CHANGED, table_for

safetensors = pytest.importorskip("safetensors.numpy")

GREEDY = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)


@pytest.fixture(scope="module")
def sight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("sight"), "idefics3")


def without_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").unlink()


def without_tower(folder: Path) -> None:
    path = folder / "model.safetensors"
    kept = {name: rows for name, rows in safetensors.load_file(path).items() if "vision_model" not in name}
    safetensors.save_file(kept, path, {"format": "pt"})


def with_another_tower(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.load_file(path)
    name = next(name for name in tensors if name.endswith("patch_embedding.bias"))
    safetensors.save_file({**tensors, name: np.zeros(3, np.float32)}, path, {"format": "pt"})


def of_another_kind(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["hidden_act"] = "swoosh"
    path.write_text(json.dumps(config))


def without_mark(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"<image>"', '"<another>"'))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_mark, "the tokenizer has no token '<image>', which stands for images in this model; take"),
        (without_processor, "there is no preprocessor_config.json that says how they are prepared"),
        (without_tower, "is not computed here: .*vision_model"),
        (with_another_tower, "is not computed here: .*patch_embedding.bias"),
        (of_another_kind, "is not computed here: .*hidden_act='swoosh'"),
    ],
)
def test_text_is_served_where_pictures_cannot_be_read(
    damage: Any, words: str, sight: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(sight, folder)
    damage(folder)
    parts = [{"type": "image", "image": picture(9, 9)}, {"type": "text", "text": "?"}]
    with caplog.at_level(logging.WARNING), LLM(str(folder), dtype="float32", num_threads=1) as llm:
        assert "images are not read" in caplog.text
        with pytest.raises(TemplateError, match=words):
            llm.chat([{"role": "user", "content": parts}], GREEDY)
        (output,) = llm.chat([{"role": "user", "content": "Hello"}], GREEDY, use_tqdm=False)
        assert len(output.outputs[0].token_ids) == 4


def test_a_tower_runs_with_what_was_tuned(sight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the user's table, as the text part does."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    programs: list[Program] = []
    load_tower = CpuDevice.tower

    def recorded(self: CpuDevice, config: EngineConfig, program: Program, *rest: Any) -> Any:
        programs.append(program)
        return load_tower(self, config, program, *rest)

    monkeypatch.setattr(CpuDevice, "tower", recorded)

    def tunings() -> set[tuple[Tuning, ...]]:
        programs.clear()
        with LLM(str(sight), dtype="float32", num_threads=1):
            assert len(programs) == 2
            return {call.tuning for program in programs for call in program.calls if call.family == "linear"}

    assert (CHANGED,) * len(BUCKETS) not in tunings()
    entries = tuple(entry for program in programs for entry in table_for(program).entries)
    table = replace(table_for(programs[0]), entries=tuple({(e.key, e.bucket): e for e in entries}.values()))
    path = cache_path(table.fingerprint)
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, table)
    assert tunings() == {(CHANGED,) * len(BUCKETS)}


def change(folder: Path, **of_text: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"] |= of_text
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("audio", "there is no preprocessor_config.json that says how they are prepared"),
        ("input_audio", "there is no preprocessor_config.json that says how they are prepared"),
        ("video", ".* not computed here: .*has no token"),
        ("video_url", ".* not computed here: .*has no token"),
    ],
)
def test_sounds_and_videos_are_refused_where_a_model_could_have_them(kind: str, told: str, tmp_path: Path) -> None:
    """What their parts need is left where it lies, and text and pictures know nothing of it."""
    folder = save(tmp_path, "gemma4, embeddings of layers")
    assert any("audio_tower" in name for name in safetensors.load_file(folder / "model.safetensors"))
    path = folder / "processor_config.json"
    said = json.loads(path.read_text())
    del said["feature_extractor"]
    path.write_text(json.dumps(said))
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        assert not llm.loaded.settings.image_problem
        with pytest.raises(TemplateError, match=f"of type '{kind}'; {told}"):
            llm.chat([{"role": "user", "content": [{"type": kind, kind: "a.wav"}]}], GREEDY)


def test_a_picture_longer_than_a_window(tmp_path: Path) -> None:
    """Gemma 3's see all of it, whatever the window; Gemma 4's see what is before them as far as the window goes."""
    parts = [{"type": "image", "image": picture(9, 9)}]
    for name, words in (
        ("gemma3", "of an image's 4 tokens each sees all, which windows of 3 positions"),
        ("gemma4", ""),
    ):
        folder = save(tmp_path / name, name)
        change(folder, sliding_window=3)
        with LLM(str(folder), dtype="float32", num_threads=1) as llm:
            if not words:
                assert llm.chat([{"role": "user", "content": parts}], GREEDY)[0].outputs[0].token_ids
                continue
            with pytest.raises(TemplateError, match=words):
                llm.chat([{"role": "user", "content": parts}], GREEDY)


@pytest.mark.parametrize("token", [-1, 10_000, "no"])
def test_a_token_of_pictures_that_the_table_has_not(token: Any, tmp_path: Path) -> None:
    folder = save(tmp_path, "gemma4, embeddings of layers")
    change(folder, pad_token_id=token)
    with pytest.raises(ModelError, match=r"text_config: pad_token_id=.* must be a whole number from 0 to 2"):
        LLM(str(folder), dtype="float32", num_threads=1)


def test_without_pillow_a_model_is_one_of_text(sight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albireo.api.media.perception.has_pillow", lambda: False)
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    needs = pytest.raises(TemplateError, match=r"they need Pillow.*pip install 'albireo\[images\]'")
    with LLM(str(sight), dtype="float32", num_threads=1) as llm, needs:
        llm.chat([{"role": "user", "content": parts}], GREEDY)


def test_text_alone_is_built_where_pictures_cannot_be_read(sight: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "damaged", tmp_path / "engine"
    shutil.copytree(sight, folder)
    without_processor(folder)
    build(folder, out, BuildConfig(dtype="float32"))
    assert not (out / "vision").exists()
    with LLM(str(out), num_threads=1) as llm:
        with pytest.raises(TemplateError, match="this engine directory was built without the part that reads them"):
            llm.chat([{"role": "user", "content": [{"type": "image", "image": picture(9, 9)}]}], GREEDY)
        assert len(llm.chat([{"role": "user", "content": "Hello"}], GREEDY)[0].outputs[0].token_ids) == 4


def test_a_model_whose_class_belies_its_name_reads_pictures_as_its_class(tmp_path: Path) -> None:
    """LightOnOCR was published as a Mistral 3, which has marks between lines of rows."""
    path, found = save(tmp_path, "lighton_ocr") / "config.json", []
    own = json.loads(path.read_text())
    published = {**own, "model_type": "mistral3", "architectures": ["LightOnOCRForConditionalGeneration"]}
    for config in (own, published):
        path.write_text(json.dumps(config))
        with LLM(str(tmp_path), dtype="float32", num_threads=1) as llm:
            parts = [{"type": "image", "image": picture(50, 40)}]
            (output,) = llm.chat([{"role": "user", "content": parts}], GREEDY, use_tqdm=False)
            found.append((output.prompt_token_ids, output.outputs[0].token_ids))
    assert found[0] == found[1]
