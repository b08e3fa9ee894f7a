"""Which compiled grammars are kept: those used last, each for so many requests."""

from __future__ import annotations

from albireo.structured.kept import Kept


class Grammar:
    is_used_up = False

    def is_spent(self) -> bool:
        return self.is_used_up


def test_what_is_unused_for_longest_goes() -> None:
    kept, made = Kept[Grammar](2), {name: Grammar() for name in "abc"}
    assert kept.get("a") is None
    assert kept.put("a", made["a"]) is made["a"]
    kept.put("b", made["b"])
    assert kept.get("a") is made["a"] and kept.get("b") is made["b"], "there is room for two"
    assert kept.get("a") is made["a"]
    kept.put("c", made["c"])
    assert kept.get("b") is None
    assert kept.get("a") is made["a"] and kept.get("c") is made["c"]
    # what is compiled anew was used last
    kept.put("a", made["b"])
    kept.put("b", made["b"])
    assert kept.get("c") is None and kept.get("a") is made["b"]


def test_one_that_was_shared_often_is_given_to_nobody() -> None:
    kept, grammar = Kept[Grammar](2, max_shared=3), Grammar()
    kept.put("a", grammar)
    assert [kept.get("a") for _ in range(3)] == [grammar, grammar, None]
    kept.put("a", grammar)
    assert kept.get("a") is grammar


def test_one_that_is_spent_is_given_to_nobody() -> None:
    kept, grammar = Kept[Grammar](2), Grammar()
    kept.put("a", grammar)
    grammar.is_used_up = True
    assert kept.get("a") is None
