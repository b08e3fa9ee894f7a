"""Messages -> token ids: the template's special tokens become tokens, special-token text inside messages stays text.

Called by api. Does not know requests. Rendering is chat_template.py, imported with jinja2 when there is a template to
compile; keeping texts apart is shield.py.

An ordinary chat is rendered to one string and encoded as one, as transformers does, so its ids are the same; parts that
were there before are remembered (segments.py). To see that it is ordinary, the chat is rendered a second time with what
came from the caller disguised, character for character (shield.py): special tokens that are still there were written by
the template. Only when the first rendering has more of them, the text is encoded so that just the template's count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from albireo.errors import TemplateError, short
from albireo.image_input import GivenImage, GivenSound, GivenVideo
from albireo.text.conversation import Conversation, plain_conversation
from albireo.text.marked_template import with_marks
from albireo.text.plain_encoder import PlainEncoder
from albireo.text.segments import Segments
from albireo.text.shield import Shield
from albireo.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from albireo.text.chat_template import ChatTemplate

#: Templates kept compiled: the model's own and a few that callers pass.
MAX_COMPILED = 8


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """text: the rendered chat, for people to read; token_ids: what the model gets, in which the template marked the
    places of images, sounds and videos."""

    text: str
    token_ids: list[int]
    images: list[GivenImage] = field(default_factory=list)
    sounds: list[GivenSound] = field(default_factory=list)
    videos: list[GivenVideo] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A compiled template and what depends on it and the tokenizer only."""

    template: ChatTemplate
    shield: Shield
    encoder: PlainEncoder


