"""From a form to a constraint, by each backend: every vocabulary, every kind, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from albireo.errors import ConfigError, InvalidParams, UnsupportedFeature
from albireo.structured import compiler as subject
from albireo.structured.compiler import GrammarCompiler, require_xgrammar
from albireo.structured_params import StructuredOutputsParams
from structured.vocabularies import BACKENDS, REAL, allowed_ids, compiler, constraint, follows, tokenizer, vocabulary

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["bundled", "tekken", *REAL])
@pytest.mark.parametrize("text", ['{"name": "Zoë 😀\\n", "age": 7}', '{\n  "name": "x",\n  "age": 150\n}'])
def test_a_valid_text_can_be_written_and_a_wrong_one_not(backend: str, name: str, text: str) -> None:
    # SentencePiece begins a text with a space of its own, which is one of the text after a prompt.
    if tokenizer(name).pieces.kind == "byte_fallback":
        pytest.skip("its encoder adds a leading space")
    assert follows(name, text, json=PERSON, backend=backend)
    assert not follows(name, text.replace("7", "151").replace("150", "-1"), json=PERSON, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["mistral-v1", "mistral-v3", "phi-3-mini"])
def test_a_byte_fallback_vocabulary_writes_bytes_and_spaces(backend: str, name: str) -> None:
    if name not in REAL:
        pytest.skip("shared data tokenizers are not beside the repository")
    known = tokenizer(name)
    matcher = constraint(name, regex=" é🯅", backend=backend).matcher()
    output: list[int] = []
    while (chosen := allowed_ids(matcher, output)) and chosen[0] not in matcher.eos_token_ids:
        output.append(chosen[-1])
    assert b"".join(p.data for p in map(known.pieces.piece, output) if p is not None) == " é🯅".encode()
    assert any(p.is_byte for p in map(known.pieces.piece, output) if p is not None)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("params", "right", "wrong"),
    [
        ({"regex": r"[a-c]{2}\d/\n"}, "ab4/\n", "ab٣/\n"),
        ({"regex": "^a|b$"}, "a", "ab"),
        ({"choice": ["red", 'say "é"\\', "red wine"]}, 'say "é"\\', "white"),
        ({"choice": ["ße", "🦊e", "Āe"]}, "🦊e", "ß"),
        ({"choice": ["red", "red wine"]}, "red wine", "red w"),
        ({"grammar": 'root ::= "a" n\nn ::= [0-9]+'}, "a12", "12"),
        ({"json_object": True}, '{"a": [1, {}]}', "[1]"),
        ({"json_object": True, "disable_any_whitespace": True}, '{"a":1}', '{"a": 1}'),
        ({"json": {"type": "string", "format": "of-our-house"}}, '"x"', "1"),
        ({"json": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "1.5", '"x"'),
        ({"json": {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}}, "5", '"5"'),
    ],
)
def test_each_kind_takes_what_it_says(backend: str, params: dict[str, Any], right: str, wrong: str) -> None:
    assert follows("bundled", right, **params, backend=backend)
    assert not follows("bundled", wrong, **params, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_properties_that_are_not_named_can_be_closed_out(backend: str) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {"b": {}}}, "c": {"type": "object"}},
    }
    text = '{"a": {"b": 1, "x": 2}}'
    assert follows("bundled", text, json=schema, backend=backend)
    assert not follows("bundled", text, json=schema, disable_additional_properties=True, backend=backend)
    assert follows("bundled", '{"c": {"any": 1}}', json=schema, disable_additional_properties=True, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_white_space_comes_to_an_end(backend: str) -> None:
    assert follows("bundled", '{\n  "a": 1 }', json_object=True, backend=backend)
    assert follows("bundled", "{" + " " * 40 + "}", json_object=True, backend=backend)
    assert not follows("bundled", "{" + " " * 41 + "}", json_object=True, backend=backend)


TAG = {
    "structures": [{"begin": "<call=f>", "schema": {"type": "integer"}, "end": "</call>"}],
    "triggers": ["<call"],
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_structural_tag_is_free_text_until_its_trigger(backend: str) -> None:
    assert follows("bundled", "No call at all.", structural_tag=TAG, backend=backend)
    assert follows(
        "bundled", "I call <call=f>12</call> and <call=f>3</call> so.", structural_tag=json.dumps(TAG), backend=backend
    )
    assert not follows("bundled", "I call <call=g>12</call>", structural_tag=TAG, backend=backend)
    assert not follows("bundled", 'I call <call=f>"x"</call>', structural_tag=TAG, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("tag", "error", "message"),
    [
        ({"format": {"type": "star"}}, UnsupportedFeature, "type 'star' is not supported; it may be const_string"),
        ({"format": {"type": "sequence", "elements": []}}, InvalidParams, "'elements' must be a list of objects"),
        ({"format": {"type": "const_string", "value": 1}}, InvalidParams, "'value' must be a text, got 1"),
        ({"format": []}, InvalidParams, "'format' must be an object"),
        ({"structures": [], "triggers": ["<"]}, InvalidParams, "'tags' must be a list of objects"),
        ({"triggers": ["<"]}, InvalidParams, "'structures' must be a list"),
        (TAG | {"triggers": ["<other"]}, InvalidParams, "begins with none of the triggers"),
        (TAG | {"structures": [{"begin": "<call"}]}, InvalidParams, "'schema' must be an object"),
    ],
)
def test_a_structural_tag_that_is_none_is_refused(
    backend: str, tag: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        constraint(structural_tag=tag, backend=backend)


def calls(**options: Any) -> dict[str, Any]:
    tags = [{"begin": f"<{name}>", "content": {"type": "regex", "pattern": r"\d+"}, "end": "</>"} for name in "fg"]
    return {"format": {"type": "tags_with_separator", "tags": tags, "separator": ", ", **options}}


FREE = {"type": "triggered_tags", "triggers": ["<f"], "tags": calls()["format"]["tags"][:1]}
THINK = {"type": "tag", "begin": "<think>", "content": {"type": "any_text"}, "end": "</think>"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("tag", "right", "wrong"),
    [
        (calls(), ["", "<f>1</>, <g>23</>"], ["<f>1</><g>2</>", "<h>1</>"]),
        (calls(at_least_one=True), ["<f>1</>"], [""]),
        (calls(stop_after_first=True), ["<f>1</>", ""], ["<f>1</>, <g>2</>"]),
        ({"format": FREE}, ["", "a<f>1</>b<f>2</>"], ["<fx"]),
        ({"format": FREE | {"at_least_one": True}}, ["a<f>1</>b"], ["ab"]),
        ({"format": FREE | {"stop_after_first": True}}, ["a", "<f>1</>b"], ["<f>1</>", "<f>x"][1:]),
        ({"format": FREE | {"stop_after_first": True, "at_least_one": True}}, ["a<f>1</>"], ["<f>1</>b", "a"]),
        (
            {"format": {"type": "sequence", "elements": [THINK, {"type": "const_string", "value": "\n"}, FREE]}},
            ["<think>so < </think>\nyes<f>1</>"],
            ["yes", "<think>so"],
        ),
        (
            {"format": {"type": "or", "elements": [THINK, {"type": "json_schema", "json_schema": {"type": "null"}}]}},
            ["<think></think>", "null"],
            ["<think>", "nul"],
        ),
    ],
)
@pytest.mark.parametrize("name", ["bundled", "qwen3"])
def test_the_nodes_of_a_structural_tag(
    backend: str, name: str, tag: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    """<think> is text to the bundled tokenizer, and a token of its own to Qwen's."""
    for text in right:
        assert follows(name, text, structural_tag=tag, backend=backend), text
    for text in wrong:
        assert not follows(name, text, structural_tag=tag, backend=backend), text


