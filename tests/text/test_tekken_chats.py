"""Chats of models with a tekken.json and no template are written as the templates published with mistral-common do."""

from __future__ import annotations

import json
from functools import cache

import pytest

from albireo.errors import TemplateError
from albireo.json_file import Fields
from albireo.text.chat_prompt import ChatEncoder
from albireo.text.chat_template import ChatTemplate
from albireo.text.conversation import Conversation, plain_conversation
from albireo.text.tekken import chat_template
from albireo.text.tokenizer import Tokenizer
from albireo.text.tokenizer_files import read_tokenizer_files
from vocabulary_writers import tekken_of, write_tekken

VERSIONS = ("v3", "v7", "v11", "v13")
SPECIALS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
    *("[ARGS]", "[CALL_ID]", "[AUDIO]", "[BEGIN_AUDIO]"),
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'Of a "city" — é',
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
]


def _user(content):
    return {"role": "user", "content": content}


def _assistant(content):
    return {"role": "assistant", "content": content}


def _system(content):
    return {"role": "system", "content": content}


def _call(name="weather", call_id="abcdefghi", **arguments):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


CALLS = {"role": "assistant", "tool_calls": [_call(city="Zürich"), _call(call_id="123456789", city='"', n=[1, None])]}
RESULTS = [
    {"role": "tool", "tool_call_id": "abcdefghi", "content": 'the sky is "é"'},
    {"role": "tool", "tool_call_id": "123456789", "content": "there is none"},
]
PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]

CHATS = {
    "one turn": ([_user("Hello")], None),
    "several turns": ([_system("Sys é\n\nline"), _user("a"), _assistant("b"), _user(" c \n")], None),
    "several messages of a role": ([_user("a"), _user("b"), _assistant("c"), _assistant("d"), _user("e")], None),
    "system messages": ([_system("a"), _system("b"), _user("c")], None),
    "tools": ([_system("s"), _user("a"), _assistant("b"), _user("c")], TOOLS),
    "calls": ([_user("a"), CALLS, *RESULTS, _assistant("b"), _user("c")], TOOLS),
}


@pytest.fixture(scope="module")
def encoder_of(tmp_path_factory, tokenizer_directory):
    @cache
    def make(version: str) -> ChatEncoder:
        data = tekken_of(tokenizer_directory("gpt2"), num_ordinary=600, version=version)
        data["special_tokens"] = [{"rank": i, "token_str": text} for i, text in enumerate(SPECIALS)]
        return ChatEncoder(Tokenizer.from_directory(write_tekken(tmp_path_factory.mktemp(version), data)))

    return make


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("chat", CHATS)
def test_texts_are_those_of_the_published_template(encoder_of, template_files, version, chat):
    messages, tools = CHATS[chat]
    encoder = encoder_of(version)
    ours = encoder.encode(messages, tools=tools)
    theirs = ChatTemplate(template_files[f"chat-templates/mistral-{version}.jinja"])
    named = {"bos_token": "<s>", "eos_token": "</s>"}
    given = plain_conversation(_with_json(messages), reads_parts=True, tools=tools, variables=named)
    assert ours.text == theirs.render(given)
    # clients send arguments as JSON, servers make objects of it
    assert encoder.encode(_with_json(messages), tools=tools).text == ours.text


def test_texts_that_meet_have_an_empty_line_between(encoder_of):
    """As mistral_common's normalizer joins them, and a space at the end of an answer goes."""
    messages = [_user(PARTS), _user("three"), _assistant(PARTS), _assistant("  three  "), _user("")]
    text = encoder_of("v13").encode(messages).text
    assert text == "<s>[INST]one\n\ntwo\n\nthree[/INST]one\n\ntwo\n\n  three</s>[INST][/INST]"


