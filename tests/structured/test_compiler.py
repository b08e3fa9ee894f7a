"""From a form to a constraint: every vocabulary, every kind, and what is refused in bounded time and memory."""

from __future__ import annotations

import json
import resource
import threading
from typing import Any

import pytest

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured import compiler as subject
from albireo.structured.compiler import GrammarCompiler, Vocabulary
from albireo.structured_params import StructuredOutputsParams
from structured.vocabularies import REAL, allowed_ids, compiler, constraint, tokenizer

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def follows(name: str, text: str, **params: Any) -> bool:
    """Whether the text, as this tokenizer writes it, is an output the grammar lets begin, go on and end."""
    matcher = constraint(name, **params).matcher()
    ids = tokenizer(name).encode(text, add_special_tokens=False)
    output: list[int] = []
    for token_id in ids:
        if token_id not in allowed_ids(matcher, output):
            return False
        output.append(token_id)
    return bool(set(matcher.eos_token_ids) & set(allowed_ids(matcher, output)))


@pytest.mark.parametrize("name", ["bundled", *REAL])
def test_the_library_has_the_bytes_of_every_token_as_the_detokenizer_has_them(name: str) -> None:
    known = tokenizer(name)
    constraint(name, regex="a")
    read = compiler(name)._tokenizer
    assert read is not None
    assert known.pieces.kind in ("byte_level", "byte_fallback")
    for token_id in range(known.vocab_size):
        piece = known.pieces.piece(token_id)
        # 0xFF is in no UTF-8 text; the library marks special tokens with it.
        if piece is not None and piece.data != b"\xff":
            assert read.decode_bytes([token_id]) == piece.data, token_id


@pytest.mark.parametrize("name", ["bundled", *REAL])
@pytest.mark.parametrize("text", ['{"name": "Zoë 😀\\n", "age": 7}', '{\n  "name": "x",\n  "age": 150\n}'])
def test_a_valid_text_can_be_written_and_a_wrong_one_not(name: str, text: str) -> None:
    # SentencePiece begins a text with a space of its own, which is one of the text after a prompt.
    if tokenizer(name).pieces.kind == "byte_fallback":
        pytest.skip("its encoder adds a leading space")
    assert follows(name, text, json=PERSON)
    assert not follows(name, text.replace("7", "151").replace("150", "-1"), json=PERSON)


@pytest.mark.parametrize("name", ["mistral-v1", "mistral-v3", "phi-3-mini"])
def test_a_byte_fallback_vocabulary_writes_bytes_and_spaces(name: str) -> None:
    if name not in REAL:
        pytest.skip("shared data tokenizers are not beside the repository")
    known = tokenizer(name)
    matcher = constraint(name, regex=" é🯅").matcher()
    output: list[int] = []
    while (chosen := allowed_ids(matcher, output)) and chosen[0] not in matcher.eos_token_ids:
        output.append(chosen[-1])
    assert b"".join(p.data for p in map(known.pieces.piece, output) if p is not None) == " é🯅".encode()
    assert any(p.is_byte for p in map(known.pieces.piece, output) if p is not None)


@pytest.mark.parametrize(
    ("params", "right", "wrong"),
    [
        ({"regex": r"[a-c]{2}\d/\n"}, "ab4/\n", "ab٣/\n"),
        ({"regex": "^a|b$"}, "a", "ab"),
        ({"choice": ["red", 'say "é"\\', "red wine"]}, 'say "é"\\', "white"),
        ({"choice": ["red", "red wine"]}, "red wine", "red w"),
        ({"grammar": 'start: A "b"\nA: /x+/'}, "xxb", "b"),
        ({"grammar": '%llguidance {"no_forcing": false}\nstart: "ab"'}, "ab", "b"),
        ({"grammar": 'root ::= "a" n\nn ::= [0-9]+'}, "a12", "12"),
        ({"json_object": True}, '{"a": [1, {}]}', "[1]"),
        ({"json_object": True, "disable_any_whitespace": True}, '{"a":1}', '{"a": 1}'),
        ({"json_object": True, "whitespace_pattern": "_"}, '{"a":_1}', '{"a": 1}'),
        ({"json": {"type": "string", "format": "of-our-house"}}, '"x"', "1"),
        ({"json": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "1.5", '"x"'),
        ({"json": {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}}, "5", '"5"'),
        ({"json": PERSON | {"x-guidance": {"whitespace_flexible": True}}}, '{"name": "x", "age": 1}', "{}"),
    ],
)
def test_each_kind_takes_what_it_says(params: dict[str, Any], right: str, wrong: str) -> None:
    assert follows("bundled", right, **params)
    assert not follows("bundled", wrong, **params)


def test_properties_that_are_not_named_can_be_closed_out() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {"b": {}}}, "c": {"type": "object"}},
    }
    text = '{"a": {"b": 1, "x": 2}}'
    assert follows("bundled", text, json=schema)
    assert not follows("bundled", text, json=schema, disable_additional_properties=True)
    assert follows("bundled", '{"c": {"any": 1}}', json=schema, disable_additional_properties=True)


