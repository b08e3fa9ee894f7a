"""Tokens are where the library's text of all tokens before them ends."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from albireo.text.places import TextPlaces
from text.texts import TEXTS

REAL = ("gpt2", "qwen2.5", "mistral-v1", "phi-3-mini", "stories260k")


@pytest.mark.parametrize("name", REAL)
@given(
    text=st.one_of(st.sampled_from(TEXTS), st.text(), st.lists(st.sampled_from("🙂न日 \né"), max_size=20).map("".join))
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_places_are_ends_of_what_was_before(tokenizer_of, name, text):
    tokenizer = tokenizer_of(name)
    ids = tokenizer.encode(text)
    shown = tokenizer.decode(ids)
    found = TextPlaces(tokenizer, shown.startswith).take(ids)
    assert found == sorted(found)
    if "\ufffd" not in shown:
        before = [tokenizer.decode(ids[:k]) for k in range(len(ids))]
        # What ends inside a character decodes to something else there.
        assert all(place == len(part) for place, part in zip(found, before, strict=True) if "\ufffd" not in part)
    together = TextPlaces(tokenizer, shown.startswith)
    assert [p for k in range(0, len(ids), 3) for p in together.take(ids[k : k + 3])] == found


@pytest.mark.parametrize("name", ["gpt2", "qwen2.5"])
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_bytes_that_are_no_text_count_as_what_is_shown_of_them(tokenizer_of, name, data):
    tokenizer = tokenizer_of(name)
    ids = data.draw(st.lists(st.integers(0, 300), max_size=30))
    shown = tokenizer.decode([*ids, *tokenizer.encode(" a")])
    *_, last = TextPlaces(tokenizer, lambda text, place: False).take([*ids, *tokenizer.encode(" a")])
    assert shown[last:] == " a"
