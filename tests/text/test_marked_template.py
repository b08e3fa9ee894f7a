"""Templates that take contents as texts, of models that read pictures."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.errors import TemplateError
from albireo.text.chat_prompt import ChatEncoder
from albireo.text.chat_template import ChatTemplate
from albireo.text.conversation import plain_conversation
from albireo.text.marked_template import with_marks
from albireo.text.tokenizer import Tokenizer
from tiny_sights import save

OF_TEXTS = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
IMAGE = {"type": "image", "image": b"x"}
MARK = "<IMG_CONTEXT>"


def text(part: str) -> dict[str, Any]:
    return {"type": "text", "text": part}


def rendered(messages: list[dict[str, Any]], source: str = with_marks(OF_TEXTS, MARK), **options: Any) -> str:
    template = ChatTemplate(source)
    chat = plain_conversation(
        messages,
        reads_parts=template.reads_parts,
        needs_parts=template.needs_parts,
        image_problem="",
        **options,
    )
    return template.render(chat)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("plain", "plain"),
        ([text("only")], "only"),
        ([text("one"), text("two")], "one\ntwo"),
        ([IMAGE, text("What?")], f"{MARK}\nWhat?"),
        ([text("See "), IMAGE, text("and"), text("this"), IMAGE], f"See {MARK}\nand\nthis{MARK}\n"),
        ([], ""),
    ],
)
def test_what_a_template_of_texts_sees(content: Any, wanted: str) -> None:
    """Texts are what they were without marks: lines."""
    assert rendered([{"role": "user", "content": content}]) == f"[user]{wanted}[assistant]"
    if IMAGE not in list(content):
        assert rendered([{"role": "user", "content": content}], OF_TEXTS) == f"[user]{wanted}[assistant]"


def test_other_messages_stay() -> None:
    """Also those without a content, and what they have beside it."""
    source = with_marks("{% for m in messages %}{{ m.role }}:{{ m.content }}:{{ m.name }};{% endfor %}", MARK)
    messages = [{"role": "tool", "name": "f", "content": [IMAGE]}, {"role": "assistant", "name": "a"}]
    assert rendered(messages, source) == f"tool:{MARK}\n:f;assistant::a;"


def test_an_answer_that_is_begun_goes_on() -> None:
    messages = [{"role": "user", "content": [IMAGE]}, {"role": "assistant", "content": [text("It is")]}]
    found = rendered(messages, add_generation_prompt=False, continue_final_message=True)
    assert found == f"[user]{MARK}\n[assistant]It is"


def test_a_mark_with_quotes_is_written_as_it_is() -> None:
    mark = r"<it's \n>"
    assert rendered([{"role": "user", "content": [IMAGE]}], with_marks(OF_TEXTS, mark)) == f"[user]{mark}\n[assistant]"


def test_marks_are_the_templates_own_and_no_users(tmp_path: Any) -> None:
    """A user who types one gets its letters; and without a mark to write, the picture is refused."""
    tokenizer = Tokenizer.from_directory(save(tmp_path, "internvl"))
    (mark,) = tokenizer.encode(MARK, add_special_tokens=False)
    messages = [{"role": "user", "content": [text(f"is {MARK} a mark? "), IMAGE]}]
    found = ChatEncoder(tokenizer, MARK).encode(messages, chat_template=OF_TEXTS, image_problem="")
    assert found.token_ids.count(mark) == 1 and found.text.count(MARK) == 2 and len(found.images) == 1
    with pytest.raises(TemplateError, match="this model's template takes text only"):
        ChatEncoder(tokenizer).encode(messages, chat_template=OF_TEXTS, image_problem="")


def test_letters_that_a_template_writes_for_a_picture_become_the_mark(tmp_path: Any) -> None:
    """The template's own: those that a user types stay letters."""
    tokenizer = Tokenizer.from_directory(save(tmp_path, "qianfan_ocr"))
    (mark,) = tokenizer.encode(MARK, add_special_tokens=False)
    messages = [{"role": "user", "content": [text("is <image> a mark? "), IMAGE]}]
    found = ChatEncoder(tokenizer, MARK, "<image>").encode(messages, image_problem="")
    assert found.token_ids.count(mark) == 1 and len(found.images) == 1
    assert "is <image> a mark? <IMG_CONTEXT>" in found.text


def test_what_stands_before_all_that_a_template_writes(tmp_path: Any) -> None:
    tokenizer = Tokenizer.from_directory(save(tmp_path, "janus"))
    messages = [{"role": "user", "content": [text("Hello")]}]
    plain, opened = (ChatEncoder(tokenizer, MARK, None, opening).encode(messages) for opening in ("", "Be good.\n\n"))
    assert opened.text == "Be good.\n\n" + plain.text
    assert opened.token_ids == [*tokenizer.encode("Be good.\n\n", add_special_tokens=False), *plain.token_ids]