def test_a_model_without_eos_is_told() -> None:
    endless = GrammarCompiler(replace(vocabulary(), eos_token_ids=()))
    with pytest.raises(UnsupportedFeature, match="EOS"):
        endless.compile(StructuredOutputsParams(regex="a"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_a_model_without_a_token_are_never_allowed(backend: str) -> None:
    matcher = (
        compiler("bundled", num_more_rows=100)
        .compile(StructuredOutputsParams(regex="[^a]*", backend=backend))
        .matcher()
    )
    assert len(matcher.allowed([])) * 8 >= tokenizer("bundled").vocab_size + 100
    assert max(allowed_ids(matcher, [])) < tokenizer("bundled").vocab_size


LARK = 'start: "a"'
MIXED = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
COUNTED = {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "maxProperties": 2}


def test_a_request_names_its_backend_and_the_compiler_has_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self._name = name

        def compile(self, params: StructuredOutputsParams) -> Any:
            asked.append(self._name)
            raise UnsupportedFeature(f"{self._name} does not")

    monkeypatch.setattr(subject, "_opened", lambda name, *_: Named(name))
    monkeypatch.setattr("albireo.structured.xgrammar.backend.is_installed", lambda: True)
    for default, backend, expected in [
        ("llguidance", None, ["llguidance"]),
        ("llguidance", "xgrammar", ["xgrammar"]),
        ("xgrammar", None, ["xgrammar"]),
        ("xgrammar", "guidance", ["llguidance"]),
        ("auto", None, ["llguidance", "xgrammar"]),
        ("xgrammar", "auto", ["llguidance", "xgrammar"]),
    ]:
        asked.clear()
        with pytest.raises(UnsupportedFeature, match=f"^{expected[0]} does not"):
            GrammarCompiler(vocabulary(), default).compile(StructuredOutputsParams(regex="a", backend=backend))
        assert asked == expected
    monkeypatch.setattr("albireo.structured.xgrammar.backend.is_installed", lambda: False)
    asked.clear()
    with pytest.raises(UnsupportedFeature):
        GrammarCompiler(vocabulary(), "auto").compile(StructuredOutputsParams(regex="a"))
    assert asked == ["llguidance"]


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_auto_takes_the_one_that_does_it(backend: str) -> None:
    assert follows("bundled", '{"a":1,"b":2}', json=COUNTED, backend="auto")
    assert not follows("bundled", '{"a":1,"b":2,"c":3}', json=COUNTED, backend="auto")
    assert follows("bundled", "a", grammar=LARK, backend="auto")
    with pytest.raises(UnsupportedFeature, match="uniqueItems"):
        constraint(json=MIXED, backend="auto")


def test_without_xgrammar_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from albireo.structured.xgrammar import backend as module

    monkeypatch.setattr(module, "_PARTS", ("no_such_package",))
    with pytest.raises(UnsupportedFeature, match=r"regex: xgrammar is missing: pip install albireo\[xgrammar\]"):
        constraint(regex="a", backend="xgrammar")
    with pytest.raises(ConfigError, match=r"pip install albireo\[xgrammar\]"):
        require_xgrammar()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stops", [True, False])
@pytest.mark.parametrize("marks", [("<|im_start|>", "<|box_end|>"), ("<call>", "</call>")])
def test_marks_of_calls_may_be_special_tokens(backend: str, stops: bool, marks: tuple[str, str]) -> None:
    """Free text, a mark, a list of any length, and a mark that ends it: of tokens that no text has, or of text."""
    item = {"type": "tag", "begin": "<c>", "content": {"type": "const_string", "value": "x"}, "end": "</c>"}
    items = {"type": "tags_with_separator", "tags": [item], "separator": ",", "at_least_one": True}
    begin, end = marks
    tag = {"type": "tag", "begin": f"{begin}a", "content": items, "end": f"]{end}"}
    form = {"type": "triggered_tags", "triggers": [begin], "tags": [tag], "stop_after_first": stops}
    for text, is_right in (
        ("Hi", True),
        (f"Hi {begin}a<c>x</c>,<c>x</c>]{end} so", True),
        (f"Hi {begin}a<c>y</c>]{end}", False),
        (f"Hi {begin}b", False),
        *([] if stops else [(f"{begin}a<c>x</c>]{end}{begin}a<c>x</c>]{end}", True)]),
    ):
        assert follows("qwen3", text, structural_tag={"format": form}, backend=backend) is is_right, text
