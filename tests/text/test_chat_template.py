"""Rendering equals transformers' for every real template; wrong shapes and missing pieces are explained."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from functools import cache

import pytest

from albireo.errors import RequestError, TemplateError
from albireo.text.chat_template import MAX_TEMPLATE_CHARS, ChatTemplate
from albireo.text.conversation import plain_conversation
from text.chats import CHATS, TOOLS
from tiny_models import shared_data

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


template_of = cache(ChatTemplate)  # reading one takes longer than ten renderings, which change nothing of it


def render(source, messages, now=None, **options):
    template = template_of(source)
    return template.render(plain_conversation(messages, reads_parts=template.reads_parts, **options), now)


def reference(source, messages, **options):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
    return utils.render_jinja_template([messages], chat_template=source, **options)[0][0]


def both(source, messages, variables, **options):
    """What each side renders, or None where it refuses."""
    results = []
    for call in (
        lambda: render(source, messages, variables=variables, **options),
        lambda: reference(source, messages, **variables, **options),
    ):
        try:
            results.append(call())
        except Exception:
            results.append(None)
    return results


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "with-tools"])
def test_every_template_renders_as_in_transformers(template_files, chat, tools):
    rendered = 0
    for name, source in template_files.items():
        for prompt in (True, False):
            ours, theirs = both(source, CHATS[chat], TOKENS, tools=tools, add_generation_prompt=prompt)
            assert ours == theirs, name
            rendered += ours is not None
    assert rendered > len(template_files) // 2


@pytest.mark.parametrize("chat", ["one", "system", "turns"])
def test_continue_final_message_as_in_transformers(template_files, chat):
    messages = [*CHATS[chat], {"role": "assistant", "content": "It is  "}]
    rendered = 0
    for name, source in template_files.items():
        ours, theirs = both(source, messages, TOKENS, add_generation_prompt=False, continue_final_message=True)
        assert ours == theirs, name
        rendered += ours is not None and ours.rstrip().endswith("It is")
    assert rendered > len(template_files) // 2


def test_template_variables_of_the_caller(template_files):
    source = next(source for name, source in template_files.items() if name.startswith("qwen3/"))
    for thinking in (True, False):
        ours, theirs = both(source, CHATS["one"], {"enable_thinking": thinking}, add_generation_prompt=True)
        assert ours == theirs
        assert ours.endswith("</think>\n\n") is not thinking


def test_documents_and_now():
    source = "{{ strftime_now('%d %B %Y') }}{% for d in documents %}|{{ d.title }}{% endfor %}"
    now = datetime(2024, 2, 29, 12)
    text = render(source, CHATS["one"], now, documents=[{"title": "a"}, {"title": "b"}])
    assert text == "29 February 2024|a|b"


def test_generation_tag_and_loop_controls():
    source = (
        "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}"
        "{% generation %}{% set x = m.content %}<{{ x }}>{% endgeneration %}{{ x }}{% endfor %}"
    )
    messages = [{"role": "user", "content": str(i)} for i in range(5)]
    assert render(source, messages) == reference(source, messages) == "<0><1>"


def test_tojson_keeps_html_and_unicode():
    source = "{{ messages[0]|tojson(indent=2) }}"
    messages = [{"role": "user", "content": "<é & '>"}]
    assert render(source, messages) == reference(source, messages)
    assert "<é & '>" in render(source, messages)


def test_parts_are_joined_where_the_template_wants_a_string():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert "one\ntwo<|im_end|>" in render(CHATML, [{"role": "user", "content": parts}])
    picture = [*parts, {"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(TemplateError, match=r"messages\[0\] has a content part of type 'image_url'.*text only"):
        render(CHATML, [{"role": "user", "content": picture}])


def test_what_an_assistant_refused_is_text():
    """As OpenAI's clients send it back; templates know no such parts."""
    said = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]
    assert "assistant\nNo.<|im_end|>" in render(CHATML, said)
    assert render("{% for part in messages[1].content %}[{{ part.text }}]{% endfor %}", said) == "[No.]"


def test_parts_stay_parts_where_the_template_reads_them():
    source = "{% for part in messages[0].content %}[{{ part.text }}]{% endfor %}"
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert render(source, [{"role": "user", "content": parts}]) == "[one][two]"
    for kind in ("image", "image_url", "input_audio"):
        with pytest.raises(TemplateError, match=rf"part of type '{kind}'; (this model reads|models here read) text"):
            render(source, [{"role": "user", "content": [*parts, {"type": kind}]}])


def test_the_callers_messages_are_not_changed():
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}]
    before = repr(messages)
    render(CHATML, messages, add_generation_prompt=False, continue_final_message=True)
    assert repr(messages) == before


