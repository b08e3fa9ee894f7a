"""generation_config.json: recommended sampling, several EOS ids, hostile values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from albireo.errors import ModelError
from albireo.models import load_architecture, load_config
from albireo.models.settings.generation import GenerationDefaults, eos_token_ids, read_generation_defaults
from tiny_models import make_checkpoint, shared_data


def read(tmp_path: Path, **values: Any) -> GenerationDefaults:
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    return read_generation_defaults(tmp_path)


def test_no_file_is_no_recommendation(tmp_path: Path) -> None:
    assert read_generation_defaults(tmp_path) == GenerationDefaults()


def test_a_usual_file(tmp_path: Path) -> None:
    defaults = read(
        tmp_path,
        bos_token_id=151643,
        pad_token_id=151643,
        do_sample=True,
        eos_token_id=[151645, 151643],
        repetition_penalty=1.05,
        temperature=0.7,
        top_p=0.8,
        top_k=20,
        max_new_tokens=2048,
        num_beams=1,
        transformers_version="4.37.0",
    )
    assert defaults == GenerationDefaults(
        temperature=0.7,
        top_p=0.8,
        top_k=20,
        repetition_penalty=1.05,
        max_tokens=2048,
        eos_token_ids=(151645, 151643),
    )


def test_other_ways_of_decoding_are_reported(tmp_path: Path) -> None:
    assert read(tmp_path, num_beams=4, suppress_tokens=[3], typical_p=1.0).unused == ("num_beams", "suppress_tokens")


def test_eos_ids_of_both_files_count(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, {**load_architecture("llama").tiny, "eos_token_id": 2})
    config, defaults = load_config(tmp_path), read(tmp_path, eos_token_id=[7, 2, 9])
    assert eos_token_ids(config, defaults) == (2, 7, 9)
    assert eos_token_ids(config, GenerationDefaults()) == (2,)


def test_the_real_model_ends_with_either_id() -> None:
    directory = shared_data("models", "stories260k")
    assert set(eos_token_ids(load_config(directory), read_generation_defaults(directory))) == {1, 2}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.01),
        ("top_k", 2.5),
        ("top_k", -2),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("max_new_tokens", 0),
        ("eos_token_id", [-1]),
        ("eos_token_id", {"a": 1}),
        ("eos_token_id", 1e3),
    ],
)
def test_hostile_values_are_named(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ModelError, match=rf"generation_config\.json: {key}="):
        read(tmp_path, **{key: value})


def test_a_link_to_nowhere_is_no_missing_file(tmp_path: Path) -> None:
    """Whoever copied the link and not what it leads to would otherwise lose what ends the text."""
    (tmp_path / "generation_config.json").symlink_to("blob")
    with pytest.raises(ModelError, match=r"generation_config\.json: cannot be read: .*\(a link to blob\)"):
        read_generation_defaults(tmp_path)