def test_white_space_comes_to_an_end() -> None:
    assert follows("bundled", '{\n  "a": 1 }', json_object=True)
    assert follows("bundled", "{" + " " * 40 + "}", json_object=True)
    assert not follows("bundled", "{" + " " * 41 + "}", json_object=True)


def test_an_object_of_many_properties_that_may_be_left_out_stays_within_the_limits() -> None:
    schema = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(500)}}
    assert follows("bundled", '{\n  "p7": "a",\n  "p400": "b"\n}', json=schema)


TAG = {
    "structures": [{"begin": "<call=f>", "schema": {"type": "integer"}, "end": "</call>"}],
    "triggers": ["<call"],
}


def test_a_structural_tag_is_free_text_until_its_trigger() -> None:
    assert follows("bundled", "No call at all.", structural_tag=TAG)
    assert follows("bundled", "I call <call=f>12</call> and <call=f>3</call> so.", structural_tag=json.dumps(TAG))
    assert not follows("bundled", "I call <call=g>12</call>", structural_tag=TAG)
    assert not follows("bundled", 'I call <call=f>"x"</call>', structural_tag=TAG)


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
def test_a_structural_tag_that_is_none_is_refused(tag: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        constraint(structural_tag=tag)


def calls(**options: Any) -> dict[str, Any]:
    tags = [{"begin": f"<{name}>", "content": {"type": "regex", "pattern": r"\d+"}, "end": "</>"} for name in "fg"]
    return {"format": {"type": "tags_with_separator", "tags": tags, "separator": ", ", **options}}


FREE = {"type": "triggered_tags", "triggers": ["<f"], "tags": calls()["format"]["tags"][:1]}
THINK = {"type": "tag", "begin": "<think>", "content": {"type": "any_text"}, "end": "</think>"}


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
def test_the_nodes_of_a_structural_tag(name: str, tag: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    """<think> is text to the bundled tokenizer, and a token of its own to Qwen's."""
    for text in right:
        assert follows(name, text, structural_tag=tag), text
    for text in wrong:
        assert not follows(name, text, structural_tag=tag), text


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"regex": "[a"}, "unclosed character class"),
    ({"regex": "a(?=b)"}, "look-around"),
    ({"regex": "(" * 2000 + "a" + ")" * 2000}, "regex cannot be used"),
    ({"grammar": "start: nothing"}, "unknown name"),
    ({"grammar": "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000}, "nested too deeply"),
    ({"grammar": "start: " + "(" * 500 + '"a"' + ")" * 500}, "too deeply nested"),
    ({"grammar": '%llguidance 5\nstart: "a"'}, "must be %llguidance and an object"),
    ({"json": {"type": "strin"}}, "Invalid type: strin"),
    ({"json": {"$ref": "#"}}, "json cannot be used"),
    ({"json": {"$ref": "http://127.0.0.1:9/x.json"}}, "json cannot be used"),
    ({"json": {"type": "string", "enum": []}}, "Unsatisfiable"),
    (
        {
            "json": {
                "allOf": [
                    {"anyOf": [{"properties": {f"a{i}_{j}": {"type": "string"}}} for j in range(8)]} for i in range(8)
                ]
            }
        },
        "too large",
    ),
]


@pytest.mark.parametrize(("params", "message"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_grammar_is_refused_by_name(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParams, match=message) as caught:
        constraint(**params)
    assert next(iter(params)) in str(caught.value) and len(str(caught.value)) < 500


def test_keywords_that_would_not_be_kept_are_refused() -> None:
    with pytest.raises(UnsupportedFeature, match="uniqueItems"):
        constraint(json={"type": "array", "items": {"type": "integer"}, "uniqueItems": True})


BOMBS: list[dict[str, Any]] = [
    {"regex": "(a{1000}){1000}"},
    {"regex": "((((a{100}){100}){100}){100}){100}"},
    {"regex": "(.*a){50}"},
    {"regex": ".*a.{30}"},
    {"regex": r"(\p{L}|\d|.){0,3000}x"},
    {"json": {"type": "array", "minItems": 10**6, "items": {"const": "a"}}},
    {"json": {"type": "string", "pattern": "^(.*a.{20}|.*b.{19}c)$"}},
    {"json": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(3000)}}},
    {"grammar": 'start: e\ne: e e e | e e | "a" | "b" | ""'},
    {"grammar": "start: a0\n" + "\n".join(f"a{i}: a{i + 1} a{i + 1}" for i in range(60)) + '\na60: "a"'},
    {"grammar": 'start: "a"{1,100000}'},
]


@pytest.mark.parametrize("params", BOMBS, ids=range(len(BOMBS)))
def test_a_bomb_is_taken_in_bounded_memory_or_ended(params: dict[str, Any]) -> None:
    """It may compile; then its masks go on or give up, and neither takes the machine's memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    letters = [tokenizer("bundled").encode(text, add_special_tokens=False)[0] for text in "ab"]
    try:
        matcher = constraint(**params).matcher()
        output: list[int] = []
        for step in range(60):
            ids = allowed_ids(matcher, output)
            wanted = [i for i in letters if i in ids] or ids
            output.append(wanted[step * step % len(wanted)])
            if output[-1] in matcher.eos_token_ids:
                break
    except InvalidParams as error:
        assert "structured_outputs" in str(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024, "kilobytes"


def test_a_grammar_that_takes_too_long_is_refused_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    known = tokenizer("bundled")
    vocabulary = Vocabulary(known.serialized, {}, known.vocab_size, (known.eos_token_id or 0,))
    slow = GrammarCompiler(vocabulary, deadline_s=0.05)
    release = threading.Event()
    real = slow._compile
    monkeypatch.setattr(slow, "_compile", lambda *args: (release.wait(60), real(*args))[1])
    with pytest.raises(InvalidParams, match=r"regex takes longer than 0\.05 s to compile"):
        slow.compile(StructuredOutputsParams(regex="a"))
    release.set()
    monkeypatch.setattr(slow, "_deadline_s", 60.0)
    assert slow.compile(StructuredOutputsParams(regex="a")).matcher()


def test_a_compiled_grammar_is_shared_by_a_few_requests_only(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = GrammarCompiler(compiler()._vocabulary)
    monkeypatch.setattr(subject, "MAX_SHARED", 2)
    monkeypatch.setattr(subject, "MAX_KEPT", 1)
    first, second, third = (fresh.compile(StructuredOutputsParams(regex="a")) for _ in range(3))
    assert first is second and third is not first
    fresh.compile(StructuredOutputsParams(regex="b"))
    assert fresh.compile(StructuredOutputsParams(regex="a")) is not third, "it was pushed out"


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "albireo.structured.grammar_text", raising=False)
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UnsupportedFeature, match=r"pip install albireo\[structured\]"):
        GrammarCompiler(compiler()._vocabulary).compile(StructuredOutputsParams(regex="a"))


def test_a_model_without_eos_is_told() -> None:
    known = tokenizer("bundled")
    with pytest.raises(UnsupportedFeature, match="EOS"):
        GrammarCompiler(Vocabulary(known.serialized, {}, known.vocab_size, ())).compile(
            StructuredOutputsParams(regex="a")
        )


def test_a_tokenizer_that_the_library_does_not_know_is_told() -> None:
    with pytest.raises(UnsupportedFeature, match="this model's tokenizer"):
        GrammarCompiler(Vocabulary(lambda: "{}", {}, 10, (0,))).compile(StructuredOutputsParams(regex="a"))


def test_rows_of_a_model_without_a_token_are_never_allowed() -> None:
    matcher = compiler("bundled", num_more_rows=100).compile(StructuredOutputsParams(regex="(?s).*")).matcher()
    assert len(matcher.allowed([])) * 8 >= tokenizer("bundled").vocab_size + 100
    assert max(allowed_ids(matcher, [])) < tokenizer("bundled").vocab_size
