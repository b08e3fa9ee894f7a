"""Encoding and decoding equal transformers' and published ids; damaged files say so."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from albireo.errors import InvalidParams, ModelError
from albireo.text.tokenizer import Tokenizer
from text.texts import TEXTS

NAMES = (
    "qwen2.5",
    "qwen3",
    "gpt2",
    "mistral-v1",
    "mistral-v3",
    "phi-3-mini",
    "phi-2",
    "falcon",
    "stories260k",
    "story",
)

# Published: the GPT-2 paper's code and OpenAI's tiktoken, the model cards of Mistral and Qwen, llama2.c.
PUBLISHED = (
    ("gpt2", "Hello world", [15496, 995]),
    ("gpt2", "hello <|endoftext|>", [31373, 220, 50256]),
    ("qwen2.5", "Hello, world!", [9707, 11, 1879, 0]),
    ("qwen2.5", "<|im_start|>", [151644]),
    ("mistral-v1", "Hello", [1, 22557]),
    ("phi-3-mini", "<|user|>\nHello<|end|>", [32010, 15043, 32007]),
    ("stories260k", "Once upon a time", [1, 403, 407, 261, 378]),
    ("story", "", [0]),
)


@pytest.mark.parametrize(("name", "text", "ids"), PUBLISHED)
def test_published_ids(tokenizer_of, name, text, ids):
    assert tokenizer_of(name).encode(text) == ids


@pytest.mark.parametrize("name", NAMES)
def test_encode_and_decode_equal_transformers(tokenizer_of, reference_of, name):
    ours, theirs = tokenizer_of(name), reference_of(name)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text), text
        plain = ours.encode(text, add_special_tokens=False)
        assert plain == theirs.encode(text, add_special_tokens=False), text
        for skip in (True, False):
            assert ours.decode(plain, skip_special_tokens=skip) == theirs.decode(plain, skip_special_tokens=skip)
    assert ours.vocab_size == len(theirs)
    for role in ("bos", "eos", "pad"):
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id"), role
        assert getattr(ours, f"{role}_token") == getattr(theirs, f"{role}_token"), role


# of Qwen 3 the class is that of Qwen 2.5, and the vocabulary, but for four added tokens
@pytest.mark.parametrize(
    "name", ["qwen2.5", pytest.param("qwen3", marks=pytest.mark.thorough), "gpt2", "stories260k", "story"]
)
def test_encode_equals_auto_tokenizer(tokenizer_of, tokenizer_directory, name):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tokenizer_directory(name))
    for text in TEXTS:
        assert tokenizer_of(name).encode(text) == theirs.encode(text), text


def test_expected_ids_of_a_real_model(tokenizer_of, tokenizer_directory):
    expected = json.loads((tokenizer_directory("stories260k") / "expected.json").read_text())
    tokenizer = tokenizer_of("stories260k")
    for case in expected["cases"]:
        assert tokenizer.encode(case["prompt"]) == case["prompt_ids"]


@pytest.mark.parametrize("name", NAMES)
def test_special_token_text_stays_text_for_a_plain_encoder(tokenizer_of, name):
    tokenizer = tokenizer_of(name)
    specials = [tokenizer.id_to_token(i) for i in tokenizer.special_ids]
    text = "a" + " b ".join(sorted(specials)[:20]) + "c"
    assert tokenizer.special_ids & set(tokenizer.encode(text))
    ids = tokenizer.plain_encoder(specials).encode(text)
    assert not tokenizer.special_ids & set(ids)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_token_strings_keep_spaces_and_join_to_the_text(tokenizer_of):
    for name in ("gpt2", "mistral-v1", "qwen2.5"):
        tokenizer = tokenizer_of(name)
        ids = tokenizer.encode("the quick brown fox", add_special_tokens=False)
        strings = tokenizer.token_strings(ids)
        assert "".join(strings).lstrip() == "the quick brown fox"
        assert strings[1].startswith(" ")
    tokenizer = tokenizer_of("qwen2.5")
    assert tokenizer.token_strings([151645, 10**6]) == ["<|im_end|>", ""]


def test_ids_beyond_the_vocabulary_decode_to_nothing(tokenizer_of):
    tokenizer = tokenizer_of("qwen2.5")
    assert tokenizer.id_to_token(151900) is None
    assert tokenizer.decode([9707, 151900]) == "Hello"


def test_vocabulary_names_every_token(tokenizer_of):
    tokenizer = tokenizer_of("gpt2")
    vocabulary = tokenizer.vocabulary()
    assert len(vocabulary) == tokenizer.vocab_size == 50257
    assert tokenizer.token_to_id("Ġthe") == vocabulary["Ġthe"]
    assert tokenizer.id_to_token(vocabulary["Ġthe"]) == "Ġthe"


@pytest.mark.parametrize("name", ["gpt2", "mistral-v1", "qwen2.5"])
def test_no_text_has_more_characters_than_its_tokens_may_have(tokenizer_of, name):
    tokenizer = tokenizer_of(name)
    for text in ("a", " " * 300, "\n" * 99, "=" * 200, "Grüße, 你好", "the quick brown fox " * 9):
        assert len(text) <= tokenizer.most_chars(len(tokenizer.encode(text, add_special_tokens=False))) < 10**6


def test_blanks_beside_added_tokens_may_be_no_tokens(tokenizer_of):
    tokenizer, text = tokenizer_of("phi-3-mini"), "<|user|>" + " " * 4096 + "Hello<|end|>"
    assert len(text) > tokenizer.most_chars(len(tokenizer.encode(text, add_special_tokens=False)))
    assert tokenizer.takes_blanks and not tokenizer_of("mistral-v1").takes_blanks


def test_half_a_surrogate_pair_is_refused(tokenizer_of):
    tokenizer = tokenizer_of("story")
    for encode in (tokenizer.encode, tokenizer.plain_encoder([]).encode):
        with pytest.raises(InvalidParams, match="surrogate"):
            encode("a\ud800b")
    with pytest.raises(InvalidParams, match="must be a string, got int"):
        tokenizer.encode(5)


def test_many_threads_may_encode_at_once(tokenizer_of):
    tokenizer = tokenizer_of("story")
    text = "Once upon a time <|endoftext|> there was"
    plain = tokenizer.plain_encoder(["<|endoftext|>"])
    expected = tokenizer.encode(text), plain.encode(text)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: (tokenizer.encode(text), plain.encode(text)), range(200)))
    assert results == [expected] * 200


# -- what the directory says -----------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path, tokenizer_directory):
    """A copy of the bundled tokenizer's files, to be changed."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(tokenizer_directory("story") / name, tmp_path / name)
    return tmp_path


