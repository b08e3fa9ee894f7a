"""A vocab.json of characters gives the ids of transformers' class, and a text for those of frames."""

from __future__ import annotations

import json
import string

import pytest

from albireo.text.tokenizer import Tokenizer

#: As of wav2vec2-base-960h.
CHARACTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *string.ascii_uppercase, "'")


def _write(directory, tokens, **config):
    (directory / "vocab.json").write_text(json.dumps({token: token_id for token_id, token in enumerate(tokens)}))
    (directory / "preprocessor_config.json").write_text("{}")
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize("lowers", [False, True])
def test_ids_are_those_of_transformers(tmp_path, lowers):
    transformers = pytest.importorskip("transformers")
    ours = Tokenizer.from_directory(_write(tmp_path, CHARACTERS, do_lower_case=lowers))
    theirs = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), do_lower_case=lowers)
    for text in ("IT'S A FOX", "A  B", " A ", "É1", "<pad>A", *(["it's a fox", "It"] if lowers else [])):
        assert ours.encode(text) == theirs(text).input_ids, text
    assert ours.decode(ours.encode("A FOX")) == ("a fox" if lowers else "A FOX")


@pytest.mark.parametrize("config", [{}, {"unk_token": None}])
def test_what_has_no_unknown_token_leaves_out_what_it_does_not_know(tmp_path, config):
    tokens = [token for token in CHARACTERS if token != "<unk>"]
    tokenizer = Tokenizer.from_directory(_write(tmp_path, tokens, **config))
    assert tokenizer.encode("AÉ B") == [tokens.index(token) for token in "A|B"]
    assert tokenizer.decode(tokenizer.encode("A B")) == "A B"
