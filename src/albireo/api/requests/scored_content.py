"""What is scored and is no text alone: its texts and pictures, in order, as vLLM's /score and LLM.score() take them.

Called by pooling_admission.py and the server. Does not know which models read what: it is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.api.requests.scoring import Part
from albireo.errors import InvalidParams, TemplateError, UnsupportedFeature, short
from albireo.image_input import GivenImage
from albireo.text.conversation import plain_conversation

_ALONE = "scores are of texts and pictures"


def parts_of(given: Any, name: str, problem: str) -> list[Part]:
    """A text or content, or a list of these. Args: problem: why there is text alone; empty: there may be pictures.

    Raises: InvalidParams; UnsupportedFeature for what is more than text where there is a problem.
    """
    several = [given] if isinstance(given, (str, Mapping)) else given
    if not isinstance(several, (list, tuple)) or not all(isinstance(each, (str, Mapping)) for each in several):
        raise InvalidParams(f"{name} must be a text or a list of texts, got {given!r:.80}")
    if problem and not all(isinstance(each, str) for each in several):
        raise UnsupportedFeature(f"{name} holds what is no text; {problem}")
    called = [name] if len(several) == 1 else [f"{name}[{at}]" for at in range(len(several))]
    return [
        Part(each) if isinstance(each, str) else content_of(each.get("content"), place, {*each} - {"content"})
        for each, place in zip(several, called, strict=True)
    ]


def content_of(content: Any, name: str, others: set[str]) -> Part:
    """Args: content: a text, or a list of parts as those of a message. others: keys beside it.

    Raises: InvalidParams for what is none, or has no part; UnsupportedFeature for sounds and videos."""
    if others:
        raise InvalidParams(f"{name} has {short(sorted(map(str, others)))}; it is a text, or has content and no more")
    if isinstance(content, str):
        return Part(content)
    if not isinstance(content, (list, tuple)) or not content:
        raise InvalidParams(
            f"{name} has content={short(content)}; it must be a list of parts, each a text or a picture"
        )
    try:
        chat = plain_conversation(
            [{"role": "user", "content": content}],
            reads_parts=True,
            image_problem="",
            sound_problem=_ALONE,
            video_problem=_ALONE,
        )
    except TemplateError as error:
        raise InvalidParams(str(error).replace("messages[0]", name)) from None
    found, images = list[str | GivenImage](), iter(chat.images)
    for part in chat.messages[0]["content"]:
        text = part.get("text") if isinstance(part, dict) else part
        is_picture = isinstance(part, dict) and part.get("type") == "image"
        if not is_picture and not isinstance(text, str):
            raise InvalidParams(f"{name} has a content part {short(part)}; each is a text or a picture")
        found.append(next(images) if is_picture else str(text))
    return Part("".join(each for each in found if isinstance(each, str)), None, tuple(found))
