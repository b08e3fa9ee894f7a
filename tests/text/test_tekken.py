"""A tekken.json gives the ids of joining bytes by rank, and those of the tokenizer.json its ranks are from."""

from __future__ import annotations

from base64 import b64decode, b64encode
from itertools import pairwise
from typing import Any

import pytest
import regex

from albireo.errors import ModelError, UnsupportedModel
from albireo.text.detokenizer import IncrementalDetokenizer
from albireo.text.tokenizer import Tokenizer
from text.texts import TEXTS
from vocabulary_writers import PATTERN, byte_names, tekken_of, write_tekken

#: Of GPT-2, whose words the tokenizer.json has.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@pytest.fixture
def data(tokenizer_directory):
    """A small tekken.json, to be changed."""
    return tekken_of(tokenizer_directory("gpt2"), num_ordinary=600)


def _by_rank(data: dict[str, Any], text: str) -> list[int]:
    """The rule itself: of each word's parts the neighbours of the lowest rank are joined, the first of them first."""
    config = data["config"]
    count = config["default_vocab_size"] - config["default_num_special_tokens"]
    ranks = {b64decode(entry["token_bytes"]): entry["rank"] for entry in data["vocab"][:count]}
    ids: list[int] = []
    for word in regex.findall(config["pattern"], text):
        parts = [bytes([byte]) for byte in word.encode()]
        if word.encode() in ranks:
            parts = [word.encode()]
        while True:
            pairs = [(ranks[a + b], at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
            if not pairs:
                break
            at = min(pairs)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        ids += [config["default_num_special_tokens"] + ranks[part] for part in parts]
    return ids


def test_ids_are_those_of_joining_by_rank(tmp_path, tokenizer_directory):
    data = tekken_of(tokenizer_directory("gpt2"))
    tokenizer = Tokenizer.from_directory(write_tekken(tmp_path, data))
    for text in TEXTS:
        text = regex.sub("<(/?s|unk)>|INST", "", text)  # of special tokens
        ids = tokenizer.encode(text)
        assert ids == [1, *_by_rank(data, text)], text
        assert max(ids) < tokenizer.vocab_size == 8192 + 24


def test_ids_are_those_of_the_tokenizer_its_ranks_are_from(tmp_path, tokenizer_directory, reference_of):
    data = tekken_of(tokenizer_directory("gpt2"), num_ordinary=50256, num_special=1000, pattern=GPT2_PATTERN)
    tokenizer = Tokenizer.from_directory(write_tekken(tmp_path, data))
    theirs = reference_of("gpt2")
    for text in TEXTS:
        if "<" in text:
            continue
        names = theirs.convert_ids_to_tokens(theirs.encode(text))
        assert tokenizer.encode(text, add_special_tokens=False) == [tokenizer.token_to_id(name) for name in names]
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tokens_that_no_merging_reaches_are_joined_as_by_rank(tmp_path, data):
    """Ranks need not be learnt: a token may come before its parts, or be made of none."""
    made = [b"zqj", b"zq", b"qjx", b"xyqqy", b"jx", b"qq"]
    for rank, token in enumerate(made, 300):
        data["vocab"][rank] = {"rank": rank, "token_bytes": b64encode(token).decode(), "token_str": token.decode()}
    tokenizer = Tokenizer.from_directory(write_tekken(tmp_path, data))
    for text in ("zqjx", "zqj", "zzqjxx", "xyqqy", "xyqqyx", "jxzqjzqjx", "qqqq qqq", "qjxzq"):
        assert tokenizer.encode(text) == [1, *_by_rank(data, text)], text


def test_special_tokens_of_files_that_list_none(tmp_path, data):
    tokenizer = Tokenizer.from_directory(write_tekken(tmp_path, data))
    # the ids of Mistral-Nemo-Instruct-2407's tokenizer.json
    assert tokenizer.encode("<unk><s></s>[INST]a[/INST]") == [1, 0, 1, 2, 3, 24 + ord("a"), 4]
    assert tokenizer.encode("[TOOL_CALLS][IMG]<pad>[SUFFIX]", add_special_tokens=False) == [9, 10, 11, 16]
    assert tokenizer.id_to_token(19) == "[TOOL_CONTENT]" and tokenizer.id_to_token(23) == "<SPECIAL_23>"
    assert tokenizer.special_ids == set(range(24))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 11)
    assert tokenizer.decode([1, 3, 24 + ord("a"), 4, 23]) == "a"
    assert tokenizer.decode([1, 24 + ord("a")], skip_special_tokens=False) == "<s>a"
    pair = tokenizer.encode_prompt("a", "b")
    assert pair.ids == [1, 24 + ord("a"), 1, 24 + ord("b")]


def test_special_tokens_that_are_listed_lie_at_their_ranks(tmp_path, data):
    texts = {3: "[AUDIO]", 0: "<unk>", 2: "</s>", 1: "<s>", 5: "[THINK]"}
    data["special_tokens"] = [{"rank": r, "token_str": text, "is_control": True} for r, text in texts.items()]
    data["config"]["version"] = "v13"
    tokenizer = Tokenizer.from_directory(write_tekken(tmp_path, data))
    assert [tokenizer.id_to_token(i) for i in range(7)] == [
        *("<unk>", "<s>", "</s>", "[AUDIO]", "<SPECIAL_4>", "[THINK]", "<SPECIAL_6>")
    ]
    assert tokenizer.encode("[AUDIO][THINK]") == [1, 3, 5]
    assert tokenizer.pad_token == "<pad>" and tokenizer.pad_token_id is None


def test_text_of_special_tokens_stays_text_for_a_plain_encoder(tmp_path, data):
    tokenizer = Tokenizer.from_directory(write_tekken(tmp_path, data))
    text = "<s>[INST] [/INST]</s><pad><SPECIAL_20>"
    ids = tokenizer.plain_encoder([tokenizer.id_to_token(i) for i in tokenizer.special_ids]).encode(text)
    assert ids == _by_rank(data, text)


def test_bytes_and_streams(tmp_path, data):
    tokenizer = Tokenizer.from_directory(write_tekken(tmp_path, data))
    found = tokenizer.token_bytes()
    assert found[:24] == [b""] * 24
    assert found[24:] == [b64decode(entry["token_bytes"]) for entry in data["vocab"][:600]]
    ids = tokenizer.encode("é🦊 twice")
    stream = IncrementalDetokenizer(tokenizer)
    assert "".join(stream.push([i]) for i in ids) + stream.flush() == "é🦊 twice"


def test_what_is_written_as_files_is_the_same_tokenizer(tmp_path, data):
    tokenizer = Tokenizer.from_directory(write_tekken(tmp_path / "a", data))
    (tmp_path / "b").mkdir()
    for name, content in tokenizer.to_files().items():
        (tmp_path / "b" / name).write_bytes(content)
    again = Tokenizer.from_directory(tmp_path / "b")
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert again.special_ids == tokenizer.special_ids and again.vocabulary() == tokenizer.vocabulary()


def test_names_of_characters_are_not_bytes(tmp_path, data):
    """Characters that stand for bytes are characters in a text."""
    tokenizer = Tokenizer.from_directory(write_tekken(tmp_path, data))
    text = "".join(byte_names().values())
    assert tokenizer.decode(tokenizer.encode(text)) == text


# -- damaged files ---------------------------------------------------------------------------------------------


def _config(**values: Any):
    return lambda data: data["config"].update(values)


def _entry(at: int, **values: Any):
    return lambda data: data["vocab"][at].update(values)


def _special(*entries: Any):
    return lambda data: data.update(special_tokens=list(entries))


BOS = {"rank": 1, "token_str": "<s>", "is_control": True}

DAMAGES = (
    (lambda data: data.pop("config"), "config: default_vocab_size is missing"),
    (lambda data: data.update(config=5), "config=5 must be an object"),
    (_config(default_vocab_size="x"), "config: default_vocab_size='x' must be a whole number from 1 to"),
    (_config(default_vocab_size=2**40), "default_vocab_size=1099511627776 must be"),
    (_config(default_vocab_size=True), "default_vocab_size=True must be"),
    (_config(default_num_special_tokens=0), "default_num_special_tokens=0 must be a whole number from 1 to 624"),
    (_config(default_num_special_tokens=625), "default_num_special_tokens=625 must be"),
    (_config(default_vocab_size=700), "vocab has 605 tokens; config asks for 676 of them"),
    (_config(default_vocab_size=100), "vocab has 605 tokens; config asks for 76 of them, 256 at least"),
    (_config(default_num_special_tokens=10), "special_tokens holds .* a rank of its own below 10"),
    (_config(pattern=None), "config: pattern is missing"),
    (_config(pattern=7), "config: pattern=7 must be a string"),
    (_config(pattern="(a"), r"config: pattern='\(a' is no regular expression"),
    (_config(version="v13"), "special_tokens is missing, which files of version v13 have"),
    (lambda data: data["config"].pop("version"), "config: version is missing"),
    (lambda data: data.update(vocab={}), r"vocab has \{\} tokens"),
    (lambda data: data.pop("vocab"), "vocab has None tokens"),
    (lambda data: data["vocab"].pop(300), r"vocab\[300\]=.* must be an object with rank 300"),
    (_entry(300, rank=301), r"vocab\[300\]=.* must be an object with rank 300"),
    (_entry(1, rank=True), r"vocab\[1\]=.* must be an object with rank 1"),
    (lambda data: data["vocab"].__setitem__(7, "x"), r"vocab\[7\]='x' must be an object with rank 7"),
    (_entry(300, token_bytes="YW!j"), r"vocab\[300\] has token_bytes='YW!j', which must be bytes in base64"),
    (_entry(300, token_bytes="YWJ"), r"vocab\[300\] has token_bytes='YWJ'"),
    (_entry(300, token_bytes="é"), r"vocab\[300\] has token_bytes='é'"),
    (_entry(300, token_bytes=""), r"vocab\[300\] has token_bytes=''"),
    (_entry(300, token_bytes=None), r"vocab\[300\] has token_bytes=None"),
    (_entry(300, token_bytes=5), r"vocab\[300\] has token_bytes=5"),
    (_entry(300, token_bytes="YQ=="), r"vocab\[300\] is b'a', and so is vocab\[97\]"),
    (_entry(7, token_bytes="YWI="), r"vocab\[7\] is b'ab'; the first 256 tokens must be the bytes, in order"),
    (_entry(300, token_bytes="A" * 40000), "the tokens are too long for a vocabulary"),
    (lambda data: data.update(special_tokens=5), "special_tokens=5 must be a list"),
    (_special(BOS, 5), "special_tokens holds 5; it needs a token_str and a rank"),
    (_special(BOS, BOS), "special_tokens holds .* a rank of its own below 24"),
    (_special(BOS, {"rank": 24, "token_str": "a"}), "special_tokens holds .* a rank of its own below 24"),
    (_special(BOS, {"rank": -1, "token_str": "a"}), "special_tokens holds .* a rank of its own below 24"),
    (_special(BOS, {"rank": 0, "token_str": ""}), "special_tokens holds .* a rank of its own below 24"),
    (_special(BOS, {"rank": 0, "token_str": "<s>"}), "special_tokens holds '<s>' twice"),
    (_special(BOS, {"rank": 0, "token_str": "<SPECIAL_5>"}), "special_tokens holds '<SPECIAL_5>' twice"),
    (_special({"rank": 0, "token_str": "<unk>"}), "special_tokens has no <s>, which goes before every text"),
)


@pytest.mark.parametrize(("damage", "problem"), DAMAGES, ids=[problem for _, problem in DAMAGES])
def test_damaged_values(tmp_path, data, damage, problem):
    damage(data)
    with pytest.raises(ModelError, match=rf"tekken\.json: .*{problem}"):
        Tokenizer.from_directory(write_tekken(tmp_path, data))


def test_a_token_that_is_ordinary_and_special(tmp_path, data):
    data["vocab"][300]["token_bytes"] = b64encode(b"[INST]").decode()
    with pytest.raises(UnsupportedModel, match=r"tekken\.json: '\[INST\]' is a special token and one of vocab, too"):
        Tokenizer.from_directory(write_tekken(tmp_path, data))


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"a": 1, "a": 2}', b"[" * 100_000])
def test_files_that_are_no_object(tmp_path, content):
    (tmp_path / "tekken.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tekken\.json: (is not|holds a|is nested)"):
        Tokenizer.from_directory(tmp_path)


def test_files_that_are_too_large(tmp_path):
    with open(tmp_path / "tekken.json", "wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(ModelError, match=r"tekken\.json: has 68157440 bytes; at most 67108864 are read"):
        Tokenizer.from_directory(tmp_path)


def test_the_pattern_is_that_of_gguf_files():
    from albireo.text.gguf_words import WORDS

    assert WORDS["tekken"].steps == (PATTERN,)
