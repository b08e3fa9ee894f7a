"""Chats become the ids transformers gives them; special-token text inside messages never becomes a special id."""

from __future__ import annotations

import dataclasses
from functools import cache
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albireo.errors import TemplateError
from albireo.text.chat_prompt import MAX_COMPILED, ChatEncoder
from albireo.text.tokenizer import Tokenizer
from text.chats import CHATS, HOSTILE, TOOLS

NAMES = ("qwen2.5", "qwen3", "mistral-v1", "mistral-v3", "phi-3-mini")


@pytest.fixture(scope="module")
def encoder_of(tokenizer_of):
    return cache(lambda name: ChatEncoder(tokenizer_of(name)))


def specials(tokenizer, ids):
    return [token_id for token_id in ids if token_id in tokenizer.special_ids]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "with-tools"])
def test_ordinary_chats_have_the_ids_of_transformers(encoder_of, reference_of, name, chat, tools):
    try:
        expected = reference_of(name).apply_chat_template(
            CHATS[chat], tools=tools, add_generation_prompt=True, tokenize=True
        )["input_ids"]
    except Exception as error:
        with pytest.raises(TemplateError):
            encoder_of(name).encode(CHATS[chat], tools=tools)
        assert error
        return
    assert encoder_of(name).encode(CHATS[chat], tools=tools).token_ids == expected


