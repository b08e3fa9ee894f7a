"""Messages -> prompt text, by the model's own jinja2 template, rendered as transformers renders it.

Called by chat_prompt.py, which turns the text into token ids. Does not know tokenizers. The template is a program
from a stranger: it runs in template_sandbox.py, within limits.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes

from albireo.errors import TemplateError, short
from albireo.text.template_meter import LimitExceeded, Meter
from albireo.text.template_sandbox import MeteredEnvironment

#: Largest template read; the largest published ones are about 30 KB.
MAX_TEMPLATE_CHARS = 1_000_000
#: Budgets of one render, and what a larger conversation adds. A short chat needs a few hundred units of work, a
#: unit takes about a microsecond: the longest render of a small chat is about a second.
WORK, WORK_PER_VALUE = 1_000_000, 200
CHARS, CHARS_PER_CHAR = 16_000_000, 64

_ROLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,63}")
_RESERVED = ("messages", "tools", "documents", "add_generation_prompt", "strftime_now")
# Private-use characters: no text has them, nothing strips them. The space shows whether the template trims.
_OPEN_END = "\U0010fff0open end\U0010fff1 "
# A message's reasoning travels under several names; templates read the first two.
_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything a template may see, as plain data (dict, list, str, numbers, None).

    Fields:
        continue_field: name of the last message's field that stays open for the model to go on with, or None.
        variables: further names: the special tokens' texts, and what the caller passes on.
    """

    messages: list[dict[str, Any]]
    tools: list[Any] | None = None
    documents: list[Any] | None = None
    add_generation_prompt: bool = True
    continue_field: str | None = None
    variables: dict[str, Any] = field(default_factory=dict)


