"""A SentencePiece model file gives the ids of the sentencepiece library, and round them what its class puts there."""

from __future__ import annotations

import io
import json
import shutil
from functools import cache

import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.text.detokenizer import IncrementalDetokenizer
from albireo.text.tokenizer import Tokenizer
from text.texts import TEXTS

#: Blanks, what is written otherwise by rules, and pieces of users.
MORE = ("a  b   c", " lead", "trail ", "\n\n a\n\tb", "▁under", "ﬁ １２ é", "aa" * 40, "hi<x>there <x> a    b the")
LINES = [line for text in (*TEXTS, *MORE) for line in text.split("\n")] + ["the quick brown fox jumps over the dog"] * 5

IDENTITY = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
USERS = {"user_defined_symbols": ["<x>", "▁▁", "▁▁▁▁", "the"]}
FILES = {
    "as Llama's": {"model_type": "bpe", "byte_fallback": True, **IDENTITY},
    "with rules": {"model_type": "bpe", "byte_fallback": True},
    "without a space before": {"model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False, **IDENTITY},
    "pieces of users": {"model_type": "bpe", "byte_fallback": True, **IDENTITY, **USERS},
    "bpe without bytes": {"model_type": "bpe", **USERS},
    "unigram": {"model_type": "unigram", "vocab_size": 300},
    "unigram with bytes": {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "nfkc_cf"},
}


@cache
def _trained(name: str) -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece")
    options = {"vocab_size": 500, "character_coverage": 0.98, "hard_vocab_limit": False} | FILES[name]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=written, minloglevel=2, num_threads=1, **options
    )
    return written.getvalue()


def _write(directory, name="as Llama's", file="tokenizer.model", **config):
    (directory / file).write_bytes(_trained(name))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def _reference(directory, file="tokenizer.model"):
    sentencepiece = pytest.importorskip("sentencepiece")
    return sentencepiece.SentencePieceProcessor(str(directory / file))


@pytest.mark.parametrize("name", FILES)
def test_ids_are_those_of_sentencepiece(tmp_path, name):
    tokenizer = Tokenizer.from_directory(_write(tmp_path, name, tokenizer_class="Theirs", add_bos_token=False))
    reference = _reference(tmp_path)
    for text in (*TEXTS, *MORE):
        if any(special in text for special in ("<s>", "<unk>")):
            continue  # special tokens here, text there
        if name.startswith("unigram") and "aaaa" in text:
            continue  # cuts that are as likely as one another
        ids = tokenizer.encode(text)
        assert ids == reference.encode(text), text
        if 0 not in ids and name != "unigram with bytes":  # sentencepiece writes unknown pieces as ⁇
            assert tokenizer.decode(ids) == reference.decode(ids), text
        stream = IncrementalDetokenizer(tokenizer)
        assert "".join(stream.push([token_id]) for token_id in ids) + stream.flush() == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["mistral-v1", "mistral-v3"])
def test_a_published_file_is_the_tokenizer_json_beside_it(tmp_path, tokenizer_directory, tokenizer_of, name):
    known = tokenizer_of(name)
    for file in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(tokenizer_directory(name) / file, tmp_path)
    ours = Tokenizer.from_directory(tmp_path)
    reference = _reference(tmp_path)
    for text in (*TEXTS, *MORE):
        ids = ours.encode(text)
        assert ids == known.encode(text), text
        if not any(special in text for special in ("<s>", "<unk>", "[INST]")):
            assert ids == [1, *reference.encode(text)], text
        for skip in (True, False):
            assert ours.decode(ids, skip) == known.decode(ids, skip)
    assert (ours.vocabulary(), ours.special_ids) == (known.vocabulary(), known.special_ids)
    assert (ours.named_tokens, ours.chat_templates) == (known.named_tokens, known.chat_templates)


def test_a_long_run_of_blanks_costs_what_it_is_long(tmp_path):
    """Of what takes runs together; half an hour, where it costs its square."""
    tokenizer = Tokenizer.from_directory(_write(tmp_path, "with rules", tokenizer_class="T", add_bos_token=False))
    for text in ("a%sb", "%sb", "b%s"):
        assert tokenizer.encode(text % (" " * 800_000)) == _reference(tmp_path).encode(text % " "), text


