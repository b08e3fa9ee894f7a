"""A list of tokens and ranks gives the ids of the tiktoken library, and the special tokens of its class."""

from __future__ import annotations

import json
import unicodedata
from base64 import b64encode

import pytest

from albireo.errors import ModelError
from albireo.text.chat_prompt import ChatEncoder
from albireo.text.gguf_words import WORDS
from albireo.text.tokenizer import Tokenizer
from text.texts import TEXTS
from vocabulary_writers import tokens_of

MORE = (
    "汉字汉字ABC漢字",
    "12345 1234567",
    "I'LL they'Ve e\u0301te\u0301",
    "a\r\n\r\n\tb  \n c",
    "CamelCaseWords HTTPServer",
)
SIZE = 4000


def _write(directory, source, name, **config):
    lines = [f"{b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens_of(source)[:SIZE])]
    (directory / name).write_text("\n".join([*lines, ""]))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def _reference(source, words, special):
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {token: rank for rank, token in enumerate(tokens_of(source)[:SIZE])}
    return tiktoken.Encoding("test", pat_str=words.steps[0], mergeable_ranks=ranks, special_tokens=special)


def test_ids_are_those_of_kimi(tmp_path, tokenizer_directory):
    source = tokenizer_directory("gpt2")
    listed = {
        str(SIZE): {"content": "[BOS]", "special": True},
        str(SIZE + 2): {"content": "<|im_end|>", "special": True},
        str(SIZE + 5): {"content": "<|tool|>", "special": False},
    }
    names = {SIZE + i: f"<|reserved_token_{SIZE + i}|>" for i in range(256)}
    names |= {int(key): token["content"] for key, token in listed.items()}
    _write(tmp_path, source, "tiktoken.model", tokenizer_class="TikTokenTokenizer", added_tokens_decoder=listed)
    ours = Tokenizer.from_directory(tmp_path)
    theirs = _reference(source, WORDS["kimi-k2"], {name: i for i, name in names.items()})
    for text in (*TEXTS, *MORE, "[BOS]hi<|im_end|> <|tool|>x", f"a<|reserved_token_{SIZE + 9}|>b"):
        ids = ours.encode(text)
        assert ids == theirs.encode(text, allowed_special="all"), text
        assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids)
    assert ours.vocab_size == theirs.n_vocab == SIZE + 256
    assert (ours.bos_token_id, ours.token_to_id("<|tool|>") in ours.special_ids) == (SIZE, False)


def test_kimi_has_the_keys_of_tools_in_order(tmp_path, tokenizer_directory):
    """As its own code has, whatever the order they are given in; also from what engine directories hold."""
    template = "{{ tools | tojson }}"
    _write(
        tmp_path,
        tokenizer_directory("gpt2"),
        "tiktoken.model",
        tokenizer_class="TikTokenTokenizer",
        chat_template=template,
    )
    tools = [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"b": [{"y": 1, "x": 2}]}}}
    ]
    wanted = (
        '[{"function": {"description": "d", "name": "f", "parameters": {"b": [{"x": 2, "y": 1}]}}, "type": "function"}]'
    )
    tokenizer = Tokenizer.from_directory(tmp_path)
    (tmp_path / "copy").mkdir()
    for name, data in tokenizer.to_files().items():
        (tmp_path / "copy" / name).write_bytes(data)
    for each in (tokenizer, Tokenizer.from_directory(tmp_path / "copy")):
        assert ChatEncoder(each).encode([{"role": "user", "content": "x"}], tools=tools).text == wanted
        assert ChatEncoder(each).encode([{"role": "user", "content": "x"}]).text == "null"
    hunyuan = _write(
        tmp_path / "copy",
        tokenizer_directory("gpt2"),
        "hy.tiktoken",
        tokenizer_class="HYTokenizer",
        chat_template=template,
    )
    (hunyuan / "tokenizer.json").unlink()
    told = ChatEncoder(Tokenizer.from_directory(hunyuan)).encode([{"role": "user", "content": "x"}], tools=tools).text
    assert told == json.dumps(tools)


