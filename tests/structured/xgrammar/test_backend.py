"""What the library does in its own processes, and what becomes of those that go too far: one grammar ends, no other."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured.xgrammar import backend as subject
from albireo.structured.xgrammar import host, native
from albireo.structured.xgrammar.backend import Constraint, XGrammar, is_installed
from albireo.structured.xgrammar.native import Library
from albireo.structured_params import StructuredOutputsParams
from structured.vocabularies import allowed_ids, tokenizer, vocabulary

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(not is_installed(), reason="xgrammar is not installed")

SLOW_TO_COMPILE = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(3000)}}
AMBIGUOUS = 'root ::= e\ne ::= e e e | e e | "a" | "b" | ""'


def ids(text: str) -> list[int]:
    return tokenizer("bundled").encode(text, add_special_tokens=False)


def compiled(backend: XGrammar, **params: Any) -> Constraint:
    return backend.compile(StructuredOutputsParams(**params))


@pytest.fixture(scope="module")
def backend() -> XGrammar:
    return XGrammar(vocabulary(), 60.0)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Callable[..., XGrammar]:
    """A backend with other limits."""

    def make(**limits: Any) -> XGrammar:
        for name, value in limits.items():
            monkeypatch.setattr(subject, name, value)
        return XGrammar(vocabulary(), 60.0)

    return make


@contextmanager
def limited(backend: XGrammar, **limits: float) -> Iterator[None]:
    """What is compiled meanwhile has other limits of time: what must not reach them has those of old."""
    before = backend._limits
    backend._limits = replace(before, **limits)
    yield
    backend._limits = before


def test_a_grammar_that_takes_too_long_is_killed_and_the_next_finds_a_fresh_process(hasty: Any) -> None:
    quick = hasty()
    held = compiled(quick, regex="[ab]{4}").matcher()
    before = held.allowed([])
    with (
        limited(quick, compile_s=0.3),
        pytest.raises(InvalidParams, match=r"json takes longer than 0\.3 s to compile; make it simpler"),
    ):
        compiled(quick, json=SLOW_TO_COMPILE)
    assert held.allowed([]) == before, "who has a grammar keeps it"
    assert allowed_ids(compiled(quick, regex="a").matcher(), ids("a")) == list(held.eos_token_ids)
    assert _children(quick) == 2, "of the one that was killed nothing is left"


def _children(backend: XGrammar) -> int:
    pid = backend._open().pid
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_a_grammar_that_needs_too_much_memory_is_ended(hasty: Any) -> None:
    small = hasty(MEMORY_BYTES=6 << 20)
    names = {f"property number {i}": {"type": "string"} for i in range(400)}
    with pytest.raises(InvalidParams, match="json needs more memory than 6 MiB"):
        compiled(small, json={"type": "object", "properties": names})
    assert compiled(small, regex="a").matcher().allowed([])


def test_a_mask_that_takes_too_long_ends_its_own_grammar(hasty: Any) -> None:
    strict = hasty()
    other = compiled(strict, regex="[ab]*").matcher()
    with limited(strict, mask_s=0.02):
        grammar = compiled(strict, grammar=AMBIGUOUS)
    matcher, output = grammar.matcher(), list[int]()
    with pytest.raises(InvalidParams, match=r"cannot go on .* its mask takes longer than 0\.02 s of the processor"):
        for step in range(2000):
            matcher.allowed(output)
            output += ids("ab"[step % 2])
    assert grammar.is_spent() and other.allowed(ids("ab"))
    with pytest.raises(InvalidParams, match="takes longer"):
        grammar.matcher().allowed([])
    again = compiled(strict, grammar=AMBIGUOUS)
    assert again is not grammar and again.matcher().allowed([])


def test_a_process_that_dies_is_told_and_those_beside_it_go_on(backend: XGrammar) -> None:
    grammar, other = compiled(backend, regex="c{3}"), compiled(backend, regex="d{3}").matcher()
    os.kill(grammar._process._pid, signal.SIGSEGV)
    with pytest.raises(InvalidParams, match=r"ended xgrammar's process .SIGSEGV."):
        grammar.matcher().allowed([])
    assert other.allowed(ids("d")) and compiled(backend, regex="c{3}").matcher().allowed([])


def test_the_process_that_all_come_from_is_begun_anew(backend: XGrammar) -> None:
    held = compiled(backend, regex="e{3}").matcher()
    first = backend._open().pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert compiled(backend, regex="f{3}").matcher().allowed([]) and backend._open().pid != first
    assert held.allowed(ids("e")), "its own process lives on"


def test_grammars_held_are_limited_and_let_go_when_nobody_holds_them(hasty: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(host, "MAX_GRAMMARS", 2)
    few = hasty(MAX_KEPT=1)
    held = [compiled(few, regex=each) for each in ("a", "b")]
    with pytest.raises(InvalidParams, match="xgrammar holds 2 grammars, which is its limit"):
        compiled(few, regex="c")
    assert compiled(few, regex="b") is held[1], "the same one is shared"
    held.clear()
    assert compiled(few, regex="c")


def test_a_matcher_is_a_function_of_the_output(backend: XGrammar) -> None:
    """Replayed after a preemption, by another matcher, in another process: what a resumed stream does."""
    grammar, along = compiled(backend, json_object=True), None
    chance, output, masks = random.Random(3), list[int](), list[bytes]()
    along = grammar.matcher()
    for _ in range(40):
        masks.append(along.allowed(output))
        allowed = [i for i in allowed_ids(along, output) if i not in along.eos_token_ids]
        if not allowed:
            break
        output.append(chance.choice(allowed))
    elsewhere = compiled(XGrammar(vocabulary(), 60.0), json_object=True).matcher()
    for count in (len(masks) - 1, 7, 0, 20):
        assert along.allowed(output[:count]) == masks[count]
        assert grammar.matcher().allowed(output[:count]) == masks[count]
        assert elsewhere.allowed(output[:count]) == masks[count]


def test_eos_ends_and_then_nothing_else_may_come(backend: XGrammar) -> None:
    matcher = compiled(backend, regex="a").matcher()
    ends = list(matcher.eos_token_ids)
    assert allowed_ids(matcher, ids("a")) == ends and allowed_ids(matcher, ids("a") + ends) == ends


@pytest.mark.parametrize(
    "params",
    [
        {"json": {"type": "string"}},
        {"json": {"type": "string", "maxLength": 3}},
        {"json": {"pattern": "^[^b]{3}$"}},
        {"json": {"type": "object"}},
        {"json": {"type": "object", "properties": {"a": {}}}},
        {"grammar": 'root ::= ["] [^a"]* ["]'},
        {"regex": '"[^a]+"'},
    ],
)
def test_half_a_surrogate_pair_is_no_text(backend: XGrammar, params: dict[str, Any]) -> None:
    known = tokenizer("bundled")
    by_byte = {
        piece.data: i for i in range(known.vocab_size) if (piece := known.pieces.piece(i)) and len(piece.data) == 1
    }
    matcher = compiled(backend, **params).matcher()
    begin = [by_byte[bytes([one])] for one in b'{"' if "object" in str(params) or one == ord('"')]
    for text, is_text in ((b"\xed\x9f\xbf", True), (b"\xed\xab\x8c", False)):
        output, goes_on = list(begin), True
        for one in text:
            goes_on = goes_on and by_byte[bytes([one])] in allowed_ids(matcher, output)
            output.append(by_byte[bytes([one])])
            if not goes_on:
                break
        assert goes_on is is_text


def test_special_tokens_are_no_text(backend: XGrammar) -> None:
    special = tokenizer("bundled").special_ids
    matcher = compiled(backend, regex="(.|\n){0,9}").matcher()
    assert special and not special & set(allowed_ids(matcher, [])) - set(matcher.eos_token_ids)
    anything = compiled(backend, structural_tag={"format": {"type": "any_text"}}).matcher()
    assert not special & set(allowed_ids(anything, ids("Once"))) - set(matcher.eos_token_ids)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"regex": "[a"}, r"structured_outputs\.regex has a \[ without its"),
        ({"regex": "a(?=b)"}, r"structured_outputs\.regex: xgrammar does not keep .*look-around"),
        ({"grammar": 'start: "a"'}, "Lark"),
        ({"grammar": "root ::= nothing"}, r"structured_outputs\.grammar cannot be used: .*nothing"),
        ({"grammar": 'root ::= ("a")'}, None),
        ({"grammar": 'root ::= "a" (= "b")'}, r"\(= …\) is not supported"),
        ({"grammar": 'root ::= "(=" [(=] # (= \n'}, None),
        ({"json_object": True, "whitespace_pattern": "_"}, "whitespace_pattern is not kept"),
        ({"structural_tag": {"format": {"type": "any_text", "excludes": ["a"]}}}, "any_text has excludes"),
        ({"json": {"uniqueItems": True}}, "uniqueItems"),
    ],
)
def test_what_cannot_be_is_refused_by_name(backend: XGrammar, params: dict[str, Any], words: str | None) -> None:
    if words is None:
        assert compiled(backend, **params).matcher().allowed([])
        return
    with pytest.raises((InvalidParams, UnsupportedFeature), match=words) as caught:
        compiled(backend, **params)
    assert "/project/cpp" not in str(caught.value)


def test_a_tokenizer_without_bytes_is_told() -> None:
    def none() -> list[bytes]:
        raise UnsupportedFeature("no bytes")

    with pytest.raises(UnsupportedFeature, match="no bytes"):
        compiled(XGrammar(replace(vocabulary(), token_bytes=none), 60.0), regex="a")


def test_nothing_heavy_is_imported_here() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from structured.vocabularies import constraint\n"
        "constraint(regex='a', backend='xgrammar').matcher().allowed([])\n"
        "print(sorted({'torch', 'transformers', 'xgrammar', 'tvm_ffi'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_another_release_is_told_and_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "RELEASE", "0.0.1")
    with pytest.raises(ImportError, match=r"release [\d.]+ is installed and 0\.0\.1 is called: pip install "):
        Library([b"a"], 1, [0])
    assert sys.modules.get("torch", native) is not None  # nothing has been kept from being imported


def test_the_extra_asks_for_the_release_that_is_called() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"xgrammar=={native.RELEASE}" in extras["xgrammar"]
