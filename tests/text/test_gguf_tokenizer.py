"""Tokenizers out of GGUF settings against the tokenizers they were converted from."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from albireo.errors import ModelError, UnsupportedModel
from albireo.text.gguf_tokenizer import gguf_tokenizer
from albireo.text.tokenizer import Tokenizer
from real_tokenizers import tokenizer_in
from text.gguf_settings import byte_level_settings, sentence_piece_settings
from text.texts import TEXTS
from tiny_models import shared_data

#: Of Qwen 3, whose vocabulary is that of Qwen 2.5 and four more added tokens, a thorough run makes sure.
LIKE_ANOTHER = pytest.param("qwen3", marks=pytest.mark.thorough)
BYTE_LEVEL = {"qwen2.5": "qwen2", "qwen3": "qwen2", "gpt2": "gpt-2", "phi-2": "phi-2", "falcon": "falcon"}


def settings_of(name: str) -> dict[str, Any]:
    directory = shared_data("tokenizers", name)
    return (
        byte_level_settings(directory, BYTE_LEVEL[name]) if name in BYTE_LEVEL else sentence_piece_settings(directory)
    )


@cache
def converted(name: str) -> Tokenizer:
    return gguf_tokenizer(settings_of(name), "m.gguf")


@pytest.mark.parametrize("name", [*sorted(set(BYTE_LEVEL) - {"qwen3"}), LIKE_ANOTHER, "mistral-v1", "mistral-v3"])
def test_it_is_the_tokenizer_it_was_converted_from(name: str) -> None:
    ours, wanted = converted(name), tokenizer_in(shared_data("tokenizers", name))
    assert ours.vocab_size == wanted.vocab_size
    for text in TEXTS:
        assert ours.encode(text) == wanted.encode(text), text
        ids = wanted.encode(text)
        assert ours.decode(ids) == wanted.decode(ids), text
        assert ours.token_strings(ids) == wanted.token_strings(ids)
    assert ours.eos_token_id == wanted.eos_token_id
    assert ours.special_ids >= {i for i in wanted.special_ids if wanted.id_to_token(i) != "<unk>"}
    assert ours.pieces.kind == wanted.pieces.kind
    if "default" in wanted.chat_templates:
        assert ours.chat_templates == {"default": wanted.chat_templates["default"]}


@pytest.mark.parametrize("name", ["qwen2.5", "mistral-v1"])
def test_it_is_the_same_written_as_files(name: str, tmp_path: Path) -> None:
    ours = converted(name)
    for file, data in ours.to_files().items():
        (tmp_path / file).write_bytes(data)
    again = Tokenizer.from_directory(tmp_path)
    for text in TEXTS:
        assert again.encode(text) == ours.encode(text)
        assert again.decode(ours.encode(text)) == ours.decode(ours.encode(text))
    for part in ("special_ids", "chat_templates", "named_tokens", "vocab_size"):
        assert getattr(again, part) == getattr(ours, part)


#: Capitals, suffixes, digits, marks, Chinese, signs before line ends: where vocabularies differ. Bars part words.
TEXT = "HTTPServer isn't 12345 e\u0301te\u0301 été你好 a//b!\n\n  x"
WORDS = {
    "gpt-2 phi-2 olmo mpt exaone4 a.x-4.0 mellum trillion jais": (
        "HTTPServer| isn|'t| 12345| e|\u0301|te|\u0301| été你好| a|//|b|!|\n\n | x"
    ),
    "llama-bpe lfm2 pixtral glm4 glm5 falcon-h1 midm-2.0 minicpm5 jais-2": (
        "HTTPServer| isn|'t| |123|45| e|\u0301te|\u0301| été你好| a|//|b|!\n\n| | x"
    ),
    "qwen2 stablelm2 f2llmv2 kormo hunyuan solar-open grok-2": (
        "HTTPServer| isn|'t| |1|2|3|4|5| e|\u0301te|\u0301| été你好| a|//|b|!\n\n| | x"
    ),
    "qwen35 tekken": "HTTPServer| isn|'t| |1|2|3|4|5| e\u0301te\u0301| été你好| a|//|b|!\n\n| | x",
    "gpt-4o minimax-m2 talkie": "HTTPServer| isn't| |123|45| e\u0301te\u0301| été你好| a|//|b|!\n\n| | x",
    "kimi-k2": "HTTPServer| isn't| |123|45| e\u0301te\u0301| été|你好| a|//|b|!\n\n| | x",
    "seed-coder": "HTTPServer| isn|'t| |1|2|3|4|5| e|\u0301te|\u0301| été你好| a|//|b|!|\n\n| | x",
    "deepseek-v3 hunyuan-dense hy_v4 joyai-llm": (
        "HTTPServer| isn|'t| |123|45| e\u0301te\u0301| été|你好| a|//|b|!\n\n| | x"
    ),
    # whose signs include letters without accents
    "deepseek-llm": "HTTPServer| isn|'|t| |12345| e|\u0301|te|\u0301| é|t|é|你好| a|//|b|!|\n|\n| | x",
    "deepseek-coder": "HTTPServer| isn|'|t| |1|2|3|4|5| e|\u0301|te|\u0301| été|你好| a|//|b|!|\n|\n| | x",
    "starcoder refact smollm command-r minerva-7b mellum2": (
        "HTTPServer| isn|'t| |1|2|3|4|5| e|\u0301|te|\u0301| été你好| a|//|b|!|\n\n | x"
    ),
}


#: Where vocabularies with words of their own differ from others.
OWN_TEXT = "HTTPServer isn't a cat 1234567\n\n é\u0301!\n\n你好。한국어x    y"
OWN_WORDS = {
    "bailingmoe bailingmoe2 llada-moe": (
        "HTTPServer| isn|'t| a| cat| |1|2|3|4|5|6|7|\n\n| é|\u0301!\n\n|你好|。한국어x|   | y"
    ),
    "exaone-moe": "HTTPServer isn|'t| a cat| |1|2|3|4|5|6|7|\n\n| é\u0301|!\n|\n|你好|。한국어x|   | y",
    "laguna": "HTTPServer| isn|'t| a| cat| |1|2|3|4|5|6|7|\n\n| é|\u0301!|\n\n|你好|。한국어x|   | y",
    "jais-2": "HTTPServer| isn|'t| a| cat| |123|456|7|\n\n| é|\u0301!\n\n|你好|。한국어x|  | | y",
    "bloom poro-chat gpt3-finnish": "HTTPServer| isn't| a| cat| 1234567|\n\n| é\u0301|!\n\n|你好|。|한국어x|   | y",
    "viking": "HTTPServer| isn't| a| cat| |1|2|3|4|5|6|7|\n\n| é\u0301|!\n\n|你好|。|한국어x|   | y",
    "youtu": "HTTPServer| isn't| a| cat| |1|2|3|4|5|6|7|\n\n| é\u0301|!\n\n|你好|。|한국어|x|   | y",
    "afmoe": "HTTPServer| isn|'t| a| cat| |1|234|567|\n\n| é\u0301|!\n\n|你好|。|한국어|x|   | y",
    "spark2_5": "HTTPServer| isn|'t| a| cat| |1|2|3|4|5|6|7|\n|\n| é\u0301|!|\n|\n|你好|。|한국어x|   | y",
    "tiny_aya cohere2moe": "HTTPServer| isn't| a| cat| |1|234|567|\n\n| é\u0301|!\n\n|你好|。한국어x|   | y",
    "minicpm5": "HTTPServer| isn|'t| a| cat| |123|456|7|\n\n| é|\u0301!\n\n|你好|。한국어x|   | y",
}


@pytest.mark.parametrize("names", OWN_WORDS)
def test_words_of_vocabularies_unlike_others(names: str) -> None:
    for pre in names.split():
        assert words_of(pre, OWN_TEXT) == OWN_WORDS[names].split("|"), pre


def words_of(pre: str, text: str) -> list[str]:
    data = gguf_tokenizer(small(pre=pre), "m.gguf").to_files()["tokenizer.json"]
    backend = tokenizers.Tokenizer.from_buffer(data)
    return [text[start:end] for _, (start, end) in backend.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize("names", WORDS)
def test_words_of_each_vocabulary(names: str) -> None:
    for pre in names.split():
        assert words_of(pre, TEXT) == WORDS[names].split("|"), pre


def test_words_of_o200k() -> None:
    """gpt-oss's: capitals begin a word or are one; suffixes belong to it; three digits; slashes go with signs."""
    text = "HTTPServer isn't iPhone's 12345 a//b\n\n  été ÉTÉ x"
    wanted = "HTTPServer| isn't| i|Phone's| |123|45| a|//|b|\n\n| | été| ÉTÉ| x"
    assert words_of("gpt-4o", text) == wanted.split("|")