def test_ids_are_those_of_hunyuan(tmp_path, tokenizer_directory):
    source = tokenizer_directory("gpt2")
    first = ("<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>")
    special = {name: SIZE + i for i, name in enumerate((*first, *(f"<|extra_{i}|>" for i in range(205))))}
    _write(tmp_path, source, "hy.tiktoken", tokenizer_class="HYTokenizer", eos_token="<|eos|>")
    ours = Tokenizer.from_directory(tmp_path)
    theirs = _reference(source, WORDS["qwen2"], special)
    for text in (*TEXTS, *MORE, "<|startoftext|>hi<|extra_0|>"):
        assert ours.encode(text) == theirs.encode(unicodedata.normalize("NFC", text), allowed_special="all"), text
    assert ours.eos_token_id == SIZE + 3 and ours.vocab_size == theirs.n_vocab


def test_ids_are_those_of_qwen(tmp_path, tokenizer_directory):
    """Whose class config.json alone may say."""
    source, first = tokenizer_directory("gpt2"), ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    special = {name: SIZE + i for i, name in enumerate((*first, *(f"<|extra_{i}|>" for i in range(205))))}
    _write(tmp_path, source, "qwen.tiktoken")
    (tmp_path / "config.json").write_text('{"model_type": "qwen"}')
    ours = Tokenizer.from_directory(tmp_path)
    theirs = _reference(source, WORDS["qwen2"], special)
    for text in (*TEXTS, *MORE, "<|im_start|>user\nhi<|im_end|><|extra_204|>"):
        assert ours.encode(text) == theirs.encode(unicodedata.normalize("NFC", text), allowed_special="all"), text
    assert ours.eos_token_id == SIZE and ours.vocab_size == theirs.n_vocab


@pytest.mark.thorough
def test_a_published_list_of_ranks(tmp_path, tokenizer_directory, tokenizer_of):
    source = tokenizer_directory("qwen") / "qwen.tiktoken"
    (tmp_path / "hy.tiktoken").write_bytes(source.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "HYTokenizer"}')
    ours, known = Tokenizer.from_directory(tmp_path), tokenizer_of("qwen3")
    for text in (*TEXTS, *MORE):
        if "<" not in text:
            assert ours.encode(text) == known.encode(text), text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("??? 256", "line 257 is '??? 256'; it needs a token in base64 and the rank 256"),
        ("YWI= 300", "the rank 256"),
        ("YWI=", "line 257 is 'YWI='"),
        ("YWI= -1", "the rank 256"),
        (" 256", "line 257 is ' 256'"),
    ],
)
def test_damage_is_named(tmp_path, line, problem):
    lines = [f"{b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)]
    (tmp_path / "hy.tiktoken").write_text("\n".join([*lines, line]))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "HYTokenizer"}')
    with pytest.raises(ModelError, match=r"hy\.tiktoken: ") as caught:
        Tokenizer.from_directory(tmp_path)
    assert problem in str(caught.value)


def test_what_lacks_a_byte_or_has_another_class(tmp_path, tokenizer_directory):
    lines = [f"{b64encode(bytes([byte])).decode()} {byte}" for byte in range(255)]
    (tmp_path / "tiktoken.model").write_text("\n".join(lines))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "TikTokenTokenizer"}')
    with pytest.raises(ModelError, match="has no token for the byte 255; each byte must be one"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Theirs"}')
    with pytest.raises(ModelError, match=r"tiktoken\.model: does not say how text is cut .* known are TikTokenTok"):
        Tokenizer.from_directory(tmp_path)
    listed = {"70000": {"content": "<far>", "special": True}}
    _write(
        tmp_path,
        tokenizer_directory("gpt2"),
        "tiktoken.model",
        tokenizer_class="TikTokenTokenizer",
        added_tokens_decoder=listed,
    )
    with pytest.raises(ModelError, match=r"names the id 70000, and tiktoken\.model has 4000 tokens; at most 65536 may"):
        Tokenizer.from_directory(tmp_path)


def test_a_token_that_is_there_twice_has_its_first_place(tmp_path):
    lines = [f"{b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)]
    lines += ["YWE= 256", "YWE= 257", "YWI= 258"]
    (tmp_path / "hy.tiktoken").write_text("\n".join(lines))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "HYTokenizer"}')
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert (tokenizer.encode("aa"), tokenizer.encode("ab"), tokenizer.encode("<|endoftext|>")) == ([256], [257], [258])