def test_what_a_byte_is_called_is_text(tmp_path):
    """A line of it alone, too, where pieces of users are found first."""
    FILES["as Gemma's"] = {**FILES["pieces of users"], "add_dummy_prefix": False, "user_defined_symbols": ["\n", "<x>"]}
    tokenizer = Tokenizer.from_directory(_write(tmp_path, "as Gemma's", tokenizer_class="T", add_bos_token=False))
    for text in ("<0x0A>", "a\n<0x0A>\nb", "<x><0x41>", "<0x41><0x41>"):
        assert tokenizer.encode(text) == _reference(tmp_path).encode(text), text
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_bos_by_class_and_by_config(tmp_path):
    for config, expected in (
        ({"tokenizer_class": "LlamaTokenizer"}, [1]),
        ({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False}, []),
        ({"tokenizer_class": "Theirs", "add_bos_token": True, "bos_token": {"content": "<s>"}}, [1]),
        ({"tokenizer_class": "InternLM3Tokenizer", "add_bos_token": True}, [1]),
        ({"tokenizer_class": "Ernie4_5_VLTokenizer"}, []),
    ):
        tokenizer = Tokenizer.from_directory(_write(tmp_path, **config))
        assert tokenizer.encode("fox") == [*expected, *tokenizer.encode("fox", add_special_tokens=False)]
    with pytest.raises(ModelError, match=r"tokenizer_class='Theirs' .* set add_bos_token to true or false there"):
        Tokenizer.from_directory(_write(tmp_path, tokenizer_class="Theirs"))
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert Tokenizer.from_directory(tmp_path).encode("fox")[0] == 1


def test_where_a_space_is_put(tmp_path):
    """Before each text between special tokens, unless "legacy" is false, as transformers reads it."""
    transformers = pytest.importorskip("transformers")
    first = Tokenizer.from_directory(_write(tmp_path, tokenizer_class="LlamaTokenizer", legacy=False))
    theirs = transformers.LlamaTokenizer.from_pretrained(tmp_path, legacy=False)
    text = "fox</s>dog"
    assert first.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)
    each = Tokenizer.from_directory(_write(tmp_path, tokenizer_class="LlamaTokenizer"))
    dog = _reference(tmp_path).encode("dog")
    assert each.encode(text)[-len(dog) - 1 :] == [2, *dog] and first.encode(text)[-len(dog) - 1 :] != [2, *dog]
    none = Tokenizer.from_directory(_write(tmp_path, tokenizer_class="LlamaTokenizer", add_prefix_space=False))
    assert none.decode(none.encode("dog")) == "dog" and len(none.encode(" dog")) == len(each.encode("dog"))


def test_tokens_that_the_config_adds_or_names_otherwise(tmp_path):
    reference = _reference(_write(tmp_path))
    size = reference.get_piece_size()
    listed = {
        str(size): {"content": "<|end|>", "special": True},
        str(size + 1): {"content": "<|tool|>", "special": False},
        "20": {"content": "<|start|>", "special": True},
    }
    tokenizer = Tokenizer.from_directory(
        _write(tmp_path, tokenizer_class="LlamaTokenizer", added_tokens_decoder=listed, pad_token="<|end|>")
    )
    assert tokenizer.encode("<|start|>fox<|end|><|tool|>") == [1, 20, *reference.encode("fox"), size, size + 1]
    assert tokenizer.pad_token_id == size and tokenizer.special_ids == {0, 1, 2, 20, size}
    # as older models have it
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "<|end|>"}')
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|tool|>": size + 1, "<|end|>": size}))
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert tokenizer.encode("<|end|><|tool|>") == [1, size, size + 1] and tokenizer.special_ids == {0, 1, 2, size}
    (tmp_path / "added_tokens.json").write_text('{"<|tool|>": "7"}')
    with pytest.raises(ModelError, match=r"added_tokens\.json: '<\|tool\|>' has the id '7'"):
        Tokenizer.from_directory(tmp_path)