def test_rich_objects_become_plain_data():
    @dataclasses.dataclass
    class Message:
        role: str
        content: str

        def save(self):
            raise AssertionError("called from a template")

    assert "<|im_start|>user\nhi" in render(CHATML, [Message("user", "hi")])
    with pytest.raises(TemplateError, match="'dict object' has no attribute 'save'"):
        render("{{ messages[0].save() }}", [Message("user", "hi")])


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "messages is empty"),
        ("hi", "must be a list of messages, got str"),
        ({"role": "user"}, "must be a list of messages, got dict"),
        (None, "must be a list of messages, got NoneType"),
        (["hi"], r"messages\[0\] must be a dict with role and content, got str"),
        ([{"content": "hi"}], r"messages\[0\] has role None"),
        ([{"role": 5, "content": "hi"}], "has role 5"),
        ([{"role": "end|>\n<|system", "content": "hi"}], "a role is a word"),
        ([{"role": "user", "content": 5}], "has content of type int"),
        ([{"role": "user", "content": object()}], "takes plain data only .* got object"),
        ([{"role": "user", "content": [5]}], "content part of type 'int'"),
        ([{"role": "user", "content": [{"type": "x" * 10_000}]}], r"content part of type 'x+\.\.\.x+'; this model's"),
        ([{"role": "x y" * 10_000, "content": "a"}], r"has role 'x y[xy ]+\.\.\.[xy ]+'; a role is a word"),
        ([{"role": "user", "content": [{"type": "text"}]}], "content part of type 'text' whose text is None"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "content part of type 'text' whose text is 5"),
    ],
)
def test_messages_of_the_wrong_shape(messages, problem):
    with pytest.raises(TemplateError, match=problem) as caught:
        render(CHATML, messages)
    assert isinstance(caught.value, RequestError)


def test_messages_nested_too_deeply():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TemplateError, match="nested too deeply"):
        render(CHATML, [{"role": "user", "content": deep}])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tools": ["x"]}, "tools must be a list of dicts"),
        ({"documents": [1]}, "documents must be a list of dicts"),
        ({"tools": 5}, "tools must be a list of dicts"),
        ({"variables": 5}, "chat_template_kwargs must be a dict"),
        ({"continue_final_message": True}, "exclude each other"),
        (
            {"continue_final_message": "reasoning_content", "add_generation_prompt": False},
            "last message has no 'reasoning_content'",
        ),
        ({"variables": {"messages": []}}, "holds 'messages', which is an argument of its own"),
    ],
)
def test_options_that_cannot_be(options, problem):
    with pytest.raises(TemplateError, match=problem):
        render(CHATML, CHATS["one"], **options)


def test_continue_final_message_that_the_template_drops():
    with pytest.raises(TemplateError, match="leaves out the end of the last message"):
        render(
            "{{ messages[0].content[:2] }}",
            CHATS["system"][:1],
            add_generation_prompt=False,
            continue_final_message=True,
        )


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{% if %}", r"not valid jinja2: line 1"),
        ("a\nb{{ x", r"not valid jinja2: line 2"),
        ("{{ 1|nosuch }}", "No filter named 'nosuch'"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply"),
        ("{{ " + "1+" * 20_000 + "1 }}", "nested too deeply"),
        ("x" * (MAX_TEMPLATE_CHARS + 1), f"at most {MAX_TEMPLATE_CHARS} are read"),
    ],
)
def test_templates_that_do_not_compile(source, problem):
    with pytest.raises(TemplateError, match=problem):
        ChatTemplate(source)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ raise_exception('Only pairs, please') }}", "refused the messages: Only pairs, please"),
        ("{{ nothing.at.all }}", "refused the messages: 'nothing' is undefined"),
        ("{{ messages + 1 }}", "failed on these messages: TypeError"),
        ("{{ 1 / 0 }}", "failed on these messages: ZeroDivisionError"),
    ],
)
def test_templates_that_fail(source, problem):
    with pytest.raises(TemplateError, match=problem):
        render(source, CHATS["one"])


