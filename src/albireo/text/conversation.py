"""What a caller gives a chat template -> plain data: messages, tools and documents, checked.

Called by chat_prompt.py; chat_template.py renders the outcome. Does not know templates or tokens.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from albireo.errors import TemplateError, short
from albireo.image_input import GivenImage, GivenSound, GivenVideo

#: A message's reasoning travels under several names; templates read the first two.
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")

#: How much of an image is wanted, by OpenAI's names; all but low is all.
_DETAILS = (None, "auto", "high", "low")

_ROLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,63}")
#: What a content part may be besides text, images, sounds and videos, under whatever name.
_OTHER_MEDIA = ("file",)
#: Kinds of content parts that are images, and the keys that say which: OpenAI's, transformers' and vLLM's names.
_IMAGES = {
    "image_url": ("image_url",),
    "input_image": ("image_url",),
    "image": ("image", "url", "path", "base64"),
    "image_pil": ("image_pil",),
}
#: Likewise of sounds.
_SOUNDS = {
    "input_audio": ("input_audio",),
    "audio_url": ("audio_url",),
    "audio": ("audio", "audio_url", "url", "path", "base64"),
}
#: Likewise of videos.
_VIDEOS = {
    "video_url": ("video_url",),
    "input_video": ("video_url",),
    "video": ("video", "url", "path", "base64"),
}
_RESERVED = ("messages", "tools", "documents", "add_generation_prompt", "strftime_now")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything a template may see, as plain data (dict, list, str, numbers, None).

    Fields:
        continue_field: name of the last message's field that stays open for the model to go on with, or None.
        variables: further names: the special tokens' texts, and what the caller passes on.
        images, sounds, videos: of the messages, in their order. Of them a template sees parts of type image, audio or
            video.
    """

    messages: list[dict[str, Any]]
    tools: list[Any] | None = None
    documents: list[Any] | None = None
    add_generation_prompt: bool = True
    continue_field: str | None = None
    variables: dict[str, Any] = field(default_factory=dict)
    images: list[GivenImage] = field(default_factory=list)
    sounds: list[GivenSound] = field(default_factory=list)
    videos: list[GivenVideo] = field(default_factory=list)


def has_media(messages: Any) -> bool:
    """Whether some message has an image, a sound or a video, as far as can be seen at a glance."""
    if not isinstance(messages, (list, tuple)):
        return False
    contents = (message.get("content") for message in messages if isinstance(message, Mapping))
    parts = (part for content in contents if isinstance(content, (list, tuple)) for part in content)
    return any(isinstance(part, Mapping) and part.get("type") in (*_IMAGES, *_SOUNDS, *_VIDEOS) for part in parts)


def plain_conversation(
    messages: Sequence[Any],
    *,
    reads_parts: bool,
    needs_parts: bool = False,
    image_problem: str = "this model reads text only",
    sound_problem: str = "this model reads text only",
    video_problem: str = "this model reads text only",
    tools: Sequence[Any] | None = None,
    documents: Sequence[Any] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool | str = False,
    variables: Mapping[str, Any] | None = None,
) -> Conversation:
    """Check what a caller gave and bring it to plain data.

    Args:
        messages: dicts with a role; a key whose value is None counts as absent.
        reads_parts: when False, content given as a list of text parts is joined with newlines.
        needs_parts: content given as a text becomes a list of one part.
        image_problem, sound_problem, video_problem: why there may be no images, sounds, videos; empty: there may be.

    Raises: TemplateError naming the message and what is wrong with it.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise TemplateError(f"messages must be a list of messages, got {type(messages).__name__}")
    if not messages:
        raise TemplateError("messages is empty; a chat needs at least one message")
    if continue_final_message and add_generation_prompt:
        raise TemplateError(
            "continue_final_message and add_generation_prompt exclude each other: the model either goes on with the "
            "last message or starts a new one"
        )
    for name, values in (("tools", tools), ("documents", documents)):
        if values is None:
            continue
        if not isinstance(values, (list, tuple)) or any(not isinstance(value, Mapping) for value in values):
            raise TemplateError(f"{name} must be a list of dicts, got {short(values)}")
    if variables is not None and not isinstance(variables, Mapping):
        raise TemplateError(f"chat_template_kwargs must be a dict, got {short(variables)}")
    for name in variables or ():
        if name in _RESERVED:
            raise TemplateError(f"chat_template_kwargs holds {name!r}, which is an argument of its own")
    try:
        reading = _Reading(reads_parts, needs_parts, image_problem, sound_problem, video_problem)
        chat = _conversation(messages, reading, tools, documents, add_generation_prompt, variables or {})
    except RecursionError:
        raise TemplateError("the messages are nested too deeply") from None
    if not continue_final_message:
        return chat
    continue_field = continue_final_message if isinstance(continue_final_message, str) else "content"
    if chat.messages[-1].get(continue_field) is None:
        raise TemplateError(
            f"continue_final_message is set, but the last message has no {continue_field!r} to go on with"
        )
    return dataclasses.replace(chat, continue_field=continue_field)


@dataclass(slots=True)
class _Reading:
    """How contents are read, and the images, sounds and videos found so far."""

    reads_parts: bool
    needs_parts: bool
    image_problem: str
    sound_problem: str
    video_problem: str
    images: list[GivenImage] = field(default_factory=list)
    sounds: list[GivenSound] = field(default_factory=list)
    videos: list[GivenVideo] = field(default_factory=list)


def _conversation(
    messages: Sequence[Any],
    reading: _Reading,
    tools: Sequence[Any] | None,
    documents: Sequence[Any] | None,
    add_generation_prompt: bool,
    variables: Mapping[str, Any],
) -> Conversation:
    return Conversation(
        messages=[_plain_message(index, message, reading) for index, message in enumerate(messages)],
        tools=None if tools is None else [_plain(tool) for tool in tools],
        documents=None if documents is None else [_plain(document) for document in documents],
        add_generation_prompt=add_generation_prompt,
        variables=_plain(dict(variables)),
        images=reading.images,
        sounds=reading.sounds,
        videos=reading.videos,
    )


def _plain_message(index: int, message: Any, reading: _Reading) -> dict[str, Any]:
    where = f"messages[{index}]"
    value = _plain(_without_media(where, message, reading))
    if not isinstance(value, dict):
        raise TemplateError(f"{where} must be a dict with role and content, got {type(message).__name__}")
    value = {key: item for key, item in value.items() if item is not None}
    role = value.get("role")
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        # Templates build special tokens out of roles, so a role is a plain word.
        raise TemplateError(f"{where} has role {short(role)}; a role is a word such as system, user, assistant or tool")
    content = value.get("content")
    if content is not None and not isinstance(content, (str, list)):
        raise TemplateError(f"{where} has content of type {type(content).__name__}; it must be a string or a list")
    if isinstance(content, list):
        if not reading.reads_parts:
            value["content"] = "\n".join(_text_of_part(where, part) for part in content)
    elif content is not None and reading.needs_parts:
        value["content"] = [{"type": "text", "text": content}]
    reasoning = next((value[name] for name in REASONING_FIELDS if name in value), None)
    if reasoning is not None:
        value = {"thinking": reasoning, **value, "reasoning_content": reasoning}
    return value


def _without_media(where: str, message: Any, reading: _Reading) -> Any:
    """A message whose images, sounds and videos are marks of their places; they are among those of reading then."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, (list, tuple)):
        return message
    parts = [_without_medium(where, part, reading) for part in content]
    return {**message, "content": parts}