@pytest.mark.parametrize("name", NAMES)
def test_continued_messages_have_the_ids_of_transformers(encoder_of, reference_of, name):
    messages = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "one, two"}]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    expected = reference_of(name).apply_chat_template(messages, tokenize=True, **options)["input_ids"]
    assert encoder_of(name).encode(messages, **options).token_ids == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_yields_no_special_id(encoder_of, tokenizer_of, name, text):
    tokenizer, encoder = tokenizer_of(name), encoder_of(name)
    harmless = encoder.encode([{"role": "user", "content": "x"}])
    prompt = encoder.encode([{"role": "user", "content": text}])
    assert specials(tokenizer, prompt.token_ids) == specials(tokenizer, harmless.token_ids)
    assert text.strip() in prompt.text
    # Phi-3 has tokens that take the blanks after them along.
    assert "".join(text.split()) in "".join(tokenizer.decode(prompt.token_ids, skip_special_tokens=False).split())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_every_other_place(encoder_of, tokenizer_of, name, text):
    tokenizer, encoder = tokenizer_of(name), encoder_of(name)

    def chat(word):
        call = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": {word: word}}}
        tool = {"type": "function", "function": {"name": word, "description": word, "parameters": {word: word}}}
        messages = [
            {"role": "system", "content": word},
            {"role": "user", "content": word},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "abcdefghi", "name": word, "content": word},
            {"role": "assistant", "content": word},
            {"role": "user", "content": word},
        ]
        return messages, [tool]

    for with_tools in (False, True):
        ids = []
        for word in ("x", text):
            messages, tools = chat(word)
            if name in ("phi-3-mini", "mistral-v1"):
                # These templates know no tools.
                messages = [message for message in messages if not {"tool_calls", "tool_call_id"} & set(message)]
            ids.append(encoder.encode(messages, tools=tools if with_tools else None).token_ids)
        assert specials(tokenizer, ids[0]) == specials(tokenizer, ids[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", range(1, 10))
def test_tokens_cut_in_parts_do_not_grow_together(encoder_of, tokenizer_of, name, cut):
    tokenizer, encoder = tokenizer_of(name), encoder_of(name)
    # A template that joins parts without anything between them, as some do.
    template = (
        "{{ bos_token }}{% for m in messages %}{% for p in m.content %}{{ p.text|trim }}{% endfor %}{% endfor %}"
        "{{ eos_token }}"
    )
    for text in HOSTILE:
        parts = [text[:cut], text[cut : cut + 2] + " ", "\n" + text[cut + 2 :]]
        content = [{"type": "text", "text": part} for part in parts]
        prompt = encoder.encode([{"role": "user", "content": content}], chat_template=template)
        own = [tokenizer.bos_token_id, tokenizer.eos_token_id]
        assert specials(tokenizer, prompt.token_ids) == [i for i in own if i in tokenizer.special_ids]


_WORDS = """<|im_end|> <|im_ end|> <| |> < > </s> </ s s> <s> [INST] [IN ST] [ ] <think> </think> <tool_call> user x é
<|endoftext|> \U000f0000 \U0010fff1"""
_PIECES = st.sampled_from([*_WORDS.split(), "\n", " "])
_TEXT = st.lists(_PIECES, max_size=6).map("".join)


@settings(max_examples=60)
@given(texts=st.lists(_TEXT, min_size=3, max_size=3), name=st.sampled_from(NAMES))
def test_no_text_yields_special_ids(encoder_of, tokenizer_of, texts, name):
    tokenizer, encoder = tokenizer_of(name), encoder_of(name)
    # All chats have this shape, so all have the same special tokens.
    ids = []
    for words in (["x", "y", "z"], texts):
        messages = [
            {"role": role, "content": f".{word}."}
            for role, word in zip(("user", "assistant", "user"), words, strict=True)
        ]
        ids.append(specials(tokenizer, encoder.encode(messages).token_ids))
    assert ids[0] == ids[1]


def test_tokens_that_the_template_builds_from_the_role_are_tokens(encoder_of, tokenizer_of):
    template = (
        "{% for m in messages %}{{ '<|im_' + m.kind + '|>' }}{{ '<|' + m.role + '|>' }}{{ m.content }}{% endfor %}"
    )
    tokenizer = tokenizer_of("phi-3-mini")
    prompt = encoder_of("phi-3-mini").encode(
        [{"role": "user", "kind": "x", "content": "<|end|>"}], chat_template=template
    )
    assert specials(tokenizer, prompt.token_ids) == [tokenizer.token_to_id("<|user|>")]


def test_tags_built_from_the_callers_words_are_text(encoder_of, tokenizer_of):
    # As Qwen3-Coder's template does with the keys of tool parameters.
    template = "{% for key in tools[0] %}{{ '<' ~ key ~ '>' }}{% endfor %}{{ '</' ~ messages[0].content ~ '>' }}"
    tokenizer = tokenizer_of("mistral-v3")
    prompt = encoder_of("mistral-v3").encode(
        [{"role": "user", "content": "s"}], tools=[{"s": 1, "unk": 2}], chat_template=template
    )
    assert prompt.text == "<s><unk></s>"
    assert specials(tokenizer, prompt.token_ids) == []


def test_templates_that_change_the_text_stay_sound(encoder_of, tokenizer_of):
    tokenizer, encoder = tokenizer_of("qwen2.5"), encoder_of("qwen2.5")
    content = "a <|im_end|> b"
    for source, text in (
        ("{{ messages[0].content|upper }}<|im_end|>", "A <|IM_END|> B<|im_end|>"),
        ("{{ messages[0].content|replace('_', '') }}<|im_end|>", "a <|imend|> b<|im_end|>"),
        ("{{ messages[0].content|tojson(ensure_ascii=true) }}<|im_end|>", '"a <|im_end|> b"<|im_end|>'),
        ("{{ messages[0].content.replace('X', '') }}<|im_end|>", "a <|im_end|> b<|im_end|>"),
    ):
        try:
            prompt = encoder.encode([{"role": "user", "content": content}], chat_template=source)
        except TemplateError as error:
            assert "take it out of the messages" in str(error)  # refused rather than guessed
        else:
            assert prompt.text == text
            assert specials(tokenizer, prompt.token_ids) == [tokenizer.eos_token_id]


def test_text_that_the_template_puts_together_is_text(encoder_of, tokenizer_of):
    source = "{{ messages[0].content.replace('X', '') }}<|im_end|>"
    prompt = encoder_of("qwen2.5").encode([{"role": "user", "content": "<|imX_end|>"}], chat_template=source)
    assert prompt.text == "<|im_end|><|im_end|>"
    assert specials(tokenizer_of("qwen2.5"), prompt.token_ids) == [151645]


def test_a_template_that_searches_special_text_is_refused_not_guessed(encoder_of):
    source = "{{ messages[0].content.split('<|im_end|>')[0] }}<|im_end|>"
    with pytest.raises(TemplateError, match="take it out of the messages"):
        encoder_of("qwen2.5").encode([{"role": "user", "content": "a<|im_end|>b"}], chat_template=source)
    assert encoder_of("qwen2.5").encode([{"role": "user", "content": "a"}], chat_template=source).text == "a<|im_end|>"


def test_a_template_that_rewrites_special_text_is_refused_not_guessed(encoder_of):
    # Mistral's template escapes the name of a called function as HTML does.
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "f</s>", "arguments": {}}}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]
    with pytest.raises(TemplateError, match="take it out of the messages"):
        encoder_of("mistral-v3").encode(messages)


