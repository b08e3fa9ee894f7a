"""What of a request is refused before the library sees it, and that looking at it ends soon."""

from __future__ import annotations

import pytest

from albireo.errors import UnsupportedFeature
from albireo.structured.xgrammar.request import job_of
from albireo.structured_params import MAX_GRAMMAR_BYTES, StructuredOutputsParams


def _kept(grammar: str) -> str:
    return str(job_of(StructuredOutputsParams(grammar=grammar), {})["ebnf"])


def test_classes_that_are_negated_leave_out_what_is_no_text() -> None:
    grammar = 'root ::= "[^a" [^b\\]"] [c] # [^d (= e\n'
    assert _kept(grammar) == 'root ::= "[^a" [^\\ud800-\\udfffb\\]"] [c] # [^d (= e\n'


@pytest.mark.parametrize("grammar", ["root ::= (= x)", 'root ::= "a" [ (= x', 'root ::= "\\" (  = x'])
def test_hints_are_refused_also_behind_what_is_not_closed(grammar: str) -> None:
    with pytest.raises(UnsupportedFeature, match=r"a \(= …\) is not supported"):
        _kept(grammar)


@pytest.mark.parametrize("part", ["[", '"', '"\\', "[\\", "[\\\n", "\n", "a\n", "#"])
def test_what_is_never_closed_is_looked_at_once(part: str) -> None:
    """A grammar may have 64 KiB: the end of each of its brackets was looked for through all of them, for minutes."""
    grammar = ("root ::= a\n" + part * MAX_GRAMMAR_BYTES)[:MAX_GRAMMAR_BYTES]
    assert _kept(grammar).startswith("root ::= a\n")
