"""The marks of formats that write each argument as text between marks of its own, and how they write calls.

Used by keyed_values.py, which reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albireo.errors import UnsupportedFeature
from albireo.parsers.argument_values import choices_of, is_text, property_kinds
from albireo.parsers.written_calls import (
    ANY_TEXT,
    Node,
    Tool,
    WrittenCalls,
    either,
    in_order,
    property_schema,
    regex_node,
    schema_node,
    sequence,
    tag_node,
    text_node,
)

#: Any letter that begins no mark.
_LETTER = "[^<]"


@dataclass(frozen=True, slots=True)
class KeyedMarks:
    """Fields, in the order in which they are written; blanks may be between them, but for those of values.

    section: what begins all calls; empty where each stands by itself.
    opening: what begins a call, up to its name. name_end: behind the name.
    key, key_end: round the name of an argument.
    value: what begins a value, and whether that says it is a string; empty: key_end does.
    value_end: behind it.
    closing: what ends a call; all but one may be missing.
    section_end: what ends all calls.
    quotes: round a value, where the model chose to; a mark between them is none.
    strips_lines: a value stands on lines of its own, whose ends are none of it.
    """

    opening: tuple[str, ...]
    name_end: str
    key: str
    key_end: str
    value_end: str
    closing: tuple[str, ...]
    value: tuple[tuple[str, bool | None], ...] = ()
    section: str = ""
    section_end: str = ""
    quotes: tuple[str, str] | None = None
    strips_lines: bool = False

    @property
    def tags(self) -> tuple[str, ...]:
        """What begins a call; models that know marks within marks leave out the outer one at times."""
        return (self.section,) if self.section else tuple(dict.fromkeys((self.opening[0], self.opening[-1])))


def invoked(prefix: str, section: str) -> KeyedMarks:
    """<section><{prefix}invoke name="f"><{prefix}parameter name="city">Oslo</{prefix}parameter></{prefix}invoke>…"""
    return KeyedMarks(
        section=f"<{section}>",
        opening=(f'<{prefix}invoke name="',),
        name_end='">',
        key=f'<{prefix}parameter name="',
        key_end='">',
        value_end=f"</{prefix}parameter>",
        closing=(f"</{prefix}invoke>",),
        section_end=f"</{section}>",
    )


def written_calls(marks: KeyedMarks, *, has_lines: bool) -> WrittenCalls:
    """Args: has_lines: marks stand on lines of their own."""
    line = "\n" if has_lines else ""

    def call(tool: Tool) -> Node:
        begin = f"{line.join(marks.opening)}{tool.name}{marks.name_end}{line}"
        # The line end in a section is the call's: as a separator it would begin like the section's end does.
        end = line.join(marks.closing) + (line if marks.section else "")
        return tag_node(begin, _arguments(tool, marks, line), end)

    if not marks.section:
        return WrittenCalls(call, separator=line, trigger=marks.opening[0])
    return WrittenCalls(call, begin=f"{marks.section}{line}", end=marks.section_end, trigger=marks.section)


def _arguments(tool: Tool, marks: KeyedMarks, line: str) -> Node:
    """All arguments a schema names, in its order; any, if it names none."""
    key = [regex_node(r"[A-Za-z0-9_.$-]{1,64}"), text_node(_behind_key(marks, line, None))]
    unnamed = tag_node(marks.key, sequence([*key, tag_node("", ANY_TEXT, _value_end(marks) + line)]), "")
    return in_order(tool.parameters, lambda name: _argument(tool, name, marks, line), unnamed)


def _argument(tool: Tool, name: str, marks: KeyedMarks, line: str) -> Node:
    kinds = property_kinds(tool.parameters, name)
    begin = f"{marks.key}{name}{_behind_key(marks, line, is_text(kinds))}"
    end = _value_end(marks) + line
    if not is_text(kinds):
        return tag_node(begin, ANY_TEXT if "string" in kinds else schema_node(property_schema(tool, name)), end)
    return text_value(tool, name, begin, end)


def text_value(tool: Tool, name: str, begin: str, end: str) -> Node:
    """A string without quotes between what begins and ends it, as its schema has it."""
    schema = tool.parameters["properties"][name]
    choices = choices_of(schema)
    if choices:
        return tag_node(begin, either(text_node(each) for each in choices), end)
    limited = _limited(tool, name, schema)
    if not limited:
        return tag_node(begin, ANY_TEXT, end)
    # One expression with its end: of two, the first would take the end for more of the text.
    return tag_node(begin, regex_node(limited + _literal(end)), "")


def _literal(text: str) -> str:
    """An expression for it."""
    return "".join(rf"\{char}" if char in "|[]()." else r"\n" if char == "\n" else char for char in text)


def _value_end(marks: KeyedMarks) -> str:
    return f"\n{marks.value_end}" if marks.strips_lines else marks.value_end


def _behind_key(marks: KeyedMarks, line: str, is_string: bool | None) -> str:
    """What stands between the name of an argument and its value."""
    if not marks.value:
        return marks.key_end + ("\n" if marks.strips_lines else "")
    texts = [mark for mark, says in marks.value if says in (None, is_string)]
    gap = line if marks.value[0][1] is None else " "
    return f"{marks.key_end}{gap}{texts[0] if texts else marks.value[0][0]}"


def _limited(tool: Tool, name: str, schema: Mapping[str, Any]) -> str:
    """What a string with limits matches, in which there is no mark; empty without limits."""
    lengths = [key for key in ("minLength", "maxLength") if key in schema]
    pattern = schema.get("pattern")
    if not isinstance(pattern, str):
        return f"{_LETTER}{{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}}" if lengths else ""
    if lengths:
        raise UnsupportedFeature(
            f"tools: {tool.name}.{name} has a pattern and a length, which this model's format cannot hold a string to "
            "at once; leave one out"
        )
    head, tail = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    inner = pattern[head : len(pattern) - tail]
    # A pattern of JSON schema may match anywhere.
    return "".join(["" if head else f"{_LETTER}*", f"(?:{inner})", "" if tail else f"{_LETTER}*"])
