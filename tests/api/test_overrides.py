"""hf_overrides: what is computed is what a directory with that config.json computes, also when it is built."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from albireo import LLM, BuildConfig, ConfigError, SamplingParams, TargetMismatch, UnsupportedModel, build
from albireo.api.sources.overrides import merged, overridden
from albireo.config import EngineConfig
from albireo.verify.run import verify
from artifact.engines import alter, make_engine, run
from tiny_layer_norm import with_changes
from tiny_models import make_checkpoint
from variants import tiny_of

THETA = {"rope_theta": 77.0}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def checkpoint_of(path: Path, changes: dict[str, Any] | None = None) -> Path:
    return make_checkpoint(path, with_changes(tiny_of("qwen3"), changes or {}), seed=5)


def test_the_bits_of_a_directory_that_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = checkpoint_of(tmp_path / "plain")
    before = (plain / "config.json").read_bytes()
    changed = run(checkpoint_of(tmp_path / "changed", THETA))
    with caplog.at_level(logging.WARNING):
        assert run(plain, hf_overrides=THETA) == changed
    assert f'config.json is read with hf_overrides={{"rope_theta": 77.0}}, as {tmp_path}/cache/' in caplog.text
    assert run(plain, hf_overrides='{"rope_theta": 77.0}') == changed
    assert run(plain) != changed
    assert (plain / "config.json").read_bytes() == before


def test_they_may_be_in_the_form_of_before_transformers_5(tmp_path: Path) -> None:
    rope = {"rope_parameters": {"rope_theta": 10.0, "rope_type": "default"}, "rope_theta": None}
    plain = checkpoint_of(tmp_path / "plain", rope)
    wanted = {"rope_theta": 77.0, "rope_type": "linear", "factor": 2.0}
    expected = run(checkpoint_of(tmp_path / "changed", {**rope, "rope_parameters": wanted}))
    assert run(plain, hf_overrides={**THETA, "rope_scaling": {"type": "linear", "factor": 2.0}}) == expected
    assert run(plain, hf_overrides={"rope_parameters": wanted}) == expected != run(plain)


def test_a_scaling_may_be_taken_away(tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0}
    rope = {"rope_parameters": {"rope_theta": 10.0, **yarn}, "rope_theta": None}
    plain = checkpoint_of(tmp_path / "plain", rope)
    expected = run(checkpoint_of(tmp_path / "changed", {**rope, "rope_parameters": {"rope_theta": 10.0}}))
    assert run(plain, hf_overrides={"rope_scaling": None}) == expected != run(plain)


def test_names_and_texts_that_utf_8_has_not(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "config.json").write_text('{"of": "\\ud800"}')
    place = overridden(folder, EngineConfig(hf_overrides='{"in": "\\udfff"}'))
    assert json.loads((place / "config.json").read_bytes()) == {"of": "\ud800", "in": "\udfff"}
    (place / "config.json").write_bytes(b"\xff damaged")
    overridden(folder, EngineConfig(hf_overrides='{"in": "\\udfff"}'))
    assert json.loads((place / "config.json").read_bytes())["of"] == "\ud800"


def test_directories_that_are_named_from_within_have_places_of_their_own(tmp_path: Path) -> None:
    places = []
    for name in ("one", "two"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(json.dumps({"of": name}))
        places.append(overridden(tmp_path / name / "inner" / "..", EngineConfig(hf_overrides=THETA)))
    assert [json.loads((place / "config.json").read_text())["of"] for place in places] == ["one", "two"]
    assert [place.name for place in places] == ["one", "two"]


def test_objects_are_joined_key_by_key() -> None:
    config = {"a": 1, "of": {"b": 2, "in": {"c": 3}}, "list": [1, 2]}
    assert merged(config, {"of": {"in": {"c": 4, "d": 5}}, "list": [3], "a": None}) == {
        "a": None,
        "of": {"b": 2, "in": {"c": 4, "d": 5}},
        "list": [3],
    }
    assert config == {"a": 1, "of": {"b": 2, "in": {"c": 3}}, "list": [1, 2]}
    assert merged({"of": 1}, {"of": {"b": 2}}) == {"of": {"b": 2}}


def test_a_build_has_them_and_says_so(tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, dtype="float32", hf_overrides=THETA)
    assert run(engine) == run(checkpoint, hf_overrides=THETA) != run(checkpoint)
    manifest = json.loads((engine / "manifest.json").read_text())
    assert manifest["options"]["hf_overrides"] == THETA
    assert json.loads((engine / "config" / "config.json").read_text())["rope_theta"] == 77.0
    assert 'config.json says otherwise: {"rope_theta": 77.0}' in (engine / "report.md").read_text()
    with pytest.raises(TargetMismatch, match="hf_overrides is decided when a directory is built"):
        run(engine, hf_overrides=THETA)
    assert verify(engine, str(checkpoint), num_tokens=50).is_verified
    alter(engine, "manifest.json", lambda data: data["options"].update(hf_overrides={}))
    with pytest.raises(ConfigError, match=r"config\.json has .* there, manifest\.json says"):
        verify(engine, str(checkpoint), num_tokens=50)


def test_a_draft_model_of_its_own_has_them_and_another_has_not(tmp_path: Path) -> None:
    plain, small = checkpoint_of(tmp_path / "plain"), checkpoint_of(tmp_path / "small", {"num_hidden_layers": 1})
    layers = {"num_hidden_layers": 2}
    expected = run(plain, hf_overrides={**THETA, **layers})
    for draft in ({"model": str(small)}, {"quantization": "int8"}):
        speculative = {"method": "draft_model", "num_speculative_tokens": 2, **draft}
        # a model of one layer with num_hidden_layers=2 would lack weights
        assert run(plain, hf_overrides={**THETA, **layers}, speculative_config=speculative) == expected


def test_what_changes_in_the_model_changes_there(tmp_path: Path) -> None:
    plain = checkpoint_of(tmp_path / "plain")
    place = overridden(plain, EngineConfig(hf_overrides=THETA))
    assert (
        place
        == overridden(plain, EngineConfig(hf_overrides=THETA))
        != overridden(plain, EngineConfig(hf_overrides={"rope_theta": 78.0}))
    )
    written = (place / "config.json").stat().st_mtime_ns
    (plain / "more.json").write_text("{}")
    overridden(plain, EngineConfig(hf_overrides=THETA))
    assert (place / "more.json").read_text() == "{}"
    assert (place / "config.json").stat().st_mtime_ns == written, "what is right is not written again"
    (plain / "more.json").unlink()
    data = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps({**data, "rms_norm_eps": 1e-3}))
    overridden(plain, EngineConfig(hf_overrides=THETA))
    assert not (place / "more.json").is_symlink()
    assert json.loads((place / "config.json").read_text()) == {**data, "rms_norm_eps": 1e-3, **THETA}


def test_what_another_process_removes_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = checkpoint_of(tmp_path / "plain")
    (plain / "more.json").write_text("{}")
    place = overridden(plain, EngineConfig(hf_overrides=THETA))
    readlink = Path.readlink

    def gone(path: Path) -> Path:
        if path == place / "more.json":
            path.unlink()
        return readlink(path)

    monkeypatch.setattr(Path, "readlink", gone)
    assert overridden(plain, EngineConfig(hf_overrides=THETA)) == place
    assert (place / "more.json").is_symlink()


def test_nothing_said_needs_no_cache(tmp_path: Path, cache: Path) -> None:
    plain = checkpoint_of(tmp_path / "plain")
    assert EngineConfig(hf_overrides={}).hf_overrides is None
    assert overridden(plain, EngineConfig()) == plain
    assert run(plain, hf_overrides="{}") == run(plain)
    assert not cache.exists()


def test_what_is_refused(tmp_path: Path, cache: Path) -> None:
    plain = checkpoint_of(tmp_path / "plain")
    with pytest.raises(UnsupportedModel, match=r"1 keys are not supported .*'rope_tehta': 3"):
        run(plain, hf_overrides={"rope_tehta": 3})
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"hf_overrides: model\.gguf is a GGUF file, which has no config\.json"):
        LLM(str(tmp_path / "model.gguf"), hf_overrides=THETA, skip_tokenizer_init=True)
    shutil.rmtree(cache)
    cache.write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot be written .*XDG_CACHE_HOME"):
        build(plain, tmp_path / "engine", BuildConfig(hf_overrides=THETA))


@pytest.mark.parametrize("given", ["[1]", "{", 5, {"a": {1, 2}}, {"a": float("nan")}, "3", lambda config: config])
def test_it_is_an_object(given: Any) -> None:
    for owner in (EngineConfig, BuildConfig):
        with pytest.raises(ConfigError, match=r"hf_overrides=.* it must be an object"):
            owner(hf_overrides=given)


# -- what prepares pictures and videos ---------------------------------------------------------------------------------

FEWER: dict[str, Any] = {"max_pixels": 4 * 16 * 16}


def seen(folder: Path, **settings: Any) -> tuple[list[int], list[int]]:
    """Prompt and answer about a picture."""
    from tiny_sights import picture

    chat = [{"role": "user", "content": [{"type": "image", "image": picture(96, 96)}, {"type": "text", "text": "?"}]}]
    with LLM(str(folder), dtype="float32", num_threads=1, **settings) as llm:
        (output,) = llm.chat([chat], SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True), use_tqdm=False)
    return output.prompt_token_ids, list(output.outputs[0].token_ids)


def test_pictures_are_prepared_as_by_a_directory_that_says_so(tmp_path: Path) -> None:
    from tiny_sights import save

    plain = save(tmp_path / "plain", "qwen2_vl")
    changed = shutil.copytree(plain, tmp_path / "changed")
    settings = json.loads((plain / "preprocessor_config.json").read_text())
    (changed / "preprocessor_config.json").write_text(json.dumps(settings | FEWER))
    wanted = seen(changed)
    assert seen(plain, mm_processor_kwargs=FEWER) == wanted
    assert seen(plain, mm_processor_kwargs=json.dumps({"images_kwargs": FEWER})) == wanted
    assert len(seen(plain)[0]) > len(wanted[0])
    engine = build(plain, tmp_path / "engine", BuildConfig(dtype="float32", mm_processor_kwargs=FEWER)).directory
    assert seen(engine) == wanted
    assert "What prepares pictures and videos says otherwise" in (engine / "report.md").read_text()
    with pytest.raises(TargetMismatch, match="mm_processor_kwargs is decided when a directory is built"):
        seen(engine, mm_processor_kwargs=FEWER)
    with pytest.raises(
        ConfigError, match=r"mm_processor_kwargs: images are not read so: .*1 keys are not .*max_picels"
    ):
        seen(plain, mm_processor_kwargs={"max_picels": 4})


def test_where_settings_of_media_go(tmp_path: Path) -> None:
    config = EngineConfig(mm_processor_kwargs={"size": {"longest_edge": 5}, "videos_kwargs": {"fps": 1}})
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"has no preprocessor_config\.json, and no processor_config\.json with a im"):
        overridden(tmp_path, config)
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 3, "longest_edge": 9}}')
    (tmp_path / "processor_config.json").write_text('{"a": 1, "video_processor": {"fps": 2, "max_frames": 8}}')
    place = overridden(tmp_path, config)
    read = {path.name: json.loads(path.read_text()) for path in place.iterdir() if path.suffix == ".json"}
    assert read["preprocessor_config.json"] == {"size": {"shortest_edge": 3, "longest_edge": 5}}
    assert read["processor_config.json"] == {"a": 1, "video_processor": {"fps": 1, "max_frames": 8}}
    assert (place / "config.json").is_symlink() and overridden(tmp_path, EngineConfig()) == tmp_path
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text('{"image_processor": {}, "video_processor": {}}')
    assert not (overridden(tmp_path, config) / "preprocessor_config.json").exists(), "the model has none any more"
    with pytest.raises(ConfigError, match=r"mm_processor_kwargs: videos_kwargs=3 must be an object"):
        overridden(tmp_path, EngineConfig(mm_processor_kwargs={"videos_kwargs": 3}))
    with pytest.raises(
        ConfigError, match=r"mm_processor_kwargs=\[1\] is not allowed; .* as \{\"max_pixels\": 501760\}"
    ):
        EngineConfig(mm_processor_kwargs=[1])  # type: ignore[arg-type]
