"""Prompts of one text and of two, whole and cut, equal transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from albireo.errors import InvalidParams, PromptTooLong, UnsupportedFeature
from albireo.text.encoded import Cut, Encoded
from albireo.text.tokenizer import Tokenizer
from tiny_tokenizers import bert_tokenizer, roberta_tokenizer

MADE = {"bert": bert_tokenizer, "roberta": roberta_tokenizer}
TEXTS = ["The cats sat on a mat.", "a DOG ran", "Café, the mat [SEP] xyz", "cat", "the " * 20]


@pytest.fixture(scope="module", params=MADE)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """Ours, and the one of transformers whose files it read."""
    theirs, folder = MADE[request.param](), tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    return Tokenizer.from_directory(folder), theirs


def reference(theirs: Any, *texts: str, **options: Any) -> Encoded:
    made = theirs(*texts, return_token_type_ids=True, **options)
    types = made["token_type_ids"]
    assert types == sorted(types)
    return Encoded(made["input_ids"], types.index(1) if 1 in types else -1)


def test_they_load_without_a_chat_template_bos_or_eos(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    assert ours.chat_templates == {} and ours.vocab_size == len(theirs)
    assert ours.bos_token == theirs.bos_token and ours.pad_token_id == theirs.pad_token_id
    assert ours.special_ids == set(theirs.all_special_ids)
    for text in TEXTS:
        assert ours.encode(text) == ours.encode_prompt(text).ids == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text), skip_special_tokens=True)


def test_a_pair_is_that_of_transformers(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    for first in [*TEXTS, ""]:
        for second in TEXTS:  # transformers takes "" for none
            assert ours.encode_prompt(first, second) == reference(theirs, first, second)
            bare = ours.encode_prompt(first, second, add_special_tokens=False)
            assert bare.ids == reference(theirs, first, second, add_special_tokens=False).ids


def test_the_end_is_cut_and_what_is_round_it_stays(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    whole = theirs.encode(TEXTS[0])
    for most in range(3, len(whole) + 3):
        cut = ours.encode_prompt(TEXTS[0], cut=Cut(most))
        assert cut == reference(theirs, TEXTS[0], truncation=True, max_length=most)
        assert len(cut.ids) == min(most, len(whole)) and cut.type_start == -1
        bare = ours.encode_prompt(TEXTS[0], cut=Cut(most), add_special_tokens=False)
        assert bare == reference(theirs, TEXTS[0], truncation=True, max_length=most, add_special_tokens=False)


def test_or_the_start_is_cut(pair: tuple[Tokenizer, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair
    monkeypatch.setattr(theirs, "truncation_side", "left")
    for most in range(3, len(theirs.encode(TEXTS[0])) + 3):
        cut = ours.encode_prompt(TEXTS[0], cut=Cut(most, from_start=True))
        assert cut == reference(theirs, TEXTS[0], truncation=True, max_length=most)


def test_of_a_pair_the_second_is_cut(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    first, second = "The cat", TEXTS[0]
    whole = len(theirs.encode(first, second))
    least = theirs.num_special_tokens_to_add(pair=True) + len(theirs.encode(first, add_special_tokens=False)) + 1
    for most in range(least, whole + 2):
        cut = ours.encode_prompt(first, second, cut=Cut(most))
        assert cut == reference(theirs, first, second, truncation="only_second", max_length=most)
        assert len(cut.ids) == min(most, whole)


def test_each_text_has_a_limit_of_its_own(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    texts = TEXTS[0], "a dog ran , the cat sat"
    first, second = (theirs.encode(text, add_special_tokens=False) for text in texts)
    for most in (1, 3, 100):
        short = theirs.decode(first[:most]), theirs.decode(second[:most])
        assert ours.encode_prompt(*texts, cut=Cut(first=most)) == reference(theirs, short[0], texts[1])
        assert ours.encode_prompt(*texts, cut=Cut(second=most)) == reference(theirs, texts[0], short[1])
        assert ours.encode_prompt(*texts, cut=Cut(first=most, second=most)) == reference(theirs, *short)
        assert ours.encode_prompt(texts[0], cut=Cut(first=most)) == reference(theirs, short[0])
    both = ours.encode_prompt(*texts, cut=Cut(all=9, first=2, second=5))
    assert both.ids == ours.encode_prompt(theirs.decode(first[:2]), texts[1], cut=Cut(9)).ids and len(both.ids) == 9


def test_what_cannot_be_cut_is_refused_with_the_numbers(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    specials = theirs.num_special_tokens_to_add()
    with pytest.raises(PromptTooLong, match=rf"round a text are {specials}, and {specials} .* keep {specials + 1} or"):
        ours.encode_prompt("the cat", cut=Cut(specials))
    first = theirs.num_special_tokens_to_add(pair=True) + len(theirs.encode("the cat", add_special_tokens=False))
    words = rf"the first text .* are {first}, and {first} may be kept.* keep {first + 1} or more, or shorten the first"
    with pytest.raises(PromptTooLong, match=words):
        ours.encode_prompt("the cat", "a dog", cut=Cut(first))
    assert ours.encode_prompt("the cat", "a dog", cut=Cut(first + 1)).ids


@pytest.mark.parametrize(("texts", "words"), [(("\ud800",), "half"), (("a", "\ud800"), "half"), (("a", 3), "got int")])
def test_what_is_no_text_is_refused(pair: tuple[Tokenizer, Any], texts: tuple[Any, ...], words: str) -> None:
    with pytest.raises(InvalidParams, match=words):
        pair[0].encode_prompt(*texts)


def test_a_bos_of_ours_counts(tmp_path: Path) -> None:
    """A tokenizer without a post-processor whose config wants BOS."""
    theirs = bert_tokenizer()
    theirs.backend_tokenizer.post_processor = None
    theirs.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "[CLS]", "add_bos_token": true}')
    ours = Tokenizer.from_directory(tmp_path)
    bos, the, cat, sat = (theirs.convert_tokens_to_ids(name) for name in ("[CLS]", "the", "cat", "sat"))
    assert ours.encode_prompt("the cat sat", cut=Cut(3)) == Encoded([bos, the, cat])
    assert ours.encode_prompt("the cat", "sat cat", cut=Cut(4)) == Encoded([bos, the, cat, sat], 3)
    with pytest.raises(PromptTooLong, match="round a text are 1, and 1"):
        ours.encode_prompt("the", cut=Cut(1))


def test_types_in_another_order_are_refused(tmp_path: Path) -> None:
    import tokenizers

    theirs = bert_tokenizer()
    theirs.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A", pair="$A:1 [SEP]:0 $B:0", special_tokens=[("[SEP]", 3)]
    )
    theirs.save_pretrained(tmp_path)
    ours = Tokenizer.from_directory(tmp_path)
    assert len(ours.encode_prompt("the cat").ids) == 2
    with pytest.raises(UnsupportedFeature, match=r"types \[0, 1\]"):
        ours.encode_prompt("the", "cat")
