"""StructuredOutputsParams: the form an output must have. Names and meanings are vLLM's.

Checked once, on construction, and frozen afterwards; also the sizes are, so that whoever compiles it has bounded work.
A leaf module: does not know grammars, tokenizers or requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from albireo.errors import InvalidParams

#: Bytes of a JSON schema, or of a structural tag: OpenAI's limit is 120,000 characters of names and values.
MAX_SCHEMA_BYTES = 128 * 1024
#: Brackets within brackets of a schema; two or three of them make one level of the output.
MAX_SCHEMA_DEPTH = 64
MAX_REGEX_CHARS = 8 * 1024
MAX_GRAMMAR_BYTES = 64 * 1024
#: Strings to choose from, and their bytes together.
MAX_CHOICES, MAX_CHOICE_BYTES = 4096, 64 * 1024

BACKENDS = ("llguidance", "xgrammar", "auto")

_KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
#: Values of a schema looked at before it is called too large; each costs a byte at least.
_MAX_VALUES = MAX_SCHEMA_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutputsParams:
    """Exactly one of the first six.

    Fields:
        json: a JSON schema, as an object or as its text.
        regex: the whole output matches it (Rust's syntax: no look-around, no back-references).
        choice: the output is one of these strings.
        grammar: a Lark grammar, or an EBNF one in the form of GBNF (root ::= …).
        json_object: True: any JSON object.
        structural_tag: {"structures": [{"begin", "schema", "end"}, …], "triggers": […]}, or its text: free text, but
            what follows a trigger is one of the structures; or {"format": …}, see structured/llguidance/tag_rules.py.
        disable_any_whitespace: JSON without white space between its parts.
        disable_additional_properties: objects of a schema have the properties it names and no other, unless it says so
            itself.
        whitespace_pattern: regular expression of the white space between parts of JSON.
        backend: who compiles it: llguidance, xgrammar or auto (see structured/compiler.py); None: the engine's default.
            vLLM's name of llguidance, guidance, will do.

    Raises: InvalidParams naming field, value and limit.
    """

    json: str | Mapping[str, Any] | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | Mapping[str, Any] | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        if self.json_object is False:
            object.__setattr__(self, "json_object", None)
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidParams(
                f"structured_outputs has {' and '.join(given) or 'none'} of {', '.join(_KINDS)}; give exactly one"
            )
        _CHECKS[given[0]](self)
        self._check_options(given[0])
        object.__setattr__(self, "backend", backend_name("structured_outputs.backend", self.backend))

    @property
    def kind(self) -> str:
        """Which of the six is given."""
        return next(name for name in _KINDS if getattr(self, name) is not None)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema, or the structural tag, as an object of its own."""
        value = self.json if self.json is not None else self.structural_tag
        loaded: dict[str, Any] = json.loads(value if isinstance(value, str) else json.dumps(value))
        return loaded

    @classmethod
    def of(cls, value: Any) -> StructuredOutputsParams:
        """From what callers give: an instance, or an object with its fields. Raises: InvalidParams."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise InvalidParams(
                f"structured_outputs must be StructuredOutputsParams or an object, got {type(value).__name__}"
            )
        known = {field.name for field in fields(cls)}
        for name in value:
            if name not in known:
                raise InvalidParams(
                    f"structured_outputs has no field {name!r}; its fields are {', '.join(sorted(known))}"
                )
        return cls(**{name: item for name, item in value.items() if item is not None})

    def _check_json(self) -> None:
        _check_object("json", self.json)

    def _check_tag(self) -> None:
        _check_object("structural_tag", self.structural_tag)

    def _check_regex(self) -> None:
        _check_text("regex", self.regex)
        _check_size("regex", len(self.regex or ""), MAX_REGEX_CHARS, "characters")

    def _check_grammar(self) -> None:
        if not (_check_text("grammar", self.grammar)).strip():
            raise InvalidParams("structured_outputs.grammar is empty; give a Lark or EBNF grammar")
        _check_size("grammar", len((self.grammar or "").encode()), MAX_GRAMMAR_BYTES, "bytes")

    def _check_choice(self) -> None:
        choices = self.choice
        if isinstance(choices, (str, bytes)) or not isinstance(choices, Sequence) or not choices:
            raise InvalidParams(f"structured_outputs.choice must be a list of strings, got {choices!r:.60}")
        _check_size("choice", len(choices), MAX_CHOICES, "strings")
        texts = [_check_text("choice", text) for text in choices]
        _check_size("choice", sum(len(text.encode()) for text in texts), MAX_CHOICE_BYTES, "bytes")
        object.__setattr__(self, "choice", tuple(texts))

    def _check_json_object(self) -> None:
        if self.json_object is not True:
            raise InvalidParams(f"structured_outputs.json_object must be true or false, got {self.json_object!r:.60}")

    def _check_options(self, kind: str) -> None:
        for name in ("disable_any_whitespace", "disable_additional_properties"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidParams(f"structured_outputs.{name} must be true or false, got {getattr(self, name)!r:.60}")
        if self.whitespace_pattern is not None:
            _check_text("whitespace_pattern", self.whitespace_pattern)
            _check_size("whitespace_pattern", len(self.whitespace_pattern), MAX_REGEX_CHARS, "characters")
            if self.disable_any_whitespace:
                raise InvalidParams(
                    "structured_outputs has whitespace_pattern and disable_any_whitespace, which contradict each "
                    "other; give one of them"
                )
        asked = self.disable_any_whitespace or self.disable_additional_properties or self.whitespace_pattern is not None
        if asked and kind in ("regex", "choice", "grammar"):
            raise InvalidParams(f"structured_outputs.{kind} knows no JSON; leave out what is said about JSON beside it")


def backend_name(name: str, value: Any) -> str | None:
    """A backend's name, with vLLM's taken for ours. Args: name: of the field. Raises: InvalidParams."""
    if value is None or value in BACKENDS:
        return None if value is None else str(value)
    if value == "guidance":
        return "llguidance"
    raise InvalidParams(f"{name}={value!r:.60} is unknown; choose {', '.join(BACKENDS)}")


_CHECKS = {
    "json": StructuredOutputsParams._check_json,
    "regex": StructuredOutputsParams._check_regex,
    "choice": StructuredOutputsParams._check_choice,
    "grammar": StructuredOutputsParams._check_grammar,
    "json_object": StructuredOutputsParams._check_json_object,
    "structural_tag": StructuredOutputsParams._check_tag,
}


def _check_text(name: str, text: Any) -> str:
    if not isinstance(text, str):
        raise InvalidParams(f"structured_outputs.{name} must be text, got {text!r:.60}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidParams(
            f"structured_outputs.{name} is not valid Unicode: it holds half of a surrogate pair"
        ) from None
    return text


def _check_size(name: str, num: int, limit: int, unit: str) -> None:
    if num > limit:
        raise InvalidParams(f"structured_outputs.{name} has {num} {unit}, the limit is {limit}; make it smaller")


def _check_object(name: str, value: Any) -> None:
    """A JSON object, or its text, within the limits of size and depth."""
    if isinstance(value, str):
        _check_size(name, len(_check_text(name, value).encode()), MAX_SCHEMA_BYTES, "bytes")
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidParams(f"structured_outputs.{name} is no JSON: {error}") from None
        except RecursionError:
            raise _too_deep(name) from None
    if not isinstance(value, Mapping):
        raise InvalidParams(f"structured_outputs.{name} must be a JSON object, got {value!r:.60}")
    _check_depth(name, value)
    try:
        num_bytes = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise InvalidParams(f"structured_outputs.{name} holds what JSON cannot say: {error}") from None
    _check_size(name, num_bytes, MAX_SCHEMA_BYTES, "bytes")


def _check_depth(name: str, value: Any) -> None:
    # Depth first and counted, so that an object that holds itself comes to its end too.
    stack: list[tuple[Any, int]] = [(value, 1)]
    num_values = 0
    while stack:
        item, depth = stack.pop()
        num_values += 1
        if depth > MAX_SCHEMA_DEPTH:
            raise _too_deep(name)
        if num_values > _MAX_VALUES:
            raise InvalidParams(f"structured_outputs.{name} has more than {_MAX_VALUES} values; make it smaller")
        inner = item.values() if isinstance(item, Mapping) else item if isinstance(item, (list, tuple)) else ()
        stack += [(each, depth + 1) for each in inner if isinstance(each, (Mapping, list, tuple))]


def _too_deep(name: str) -> InvalidParams:
    return InvalidParams(
        f"structured_outputs.{name} is nested more than {MAX_SCHEMA_DEPTH} deep, which is the limit; use $defs and $ref"
    )