@pytest.mark.parametrize(
    ("pre", "module", "name"),
    [("qwen35", "qwen3_5", "Qwen3_5Tokenizer"), ("command-r", "cohere", "CohereTokenizer")],
)
def test_it_is_the_tokenizer_of_the_class_in_transformers(pre: str, module: str, name: str) -> None:
    """On the vocabulary of another model: composed first, in these words."""
    pytest.importorskip("transformers")
    theirs = getattr(importlib.import_module(f"transformers.models.{module}.tokenization_{module}"), name)
    settings = byte_level_settings(shared_data("tokenizers", "qwen3"), pre)
    normal = settings["tokenizer.ggml.token_type"] == 1
    tokens = [t for t, is_normal in zip(settings["tokenizer.ggml.tokens"], normal, strict=True) if is_normal]
    merges = settings["tokenizer.ggml.merges"]
    wanted = theirs(vocab={t: i for i, t in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in merges])
    changed = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": np.ones(len(tokens), np.int32)}
    ours = gguf_tokenizer({**settings, **changed, "tokenizer.ggml.eos_token_id": 0}, "m.gguf")
    for text in TEXTS:
        if "<" not in text:  # names of tokens, which the class adds
            assert ours.encode(text) == wanted(text, add_special_tokens=False)["input_ids"], text


