"""Engine directories of checkpoints without a tokenizer.json: the vocabulary is copied, and gives the same ids."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from albireo import LLM, BuildConfig, SamplingParams, build
from albireo.api.sources.locate import BUNDLED
from albireo.api.tokenizer import open_tokenizer
from albireo.artifact.reader import tokenizer_directory
from albireo.errors import ModelError
from albireo.text.tokenizer import Tokenizer
from text.texts import TEXTS
from tiny_models import make_checkpoint
from variants import tiny_of
from vocabulary_writers import tekken_of, tokens_of, write_byte_level, write_tekken

SETTINGS: dict[str, Any] = {"max_num_seqs": 2, "num_gpu_blocks_override": 64, "num_threads": 1, "max_model_len": 96}


def _tekken(place: Path) -> Path:
    return write_tekken(place, tekken_of(BUNDLED, num_ordinary=4072))


def _byte_level(place: Path) -> Path:
    return write_byte_level(place, BUNDLED, tokenizer_class="GPT2Tokenizer")


KINDS = {"tekken": (_tekken, {"tekken.json"}), "byte level": (_byte_level, {"vocab.json", "merges.txt"})}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_ids_and_text_as_from_the_checkpoint(kind: str, tmp_path: Path) -> None:
    write, names = KINDS[kind]
    checkpoint = make_checkpoint(tmp_path / "checkpoint", tiny_of("llama") | {"vocab_size": 4096}, seed=5)
    write(checkpoint)
    engine = build(checkpoint, tmp_path / "engine", BuildConfig()).directory
    for name in names:
        assert (engine / "tokenizer" / name).read_bytes() == (checkpoint / name).read_bytes()
    ours, theirs = open_tokenizer(tokenizer_directory(engine)), Tokenizer.from_directory(checkpoint)
    assert [ours.encode(text) for text in TEXTS] == [theirs.encode(text) for text in TEXTS]
    params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    said = [LLM(str(each), **SETTINGS).generate(["Once upon a time"], params)[0] for each in (engine, checkpoint)]
    assert said[0].prompt_token_ids == said[1].prompt_token_ids == theirs.encode("Once upon a time")
    assert said[0].outputs[0].text == said[1].outputs[0].text


@pytest.mark.parametrize("kind", [*KINDS, "tokenizer.json"])
def test_a_damaged_vocabulary_is_found_before_anything_is_written(kind: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", tiny_of("llama"), seed=5)
    if kind in KINDS:
        KINDS[kind][0](checkpoint)
        file = checkpoint / max(KINDS[kind][1])
        file.write_bytes(file.read_bytes()[:-200])
    else:
        file = checkpoint / kind
        file.write_text("{}")
    with pytest.raises(ModelError, match=re.escape(file.stem)):
        build(checkpoint, tmp_path / "engine", BuildConfig(target="scalar"))
    assert not (tmp_path / "engine").exists()


def _ranks(place: Path) -> Path:
    lines = [f"{b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens_of(BUNDLED)[:3800])]
    (place / "tiktoken.model").write_text("\n".join(lines))
    listed = {"3800": {"content": "[BOS]", "special": True}}
    config = {"tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": listed}
    config |= {"add_bos_token": True, "chat_template": "{{ messages }}"}
    (place / "tokenizer_config.json").write_text(json.dumps(config))
    return place


def test_a_vocabulary_that_leaves_much_to_its_class_becomes_a_tokenizer_json(tmp_path: Path) -> None:
    checkpoint = _ranks(make_checkpoint(tmp_path / "checkpoint", tiny_of("llama") | {"vocab_size": 4096}, seed=5))
    engine = build(checkpoint, tmp_path / "engine", BuildConfig()).directory
    assert {path.name for path in (engine / "tokenizer").iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    ours, theirs = open_tokenizer(tokenizer_directory(engine)), Tokenizer.from_directory(checkpoint)
    for text in (*TEXTS, "[BOS]x<|reserved_token_3900|>"):
        assert ours.encode(text) == theirs.encode(text), text
        assert ours.encode(text)[0] == theirs.bos_token_id == 3800
    assert (ours.special_ids, ours.named_tokens) == (theirs.special_ids, theirs.named_tokens)
    assert ours.chat_templates == theirs.chat_templates == {"default": "{{ messages }}"}


def test_only_the_vocabulary_that_is_read_is_copied(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", tiny_of("llama") | {"vocab_size": 4096}, seed=5)
    _byte_level(_tekken(checkpoint))
    (checkpoint / "tokenizer_config.json").write_text("{}")  # the other one's
    engine = build(checkpoint, tmp_path / "a", BuildConfig()).directory
    assert {path.name for path in (engine / "tokenizer").iterdir()} == {"tekken.json", "tokenizer_config.json"}
    (checkpoint / "tokenizer.json").write_bytes((BUNDLED / "tokenizer.json").read_bytes())
    engine = build(checkpoint, tmp_path / "b", BuildConfig()).directory
    assert {path.name for path in (engine / "tokenizer").iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    listed = json.loads((engine / "manifest.json").read_text())["files"]
    assert "tokenizer/tokenizer.json" in listed and "tokenizer/tekken.json" not in listed
