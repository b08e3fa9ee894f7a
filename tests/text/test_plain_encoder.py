"""The twin encodes text as the tokenizer does, but for the chosen tokens' text."""

from __future__ import annotations

import re

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import models

from albireo.errors import TemplateError
from albireo.text.plain_encoder import PlainEncoder

NAMES = ("qwen2.5", "gpt2", "mistral-v3", "phi-3-mini")


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_ordinary_text_has_ordinary_ids(tokenizer_of, name, text):
    tokenizer = tokenizer_of(name)
    encoder = tokenizer.plain_encoder(tokenizer.added_tokens())
    ids = tokenizer.encode(text, add_special_tokens=False)
    if not set(ids) & set(tokenizer.added_tokens().values()):
        assert encoder.encode(text) == ids


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["a{}b", "{}", "{}\n\n x", " {} {}", "é{}日{}\t"])
def test_marked_tokens_are_tokens(tokenizer_of, name, text):
    tokenizer = tokenizer_of(name)
    for token, token_id in list(tokenizer.added_tokens().items())[:20]:
        if token.isspace():
            continue
        encoder = tokenizer.plain_encoder([token])
        written = text.replace("{}", token)
        marked = re.sub(re.escape(token), encoder.mark, written)
        ids = encoder.encode(marked, text.count("{}"))
        assert ids == tokenizer.encode(written, add_special_tokens=False)
        assert ids.count(token_id) == encoder.count(ids) == text.count("{}")
        assert token_id not in encoder.encode(written)


def test_names_are_not_the_same_twice(tokenizer_of):
    tokenizer = tokenizer_of("gpt2")
    marks = {tokenizer.plain_encoder(["<|endoftext|>"]).mark(re.match(".*", "<|endoftext|>")) for _ in range(3)}
    assert len(marks) == 3


def test_a_vocabulary_that_makes_tokens_of_plain_text_is_refused():
    # Here "ab" is a merge of the vocabulary and a special token at once.
    backend = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    backend.add_special_tokens(["ab"])
    encoder = PlainEncoder(backend, ["ab"])
    with pytest.raises(TemplateError, match="cannot tell the two apart"):
        encoder.encode("ab")
    assert encoder.encode("a") == [0]
