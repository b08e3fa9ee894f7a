"""StructuredOutputsParams -> the text of a grammar as llguidance reads it (Lark with extensions).

Called by backend.py. Does not know tokens, but for the few special ones that it is given.

Every grammar is marked no_forcing: where only one text can follow, the library would otherwise spell it out in one go
to find the tokens of its usual spelling, and "(a{1000}){1000}" makes that a matter of seconds in each step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llguidance.gbnf_to_lark import any_to_lark

from albireo.errors import InvalidParams
from albireo.structured.llguidance.tag_rules import literal, regex_literal, tag_rules
from albireo.structured.look_ahead import without_look_ahead
from albireo.structured.property_names import without_property_names
from albireo.structured.subschemas import with_each
from albireo.structured_params import StructuredOutputsParams

#: White space between parts of JSON, at most so much: a model that hesitates would go on with it for ever. Patterns
#: that say more about its shape cost a mask a hundred times the work.
WHITESPACE = r"[ \t\n\r]{1,40}"
_DIRECTIVE = "%llguidance"


def grammar_text(params: StructuredOutputsParams, special: Mapping[str, int]) -> str:
    """The grammar.

    Args: special: text -> id of the tokens that no other text of the grammar can become.
    Raises: InvalidParams, UnsupportedFeature.
    """
    if params.kind == "grammar":
        return _own_grammar(params.grammar or "")
    head = f'{_DIRECTIVE} {{"no_forcing": true}}\n'
    if params.kind == "regex":
        return f"{head}start: OUTPUT\nOUTPUT: {regex_literal(params.regex or '')}"
    if params.kind == "choice":
        return f"{head}start: {' | '.join(map(literal, params.choice or ()))}"
    if params.kind == "structural_tag":
        return head + tag_rules(params.schema, special, lambda schema: json_rule(schema, params))
    schema = {"type": "object"} if params.kind == "json_object" else params.schema
    return f"{head}start: {json_rule(schema, params)}"


def json_rule(schema: Mapping[str, Any], params: StructuredOutputsParams) -> str:
    """A JSON schema as Lark. Unknown formats are annotations, as JSON Schema has it; compiler.py refuses the rest of
    what lenient lets pass."""
    schema = without_look_ahead(without_property_names(schema))
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
    out = with_each(schema, closed)
    if isinstance(out.get("properties"), Mapping):
        out.setdefault("additionalProperties", False)
    return out


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