def _without_medium(where: str, part: Any, reading: _Reading) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str):
        return part
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        # what an assistant said, as OpenAI's clients send it back
        return {"type": "text", "text": part["refusal"]}
    if kind.removeprefix("input_").removesuffix("_url") in _OTHER_MEDIA:
        raise TemplateError(
            f"{where} has a content part of type {short(kind)}; models here read text, images, sounds and videos"
        )
    problems = (_IMAGES, reading.image_problem), (_SOUNDS, reading.sound_problem), (_VIDEOS, reading.video_problem)
    problem = next((problem for kinds, problem in problems if kind in kinds), None)
    if problem is None:
        return part
    # a template may have marks for images, of which a model of text would see nothing but the marks
    if problem:
        raise TemplateError(f"{where} has a content part of type {short(kind)}; {problem}")
    if not reading.reads_parts:
        raise TemplateError(f"{where} has a content part of type {short(kind)}; this model's template takes text only")
    if kind in _IMAGES:
        reading.images.append(_image(where, kind, part))
        return {"type": "image"}
    if kind in _VIDEOS:
        reading.videos.append(GivenVideo(_given(where, kind, part, _VIDEOS[kind], "url")[0]))
        return {"type": "video"}
    reading.sounds.append(GivenSound(_given(where, kind, part, _SOUNDS[kind], "data")[0]))
    # templates look for the one or for the other
    return {"type": "audio", "audio": ""}


def _image(where: str, kind: str, part: Mapping[str, Any]) -> GivenImage:
    image, within = _given(where, kind, part, _IMAGES[kind], "url")
    detail = within.get("detail", part.get("detail"))
    if detail not in _DETAILS:
        raise TemplateError(f"{where} has an image of detail={short(detail)}; it must be auto, high or low")
    return GivenImage(image, detail == "low")


def _given(
    where: str, kind: str, part: Mapping[str, Any], keys: Sequence[str], inner: str
) -> tuple[Any, Mapping[str, Any]]:
    """What a content part is of, and the object that it is in, where it is in one. Args: keys: that may say it. inner:
    of such an object, beside url."""
    key = next((key for key in keys if part.get(key) is not None), None)
    value = None if key is None else part[key]
    within: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
    if isinstance(value, Mapping):
        value = value.get("url", value.get(inner))
    if key == "path" and isinstance(value, str):
        value = f"file:{quote(value)}"
    if value is None:
        raise TemplateError(f"{where} has a content part of type {short(kind)} without {' or '.join(keys)}")
    return value, within


def _text_of_part(where: str, part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind in ("text", "input_text", "output_text") and isinstance(part, dict):
        raise TemplateError(f"{where} has a content part of type {short(kind)} whose text is {short(part.get('text'))}")
    raise TemplateError(f"{where} has a content part of type {short(kind)}; this model's template takes text only")


def _plain(value: Any) -> Any:
    """Rebuild value out of plain types: a rich object has methods that a sandbox does not know to be dangerous."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {key if type(key) is str else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)):
        return _plain(value.model_dump())
    raise TemplateError(f"a chat takes plain data only (dicts, lists, strings, numbers), got {type(value).__name__}")
