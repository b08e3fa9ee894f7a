"""A conversation -> prompt text, by the model's own jinja2 template, rendered as transformers renders it.

Called by chat_prompt.py, which turns the text into token ids. Does not know tokenizers. The template is a program
from a stranger: it runs in template_sandbox.py, within limits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes

from albireo.errors import TemplateError
from albireo.text.conversation import REASONING_FIELDS, Conversation
from albireo.text.template_meter import LimitExceeded, Meter
from albireo.text.template_sandbox import MeteredEnvironment
from albireo.text.template_variants import shows_python, variants

#: Largest template read; the largest published ones are about 30 KB. A list of so many characters takes some seconds,
#: and some ten MB, to compile; of a million half a minute.
MAX_TEMPLATE_CHARS = 2**17
#: Budgets of one render, and what a larger conversation adds. A short chat needs a few hundred units of work, a
#: unit takes about a microsecond: the longest render of a small chat is about a second.
WORK, WORK_PER_VALUE = 1_000_000, 200
CHARS, CHARS_PER_CHAR = 16_000_000, 64

# Private-use characters: no text has them, nothing strips them. The space shows whether the template trims.
_OPEN_END = "\U0010fff0open end\U0010fff1 "


class _TooMuch(TemplateError):
    """A rendering went beyond its limits: it would again."""


class ChatTemplate:
    """One compiled template. Rendering keeps no state: any number of threads may render at once.

    Attributes:
        words: the names and string constants the template mentions; values equal to one may steer it.
        literals: its literal text and string constants.
        reads_parts: True when it understands content given as a list of parts.
        needs_parts: True when it understands nothing else: it goes through contents, and never asks for a string.
        needs_text_arguments: True when it joins the arguments of tool calls to text as they are, so that an object
            would be an error, or Python's idea of it: they are written as JSON first. (DeepSeek V3 and R1.)
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
            self.needs_parts = _needs_parts(tree)
            self.needs_text_arguments = _needs_text_arguments(tree)
            self._asks_for_none = any(
                _is_content(test.node) and test.name == "none" for test in tree.find_all(nodes.Test)
            )
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
        if self.needs_text_arguments:
            messages = [_with_text_arguments(message) for message in messages]
        variables = {
            "strftime_now": _teller(now or datetime.now()),
            **chat.variables,
            "messages": messages,
            "tools": chat.tools,
            "documents": chat.documents,
            "add_generation_prompt": chat.add_generation_prompt,
        }
        text = self._rendered(variables)
        return text if chat.continue_field is None else _cut_at_open_end(text, chat)

    def _rendered(self, variables: dict[str, Any]) -> str:
        """As it is; or else in the nearest form that the template takes (template_variants.py)."""
        failure: TemplateError | None = None
        text: str | None = None
        try:
            text = self._run(variables)
        except _TooMuch:
            raise
        except TemplateError as error:
            failure = error
        if text is not None and not shows_python(text, variables["messages"]):
            return text
        knows_calls = not self.words.isdisjoint(("tool_calls", "tool"))
        for variant, kept in variants(variables, text, knows_calls=knows_calls, asks_for_none=self._asks_for_none):
            try:
                other = self._run(variant)
            except TemplateError:
                continue
            if not shows_python(other, variant["messages"]) and all(each in other for each in kept):
                return other
        if text is None:
            assert failure is not None, "one or the other"
            raise failure
        return text

    def _run(self, variables: dict[str, Any]) -> str:
        values, chars = _measure([value for value in variables.values() if not callable(value)])
        meter = Meter(WORK + WORK_PER_VALUE * values, CHARS + CHARS_PER_CHAR * chars)
        try:
            return self._environment.run(self._code, variables, meter)
        except LimitExceeded as error:
            raise _TooMuch(
                f"the chat template exceeds its limits: {error}. Limits grow with the conversation and are far beyond "
                "what real templates need; check the template, or pass another as chat_template"
            ) from None
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template refused the messages: {error.message or error}") from None
        except (RecursionError, MemoryError) as error:
            raise _TooMuch(f"the chat template exceeds its limits ({type(error).__name__})") from None
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
        if name in REASONING_FIELDS:
            names = [alias for alias in REASONING_FIELDS if last.get(alias) == value]
        if not any(alias in self._source for alias in names):
            raise TemplateError(f"continue_final_message names {name!r}, which the chat template does not read")
        if isinstance(value, str):
            last.update({alias: value + _OPEN_END for alias in names})
        else:
            last[name] = _parts_left_open(value, name)
        return [*messages[:-1], last]


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


def _needs_parts(tree: nodes.Template) -> bool:
    loops = any(_is_content(loop.iter) for loop in tree.find_all(nodes.For))
    return loops and not any(_is_content(test.node) for test in tree.find_all(nodes.Test))


def _is_content(node: nodes.Node) -> bool:
    """Whether this is what a message holds: message.content or message["content"]."""
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and node.arg.value == "content"


def _needs_text_arguments(tree: nodes.Template) -> bool:
    """Whether arguments of calls, by this or another name, are part of a sum or written out as they are, and nobody
    asks what they are, or makes JSON of them."""
    names = {"arguments"}
    for assign in tree.find_all(nodes.Assign):
        if isinstance(assign.target, nodes.Name) and _is_one_of(assign.node, names):
            names.add(assign.target.name)
    asks = tree.find_all((nodes.Test, nodes.Filter))
    if any(ask.node is not None and _is_one_of(ask.node, names) for ask in asks):
        return False
    joins = tree.find_all((nodes.Add, nodes.Concat, nodes.Output))
    return any(_is_one_of(part, names) for join in joins for part in join.iter_child_nodes())


def _is_one_of(node: nodes.Node, names: set[str]) -> bool:
    """Whether this is a field of such a name, x.name or x["name"], or a variable that got one."""
    if isinstance(node, nodes.Getattr):
        return node.attr in names
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value in names
    return isinstance(node, nodes.Name) and node.name in names - {"arguments"}


def _with_text_arguments(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    return {**message, "tool_calls": [_as_text(call) for call in calls]} if isinstance(calls, list) else message


def _as_text(call: Any) -> Any:
    """A call with its arguments as JSON."""
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), dict):
        return {**call, "function": _as_text(call["function"])}
    if not isinstance(call.get("arguments"), (dict, list)):
        return call
    return {**call, "arguments": json.dumps(call["arguments"], ensure_ascii=False)}


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
