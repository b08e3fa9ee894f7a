"""Stop strings against a search through the whole text, however the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from albireo.text.stop import StopMatcher


def oracle(text, stops, include):
    """The first place where a stop string is complete; of several, the first in the list."""
    for end in range(1, len(text) + 1):
        for stop in stops:
            if text[:end].endswith(stop):
                return text[: end if include else end - len(stop)], stop
    return text, None


def feed(increments, stops, include=False):
    matcher = StopMatcher(stops, include)
    out = ""
    for increment in increments:
        out += matcher.push(increment)
        if matcher.matched is not None:
            return out + matcher.flush(), matcher.matched
    return out + matcher.flush(), None


_INCREMENTS = st.lists(st.text(alphabet="abc", max_size=4), max_size=8)
_STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), max_size=4)


@given(increments=_INCREMENTS, stops=_STOPS, include=st.booleans())
@example(increments=["ab", "cd"], stops=["bcd", "c"], include=False)
@example(increments=["a", "b"], stops=["b", "ab"], include=False)
@example(increments=["aab"], stops=["ab", "aab"], include=False)
@example(increments=["aa", "ab"], stops=["aab"], include=True)
def test_equals_a_search_through_the_whole_text(increments, stops, include):
    assert feed(increments, stops, include) == oracle("".join(increments), stops, include)


@given(increments=_INCREMENTS, stops=_STOPS)
def test_holds_back_what_could_begin_a_stop_string_and_nothing_more(increments, stops):
    matcher = StopMatcher(stops)
    seen = out = ""
    for increment in increments:
        seen += increment
        out += matcher.push(increment)
        if matcher.matched is not None:
            return
        held = seen[len(out) :]
        assert seen == out + held
        endings = [stop[:length] for stop in stops for length in range(len(stop)) if seen.endswith(stop[:length])]
        assert held == max(endings, key=len, default="")


@given(increments=_INCREMENTS, stops=_STOPS, first=st.integers(0, 8))
def test_stop_strings_that_end_too_early_are_text(increments, stops, first):
    matcher = StopMatcher(stops)
    out = ""
    for index, increment in enumerate(increments):
        out += matcher.push(increment, may_stop=index >= first)
        if matcher.matched is not None:
            assert index >= first
            break
    out += matcher.flush()
    text = "".join(increments)
    begin = len("".join(increments[:first]))
    ends = [end for end in range(begin + 1, len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    if not ends:
        assert (out, matcher.matched) == (text, None)
    else:
        stop = next(stop for stop in stops if text[: ends[0]].endswith(stop))
        # What went out while stopping was not allowed stays out.
        assert matcher.matched == stop
        assert text.startswith(out)
        assert len(out) == ends[0] - len(stop)


@pytest.mark.parametrize(
    ("increments", "stops", "include", "expected"),
    [
        (["Hello", " wor", "ld. Bye"], [". "], False, ("Hello world", ". ")),
        (["Hello", " wor", "ld. Bye"], [". "], True, ("Hello world. ", ". ")),
        (["a\n", "\nb"], ["\n\n"], False, ("a", "\n\n")),
        (["no stop ", "at all <"], ["</s>"], False, ("no stop at all <", None)),
        (["日本", "語。次"], ["。"], False, ("日本語", "。")),
        (["anything"], [], False, ("anything", None)),
        (["xx"], ["x"], False, ("", "x")),
    ],
)
def test_examples(increments, stops, include, expected):
    assert feed(increments, stops, include) == expected


def test_text_goes_out_as_early_as_it_can():
    matcher = StopMatcher(["stop", "end."])
    assert matcher.push("the st") == "the "
    assert matcher.push("art ") == "start "
    assert matcher.push("en") == ""
    assert matcher.push("d") == ""
    assert matcher.push("!") == "end!"
    assert matcher.flush() == ""
    including = StopMatcher(["stop"], include_stop_str_in_output=True)
    assert [including.push(piece) for piece in ("st", "op it")] == ["st", "op"]
    assert including.matched == "stop"


def test_nothing_may_follow_a_match():
    matcher = StopMatcher(["a"])
    matcher.push("a")
    with pytest.raises(AssertionError):
        matcher.push("b")