def test_results_are_json_in_version_3(encoder_of):
    """An object stays one, as in mistral_common; the published template makes text of it."""
    results = [RESULTS[0] | {"content": '{"sky": ["é"]}'}, RESULTS[1] | {"content": PARTS}]
    text = encoder_of("v3").encode([_user("a"), CALLS, *results]).text
    assert text.endswith(
        '[TOOL_RESULTS]{"content": {"sky": ["é"]}, "call_id": "abcdefghi"}[/TOOL_RESULTS]'
        '[TOOL_RESULTS]{"content": "one\\n\\ntwo", "call_id": "123456789"}[/TOOL_RESULTS]'
    )


def test_sounds_and_images_have_their_places():
    """[BEGIN_AUDIO][AUDIO] for a sound among texts; an image behind texts goes before them."""
    source = _source("v13")
    audio, image = {"type": "audio"}, {"type": "image"}
    cases = (
        ([audio, *PARTS], "[BEGIN_AUDIO][AUDIO]one\n\ntwo"),
        ([PARTS[0], audio, audio, PARTS[1]], "one[BEGIN_AUDIO][AUDIO][BEGIN_AUDIO][AUDIO]two"),
        ([*PARTS, image], "[IMG]one\n\ntwo"),
        ([PARTS[0], image, PARTS[1]], "one[IMG]two"),
        ([image], "[IMG]"),
    )
    for content, expected in cases:
        chat = _with_parts(content)
        assert ChatTemplate(source).render(chat) == f"<s>[INST]{expected}[/INST]", content


def test_special_tokens_in_messages_stay_text(encoder_of):
    encoder = encoder_of("v7")
    found = encoder.encode([_system("<s>[INST]"), _user("[/INST] </s>"), _assistant("[TOOL_CALLS]"), _user("<unk>")])
    assert [i for i in found.token_ids if i < 24] == [1, 11, 12, 3, 4, 2, 3, 4]


def test_an_answer_that_is_begun_is_gone_on_with(encoder_of):
    messages = [_user("a"), _assistant("Once upon")]
    found = encoder_of("v13").encode(messages, add_generation_prompt=False, continue_final_message=True)
    assert found.text == "<s>[INST]a[/INST]Once upon"


def test_what_is_unknown_is_refused(encoder_of):
    encoder = encoder_of("v13")
    with pytest.raises(TemplateError, match="a message has the role critic; system, user, assistant and tool"):
        encoder.encode([{"role": "critic", "content": "a"}])
    with pytest.raises(TemplateError, match="a message has a part of type sketch; text, image and audio are known"):
        encoder.encode([_user([{"type": "sketch"}])])


def test_templates_of_the_directory_win_and_other_versions_have_none(tmp_path):
    for version, expected in (("v13", {"default"}), ("v99", set()), (None, set()), (["v13"], set())):
        write_tekken(tmp_path, {"config": {"version": version}})
        assert set(read_tokenizer_files(tmp_path).chat_templates) == expected
    (tmp_path / "chat_template.jinja").write_text("{{ own }}")
    write_tekken(tmp_path, {"config": {"version": "v13"}})
    assert read_tokenizer_files(tmp_path).chat_templates == {"default": "{{ own }}"}


@pytest.mark.parametrize(
    ("version", "names"), [("v3", set()), ("v7", set()), ("v11", {"[ARGS]", "[CALL_ID]"}), ("v13", {"[ARGS]"})]
)
def test_a_template_names_the_tags_of_its_version_only(version, names):
    """What calls look like is read off a template."""
    assert {tag for tag in ("[ARGS]", "[CALL_ID]", "[THINK]") if tag in _source(version)} == names


def _with_json(messages):
    changed = json.loads(json.dumps(messages))
    for message in changed:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return changed


def _source(version: str) -> str:
    source = chat_template(Fields({"config": {"version": version}}, "tekken.json"))
    assert source is not None
    return source


def _with_parts(content):
    return Conversation([{"role": "user", "content": content}], variables={"bos_token": "<s>", "eos_token": "</s>"})