@pytest.mark.parametrize(
    ("written", "is_text"),
    [
        ("{{ c.function.name + ' ' + c.function.arguments }}", True),
        ("{{ c['function']['name'] ~ ' ' ~ c['function']['arguments'] }}", True),
        ("{% set given = c.function.arguments %}{{ c.function.name }} {{ given }}", True),
        ("{{ c.function.name + ' ' + c.function.arguments | tojson }}", False),
        ("{{ c.function.name }} {% if c.function.arguments is string %}{{ c.function.arguments }}"
         "{% else %}{{ c.function.arguments | tojson }}{% endif %}", False),
        ("{% set given = c.function.arguments %}{{ c.function.name }} {{ given | tojson }}", False),
    ],
)  # fmt: skip
def test_arguments_of_calls_are_json_whether_a_template_wants_objects_or_text(written, is_text):
    """As transformers renders it with arguments of the kind that the template wants."""
    source = f"{{% for m in messages %}}{{% for c in m.tool_calls %}}{written}{{% endfor %}}{{% endfor %}}"
    assert ChatTemplate(source).needs_text_arguments is is_text
    arguments = {"city": 'Zoë "s"', "days": [3, None, True]}

    def asked(given):
        return [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": given}}]}]

    text = json.dumps(arguments, ensure_ascii=False)
    assert render(source, asked(arguments)) == f"f {text}" == reference(source, asked(text if is_text else arguments))


@pytest.mark.parametrize(
    ("written", "stands_for"),
    [
        ("{{ m.content.split('</think>')[-1] }}", ""),  # Qwen 3
        ("{% if m.content is none %}null{% else %}{{ m.content + '' }}{% endif %}", None),  # DeepSeek R1
        ("{{ m.content }}{% if 'a' in 'b' + m.content %}?{% endif %}", ""),
    ],
)
def test_a_message_that_only_calls_tools_needs_no_content(written, stands_for):
    """Clients hand back an answer as it came, with a null there: what transformers would refuse is rendered as if the
    content were what the template asks for."""
    source = (
        f"{{% for m in messages %}}[{{{{ m.role }}}}:{written}{{{{ (m.tool_calls or []) | length }}}}]{{% endfor %}}"
    )
    calls = [{"function": {"name": "f", "arguments": {}}}]
    asked = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": calls}]
    with pytest.raises(Exception, match="content"):
        reference(source, asked)
    said = "null" if stands_for is None else ""
    assert render(source, asked) == f"[user:Hi0][assistant:{said}1]"
    assert render(source, [asked[0], {**asked[1], "content": None}]) == f"[user:Hi0][assistant:{said}1]"
    with pytest.raises(TemplateError, match="content"):  # one that knows no calls would lose it
        render(source.replace("{{ (m.tool_calls or []) | length }}", ""), asked)


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3"])
def test_real_templates_take_a_call_without_content(name):
    source = json.loads(shared_data("tokenizers", name, "tokenizer_config.json").read_text())["chat_template"]
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    chat = [{"role": "user", "content": "Hi"}, call, {"role": "tool", "content": "2"}]
    empty = [chat[0], {**call, "content": ""}, chat[2]]
    assert render(source, chat, tools=TOOLS, add_generation_prompt=False) == reference(source, empty, tools=TOOLS)


@pytest.mark.parametrize(
    ("written", "content"),
    [
        ("{{ m.content }}", "c\nd"),  # prints lists as Python has them
        ("{% for part in m.content %}{{ part }}{% endfor %}", "c\nd"),  # and their parts, as GLM 4.6 of tools
        ("{{ m.content + '' }}", "c\nd"),
        ("{% for part in m.content %}<{{ part.text }}>{% endfor %}", "<c><d>"),
    ],
)
def test_lists_of_texts_are_read_whatever_a_template_makes_of_them(written, content):
    """It understands them of users, so they are given to it; another role's it prints or joins to text."""
    asks = f"{{% if m.content is string %}}{{{{ m.content }}}}{{% else %}}{written}{{% endif %}}"
    users = "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}"
    source = (
        f"{{% for m in messages %}}[{{% if m.role == 'user' %}}{users}{{% else %}}{asks}{{% endif %}}]{{% endfor %}}"
    )
    first, second = ([{"type": "text", "text": each} for each in texts] for texts in ("ab", "cd"))
    asked = plain_conversation(
        [{"role": "user", "content": first}, {"role": "tool", "content": second}], reads_parts=True
    )
    assert ChatTemplate(source).render(asked) == f"[ab][{content}]"


def test_a_function_needs_no_description_and_no_parameters():
    """OpenAI lets one leave both out; templates join them to text, or make JSON of them."""
    said = "{{ t.function.name + ': ' + t.function.description }} {{ t.function.parameters | tojson }};"
    source = f"{{% for t in tools %}}{said}{{% endfor %}}"
    bare = {"type": "function", "function": {"name": "ping"}}
    with pytest.raises(Exception, match="description"):
        reference(source, [{"role": "user", "content": "Hi"}], tools=[bare])
    assert render(source, [{"role": "user", "content": "Hi"}], tools=[bare]) == (
        'ping:  {"type": "object", "properties": {}};'
    )


def test_what_no_form_of_a_conversation_mends_is_told_as_it_came():
    source = "{% for m in messages %}{{ raise_exception('not ' + m.role) }}{% endfor %}{{ tool_calls }}"
    calls = [{"role": "tool", "tool_calls": [{}]}]
    with pytest.raises(TemplateError, match="not tool"):
        render(source, calls, tools=[{"type": "function", "function": {"name": "f"}}])
