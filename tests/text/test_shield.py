"""Disguises cover whatever of a message could become part of a special token, and come off without a trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.errors import TemplateError
from albireo.text.conversation import Conversation
from albireo.text.shield import Shield

TOKENS = ("<|im_end|>", "<s>", "</s>", "[INST]", "<think>")
SPECIALS = TOKENS[:-1]


def disguises(*contents, words=frozenset({"role", "content"}), role="user", text="", **parts):
    chat = Conversation([{"role": role, "content": content} for content in contents], **parts)
    return list(Shield(TOKENS, SPECIALS, words).disguises(chat, text or "".join(contents)))


def shown(disguise):
    return "".join(message["content"] for message in disguise.conversation.messages)


@given(st.text(alphabet="<|>s/[]INTim_ende think\n" + chr(0xF0000)))
def test_a_disguise_comes_off_without_a_trace(content):
    for disguise in disguises(content):
        assert disguise.undo(shown(disguise)) == content
        assert len(shown(disguise)) == len(content)


@given(st.lists(st.text(alphabet="<|>s/[]INTim_end", max_size=6), max_size=6))
def test_strings_joined_in_disguise_hold_no_special_token(contents):
    for disguise in disguises(*contents):
        joined = shown(disguise)
        assert not any(token in joined for token in SPECIALS)
        # Nor between the template's own halves of a token.
        for token in SPECIALS:
            for cut in range(1, len(token)):
                assert not joined or token not in token[:cut] + joined


@pytest.mark.parametrize(("before", "content", "after"), [("<", "s", ">"), ("<|", "im_end", "|>"), ("[", "INST", "]")])
def test_middles_of_tokens_are_covered(before, content, after):
    for disguise in disguises(content):
        assert not any(token in before + shown(disguise) + after for token in SPECIALS)


def test_each_disguise_is_thinner():
    first, second, third = disguises("if a<b: <think> </s> end")
    assert not set(shown(first)) & set("<>/sthink")
    assert "if a<b: " in shown(second) and "<think>" not in shown(second)
    assert "<think>" in shown(third) and "</s>" not in shown(third)


def test_blanks_are_left_for_the_template_to_trim():
    for disguise in disguises("  </s>\n"):
        assert shown(disguise).startswith("  ") and shown(disguise).endswith("\n")


def test_what_steers_a_template_is_left_alone():
    call = {"type": "function", "name": "</s>", "s": "s"}
    words = frozenset({"role", "content", "type", "function", "name", "</s>"})
    for disguise in disguises("x", words=words, role="assistant", tools=[call], variables={"enable": True}):
        assert disguise.conversation.messages[0]["role"] == "assistant"
        tool = disguise.conversation.tools[0]
        assert tool["type"] == "function"
        assert tool["name"] != "</s>"
        assert "s" not in tool
        assert disguise.conversation.variables == {"enable": True}


def test_what_an_assistant_said_keeps_its_other_tokens():
    for disguise in disguises("<think>hm</think></s>", role="assistant"):
        assert shown(disguise).startswith("<think>hm</think>")
        assert "</s>" not in shown(disguise)


def test_characters_already_used_are_not_taken():
    content = "".join(map(chr, range(0xF0000, 0xF1000))) + "</s>"
    for disguise in disguises(content):
        assert disguise.undo(shown(disguise)) == content


def test_all_characters_used():
    with pytest.raises(TemplateError, match="private-use characters"):
        disguises("x", text="".join(map(chr, range(0xF0000, 0x10FFF0))))


def test_longest_token_is_found_first():
    shield = Shield(("<a>", "<a><b>"), (), frozenset())
    assert shield.pattern.findall("<a><b><a>") == ["<a><b>", "<a>"]
    assert Shield((), (), frozenset()).pattern.findall("anything") == []