def test_merges_of_gemma_4() -> None:
    """SentencePiece's pieces by a list of merges, with no space before the text, against the class in transformers."""
    theirs = pytest.importorskip("transformers").GemmaTokenizer
    settings = pieces(model="gemma4", merges=["a b", "▁ a", "▁ ab"], scores=...)
    tokens = settings["tokenizer.ggml.tokens"]
    vocab, merges = {t: i for i, t in enumerate(tokens)}, [("a", "b"), ("▁", "a"), ("▁", "ab")]
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "mask_token": "<unk>"}
    ours, wanted = gguf_tokenizer(settings, "m"), theirs(vocab=vocab, merges=merges, **names)
    for text in ("ab", "ab ab", " a  b\nabé", "x"):
        assert ours.encode(text) == [1, *wanted(text, add_special_tokens=False)["input_ids"]], text
        assert ours.decode(ours.encode(text)[1:]) == text


def test_bos_where_the_file_does_not_say() -> None:
    assert gguf_tokenizer(small(pre="lfm2", add_bos_token=...), "m").encode("ab") == [3, 2]
    assert gguf_tokenizer(small(pre="glm4", add_bos_token=...), "m").encode("ab") == [2]


def small(**changes: Any) -> dict[str, Any]:
    """Six tokens; ... takes a key away."""
    settings = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": ["a", "b", "ab", "<s>", "</s>", "<user>"],
        "token_type": np.array([1, 1, 1, 3, 3, 4], np.int32),
        "merges": ["a b"],
        "bos_token_id": 3,
        "eos_token_id": 4,
        "add_bos_token": True,
    } | changes
    return {f"tokenizer.ggml.{key}": value for key, value in settings.items() if value is not ...}


def test_special_tokens_and_bos() -> None:
    tokenizer = gguf_tokenizer(small(), "m.gguf")
    assert tokenizer.encode("abba<user>") == [3, 2, 1, 0, 5]
    assert tokenizer.encode("ab</s>", add_special_tokens=False) == [2, 4]
    assert tokenizer.special_ids == {3, 4}
    assert tokenizer.plain_encoder(["<s>", "</s>"]).encode("<user>") == [5]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", None)
    assert gguf_tokenizer(small(add_bos_token=False), "m.gguf").encode("ab") == [2]


def test_templates_by_name() -> None:
    templates = {"tokenizer.chat_template": "A", "tokenizer.chat_template.tool_use": "B"}
    tokenizer = gguf_tokenizer(small() | templates | {"tokenizer.chat_templates": ["tool_use"]}, "m.gguf")
    assert tokenizer.chat_templates == {"default": "A", "tool_use": "B"}


def pieces(**changes: Any) -> dict[str, Any]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "b", "▁a", "ab", "▁ab"]
    types = [2, 3, 3] + [6] * 256 + [1] * 6
    scores = [0.0] * 259 + [-9.0, -9, -9, -2, -1, -3]
    settings = {"model": "llama", "tokens": tokens, "token_type": np.array(types), "scores": np.array(scores)}
    settings |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "merges": ..., "pre": ...}
    return small(**(settings | {"add_bos_token": ...} | changes))