ENCODERS = {
    "T5Tokenizer": ("spiece.model", {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}),
    "XLMRobertaTokenizer": ("sentencepiece.bpe.model", {}),
    "DebertaV2Tokenizer": (
        "spm.model",
        {"control_symbols": ["[CLS]", "[SEP]"], "unk_piece": "[UNK]", "pad_piece": "[PAD]", "pad_id": 3},
    ),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_as_the_classes_of_transformers_read_them(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    file, options = ENCODERS[name]
    FILES[name] = {"model_type": "unigram", "vocab_size": 300, **options}
    ours = Tokenizer.from_directory(_write(tmp_path, name, file, tokenizer_class=name))
    theirs = getattr(transformers, name).from_pretrained(tmp_path)
    if name == "XLMRobertaTokenizer":
        # its slow form, of which models were trained: four tokens in front of the file's pieces from the third on
        pieces = _reference(tmp_path, file).encode("fox")
        assert ours.encode("fox") == [0, *(piece + 1 for piece in pieces), 2]
        assert ours.token_to_id("<mask>") == _reference(tmp_path, file).get_piece_size() + 1
        assert ours.encode_prompt("fox", "dog").ids == [*ours.encode("fox"), 2, *ours.encode("dog")[1:]]
        return
    for text in (*TEXTS, *MORE):
        if not any(
            special in text for special in ("<s>", "<unk>", "\ufb01", "１", "\u2122", "\u0301", "\ufffd", "▁", "\t")
        ):
            assert ours.encode(text) == theirs.encode(text), text
    pair, found = theirs.backend_tokenizer.encode("fox", "dog"), ours.encode_prompt("fox", "dog")
    assert found.ids == pair.ids and found.type_start == (pair.type_ids.index(1) if 1 in pair.type_ids else -1)


@pytest.mark.parametrize("count", [0, 3, 120])
def test_as_many_sentinels_as_the_config_says(tmp_path, count):
    transformers = pytest.importorskip("transformers")
    file, options = ENCODERS["T5Tokenizer"]
    FILES["T5Tokenizer"] = {"model_type": "unigram", "vocab_size": 300, **options}
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": count}
    ours = Tokenizer.from_directory(_write(tmp_path, "T5Tokenizer", file, **config))
    theirs = transformers.T5Tokenizer.from_pretrained(tmp_path)
    size = _reference(tmp_path, file).get_piece_size()
    assert ours.vocab_size == size + count
    for text in ("<extra_id_0>", "<extra_id_2>fox<extra_id_1>", "<extra_id_119>", "<extra_id_99>"):
        if int(text.split("_")[2].partition(">")[0]) < count:
            assert ours.encode(text) == theirs.encode(text), text
        else:
            assert max(ours.encode(text)) < size + count
    for bad in (-1, True, 2**20, "3"):
        _write(tmp_path, "T5Tokenizer", file, **(config | {"extra_ids": bad}))
        with pytest.raises(ModelError, match=r"tokenizer_config\.json: extra_ids=.* must be 0 to 65536"):
            Tokenizer.from_directory(tmp_path)


def test_lower_case_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"do_lower_case and split_by_punct are not supported beside tokenizer\.model"):
        Tokenizer.from_directory(_write(tmp_path, tokenizer_class="LlamaTokenizer", do_lower_case=True))


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def _piece(text: bytes, kind: int = 1) -> bytes:
    return _field(1, _field(1, text) + bytes([3 << 3, kind]))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "holds 0 pieces for what is unknown"),
        (b"\x0a", "a number does not end inside of its message of 1 bytes"),
        (b"\x0a\x7fabc", "field 1 does not end inside of its message of 5 bytes"),
        (b"\x0a" + b"\xff" * 10, "a number does not end"),
        (b"\x0b", "field 1 does not end inside"),
        (b"\x08\x01", "it has the number 1 where bytes belong"),
        (_piece(b"a", 9), "piece 0 is 'a' with score 0.0, of kind 9"),
        (_piece(b""), "piece 0 is ''"),
        (_piece(b"\xff"), "codec can't decode"),
        (_piece(b"a", 2) + _piece(b"b") + _piece(b"b"), "holds the piece 'b' twice"),
        (_piece(b"a", 2) + _piece(b"b", 2), "holds 2 pieces for what is unknown"),
        (b"oid sha256\n", "does not end inside"),
    ],
)
def test_damage_is_named(tmp_path, data, problem):
    (tmp_path / "tokenizer.model").write_bytes(data)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(ModelError, match=r"tokenizer\.model: ") as caught:
        Tokenizer.from_directory(tmp_path)
    assert problem in str(caught.value)


def test_every_cut_of_a_file_is_an_error_or_a_tokenizer(tmp_path):
    data = _trained("as Llama's")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    for size in range(0, len(data), 97):
        (tmp_path / "tokenizer.model").write_bytes(data[:size])
        try:
            Tokenizer.from_directory(tmp_path)
        except ModelError as error:
            assert "tokenizer.model" in str(error)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"IQ== 0\nIg== 1\n", "is a list of tokens and ranks"),
        (_piece(b"a", 2) + _field(2, b"\x18\x03"), r"words or characters \(model_type 3\)"),
        (_piece(b"a", 2) + _field(2, b"\xc0\x01\x01"), "treat_whitespace_as_suffix"),
        (_piece(b"a", 2) + _field(3, b"\x28\x00"), "escape_whitespaces=false"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, data, problem):
    (tmp_path / "tokenizer.model").write_bytes(data)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(UnsupportedModel, match=problem):
        Tokenizer.from_directory(tmp_path)
