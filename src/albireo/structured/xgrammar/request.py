"""StructuredOutputsParams -> what the process of xgrammar compiles, as an object of JSON.

Called by backend.py. Everything that can be refused without the library is refused here. The jobs:

    {"kind": "json", "schema": text, "whitespace": most characters between parts}
    {"kind": "regex", "regex": text}
    {"kind": "ebnf", "ebnf": text}
    {"kind": "tag", "format": tree, "whitespace": …}   json_schema in the tree is as above
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from albireo.errors import UnsupportedFeature
from albireo.structured.xgrammar import regex
from albireo.structured.xgrammar.schema import kept_schema
from albireo.structured.xgrammar.tags import kept_format
from albireo.structured_params import StructuredOutputsParams

Job = dict[str, Any]

#: White space between parts of JSON, at most so much, as with llguidance.
MAX_WHITESPACE = 40
_RULE = re.compile(r"^[^\S\n]*+[A-Za-z_][\w-]*+\s*+::=", re.MULTILINE)
#: A hint for masks that xgrammar believes, and that is no part of GBNF: a wrong one would make wrong masks.
_LOOKAHEAD = re.compile(r"\(\s*=")
#: A string, a class or a comment. What is never closed ends with the grammar, in a group: were it none of these, its
#: end would be looked for anew behind each of its brackets.
_QUOTED = re.compile(r'"(?:\\[\s\S]?|[^"\\])*+(?:"|(\Z))|\[(?:\\[\s\S]?|[^\]\\])*+(?:\]|(\Z))|#[^\n]*+')


def job_of(params: StructuredOutputsParams, special: Mapping[str, int]) -> Job:
    """The job of one form.

    Args: special: text -> id of the tokens that no text becomes.
    Raises: InvalidParams, UnsupportedFeature naming what xgrammar does not keep.
    """
    if params.whitespace_pattern is not None:
        raise UnsupportedFeature(
            "structured_outputs.whitespace_pattern is not kept by xgrammar; use disable_any_whitespace, or llguidance"
        )
    whitespace = 0 if params.disable_any_whitespace else MAX_WHITESPACE
    if params.kind == "regex":
        return {"kind": "regex", "regex": regex.whole(params.regex or "", "structured_outputs.regex")}
    if params.kind == "choice":
        return {"kind": "ebnf", "ebnf": f"root ::= {' | '.join(map(_quoted, params.choice or ()))}"}
    if params.kind == "grammar":
        return {"kind": "ebnf", "ebnf": _ebnf(params.grammar or "")}

    def schema_text(schema: Mapping[str, Any]) -> str:
        return json.dumps(kept_schema(schema, is_closed=params.disable_additional_properties))

    if params.kind == "structural_tag":
        return {"kind": "tag", "format": kept_format(params.schema, special, schema_text), "whitespace": whitespace}
    schema = {"type": "object"} if params.kind == "json_object" else params.schema
    return {"kind": "json", "schema": schema_text(schema), "whitespace": whitespace}


def _quoted(text: str) -> str:
    return '"' + "".join(one if one.isalnum() else f"\\U{ord(one):08x}" for one in text) + '"'


def _ebnf(grammar: str) -> str:
    if not _RULE.search(grammar):
        raise UnsupportedFeature(
            "structured_outputs.grammar is a Lark grammar, which xgrammar does not read here; write it as EBNF "
            "(root ::= …), or use llguidance"
        )
    if _LOOKAHEAD.search(_QUOTED.sub(lambda found: found[0] if found.lastindex else "", grammar)):
        raise UnsupportedFeature("structured_outputs.grammar: a (= …) is not supported; leave it out")
    # Half of a surrogate pair is no text, though a [^…] of xgrammar's lets it pass.
    return _QUOTED.sub(lambda found: re.sub(r"^\[\^", r"[^\\ud800-\\udfff", found[0]), grammar)