class ChatEncoder:
    """Turns chats into prompts for one tokenizer; each template is compiled once. Threads may share it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        image_mark: str | None = None,
        written_mark: str | None = None,
        opening: str = "",
        video_template: str | None = None,
    ) -> None:
        """Args: image_mark: the token that a prompt has where a picture is; a template that takes contents as texts
        writes it, too. None: there are no pictures. written_mark: letters that templates write in its place.
        opening: what stands before all that a template writes; no template itself. video_template: by which chats that
        have videos are written where callers name none; None: by the model's."""
        self._tokenizer, self._image_mark, self._written_mark = tokenizer, image_mark, written_mark
        self._opening, self._video_template = opening, video_template
        self._segments = Segments(tokenizer)
        self._prepared: dict[str, _Prepared] = {}

    def encode(
        self,
        messages: Sequence[Any],
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool | str = False,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        now: datetime | None = None,
        cache_salt: str | None = None,
        check_text: Callable[[str], None] = lambda text: None,
        image_problem: str = "this model reads text only",
        sound_problem: str = "this model reads text only",
        video_problem: str = "this model reads text only",
    ) -> ChatPrompt:
        """Render and encode a chat.

        Args:
            messages: dicts with role and content; content is a string, or a list of {"type": "text", "text": …} and of
                images, sounds and videos: {"type": "image_url", "image_url": {"url": …}}, {"type": "image",
                "image": …}, {"type": "input_audio", "input_audio": {"data": …, "format": …}}, {"type": "audio",
                "audio": …}, {"type": "video_url", "video_url": {"url": …}}, {"type": "video", "video": …}.
            chat_template: name of one of the model's templates, or a template's source; None: the model's, the one
                named tool_use when there are tools and it has one.
            continue_final_message: True leaves the last message open for the model to go on with; a string names
                the field that stays open.
            chat_template_kwargs: further variables ("enable_thinking": False).
            now: what strftime_now() tells a template; the present when None.
            cache_salt: see Segments.encode().
            check_text: given what is rendered, before it is encoded; what it raises is raised.
            image_problem, sound_problem, video_problem: why there may be no images, sounds, videos; empty: there may
                be.

        Raises: TemplateError when there is no template, it refuses the messages or exceeds its limits, or the
            messages have the wrong shape.
        Cost: two renderings, about 0.2 ms for a short chat, and the encoding.
        """
        if chat_template is None and self._video_template is not None and _has_video(messages):
            chat_template = self._video_template
        prepared = self._prepare(self._source(chat_template, tools))
        chat = plain_conversation(
            messages,
            reads_parts=prepared.template.reads_parts,
            needs_parts=prepared.template.needs_parts,
            image_problem=image_problem,
            sound_problem=sound_problem,
            video_problem=video_problem,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            variables=chat_template_kwargs,
        )
        if self._tokenizer.sorts_tools:
            chat = replace(chat, tools=_sorted(chat.tools))
        moment = now or datetime.now()
        named = self._tokenizer.named_tokens
        text = prepared.template.render(_with_tokens(chat, named), moment)
        check_text(text)
        marked, num_marks = self._marked(prepared, chat, text, moment)
        ids = self._segments.encode(text, cache_salt)
        if prepared.encoder.count(ids) != num_marks:
            # Some of them came from the messages: encode anew with the template's own only.
            ids = prepared.encoder.encode(marked, num_marks)
        return ChatPrompt(text, ids, chat.images, chat.sounds, chat.videos)

    def writes_pairs(self) -> bool:
        """Whether the model's template says how a query and a document are scored together: it looks for these roles.

        Raises: TemplateError where it cannot be compiled.
        """
        source = self._tokenizer.chat_templates.get("default")
        return source is not None and {"query", "document"} <= self._prepare(source).template.words

    def _marked(self, prepared: _Prepared, chat: Conversation, text: str, moment: datetime) -> tuple[str, int]:
        """text with the template's own special tokens marked, and how many they are."""
        pattern = prepared.shield.pattern
        if not pattern.search(text):
            return text, 0
        named = self._tokenizer.named_tokens
        for disguise in prepared.shield.disguises(chat, text):
            try:
                rendered = prepared.template.render(_with_tokens(disguise.conversation, named), moment)
            except TemplateError:
                # The template looks into the messages and dislikes the disguise; the next one is thinner.
                continue
            if disguise.undo(rendered) != text:
                continue
            marked, num_marks = pattern.subn(prepared.encoder.mark, rendered)
            return disguise.undo(marked), num_marks
        raise TemplateError(
            "the messages hold the text of a special token of this model, and its chat template looks for that text, "
            "so that it cannot be told from the template's own tokens; take it out of the messages"
        )

    def _source(self, wanted: str | None, tools: Sequence[Any] | None) -> str:
        templates = self._tokenizer.chat_templates
        if wanted is not None:
            if not isinstance(wanted, str):
                raise TemplateError(f"chat_template={short(wanted)} must be a name or a jinja2 template")
            if wanted in templates:
                return templates[wanted]
            if "{" in wanted:
                return wanted
            raise TemplateError(
                f"chat_template={short(wanted)} is neither the name of one of the model's templates "
                f"({', '.join(sorted(templates)) or 'it has none'}) nor a jinja2 template"
            )
        if tools and "tool_use" in templates:
            return templates["tool_use"]
        if "default" in templates:
            return templates["default"]
        if templates:
            raise TemplateError(
                f"the model has several chat templates and none is the default; "
                f"pass one of these names as chat_template: {', '.join(sorted(templates))}"
            )
        raise TemplateError(
            "the model has no chat template (neither in tokenizer_config.json nor chat_template.jinja): it is not "
            "a chat model, or the file is missing. Pass a jinja2 template as chat_template, or use generate()"
        )

    def _prepare(self, source: str) -> _Prepared:
        prepared = self._prepared.get(source)
        if prepared is None:
            from albireo.text.chat_template import ChatTemplate

            written, mark = source, self._image_mark
            if mark is not None and self._written_mark is not None:
                written = source.replace(self._written_mark, mark)
            written = self._opening + written
            template = ChatTemplate(written)
            if mark is not None and not template.reads_parts:
                template = ChatTemplate(with_marks(written, mark))
            tokens = self._control_tokens(template)
            prepared = _Prepared(
                template,
                Shield(tokens, self._special_texts(), template.words),
                self._tokenizer.plain_encoder(tokens),
            )
            if len(self._prepared) >= MAX_COMPILED:
                # A copy, then one assignment: a thread that reads meanwhile sees the old or the new.
                self._prepared = dict(list(self._prepared.items())[1:])
            self._prepared[source] = prepared
        return prepared

    def _special_texts(self) -> frozenset[str]:
        specials = self._tokenizer.special_ids
        texts = (text for text, token_id in self._tokenizer.added_tokens().items() if token_id in specials)
        return frozenset(text for text in texts if not text.isspace())

    def _control_tokens(self, template: ChatTemplate) -> frozenset[str]:
        """Special tokens, and the other added tokens that the template writes ("<think>"), but no blanks."""
        added = self._tokenizer.added_tokens()
        written = (text for text in added if text in template.literals and re.search(r"\S", text))
        return self._special_texts() | frozenset(written)


def _with_tokens(chat: Conversation, named: Mapping[str, str]) -> Conversation:
    """The chat with the special tokens' texts among its variables; the caller's own win, as in transformers."""
    return Conversation(
        chat.messages,
        chat.tools,
        chat.documents,
        chat.add_generation_prompt,
        chat.continue_field,
        {**named, **chat.variables},
    )


def _has_video(messages: Sequence[Any]) -> bool:
    """Whether a part of a content says that it is one."""
    contents = (message.get("content") for message in messages if isinstance(message, Mapping))
    parts = (part for content in contents if isinstance(content, (list, tuple)) for part in content)
    return any(isinstance(part, Mapping) and "video" in str(part.get("type")) for part in parts)


def _sorted(value: Any) -> Any:
    """With the keys of all objects in order."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
