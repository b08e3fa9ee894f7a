"""llguidance alone: its library's view of a vocabulary, its messages, its deadline, what is kept."""

from __future__ import annotations

import resource
import threading
from dataclasses import replace
from typing import Any

import pytest

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured.compiler import GrammarCompiler
from albireo.structured.llguidance import backend as subject
from albireo.structured.llguidance.backend import LLGuidance
from albireo.structured_params import StructuredOutputsParams
from structured.vocabularies import REAL, allowed_ids, compiler, constraint, follows, tokenizer, vocabulary


@pytest.mark.parametrize("name", ["bundled", *REAL])
def test_the_library_has_the_bytes_of_every_token_as_the_detokenizer_has_them(name: str) -> None:
    known = tokenizer(name)
    constraint(name, regex="a")
    backend = compiler(name)._backend("llguidance")  # which other tests go on with
    assert isinstance(backend, LLGuidance)
    read = backend._tokenizer
    assert read is not None
    assert known.pieces.kind in ("byte_level", "byte_fallback")
    pieces = ((token_id, known.pieces.piece(token_id)) for token_id in range(known.vocab_size))
    # 0xFF is in no UTF-8 text; the library marks special tokens with it.
    wanted = [(token_id, piece.data) for token_id, piece in pieces if piece is not None and piece.data != b"\xff"]
    assert len(wanted) > 400
    for start in range(0, len(wanted), 64):
        some = wanted[start : start + 64]
        if read.decode_bytes([token_id for token_id, _ in some]) != b"".join(data for _, data in some):
            assert {token_id: read.decode_bytes([token_id]) for token_id, _ in some} == dict(some)
            raise AssertionError(f"alone each of {some} is right, together they are not")


def test_an_object_of_many_properties_that_may_be_left_out_stays_within_the_limits() -> None:
    schema = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(500)}}
    assert follows("bundled", '{\n  "p7": "a",\n  "p400": "b"\n}', json=schema)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"regex": "[a"}, "unclosed character class"),
    ({"regex": "a(?=b)"}, "look-around"),
    ({"regex": "(" * 2000 + "a" + ")" * 2000}, "regex cannot be used"),
    ({"grammar": "start: nothing"}, "unknown name"),
    ({"grammar": "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000}, "nested too deeply"),
    ({"grammar": "start: " + "(" * 500 + '"a"' + ")" * 500}, "too deeply nested"),
    ({"grammar": '%llguidance 5\nstart: "a"'}, "must be %llguidance and an object"),
    ({"json": {"type": "strin"}}, "Invalid type: strin"),
    ({"json": {"$ref": "#"}}, "json cannot be used: no text fits it"),
    ({"grammar": "start: start"}, "grammar cannot be used: no text fits it"),
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


def test_a_grammar_that_takes_too_long_is_refused_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = LLGuidance(vocabulary(), deadline_s=0.05)
    release = threading.Event()
    real = slow._compile
    monkeypatch.setattr(slow, "_compile", lambda *args: (release.wait(60), real(*args))[1])
    with pytest.raises(InvalidParams, match=r"regex takes longer than 0\.05 s to compile"):
        slow.compile(StructuredOutputsParams(regex="a"))
    release.set()
    monkeypatch.setattr(slow, "_deadline_s", 60.0)
    assert slow.compile(StructuredOutputsParams(regex="a")).matcher()


def test_a_compiled_grammar_is_shared_by_a_few_requests_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MAX_SHARED", 2)
    monkeypatch.setattr(subject, "MAX_KEPT", 1)
    fresh = LLGuidance(vocabulary(), 60)
    first, second, third = (fresh.compile(StructuredOutputsParams(regex="a")) for _ in range(3))
    assert first is second and third is not first
    fresh.compile(StructuredOutputsParams(regex="b"))
    assert fresh.compile(StructuredOutputsParams(regex="a")) is not third, "it was pushed out"


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "albireo.structured.llguidance.grammar_text", raising=False)
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UnsupportedFeature, match=r"pip install albireo\[structured\]"):
        GrammarCompiler(vocabulary()).compile(StructuredOutputsParams(regex="a"))


def test_a_tokenizer_that_the_library_does_not_know_is_told() -> None:
    with pytest.raises(UnsupportedFeature, match="this model's tokenizer"):
        LLGuidance(replace(vocabulary(), serialized=lambda: "{}"), 60).compile(StructuredOutputsParams(regex="a"))


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
