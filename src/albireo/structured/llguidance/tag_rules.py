"""A structural tag -> rules of a Lark grammar: text, tokens and JSON in a fixed order, or free text with triggers.

Called by grammar_text.py. The tree is xgrammar's "format", of which these types are read: const_string {value},
json_schema {json_schema}, regex {pattern}, any_text, sequence {elements}, or {elements}, tag {begin, content, end},
triggered_tags {triggers, tags, at_least_one, stop_after_first}, tags_with_separator {tags, separator, at_least_one,
stop_after_first}. The older form {structures: [{begin, schema, end}], triggers} is triggered_tags in other words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from llguidance import regex_to_lark

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured.look_ahead import split
from albireo.structured.tag_fields import Node, field, objects, structure_of


def literal(text: str) -> str:
    """A text as a Lark string."""
    return json.dumps(text, ensure_ascii=False)


def regex_literal(regex: str) -> str:
    """A regular expression as a Lark terminal. \\d is 0 to 9, as people mean it; \\w and \\s are Unicode's."""
    found, rest = split(regex)
    if not found:
        return _literal(regex)
    ends = [f"{'~' if ahead.is_negative else ''}{_literal(ahead.whole)}" for ahead in found]
    return " & ".join([*ends, _literal(rest.removesuffix("$") if not rest.endswith(r"\$") else rest)])


def _literal(regex: str) -> str:
    return f"/{regex_to_lark(regex, use_ascii='d')}/"


def tag_rules(tag: Node, special: Mapping[str, int], json_rule: Callable[[Node], str]) -> str:
    """The rules, of which the first is start.

    Args:
        special: text -> id of special tokens; where a text of the tag holds one, the token is meant.
        json_rule: schema -> Lark.
    Raises: InvalidParams, UnsupportedFeature naming the part.
    """
    writer = _Writer(special, json_rule)
    body = writer.node(structure_of(tag))
    return "\n".join([f"start: {body}", r"TEXT: /(.|\n)*/", *writer.rules])


class _Writer:
    """Collects rules; node() gives the expression that stands for a node."""

    def __init__(self, special: Mapping[str, int], json_rule: Callable[[Node], str]) -> None:
        self.rules: list[str] = []
        self._special = special
        self._json_rule = json_rule
        names = sorted(map(re.escape, special), key=len, reverse=True)
        self._tokens = re.compile(f"({'|'.join(names)})") if names else None
        self._kinds: dict[str, Callable[[Node], str]] = {
            "const_string": lambda node: self._text(field(node, "value", str)),
            "json_schema": lambda node: self._json_rule(field(node, "json_schema", Mapping)),
            "regex": self._regex,
            "any_text": lambda node: "TEXT",
            "sequence": lambda node: " ".join(self._each(node)),
            "or": lambda node: f"({' | '.join(self._each(node))})",
            "tag": self._tag,
            "triggered_tags": self._triggered,
            "tags_with_separator": self._separated,
        }

    def node(self, node: Node) -> str:
        kind = node.get("type")
        if not isinstance(kind, str) or kind not in self._kinds:
            raise UnsupportedFeature(
                f"structural_tag: type {kind!r:.60} is not supported; it may be {', '.join(self._kinds)}"
            )
        return self._kinds[kind](node)

    def _each(self, node: Node) -> list[str]:
        return [self.node(each) for each in objects(node, "elements")]

    def _text(self, text: str) -> str:
        parts = self._tokens.split(text) if self._tokens else [text]
        found = [f"<[{self._special[part]}]>" if part in self._special else literal(part) for part in parts if part]
        return " ".join(found) or literal("")

    def _regex(self, node: Node) -> str:
        name = f"REGEX_{len(self.rules)}"
        self.rules.append(f"{name}: {regex_literal(field(node, 'pattern', str))}")
        return name

    def _tag(self, node: Node) -> str:
        begin, content, end = (field(node, "begin", str), field(node, "content", Mapping), field(node, "end", str))
        head = self._text(begin) if begin else ""
        if content.get("type") == "any_text" and end:
            return f"{head} {self._until(end)}".strip()
        tail = self._text(end) if end else ""
        return f"{head} {self.node(content)} {tail}".strip()

    def _until(self, end: str) -> str:
        """Free text up to and with an end; of one that holds special tokens, up to its first part, which no text is."""
        first, *_ = (part for part in (self._tokens.split(end) if self._tokens else [end]) if part)
        if first in self._special:
            return f"TEXT {self._text(end)}"
        name = f"until_{len(self.rules)}"
        self.rules.append(f"{name}[lazy]: TEXT {literal(first)}")
        return f"{name} {self._text(end[len(first) :])}" if len(first) < len(end) else name

    def _triggered(self, node: Node) -> str:
        """Free text; what follows a trigger is the rest of a tag that begins with it."""
        triggers = [each for each in field(node, "triggers", list) if isinstance(each, str) and each]
        heads = {trigger: self._until(trigger) for trigger in triggers}
        branches = []
        for tag in objects(node, "tags"):
            begin = field(tag, "begin", str)
            trigger = next((each for each in triggers if begin.startswith(each)), None)
            if trigger is None:
                raise InvalidParams(f"structural_tag: {begin!r:.60} begins with none of the triggers")
            branches.append(f"{heads[trigger]} {self._tag({**tag, 'begin': begin[len(trigger) :]})}")
        few = ("+" if node.get("at_least_one") else "*") if not node.get("stop_after_first") else ""
        tags = f"({' | '.join(branches)}){few or ('' if node.get('at_least_one') else '?')}"
        return tags if node.get("stop_after_first") and node.get("at_least_one") else f"{tags} TEXT"

    def _separated(self, node: Node) -> str:
        tag = f"({' | '.join(self._tag(each) for each in objects(node, 'tags'))})"
        separator = self._text(field(node, "separator", str))
        tags = tag if node.get("stop_after_first") else f"{tag} ({separator} {tag})*"
        return tags if node.get("at_least_one") else f"({tags})?"