def _change(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def test_add_bos_token_counts_where_tokenizer_json_says_nothing(directory):
    _change(directory / "tokenizer.json", post_processor=None)
    assert Tokenizer.from_directory(directory).encode("Once")[0] == 0
    _change(directory / "tokenizer_config.json", add_bos_token=False)
    assert Tokenizer.from_directory(directory).encode("Once")[0] != 0


def test_post_processor_wins_over_add_bos_token(directory):
    _change(directory / "tokenizer_config.json", add_bos_token=False)
    assert Tokenizer.from_directory(directory).encode("Once")[0] == 0


def test_truncation_and_padding_of_training_are_dropped(directory):
    truncation = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    _change(directory / "tokenizer.json", truncation=truncation)
    assert len(Tokenizer.from_directory(directory).encode("one two three four five six")) > 3


def test_a_named_token_without_a_row_in_the_vocabulary_has_no_id(directory):
    _change(directory / "tokenizer_config.json", pad_token="<pad>")
    tokenizer = Tokenizer.from_directory(directory)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", None)
    assert tokenizer.vocab_size == 4096


def test_tokens_of_the_config_are_added_with_their_ids(directory):
    token = {"content": "<|extra|>", "special": True}
    _change(directory / "tokenizer_config.json", added_tokens_decoder={"4096": token})
    tokenizer = Tokenizer.from_directory(directory)
    assert tokenizer.encode("<|extra|>") == [0, 4096]
    assert 4096 in tokenizer.special_ids
    _change(directory / "tokenizer_config.json", added_tokens_decoder={"5000": token})
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: says that token '<\|extra\|>' has id 5000"):
        Tokenizer.from_directory(directory)


def test_many_tokens_of_the_config_are_added_at_once(directory):
    """Minutes, where each is added by itself."""
    names = [f"<|extra {i}|>" for i in range(30_000)]
    listed = {str(4096 + i): {"content": name, "special": i % 2 == 0} for i, name in enumerate(names)}
    _change(directory / "tokenizer_config.json", added_tokens_decoder=listed, additional_special_tokens=names)
    tokenizer = Tokenizer.from_directory(directory)
    assert tokenizer.encode("".join(names[::1000])) == [0, *range(4096, 4096 + 30_000, 1000)]
    assert {4096, 4096 + 29_998} <= tokenizer.special_ids and tokenizer.vocab_size == 4096 + 30_000


def test_tokens_of_the_vocabulary_that_the_config_adds_are_added(directory):
    """As transformers does: a text is cut at them."""
    transformers = pytest.importorskip("transformers")
    _change(directory / "tokenizer.json", added_tokens=[])
    token = {"content": "re", "special": False, "normalized": False}
    token_id = Tokenizer.from_directory(directory).token_to_id("re")
    _change(directory / "tokenizer_config.json", added_tokens_decoder={str(token_id): token})
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(directory)
    ours = Tokenizer.from_directory(directory)
    text = "there were more trees, are there?<|endoftext|>"
    assert ours.encode(text) == theirs.encode(text)
    assert ours.encode(text).count(token_id) == text.count("re")


def test_keys_that_name_code_are_data_and_nothing_more(directory):
    (directory / "evil.py").write_text("raise SystemExit('run')")
    _change(
        directory / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]}, tokenizer_class="Evil"
    )
    assert Tokenizer.from_directory(directory).encode("")[0] == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b'{"model": {"type": "BPE"}}'])