def test_thinking_of_an_assistant_stays_what_it_was(encoder_of, reference_of):
    messages = [
        {"role": "user", "content": "hi <|im_end|>"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nhello"},
        {"role": "user", "content": "<tool_response>\nx\n</tool_response>"},
    ]
    ids = encoder_of("qwen3").encode(messages).token_ids
    # The model's own <think>, and the caller's <tool_response>, which the template looks for and takes for its own.
    assert 151667 in ids and 151668 in ids
    assert ids.count(151645) == 3


def test_private_use_characters_survive(encoder_of, tokenizer_of):
    content = "".join(map(chr, range(0xF0000, 0xF0400))) + "<|im_end|>"
    prompt = encoder_of("qwen2.5").encode([{"role": "user", "content": content}])
    assert content in tokenizer_of("qwen2.5").decode(prompt.token_ids, skip_special_tokens=False)


def test_bundled_model_tells_a_story_in_turns(encoder_of):
    prompt = encoder_of("story").encode([{"role": "user", "content": "Once upon a time"}])
    assert prompt.text == "<|endoftext|>Once upon a time"
    assert prompt.token_ids[0] == 0 and prompt.token_ids.count(0) == 1


# -- which template -----------------------------------------------------------------------------------------------


def _with_templates(tokenizer: Tokenizer, templates: dict[str, str]) -> ChatEncoder:
    parts = ("named_tokens", "special_ids", "encode", "plain_encoder", "added_tokens", "sorts_tools")
    return ChatEncoder(SimpleNamespace(chat_templates=templates, **{name: getattr(tokenizer, name) for name in parts}))


def test_which_template_is_taken(tokenizer_of):
    chat = [{"role": "user", "content": "x"}]
    encoder = _with_templates(tokenizer_of("story"), {"default": "D", "tool_use": "T", "rag": "R"})
    assert encoder.encode(chat).text == "D"
    assert encoder.encode(chat, tools=TOOLS).text == "T"
    assert encoder.encode(chat, chat_template="rag").text == "R"
    assert encoder.encode(chat, chat_template="{{ messages[0].content }}").text == "x"
    with pytest.raises(
        TemplateError, match=r"neither the name of one of the model's templates \(default, rag, tool_use"
    ):
        encoder.encode(chat, chat_template="other")
    with pytest.raises(TemplateError, match="pass one of these names as chat_template: a, b"):
        _with_templates(tokenizer_of("story"), {"a": "A", "b": "B"}).encode(chat)


def test_no_template_says_what_to_do(encoder_of):
    with pytest.raises(TemplateError, match=r"no chat template .* Pass a jinja2 template .* or use generate\(\)"):
        encoder_of("gpt2").encode([{"role": "user", "content": "hi"}])


def test_templates_are_compiled_once_and_few_are_kept(tokenizer_of):
    encoder = ChatEncoder(tokenizer_of("story"))
    chat = [{"role": "user", "content": "x"}]
    encoder.encode(chat)
    first = dict(encoder._prepared)
    encoder.encode(chat)
    assert all(encoder._prepared[source] is prepared for source, prepared in first.items())
    for index in range(3 * MAX_COMPILED):
        assert encoder.encode(chat, chat_template=f"{{{{ {index} }}}}").text == str(index)
    assert len(encoder._prepared) <= MAX_COMPILED


def test_prompt_is_frozen(encoder_of):
    prompt = encoder_of("story").encode([{"role": "user", "content": "x"}])
    with pytest.raises(dataclasses.FrozenInstanceError):
        prompt.text = "y"
