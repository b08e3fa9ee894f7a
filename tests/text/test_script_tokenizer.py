"""A tokenizer answers by the names that scripts know from transformers, and says the same."""

from __future__ import annotations

import pytest

from albireo.errors import TemplateError, UnsupportedFeature
from albireo.text.script_tokenizer import ScriptTokenizer
from text.chats import TOOLS

NAMES = ("qwen3", "mistral-v1", "story")
CHAT = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "one, two"}]


@pytest.mark.parametrize("name", NAMES)
def test_chats_are_written_as_transformers_writes_them(tokenizer_of, reference_of, name):
    ours, theirs = ScriptTokenizer(tokenizer_of(name)), reference_of(name)
    assert ours.chat_template == theirs.chat_template
    for options in (
        {},
        {"add_generation_prompt": True},
        {"continue_final_message": True},
        {"tools": TOOLS, "add_generation_prompt": True},
        {"add_generation_prompt": True, "enable_thinking": False},
    ):
        messages = CHAT if "continue_final_message" in options else CHAT[:1]
        written = ours.apply_chat_template(messages, tokenize=False, **options)
        assert written == theirs.apply_chat_template(messages, tokenize=False, **options)
        made, expected = ours.apply_chat_template(messages, **options), theirs.apply_chat_template(messages, **options)
        assert made == dict(expected) and made.input_ids == expected.input_ids
        assert made.attention_mask == expected.attention_mask
        assert ours.apply_chat_template(messages, return_dict=False, **options) == made["input_ids"]


@pytest.mark.parametrize("name", NAMES)
def test_texts_and_names_of_tokens(tokenizer_of, reference_of, name):
    ours, theirs = ScriptTokenizer(tokenizer_of(name)), reference_of(name)
    for text in ("Hello, world 日本", ["Hello", "a b"]):
        for special in (True, False):
            made, expected = ours(text, add_special_tokens=special), theirs(text, add_special_tokens=special)
            assert made == {key: expected[key] for key in ("input_ids", "attention_mask")}
    ids = ours("Hello, world 日本", padding=False, return_tensors=None, return_attention_mask=True).input_ids
    for text in ("Hello, world 日本", "a b"):
        assert ours.tokenize(text) == theirs.tokenize(text)
    assert ours.batch_decode([ids, ids[:3]]) == theirs.batch_decode([ids, ids[:3]], skip_special_tokens=True)
    names = ours.convert_ids_to_tokens(ids)
    assert names == theirs.convert_ids_to_tokens(ids) and ours.convert_tokens_to_ids(names) == ids
    assert ours.convert_ids_to_tokens(ids[0]) == names[0] and ours.convert_tokens_to_ids(names[0]) == ids[0]
    assert [ours.decode(token) for token in ids[2:]] == [theirs.decode(token) for token in ids[2:]]
    assert ours.convert_ids_to_tokens([-1, 10**6, 2**40]) == [None] * 3 and ours.convert_ids_to_tokens(-1) is None
    assert ours.get_vocab() == theirs.get_vocab() and len(ours) == len(theirs)
    assert set(theirs.all_special_ids) <= set(ours.all_special_ids)
    assert ours.all_special_tokens == ours.convert_ids_to_tokens(ours.all_special_ids)


def test_shapes_of_arrays_are_refused(tokenizer_of):
    ours = ScriptTokenizer(tokenizer_of("story"))
    for name, value in (("padding", True), ("return_tensors", "pt"), ("max_length", 3), ("text_pair", "b")):
        with pytest.raises(UnsupportedFeature, match=f"^{name}=.* is not supported; leave it out"):
            ours("a", **{name: value})
    with pytest.raises(TypeError, match="'paddings'"):
        ours("a", paddings=False)


def test_what_there_is_not(tokenizer_of):
    tokenizer = ScriptTokenizer(tokenizer_of("story"))
    with pytest.raises(UnsupportedFeature, match="return_tensors='pt' is not supported"):
        tokenizer.apply_chat_template(CHAT, return_tensors="pt")
    assert tokenizer.apply_chat_template(CHAT, padding=False, max_length=None) == tokenizer.apply_chat_template(CHAT)
    for kind in ("image", "audio", "video"):
        with pytest.raises(TemplateError, match=r"writes texts alone; use LLM\.chat\(\)"):
            tokenizer.apply_chat_template([{"role": "user", "content": [{"type": kind, kind: "a"}]}])
    with pytest.raises(TemplateError, match="messages"):
        tokenizer.apply_chat_template([])
