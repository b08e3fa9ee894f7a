"""StructuredOutputsParams -> the text of a grammar as llguidance reads it (Lark with extensions).

Called by compiler.py. Does not know tokens; their ids are looked up by a function that is given.

Every grammar is marked no_forcing: where only one text can follow, the library would otherwise spell it out in one go
to find the tokens of its usual spelling, and "(a{1000}){1000}" makes that a matter of seconds in each step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llguidance import regex_to_lark
from llguidance.gbnf_to_lark import any_to_lark

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured_params import StructuredOutputsParams

#: White space between parts of JSON: a blank, or a new line and its indent. With more, a model that hesitates goes on
#: for ever.
WHITESPACE = r"( |\r?\n[ \t]{0,32})"
_DIRECTIVE = "%llguidance"
_SUBSCHEMAS = ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames")
_SUBSCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_SUBSCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions")


def grammar_text(params: StructuredOutputsParams, token_id: Callable[[str], int | None]) -> str:
    """The grammar.

    Args: token_id: text -> id of the added token that has this text.
    Raises: InvalidParams, UnsupportedFeature.
    """
    if params.kind == "grammar":
        return _own_grammar(params.grammar or "")
    head = f'{_DIRECTIVE} {{"no_forcing": true}}\n'
    if params.kind == "regex":
        return f"{head}start: OUTPUT\nOUTPUT: /{_regex(params.regex or '')}/"
    if params.kind == "choice":
        return f"{head}start: {' | '.join(map(literal, params.choice or ()))}"
    if params.kind == "structural_tag":
        return head + _structural_tag(params, token_id)
    schema = {"type": "object"} if params.kind == "json_object" else params.schema
    return f"{head}start: {json_rule(schema, params)}"


def literal(text: str) -> str:
    """A text as a Lark string."""
    return json.dumps(text, ensure_ascii=False)


def token(text: str, token_id: Callable[[str], int | None]) -> str:
    """A text that is one token where the vocabulary has it, as Lark."""
    found = token_id(text)
    return literal(text) if found is None else f"<[{found}]>"


def json_rule(schema: Mapping[str, Any], params: StructuredOutputsParams) -> str:
    """A JSON schema as Lark. Unknown formats are annotations, as JSON Schema has it; compiler.py refuses the rest of
    what lenient lets pass."""
    if params.disable_additional_properties:
        schema = closed(schema)
    own = schema.get("x-guidance")
    options = {
        **(own if isinstance(own, Mapping) else {}),
        "lenient": True,
        "coerce_one_of": True,
        "whitespace_flexible": not params.disable_any_whitespace,
    }
    if not params.disable_any_whitespace:
        options.setdefault("whitespace_pattern", WHITESPACE)
        if params.whitespace_pattern is not None:
            options["whitespace_pattern"] = params.whitespace_pattern
    return f"%json {json.dumps({**schema, 'x-guidance': options})}"


def closed(schema: Any) -> Any:
    """The schema with additionalProperties false in each object that names properties and says nothing about others."""
    if not isinstance(schema, Mapping):
        return schema
    out = dict(schema)
    for key in _SUBSCHEMAS:
        if key in out:
            out[key] = closed(out[key])
    for key in _SUBSCHEMA_LISTS:
        if isinstance(out.get(key), list):
            out[key] = [closed(each) for each in out[key]]
    for key in _SUBSCHEMA_MAPS:
        if isinstance(out.get(key), Mapping):
            out[key] = {name: closed(each) for name, each in out[key].items()}
    if isinstance(out.get("properties"), Mapping):
        out.setdefault("additionalProperties", False)
    return out


def _regex(regex: str) -> str:
    # \d is 0 to 9, as people mean it; \w and \s are Unicode's, as in Python.
    return regex_to_lark(regex, use_ascii="d")


def _own_grammar(text: str) -> str:
    """A caller's grammar, as Lark, with no_forcing in its directive."""
    try:
        lark = any_to_lark(text)
    except RecursionError:
        raise InvalidParams("structured_outputs.grammar is nested too deeply; name its parts as rules") from None
    except Exception as error:  # the library raises plain ones
        raise InvalidParams(f"structured_outputs.grammar cannot be read: {error}") from None
    options: dict[str, Any] = {}
    lines = []
    for line in lark.split("\n"):
        if not line.lstrip().startswith(_DIRECTIVE):
            lines.append(line)
            continue
        try:
            options |= json.loads(line.strip().removeprefix(_DIRECTIVE))
        except (ValueError, TypeError):
            raise InvalidParams(f"structured_outputs.grammar: {line:.80} must be {_DIRECTIVE} and an object") from None
    return f"{_DIRECTIVE} {json.dumps({**options, 'no_forcing': True})}\n" + "\n".join(lines)


def _structural_tag(params: StructuredOutputsParams, token_id: Callable[[str], int | None]) -> str:
    """Free text; after a trigger the rest of a structure's beginning, its JSON and its end."""
    tag = params.schema
    structures, triggers = tag.get("structures", ()), tag.get("triggers", ())
    if "structures" not in tag and "format" in tag:
        raise UnsupportedFeature(
            'structural_tag with a "format" is not supported; give {"structures": [{"begin", "schema", "end"}, …], '
            '"triggers": […]}'
        )
    if not (_is_list_of(structures, Mapping) and _is_list_of(triggers, str)):
        raise InvalidParams('structural_tag must have "structures", a list of objects, and "triggers", a list of texts')
    rules = []
    for idx, structure in enumerate(structures):
        begin, schema, end = (structure.get(name) for name in ("begin", "schema", "end"))
        if not (isinstance(begin, str) and isinstance(schema, Mapping) and isinstance(end, str)):
            raise InvalidParams(
                f'structural_tag: structure {idx} must have texts "begin" and "end" and an object "schema"'
            )
        trigger = next((each for each in triggers if each and begin.startswith(each)), None)
        if trigger is None:
            raise InvalidParams(
                f"structural_tag: structure {idx} begins with {begin!r:.60}, which has none of the triggers"
            )
        found = token_id(trigger)
        if found is None:
            rules.append(f"head_{idx}[lazy]: TEXT {literal(trigger)}")
        head = f"head_{idx}" if found is None else f"TEXT <[{found}]>"
        rest = begin[len(trigger) :]
        body = [literal(rest) if rest else "", json_rule(schema, params), literal(end) if end else ""]
        rules.append(f"tag_{idx}: {head} {' '.join(filter(None, body))}")
    names = " | ".join(f"tag_{idx}" for idx in range(len(structures)))
    return "\n".join([f"start: ({names})* last", "last: TEXT", r"TEXT: /(.|\n)*/", *rules])


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(each, kind) for each in value)