def test_scores_decide_which_pair_is_merged() -> None:
    """Of "▁ab", where it is no token itself: ▁ with ab, or ▁a with b."""
    tokens = [*pieces()["tokenizer.ggml.tokens"][:-1], "x"]
    assert gguf_tokenizer(pieces(tokens=tokens), "m").encode("ab") == [1, 259, 263]
    other = np.array([0.0] * 259 + [-9.0, -9, -9, -1, -2, -3])
    assert gguf_tokenizer(pieces(tokens=tokens, scores=other), "m").encode("ab") == [1, 262, 261]
    assert gguf_tokenizer(pieces(), "m").encode("abb") == [1, 264, 261]


def test_bytes_for_what_is_no_token() -> None:
    tokenizer = gguf_tokenizer(pieces(), "m")
    assert tokenizer.encode("é") == [1, 259, 3 + 0xC3, 3 + 0xA9]
    assert tokenizer.decode([3 + 0xC3, 3 + 0xA9]) == "é"


def test_no_space_before_the_text_when_it_says_so() -> None:
    tokenizer = gguf_tokenizer(pieces(add_space_prefix=False), "m")
    assert tokenizer.encode("ab ab") == [1, 263, 264]
    assert tokenizer.decode([263, 264]) == "ab ab"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"model": "rwkv"},
            UnsupportedModel,
            "model='rwkv' is not supported; supported: gpt2, llama, bert, t5, gemma4; or name a dir",
        ),
        ({"model": ...}, ModelError, "model is missing"),
        ({"model": 3}, ModelError, "model=3 must be of type str"),
        (
            {"pre": "chameleon"},
            UnsupportedModel,
            "pre='chameleon' is not supported; supported: gpt-2.*or name a directory",
        ),
        ({"pre": ...}, UnsupportedModel, "pre='default' is not supported"),
        ({"tokens": ...}, ModelError, "tokens must be an array of strings"),
        ({"tokens": np.arange(6)}, ModelError, "tokens.*must be of type list"),
        ({"tokens": ["a"] * 6}, ModelError, "names 5 tokens twice"),
        ({"token_type": np.array([1])}, ModelError, "token_type must be an array of 6 numbers"),
        ({"token_type": ...}, ModelError, "token_type must be an array of 6 numbers"),
        ({"merges": ...}, ModelError, "merges must be an array of strings"),
        ({"merges": ["ab"]}, ModelError, "merges holds 'ab', which is no pair"),
        ({"merges": ["a z"]}, ModelError, "not usable"),
        ({"bos_token_id": 6}, ModelError, "bos_token_id=6 is none of 6 tokens"),
        ({"bos_token_id": -1}, ModelError, "bos_token_id=-1 is none of 6 tokens"),
        ({"bos_token_id": "<s>"}, ModelError, "bos_token_id='<s>' must be of type int"),
        ({"add_bos_token": 1}, ModelError, "add_bos_token=1 must be of type bool"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], error: type[ModelError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        gguf_tokenizer(small(**changes), "m.gguf")
    assert str(caught.value).startswith("m.gguf: ")


def test_tokens_too_long_for_a_vocabulary() -> None:
    tokens = [f"{i}" + "x" * 20000 for i in range(3)] + ["<s>", "</s>", "c"]
    scores = np.zeros(6)
    with pytest.raises(ModelError, match="too long for a vocabulary"):
        gguf_tokenizer(small(model="llama", tokens=tokens, scores=scores), "m.gguf")


def test_an_unset_role_is_none() -> None:
    assert gguf_tokenizer(small(padding_token_id=2**32 - 1), "m").pad_token is None


@pytest.mark.parametrize(
    ("changes", "ends"),
    [
        ({"add_eos_token": True, "qwen3.pooling_type": 3}, True),
        ({"add_eos_token": False, "qwen3.pooling_type": 3}, False),
        ({"add_eos_token": True, "qwen3.pooling_type": 0}, False),
        ({"add_eos_token": True}, False),
        ({"add_eos_token": True, "qwen3.attention.causal": False}, True),
        ({"add_eos_token": True, "qwen3.attention.causal": True}, False),
    ],
)
def test_texts_of_a_model_that_embeds_end(changes: dict[str, Any], ends: bool) -> None:
    """Its embedding is that of the token that ends them; what any other writes goes on."""
    settings = small(**{key: value for key, value in changes.items() if "." not in key})
    settings |= {"general.architecture": "qwen3", **{key: value for key, value in changes.items() if "." in key}}
    assert gguf_tokenizer(settings, "m").encode("ab") == ([3, 2, 4] if ends else [3, 2])
