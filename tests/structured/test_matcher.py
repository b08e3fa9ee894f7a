"""The state of a sequence is a function of its output tokens."""

from __future__ import annotations

import pytest

from albireo.errors import InvalidParams
from structured.vocabularies import BACKENDS, allowed_ids, constraint, tokenizer


def ids(text: str) -> list[int]:
    return tokenizer("bundled").encode(text, add_special_tokens=False)


TEXT = '{"a": [1, 2, {"b": "c d"}]}'


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fresh_matcher_and_one_that_went_along_say_the_same(backend: str) -> None:
    compiled = constraint(json_object=True, backend=backend)
    along = compiled.matcher()
    output = ids(TEXT)
    masks = [along.allowed(output[:count]) for count in range(len(output) + 1)]
    for count in (0, 3, len(output) // 2, len(output)):
        assert compiled.matcher().allowed(output[:count]) == masks[count]
        assert along.allowed(output[:count]) == masks[count], "asked again, and back in the past"


@pytest.mark.parametrize("backend", BACKENDS)
def test_matchers_of_one_constraint_do_not_disturb_each_other(backend: str) -> None:
    compiled = constraint(choice=["one", "two"], backend=backend)
    one, two = compiled.matcher(), compiled.matcher()
    one.allowed(ids("one"))
    assert allowed_ids(two, ids("tw")) and allowed_ids(one, ids("one")) == list(one.eos_token_ids)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tokens_that_do_not_follow_the_grammar_are_told_and_do_no_lasting_harm(backend: str) -> None:
    matcher = constraint(regex="abc", backend=backend).matcher()
    with pytest.raises(InvalidParams, match=r"cannot go on with token \d+ after 0 output tokens: it does not follow"):
        matcher.allowed(ids("x"))
    assert allowed_ids(matcher, ids("a"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_behind_drafts_are_those_of_the_outputs_with_them_and_nothing_is_seen_of_it(backend: str) -> None:
    """Up to the first that may not come; then the output goes on otherwise than was guessed."""
    compiled = constraint(json_object=True, backend=backend)
    matcher, output = compiled.matcher(), ids(TEXT)
    wrong = ids('"x": true}')
    for count in range(len(output)):
        rest = output[count : count + 4]
        masks = matcher.ahead(output[:count], rest)
        assert masks == [compiled.matcher().allowed(output[: count + i + 1]) for i in range(len(rest))]
        for drafts in (wrong, [*rest[:1], 0, *rest[1:]]):
            known, fresh = [*output[:count]], compiled.matcher()
            wanted = []
            for draft in drafts:
                if draft not in allowed_ids(fresh, known):
                    break
                known.append(draft)
                wanted.append(fresh.allowed(known))
            assert matcher.ahead(output[:count], drafts) == wanted
        assert matcher.allowed(output[:count]) == compiled.matcher().allowed(output[:count])


@pytest.mark.parametrize("backend", BACKENDS)
def test_drafts_up_to_the_end_and_behind_an_output_that_does_not_follow(backend: str) -> None:
    compiled = constraint(choice=["one", "two"], backend=backend)
    matcher, text = compiled.matcher(), ids("one")
    assert len(matcher.ahead([], [*text, matcher.eos_token_ids[0], 5])) >= len(text)
    assert matcher.allowed([]) == compiled.matcher().allowed([])
    assert allowed_ids(matcher, text) == list(matcher.eos_token_ids)
    lost = compiled.matcher()
    assert lost.ahead(ids("x"), text) == []
    assert allowed_ids(lost, ids("tw"))


FORM = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "is_happy": {"type": "boolean"},
        "colour": {"enum": ["red", "dark red"]},
    },
    "required": ["name", "is_happy", "colour"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_forced_may_come_and_is_what_must_be_said(backend: str) -> None:
    """Nothing is seen of the question. xgrammar is not asked."""
    compiled = constraint(json=FORM, disable_any_whitespace=True, backend=backend)
    matcher, text = compiled.matcher(), '{"name":"a","is_happy":true,"colour":"dark red"}'
    output, read = ids(text), tokenizer("bundled")
    found = 0
    for count in range(len(output) + 1):
        forced = list(matcher.forced(output[:count]))
        assert matcher.allowed(output[:count]) == compiled.matcher().allowed(output[:count])
        behind = text[len(read.decode(output[:count])) :]
        assert behind.startswith(read.decode(forced))
        assert len(matcher.ahead(output[:count], forced)) == len(forced)
        found += len(forced) > 0
    assert found > len(output) // 2 if backend == "llguidance" else not found
    assert not compiled.matcher().forced(ids("x"))
