"""A structural tag -> xgrammar's own tree, with the same node types and the same older form as llguidance's.

Called by request.py. Where a text of the tag holds a special token, the token is meant: such texts become sequences of
texts and tokens. Types are those of llguidance/tag_rules.py; fields that a node does not know are refused, not
ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured.tag_fields import Node, field, objects, structure_of
from albireo.structured.xgrammar import regex

_ANY: Node = {"type": "any_text"}
_FIELDS = {
    "const_string": ("value",),
    "json_schema": ("json_schema",),
    "regex": ("pattern",),
    "any_text": (),
    "sequence": ("elements",),
    "or": ("elements",),
    "tag": ("begin", "content", "end"),
    "triggered_tags": ("triggers", "tags", "at_least_one", "stop_after_first"),
    "tags_with_separator": ("tags", "separator", "at_least_one", "stop_after_first"),
}


def kept_format(tag: Node, special: Mapping[str, int], schema_text: Callable[[Node], str]) -> Node:
    """The tree under "format".

    Args: special: text -> id of special tokens. schema_text: a JSON schema -> the text of the one that is kept.
    Raises: InvalidParams, UnsupportedFeature naming the part.
    """
    return _Tree(special, schema_text).node(structure_of(tag))


class _Tree:
    def __init__(self, special: Mapping[str, int], schema_text: Callable[[Node], str]) -> None:
        self._special, self._schema_text = special, schema_text
        names = sorted(map(re.escape, special), key=len, reverse=True)
        self._tokens = re.compile(f"({'|'.join(names)})") if names else None

    def node(self, node: Node) -> Node:
        kind = node.get("type")
        if not isinstance(kind, str) or kind not in _FIELDS:
            raise UnsupportedFeature(
                f"structural_tag: type {kind!r:.60} is not supported; it may be {', '.join(_FIELDS)}"
            )
        unknown = [name for name in node if name not in ("type", *_FIELDS[kind])]
        if unknown:
            raise UnsupportedFeature(f"structural_tag: {kind} has {', '.join(unknown):.100}, which is not supported")
        if kind == "const_string":
            return _sequence(self._text(field(node, "value", str)))
        if kind == "json_schema":
            return {"type": "json_schema", "json_schema": self._schema_text(field(node, "json_schema", Mapping))}
        if kind == "regex":
            pattern = regex.whole(field(node, "pattern", str), "structural_tag: pattern")
            return {"type": "regex", "pattern": pattern}
        if kind == "any_text":
            return {"type": "any_text"}
        if kind in ("sequence", "or"):
            return {"type": kind, "elements": [self.node(each) for each in objects(node, "elements")]}
        if kind == "tag":
            return self._tag(node)
        return self._triggered(node) if kind == "triggered_tags" else self._separated(node)

    def _text(self, text: str) -> list[Node]:
        parts = self._tokens.split(text) if self._tokens else [text]
        return [
            {"type": "token", "token": self._special[part]}
            if part in self._special
            else {"type": "const_string", "value": part}
            for part in parts
            if part
        ]

    def _tag(self, node: Node) -> Node:
        begin, end = self._text(field(node, "begin", str)), self._text(field(node, "end", str))
        content = self.node(field(node, "content", Mapping))
        if content["type"] == "any_text" and end and end[0]["type"] == "const_string":
            # Free text goes on to the end's first occurrence; only a tag says so.
            inner = {"type": "tag", "begin": "", "content": content, "end": end[0]["value"]}
            return _sequence([*begin, inner, *end[1:]])
        return _sequence([*begin, content, *end])

    def _triggered(self, node: Node) -> Node:
        triggers = [each for each in field(node, "triggers", list) if isinstance(each, str) and each]
        cut = [self._text(trigger) for trigger in triggers]
        are_tokens = [len(parts) == 1 and parts[0]["type"] == "token" for parts in cut]
        are_texts = [len(parts) == 1 and parts[0]["type"] == "const_string" for parts in cut]
        if not all(are_tokens) and not all(are_texts):
            raise UnsupportedFeature(
                "structural_tag: xgrammar takes triggers that are all texts, or all special tokens"
            )
        tags, firsts = [], []
        for tag in objects(node, "tags"):
            begin = field(tag, "begin", str)
            trigger = next((each for each in triggers if begin.startswith(each)), None)
            if trigger is None:
                raise InvalidParams(f"structural_tag: {begin!r:.60} begins with none of the triggers")
            head = self._text(trigger)[0]
            rest = self._tag({**tag, "begin": begin[len(trigger) :]})
            if head["type"] == "const_string":
                text = {**_ANY, "excludes": [each for each in triggers if each != trigger]}
                firsts.append(_sequence([{"type": "tag", "begin": "", "content": text, "end": trigger}, rest]))
                tags.append(self._ended(trigger, tag, begin[len(trigger) :]))
            else:
                firsts.append(_sequence([_ANY, head, rest]))
                tags.append(self._ended(head, tag, begin[len(trigger) :]))
        first: Node = {"type": "or", "elements": firsts}
        if node.get("stop_after_first"):
            if node.get("at_least_one"):
                return first
            none = {**_ANY, "excludes": triggers} if all(are_texts) else _ANY
            return {"type": "or", "elements": [_sequence([first, _ANY]), none]}
        if all(are_texts):
            free: Node = {"type": "triggered_tags", "triggers": triggers, "tags": tags}
        else:
            tokens = [parts[0]["token"] for parts in cut]
            free = {"type": "token_triggered_tags", "trigger_tokens": tokens, "tags": tags}
        # xgrammar's own at_least_one lets no text come in front of the first.
        return _sequence([first, free]) if node.get("at_least_one") else free

    def _ended(self, head: str | Node, tag: Node, begin: str) -> Node:
        """A tag with its end outside of its content: of unbounded content xgrammar wants to be told one."""
        *inner, last = self._text(field(tag, "end", str)) or [{"type": "const_string", "value": ""}]
        content = _sequence([*self._text(begin), self.node(field(tag, "content", Mapping)), *inner])
        end = last["value"] if last["type"] == "const_string" else last
        return {"type": "tag", "begin": head, "content": content, "end": end}

    def _separated(self, node: Node) -> Node:
        tags = [self._tag(each) for each in objects(node, "tags")]
        one: Node = {"type": "or", "elements": tags}
        found = one
        if not node.get("stop_after_first"):
            more = _sequence([*self._text(field(node, "separator", str)), one])
            found = _sequence([one, {"type": "star", "content": more}])
        return found if node.get("at_least_one") else {"type": "optional", "content": found}


def _sequence(nodes: list[Node]) -> Node:
    if not nodes:
        return {"type": "const_string", "value": ""}
    return nodes[0] if len(nodes) == 1 else {"type": "sequence", "elements": nodes}
