"""Expressions as they are written anew match what they matched before, for re, and no more."""

from __future__ import annotations

import random
import re

import pytest

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured.xgrammar.regex import char_class, in_json, literal, whole

LETTERS = ["a", "b", "Z", "5", "_", " ", "\n", "\t", '"', "\\", "-", ".", "/", "é", "🦊", "\xa0", "]", "^", "$"]


def as_re(written: str) -> re.Pattern[str]:
    """What we write, for Python: \\u{…} there is \\U……."""
    return re.compile(re.sub(r"\\u\{([0-9a-f]+)\}", lambda found: f"\\U{int(found[1], 16):08x}", written))


@pytest.mark.parametrize(
    "regex",
    [
        r"[a-c]{2}\d",
        "^a|b$",
        ".{0,3}",
        r"[^a\n]+",
        r"a*?b",
        "a{2,}",
        "a{0}",
        "",
        "a|",
        "(?P<name>a)(?<x>b)?",
        r"\x41|\u00e9",
        r"[\d_-]",
        r"[]",
        r"\.|\-|\/",
        "x(?:a|b)+",
        r"[+-.]",
        r"[a\]^$.]",
        "🦊|é",
        r"\s",
        r"[^\s]",
        r"\S",
        r"[^\d]",
        r"\w+",
        r"\$",
    ],
)
def test_the_whole_output_matches(regex: str) -> None:
    if regex == "[]":
        with pytest.raises(InvalidParams, match="empty"):
            whole(regex, "regex")
        return
    written = as_re(whole(regex, "regex"))
    ours = re.compile(regex.replace("(?<x>", "(?P<x>"), re.ASCII)
    chance = random.Random(regex)
    texts = ["".join(chance.choices(LETTERS, k=chance.randrange(4))) for _ in range(400)] + LETTERS
    for text in texts:
        assert not written.fullmatch(text) or ours.fullmatch(text), text
        if "\\S" not in regex and "\\s" not in regex:
            assert bool(written.fullmatch(text)) == bool(ours.fullmatch(text)), text


@pytest.mark.parametrize(
    "pattern", ["^[^a]{2}$", "b", "^a|b$", ".", r"^\S$", r"\W", r"[^\w]", "^é", "a$", '["a]', r"\D"]
)
def test_a_pattern_is_found_in_strings_that_need_no_escape(pattern: str) -> None:
    written = as_re(f"(?:{in_json(pattern, 'pattern')})")
    chance = random.Random(pattern)
    num_found = 0
    for _ in range(600):
        text = "".join(chance.choices(LETTERS, k=chance.randrange(4)))
        if written.fullmatch(text):
            num_found += 1
            assert re.search(pattern, text)
            assert not set(text) & set('"\\\n\t')
    assert num_found


def test_a_text_and_a_class_mean_themselves() -> None:
    text = '.*["\\é🦊\n]'
    assert as_re(literal(text)).fullmatch(text)
    assert char_class([(0, 0x1F)], is_json=True) == ""
    assert as_re(char_class([], is_json=False, is_negative=True)).fullmatch("\U0010ffff")


@pytest.mark.parametrize(
    ("regex", "error", "words"),
    [
        ("a(?=b)", UnsupportedFeature, "look-around"),
        ("(?i)a", UnsupportedFeature, "flags"),
        (r"\bq", UnsupportedFeature, r"\\b"),
        (r"(a)\1", UnsupportedFeature, r"\\1"),
        (r"\p{L}", UnsupportedFeature, r"\\p"),
        ("a^b", UnsupportedFeature, "beginning"),
        ("a$b", UnsupportedFeature, "beginning"),
        ("(a$)", UnsupportedFeature, "beginning"),
        ("[[:alpha:]]", UnsupportedFeature, "within"),
        ("[a&&b]", UnsupportedFeature, "within"),
        ("(", InvalidParams, "without its"),
        (")", InvalidParams, "without its"),
        ("[a", InvalidParams, "without its"),
        ("*a", InvalidParams, "nothing to repeat"),
        ("a**", InvalidParams, "in a row"),
        ("a{2,1}", InvalidParams, "wrong way"),
        ("a{x}", InvalidParams, "no {m}"),
        ("[b-a]", InvalidParams, "range"),
        ("\\", InvalidParams, "at its end"),
        (r"\ud800", InvalidParams, "no character"),
        ("(" * 200, InvalidParams, "deep"),
        (r"[^\u{0}-\u{10ffff}]", InvalidParams, "no character is in"),
    ],
)
def test_what_would_be_misread_is_refused(regex: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        whole(regex, "the field")
    assert str(caught.value).startswith("the field")


def test_a_pattern_with_what_json_escapes_is_refused() -> None:
    for pattern in ['a"', r"\\", r"\n"]:
        with pytest.raises(UnsupportedFeature, match="escape only"):
            in_json(pattern, "pattern")
