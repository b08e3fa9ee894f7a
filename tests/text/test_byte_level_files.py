"""vocab.json and merges.txt give the ids of the tokenizer.json they are from, and say how they are damaged."""

from __future__ import annotations

import json

import pytest

from albireo.errors import ModelError
from albireo.text.tokenizer import Tokenizer
from text.texts import TEXTS
from vocabulary_writers import write_byte_level

#: Composed and apart, digits, blanks: what the classes treat in their own ways.
MORE = (
    "e\u0301te\u0301 \u1112\u1161\u11ab",
    "12 1234567 ١٢٣",
    "I'LL they'Ve",
    "a\r\n\r\n\tb  \n c",
    "<|endoftext|>x<|im_end|>",
)


# the vocabulary of Qwen 2.5 is that of Qwen 3, with fewer added tokens
@pytest.mark.parametrize("name", ["gpt2", pytest.param("qwen2.5", marks=pytest.mark.thorough), "qwen3"])
def test_ids_are_those_of_tokenizer_json(tmp_path, tokenizer_directory, tokenizer_of, reference_of, name):
    ours = Tokenizer.from_directory(write_byte_level(tmp_path, tokenizer_directory(name)))
    theirs = reference_of(name)
    for text in (*TEXTS, *MORE):
        ids = ours.encode(text)
        assert ids == theirs.encode(text), text
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    known = tokenizer_of(name)
    assert (ours.vocabulary(), ours.special_ids) == (known.vocabulary(), known.special_ids)
    assert (ours.named_tokens, ours.chat_templates) == (known.named_tokens, known.chat_templates)


@pytest.fixture
def directory(tmp_path):
    """A vocabulary of nine tokens, to be changed."""
    vocab = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "Ġ": 5, "Ġa": 6, "<|endoftext|>": 7, "1": 8}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nab c\nĠ a\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    return tmp_path


def _configure(directory, **config):
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def test_tokens_that_a_class_implies(directory):
    tokenizer = Tokenizer.from_directory(directory)
    assert tokenizer.encode("abc a<|endoftext|>") == [4, 6, 7]
    assert tokenizer.special_ids == {7}
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token) == (7, 7, None)
    _configure(directory, tokenizer_class="Qwen2TokenizerFast", pad_token=None)
    tokenizer = Tokenizer.from_directory(directory)
    assert (tokenizer.bos_token, tokenizer.eos_token_id, tokenizer.pad_token) == (None, 7, None)
    _configure(directory, tokenizer_class="Qwen2Tokenizer", eos_token="a")
    tokenizer = Tokenizer.from_directory(directory)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 7)


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "Qwen2Tokenizer"])
def test_a_vocabulary_as_the_class_of_transformers_reads_it(directory, name):
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, name).from_pretrained(directory)
    _configure(directory, tokenizer_class=name)
    ours = Tokenizer.from_directory(directory)
    for text in ("abcab abc", "a11ab  a", "ab<|endoftext|> a1"):
        assert ours.encode(text) == theirs.encode(text), text
    for role in ("bos", "eos", "pad", "unk"):
        assert ours.named_tokens.get(f"{role}_token") == getattr(theirs, f"{role}_token"), role


def test_tokens_of_the_vocabulary_that_the_config_adds_are_found_in_text(directory):
    token = {"content": "1", "special": False, "normalized": False}
    _configure(directory, tokenizer_class="GPT2Tokenizer", added_tokens_decoder={"8": token})
    tokenizer = Tokenizer.from_directory(directory)
    assert tokenizer.added_tokens() == {"1": 8, "<|endoftext|>": 7} and tokenizer.special_ids == {7}
    _configure(directory, tokenizer_class="GPT2Tokenizer", added_tokens_decoder={"9": token})
    with pytest.raises(ModelError, match=r"says that token '1' has id 9, vocab\.json makes it 8"):
        Tokenizer.from_directory(directory)


def test_lines_end_as_they_like_and_need_no_version(directory):
    expected = Tokenizer.from_directory(directory).encode("abcab a")
    for text in ("a b\r\nab c\r\nĠ a\r\n", "a b\nab c\nĠ a", "#version: 0.2\na b\nab c\nĠ a\n\n"):
        (directory / "merges.txt").write_bytes(text.encode())
        assert Tokenizer.from_directory(directory).encode("abcab a") == expected


@pytest.mark.parametrize("name", ["CodeGenTokenizer", "WhisperTokenizer", "", 5, None])
def test_classes_that_are_not_known(directory, name):
    _configure(directory, tokenizer_class=name)
    with pytest.raises(ModelError, match=r"vocab\.json: does not say how text is cut .* tokenizer_class=") as caught:
        Tokenizer.from_directory(directory)
    assert (
        f"{name!r} of tokenizer_config.json; known are GPT2Tokenizer, Qwen2Tokenizer, RobertaTokenizer. Convert it"
        in str(caught.value)
    )


def test_a_space_before_the_text_is_refused(directory):
    _configure(directory, tokenizer_class="GPT2Tokenizer", add_prefix_space=True)
    with pytest.raises(
        ModelError, match=r"tokenizer_config\.json: add_prefix_space=True is not supported beside vocab"
    ):
        Tokenizer.from_directory(directory)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "holds a list, not an object"),
        ("{", "is not valid JSON"),
        ('{"a": 0, "a": 1}', "key 'a' appears twice"),
        ('{"a": 0, "b": 0}', "'a' and 'b' have one id, 0"),
        ('{"a": -1}', "'a' has the id -1; it must be 0 to 2147483647"),
        ('{"a": 2147483648}', "'a' has the id 2147483648"),
        ('{"a": 1.0}', "'a' has the id 1.0"),
        ('{"a": true}', "'a' has the id True"),
        ('{"a": null}', "'a' has the id None"),
    ],
)
def test_damaged_vocabularies(directory, content, problem):
    (directory / "vocab.json").write_text(content)
    with pytest.raises(ModelError, match=r"vocab\.json: ") as caught:
        Tokenizer.from_directory(directory)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff", "is not UTF-8 (byte 0)"),
        (b"", "line 1 is '', which is no pair of tokens"),
        (b"a b\nab\n", "line 2 is 'ab', which is no pair of tokens"),
        (b"a b\n\nab c\n", "line 2 is '', which is no pair of tokens"),
        (b"a b c\n", "line 1 is 'a b c', which is no pair of tokens"),
        (b"a b\n#version: 0.2\n", "line 2 needs the token '#version:', which vocab.json lacks"),
        (b"a b\nb c\n", "line 2 needs the token 'bc', which vocab.json lacks"),
        (b"a b\nab c\na b\n", "line 3 is 'a b', and so is line 1"),
    ],
)
def test_damaged_merges(directory, content, problem):
    (directory / "merges.txt").write_bytes(content)
    with pytest.raises(ModelError, match=r"merges\.txt: ") as caught:
        Tokenizer.from_directory(directory)
    assert problem in str(caught.value)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_files_that_are_too_large(directory, name):
    with open(directory / name, "wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(ModelError, match=f"{name}: has 68157440 bytes; at most 67108864 are read"):
        Tokenizer.from_directory(directory)
