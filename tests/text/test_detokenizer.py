"""Text pushed out token by token is the text of the whole, and never ends inside a character."""

from __future__ import annotations

from functools import cache

import pytest
import tokenizers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from albireo.text.detokenizer import MAX_RUN, MAX_WAIT, IncrementalDetokenizer
from albireo.text.tokenizer import Tokenizer
from albireo.text.tokenizer_files import TokenizerFiles
from text.texts import TEXTS

REAL = ("gpt2", "qwen2.5", "mistral-v1", "phi-3-mini", "stories260k")
SLOW_FIXTURES = settings(
    max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def pushed(tokenizer, ids, **options):
    detokenizer = IncrementalDetokenizer(tokenizer, **options)
    return [detokenizer.push([token_id]) for token_id in ids] + [detokenizer.flush()]


def longest_run(tokenizer, ids):
    longest = run = 0
    for token_id in ids:
        piece = tokenizer.pieces.piece(token_id)
        if piece is not None:
            run = run + 1 if piece.is_byte else 0
        longest = max(longest, run)
    return longest


@pytest.mark.parametrize("name", REAL)
@given(
    text=st.one_of(
        st.text(), st.sampled_from(TEXTS), st.lists(st.sampled_from("🙂नमस्ते日本 \né<|>"), max_size=40).map("".join)
    )
)
@SLOW_FIXTURES
def test_text_comes_out_whole(tokenizer_of, name, text):
    tokenizer = tokenizer_of(name)
    ids = tokenizer.encode(text)
    for skip in (True, False):
        assert "".join(pushed(tokenizer, ids, skip_special_tokens=skip)) == tokenizer.decode(ids, skip)


@pytest.mark.parametrize("name", REAL)
@given(data=st.data())
@SLOW_FIXTURES
def test_random_ids_come_out_as_the_whole_decodes(tokenizer_of, name, data):
    tokenizer = tokenizer_of(name)
    some = st.integers(0, tokenizer.vocab_size + 3)
    ids = data.draw(st.lists(st.one_of(some, st.integers(0, 300)), max_size=40))
    skip = data.draw(st.booleans())
    assert longest_run(tokenizer, ids) <= MAX_RUN
    assert "".join(pushed(tokenizer, ids, skip_special_tokens=skip)) == tokenizer.decode(ids, skip)


@pytest.mark.parametrize("name", REAL)
@given(data=st.data())
@SLOW_FIXTURES
def test_cutting_the_tokens_otherwise_changes_nothing(tokenizer_of, name, data):
    tokenizer = tokenizer_of(name)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=4)))
    detokenizer = IncrementalDetokenizer(tokenizer)
    groups = [ids[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    out = "".join([detokenizer.push(group) for group in groups]) + detokenizer.flush()
    assert out == "".join(pushed(tokenizer, ids))


@pytest.mark.parametrize("name", REAL)
@given(text=st.text(alphabet="🙂नमस्ते日本é a"))
@SLOW_FIXTURES
def test_no_piece_ends_inside_a_character(tokenizer_of, name, text):
    tokenizer = tokenizer_of(name)
    parts = pushed(tokenizer, tokenizer.encode(text))
    assert "\ufffd" not in "".join(parts)


@pytest.mark.parametrize("name", REAL)
@given(prompt=st.sampled_from(TEXTS), text=st.sampled_from(TEXTS))
@SLOW_FIXTURES
def test_output_after_a_prompt_is_what_decoding_both_adds(tokenizer_of, name, prompt, text):
    tokenizer = tokenizer_of(name)
    before, after = tokenizer.encode(prompt), tokenizer.encode(text, add_special_tokens=False)
    whole, begin = tokenizer.decode(before + after), tokenizer.decode(before)
    out = "".join(pushed(tokenizer, after, prompt_token_ids=before))
    assert begin + out == whole


def test_the_space_that_a_sentence_begins_with(tokenizer_of):
    tokenizer = tokenizer_of("mistral-v1")
    hello = tokenizer.encode("Hello", add_special_tokens=False)
    assert pushed(tokenizer, hello)[0] == "Hello"
    assert pushed(tokenizer, hello, prompt_token_ids=[tokenizer.bos_token_id])[0] == "Hello"
    assert pushed(tokenizer, hello, prompt_token_ids=tokenizer.encode("Say"))[0] == " Hello"


def test_a_character_that_the_prompt_left_open(tokenizer_of):
    tokenizer = tokenizer_of("gpt2")
    ids = tokenizer.encode("🙂")
    assert len(ids) > 1
    assert "".join(pushed(tokenizer, ids[1:], prompt_token_ids=ids[:1])) == "🙂"


def test_what_the_prompt_s_end_has_of_a_character_is_the_prompt_s(tokenizer_of):
    """Of the bytes before, only so many are looked at, which begin inside a character, with any byte of one."""
    tokenizer = tokenizer_of("stories260k")
    byte = {tokenizer.pieces.piece(i).data: i for i in range(tokenizer.vocab_size) if tokenizer.pieces.piece(i).is_byte}
    for character, num, left in (("\u6000", 4, 2), ("\u0400", 5, 1), ("\U00010000", 3, 2)):
        ids = [byte[bytes([each])] for each in (character * num).encode()]
        assert "".join(pushed(tokenizer, ids[-left:], prompt_token_ids=ids[:-left])) == character


def test_special_tokens_are_left_out_or_shown(tokenizer_of):
    tokenizer = tokenizer_of("qwen2.5")
    ids = tokenizer.encode("<|im_start|>hi<|im_end|><tool_call>")
    assert "".join(pushed(tokenizer, ids)) == "hi<tool_call>"
    assert "".join(pushed(tokenizer, ids, skip_special_tokens=False)) == "<|im_start|>hi<|im_end|><tool_call>"


def test_characters_go_out_as_soon_as_they_are_complete(tokenizer_of):
    tokenizer = tokenizer_of("gpt2")
    ids = tokenizer.encode("a🙂b")
    parts = pushed(tokenizer, ids)
    assert parts == ["a", *[""] * (len(ids) - 3), "🙂", "b", ""]


def test_a_long_run_of_bytes_does_not_wait_for_its_end(tokenizer_of):
    tokenizer = tokenizer_of("stories260k")
    text = "日本語" * 40
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert longest_run(tokenizer, ids) > 2 * MAX_RUN
    parts = pushed(tokenizer, ids)
    assert "".join(parts) == text
    held = 0
    for token_id, part in zip(ids, parts, strict=False):
        held += len(tokenizer.pieces.piece(token_id).data) - len(part.encode())
        assert held <= MAX_RUN + 3


def test_a_run_cut_off_by_the_end(tokenizer_of):
    tokenizer = tokenizer_of("stories260k")
    ids = tokenizer.encode("é日", add_special_tokens=False)[:-1]
    assert "".join(pushed(tokenizer, ids)) == tokenizer.decode(ids)
    assert "\ufffd" in tokenizer.decode(ids)


# -- decoders that only the library knows ---------------------------------------------------------------------------


def _tokenizer(backend):
    files = TokenizerFiles(None, {}, (), (), None, {})
    return Tokenizer(backend, files)


@cache
def _metaspace():
    vocab = {"<unk>": 0, "▁": 1, "▁the": 2, "▁cat": 3, "s": 4, ".": 5, "é": 6}
    backend = tokenizers.Tokenizer(models.BPE(vocab, [], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return _tokenizer(backend)


@cache
def _words():
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "cat": 1, "sat": 2, "日本": 3}, unk_token="a"))
    backend.add_special_tokens(["<x>", "<y>"])
    return _tokenizer(backend)


@cache
def _word_pieces():
    backend = tokenizers.Tokenizer(models.WordPiece({"cat": 0, "##s": 1, "the": 2, "[UNK]": 3}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece(cleanup=False)
    return _tokenizer(backend)


@cache
def _bytes():
    """A token a byte, whose decoder is not one of those that are known."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip("|", 1, 0)])
    return _tokenizer(backend)


def test_other_decoders_wait_for_a_character_however_much_came_before():
    tokenizer, text = _bytes(), "abcdefghijkl 🙂 日本 mnopqrs é"
    assert tokenizer.pieces.kind == "whole"
    parts = pushed(tokenizer, tokenizer.encode(text))
    assert "".join(parts) == text and not any("\ufffd" in part for part in parts)
    assert parts[:3] == ["a", "b", "c"]


def test_other_decoders_do_not_wait_for_ever():
    """Of bytes that are no character, all at once when it is clear that they become none."""
    tokenizer = _bytes()
    (open_,) = tokenizer.encode("é")[-1:]
    parts = pushed(tokenizer, [open_] * (2 * MAX_WAIT))
    assert [len(part) for part in parts] == [*[0] * (MAX_WAIT - 1), MAX_WAIT] * 2 + [0]


@pytest.mark.parametrize("make", [_metaspace, _words, _word_pieces])
@given(ids=st.lists(st.integers(0, 5), max_size=60))
def test_other_decoders(make, ids):
    tokenizer = make()
    assert tokenizer.pieces.kind == "whole"
    assert "".join(pushed(tokenizer, ids)) == tokenizer.decode(ids)


def test_spaces_between_special_tokens():
    tokenizer = _words()
    ids = [0, 4, 5, 1, 2]
    assert tokenizer.decode(ids, skip_special_tokens=False) == "a <x> <y> cat sat"
    assert tokenizer.decode(ids, skip_special_tokens=False, spaces_between_special_tokens=False) == "a<x><y>cat sat"
    assert tokenizer.decode(ids, spaces_between_special_tokens=False) == "acat sat"
    assert "".join(pushed(tokenizer, ids, skip_special_tokens=False)) == "a <x> <y> cat sat"
    shown = pushed(tokenizer, ids, skip_special_tokens=False, spaces_between_special_tokens=False)
    assert "".join(shown) == "a<x><y>cat sat"


@example(count=0)
@given(count=st.integers(0, 50))
def test_work_a_token_does_not_grow(count):
    """The window that is decoded anew stays small, however long the sequence."""
    calls = []
    tokenizer = _words()
    detokenizer = IncrementalDetokenizer(tokenizer)
    decode = detokenizer._way._decode
    detokenizer._way._decode = lambda ids: calls.append(len(ids)) or decode(ids)
    detokenizer.push([1] * (100 + count))
    assert max(calls) <= 10
    assert len(calls) <= 2 * (100 + count)