class ChatTemplate:
    """One compiled template. Rendering keeps no state: any number of threads may render at once.

    Attributes:
        words: the names and string constants the template mentions; values equal to one may steer it.
        literals: its literal text and string constants.
        reads_parts: True when it understands content given as a list of parts.
    """

    def __init__(self, source: str) -> None:
        """Compile.

        Raises: TemplateError when the source is not jinja2, or too large.
        """
        if len(source) > MAX_TEMPLATE_CHARS:
            raise TemplateError(
                f"the chat template has {len(source)} characters; at most {MAX_TEMPLATE_CHARS} are read"
            )
        self._environment = MeteredEnvironment()
        self._source = source
        try:
            tree = self._environment.parse(source)
            self.words, self.literals = _mentions(tree)
            self._code = self._environment.compile_metered(tree)
        except jinja2.TemplateSyntaxError as error:
            where = f"line {error.lineno}: {error.message}"
            raise TemplateError(f"the chat template is not valid jinja2: {where}") from None
        except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
            raise TemplateError(
                f"the chat template cannot be compiled ({type(error).__name__}): it is nested too deeply or damaged"
            ) from None
        self.reads_parts = "text" in self.words

    def render(self, conversation: Conversation, now: datetime | None = None) -> str:
        """The prompt's text.

        Args:
            now: what strftime_now() in a template tells; the present when None.

        Raises: TemplateError when the template refuses the messages, fails on them, or exceeds its limits.
        """
        chat = conversation
        messages = chat.messages
        if chat.continue_field is not None:
            messages = self._left_open(messages, chat.continue_field)
        variables = {
            "strftime_now": _teller(now or datetime.now()),
            **chat.variables,
            "messages": messages,
            "tools": chat.tools,
            "documents": chat.documents,
            "add_generation_prompt": chat.add_generation_prompt,
        }
        text = self._run(variables)
        return text if chat.continue_field is None else _cut_at_open_end(text, chat)

    def _run(self, variables: dict[str, Any]) -> str:
        values, chars = _measure([value for value in variables.values() if not callable(value)])
        meter = Meter(WORK + WORK_PER_VALUE * values, CHARS + CHARS_PER_CHAR * chars)
        try:
            return self._environment.run(self._code, variables, meter)
        except LimitExceeded as error:
            raise TemplateError(
                f"the chat template exceeds its limits: {error}. Limits grow with the conversation and are far beyond "
                "what real templates need; check the template, or pass another as chat_template"
            ) from None
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template refused the messages: {error.message or error}") from None
        except (RecursionError, MemoryError) as error:
            raise TemplateError(f"the chat template exceeds its limits ({type(error).__name__})") from None
        except Exception as error:
            # The template is a foreign program: whatever it runs into is the answer to this one request.
            raise TemplateError(
                f"the chat template failed on these messages: {type(error).__name__}: {error}. "
                "Check that each message has the fields the template expects"
            ) from None

    def _left_open(self, messages: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
        """A copy of messages with a mark at the end of the last one's text."""
        last = dict(messages[-1])
        value = last.get(name)
        names = [name]
        if name in _REASONING_FIELDS:
            names = [alias for alias in _REASONING_FIELDS if last.get(alias) == value]
        if not any(alias in self._source for alias in names):
            raise TemplateError(f"continue_final_message names {name!r}, which the chat template does not read")
        if isinstance(value, str):
            last.update({alias: value + _OPEN_END for alias in names})
        else:
            last[name] = _parts_left_open(value, name)
        return [*messages[:-1], last]


def plain_conversation(
    messages: Sequence[Any],
    *,
    reads_parts: bool,
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
        chat = _conversation(messages, reads_parts, tools, documents, add_generation_prompt, variables or {})
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


def _conversation(
    messages: Sequence[Any],
    reads_parts: bool,
    tools: Sequence[Any] | None,
    documents: Sequence[Any] | None,
    add_generation_prompt: bool,
    variables: Mapping[str, Any],
) -> Conversation:
    return Conversation(
        messages=[_plain_message(index, message, reads_parts) for index, message in enumerate(messages)],
        tools=None if tools is None else [_plain(tool) for tool in tools],
        documents=None if documents is None else [_plain(document) for document in documents],
        add_generation_prompt=add_generation_prompt,
        variables=_plain(dict(variables)),
    )


def _plain_message(index: int, message: Any, reads_parts: bool) -> dict[str, Any]:
    value = _plain(message)
    where = f"messages[{index}]"
    if not isinstance(value, dict):
        raise TemplateError(f"{where} must be a dict with role and content, got {type(message).__name__}")
    value = {key: item for key, item in value.items() if item is not None}
    role = value.get("role")
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        # Templates build special tokens out of roles, so a role is a plain word.
        raise TemplateError(f"{where} has role {role!r}; a role is a word such as system, user, assistant or tool")
    content = value.get("content")
    if content is not None and not isinstance(content, (str, list)):
        raise TemplateError(f"{where} has content of type {type(content).__name__}; it must be a string or a list")
    if isinstance(content, list) and not reads_parts:
        value["content"] = "\n".join(_text_of_part(where, part) for part in content)
    reasoning = next((value[name] for name in _REASONING_FIELDS if name in value), None)
    if reasoning is not None:
        value = {"thinking": reasoning, **value, "reasoning_content": reasoning}
    return value


def _text_of_part(where: str, part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise TemplateError(f"{where} has a content part of type {kind!r}; this model's template takes text only")


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


def _measure(values: Any) -> tuple[int, int]:
    """Number of values inside values, and their characters."""
    count, chars, stack = 0, 0, [values]
    while stack:
        value = stack.pop()
        count += 1
        if isinstance(value, str):
            chars += len(value)
        elif isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
    return count, chars


def _teller(moment: datetime) -> Callable[[str], str]:
    def strftime_now(form: str) -> str:
        if len(form) > 200:
            raise LimitExceeded("it formats the date at too great a length")
        return moment.strftime(form)

    return strftime_now


def _parts_left_open(parts: Any, name: str) -> list[Any]:
    if isinstance(parts, list):
        for index in range(len(parts) - 1, -1, -1):
            part = parts[index]
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                return [*parts[:index], {**part, "text": part["text"] + _OPEN_END}, *parts[index + 1 :]]
    raise TemplateError(f"continue_final_message is set, but the last message's {name!r} holds no text")


def _cut_at_open_end(text: str, chat: Conversation) -> str:
    mark = _OPEN_END.strip()
    if text.count(mark) < 1:
        raise TemplateError(
            "continue_final_message is set, but the chat template leaves out the end of the last message; "
            "use add_generation_prompt instead"
        )
    end = text.rindex(mark)
    if text.startswith(_OPEN_END, end):
        return text[:end]
    # The template trims messages: so the text before the mark is trimmed too.
    return text[:end].rstrip()


def _mentions(tree: nodes.Template) -> tuple[frozenset[str], str]:
    words: set[str] = set()
    literals: list[str] = []
    for node in tree.find_all((nodes.Const, nodes.TemplateData, nodes.Getattr)):
        if isinstance(node, nodes.Getattr):
            words.add(node.attr)
        elif isinstance(node, nodes.TemplateData):
            literals.append(node.data)
        elif isinstance(node, nodes.Const) and isinstance(node.value, str):
            words.add(node.value)
            literals.append(node.value)
    # Joined by a character that no token has, so that nothing is found across two of them.
    return frozenset(words), "\0".join(literals)
