"""A vocab.txt, and RoBERTa's vocab.json, give the ids of the classes of transformers that read them."""

from __future__ import annotations

import json

import pytest

from albireo.errors import ModelError
from albireo.text.tokenizer import Tokenizer
from text.texts import TEXTS
from vocabulary_writers import write_byte_level

WORDS = (
    *(
        "the",
        "quick",
        "fox",
        "##es",
        "##s",
        "Fox",
        "Straße",
        "café",
        "cafe",
        "un",
        "##able",
        "好",
        "##好",
        "天",
        "!",
        ",",
        "'",
        "<",
        ">",
    ),
    *"abcdefghijklmnopqrstuvwxyz0123456789",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"),
)
MORE = ("Foxes, CAFÉ café unable!", "今天好好 naïve Straße", "[MASK] the [SEP] fox", "a\u0301b \u00adc")
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MPNET = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")


def _write(directory, special, **config):
    (directory / "vocab.txt").write_text("\n".join((*special, *WORDS)), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("BertTokenizer", {}),
        ("BertTokenizer", {"do_lower_case": False}),
        ("BertTokenizer", {"strip_accents": False}),
        ("BertTokenizer", {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}),
        ("DistilBertTokenizer", {}),
        ("ElectraTokenizer", {}),
        ("MPNetTokenizer", {}),
    ],
)
def test_ids_are_those_of_the_class(tmp_path, name, config):
    transformers = pytest.importorskip("transformers")
    special = MPNET if name == "MPNetTokenizer" else BERT
    ours = Tokenizer.from_directory(_write(tmp_path, special, tokenizer_class=name, **config))
    theirs = getattr(transformers, name).from_pretrained(tmp_path)
    for text in (*TEXTS, *MORE):
        assert ours.encode(text) == theirs.encode(text), text
    pair, found = theirs.backend_tokenizer.encode("the fox", "quick"), ours.encode_prompt("the fox", "quick")
    assert found.ids == pair.ids and found.type_start == (pair.type_ids.index(1) if 1 in pair.type_ids else -1)


def test_the_class_is_that_of_the_model_where_nothing_names_it(tmp_path):
    _write(tmp_path, BERT, do_lower_case=True)
    with pytest.raises(ModelError, match=r"vocab\.txt: does not say how text is cut .* known are BertTokenizer"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert tokenizer.encode("The") == [2, 5, 3] and tokenizer.special_ids == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"do_basic_tokenize": False}, "do_basic_tokenize=False is not supported"),
        ({"do_lower_case": "yes"}, "do_lower_case='yes' is not supported"),
        ({"strip_accents": 1}, "strip_accents=1 is not supported"),
        ({"cls_token": "<absent>"}, "has no <absent>, which each text needs"),
    ],
)
def test_what_cannot_be_done_is_named(tmp_path, config, problem):
    _write(tmp_path, BERT, tokenizer_class="BertTokenizer", **config)
    with pytest.raises(ModelError) as caught:
        Tokenizer.from_directory(tmp_path)
    assert problem in str(caught.value)


def test_roberta(tmp_path, tokenizer_directory):
    transformers = pytest.importorskip("transformers")
    write_byte_level(tmp_path, tokenizer_directory("gpt2"))
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    del vocab["<|endoftext|>"]
    front = ["<s>", "<pad>", "</s>", "<unk>"]
    shifted = {token: i for i, token in enumerate([*front, *sorted(vocab, key=vocab.__getitem__), "<mask>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(shifted))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')
    ours = Tokenizer.from_directory(tmp_path)
    theirs = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    for text in (*TEXTS, *MORE):
        assert ours.encode(text) == theirs.encode(text), text
    assert ours.encode("a <mask> b") == ours.encode("a<mask> b")  # which takes the blank before it along
    assert ours.encode_prompt("the fox", "quick").ids == theirs("the fox", "quick")["input_ids"]
    del shifted["</s>"]
    (tmp_path / "vocab.json").write_text(json.dumps(shifted))
    with pytest.raises(ModelError, match="has no </s>, which goes round a text"):
        Tokenizer.from_directory(tmp_path)