def test_damaged_tokenizer_json(directory, content):
    (directory / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json: is not a usable tokenizer"):
        Tokenizer.from_directory(directory)


def test_truncated_tokenizer_json(directory):
    path = directory / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"tokenizer\.json: is not a usable tokenizer"):
        Tokenizer.from_directory(directory)


@pytest.mark.parametrize("key", ["normalizer", "pre_tokenizer", "post_processor", "decoder", "model", "added_tokens"])
@pytest.mark.parametrize("value", [5, {"type": "Nonsense"}, {}, "text", [1]])
def test_wrong_values_in_tokenizer_json(directory, key, value):
    _change(directory / "tokenizer.json", **{key: value})
    with pytest.raises(ModelError, match=r"tokenizer\.json: is not a usable tokenizer"):
        Tokenizer.from_directory(directory)


def test_a_long_value_is_not_repeated_whole(directory):
    vocab = json.loads((directory / "tokenizer.json").read_text())["model"] | {"vocab": {"a": "x" * 100_000}}
    _change(directory / "tokenizer.json", model=vocab)
    with pytest.raises(ModelError, match=r"is not a usable tokenizer: .*xxx…") as error:
        Tokenizer.from_directory(directory)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("name", ["gpt2", "mistral-v1", "qwen3"])
def test_the_bytes_of_tokens_are_those_of_their_text(tokenizer_of, name):
    tokenizer = tokenizer_of(name)
    found = tokenizer.token_bytes()
    text = " Zoë 🦊, twice"
    assert (
        b"".join(found[i] for i in tokenizer.encode(text, add_special_tokens=False)).lstrip() == text.lstrip().encode()
    )
    assert len(found) == tokenizer.vocab_size and all(found[i] == b"" for i in tokenizer.special_ids)


_PATTERN = {"Regex": "(a+)+$"}
_WORST = "a" * 40 + "b"


def _written(directory, **keys):
    file = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": {"a": 0, _WORST: 1}, "unk_token": "a"},
        **keys,
    }
    (directory / "tokenizer.json").write_text(json.dumps(file))
    return Tokenizer.from_directory(directory)


@pytest.mark.parametrize(
    "keys",
    [
        {"pre_tokenizer": {"type": "Split", "pattern": _PATTERN, "behavior": "Isolated", "invert": False}},
        {"normalizer": {"type": "Replace", "pattern": _PATTERN, "content": "x"}},
    ],
    ids=["pre_tokenizer", "normalizer"],
)
def test_a_pattern_that_goes_back_too_often_is_an_error_of_the_text(tmp_path, keys):
    """The library panics then, which is no Exception: it went through every handler of a server."""
    tokenizer = _written(tmp_path, **keys)
    assert tokenizer.encode("a") == [0]
    for encode in (tokenizer.encode, tokenizer.encode_prompt, tokenizer.plain_encoder(()).encode):
        with pytest.raises(InvalidParams, match=r"gave up when it was to encode a text: .*; a pattern of the model's"):
            encode(_WORST)


def test_a_decoder_that_goes_back_too_often_is_an_error_of_the_model(tmp_path):
    tokenizer = _written(tmp_path, decoder={"type": "Replace", "pattern": _PATTERN, "content": "x"})
    assert tokenizer.decode([0]) == "x"
    for decode in (tokenizer.decode, tokenizer.token_strings):
        with pytest.raises(ModelError, match=r"gave up when it was to decode tokens: "):
            decode([1])


@pytest.mark.parametrize(("count", "length", "fits"), [(1, 11_000, True), (1, 12_000, False), (2000, 300, False)])
def test_added_tokens_whose_beginnings_take_gigabytes_are_refused(tmp_path, count, length, fits):
    """All beginnings and ends of each are kept, to keep what users type apart from them."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    added = [{"id": 2 + i, "content": f"<{i}>".ljust(length, "x"), **flags} for i in range(count)]
    if fits:
        assert _written(tmp_path, added_tokens=added).vocab_size == 2 + count
        return
    with pytest.raises(
        ModelError, match=rf"its {count:,} added tokens have up to {length:,} characters; .*134,217,728"
    ):
        _written(tmp_path, added_tokens=added)
