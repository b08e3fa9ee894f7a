"""Session: replies while requests run, refusals alone, and nothing left behind."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from itertools import pairwise

import pytest

from albireo.cli.session import Session
from albireo.config import EngineConfig
from albireo.errors import InvalidParams
from albireo.params import SamplingParams


@pytest.fixture(scope="module")
def session():
    return Session(EngineConfig())


PARAMS = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)


def test_streaming_grows_and_ends(session):
    replies = list(session.run([partial(session.text, "Once", PARAMS)], is_streaming=True))
    lengths = [len(reply.output.outputs[0].token_ids) for reply in replies]
    assert lengths == [1, 2, 3, 4]
    assert [reply.is_last for reply in replies] == [False, False, False, True]
    texts = [reply.output.outputs[0].text for reply in replies]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


def test_without_streaming_there_are_only_ends(session):
    requests = [partial(session.text, text, PARAMS) for text in ("Once", "The cat")]
    replies = list(session.run(requests, is_streaming=False))
    assert [reply.is_last for reply in replies] == [True, True]
    assert {reply.place for reply in replies} == {0, 1}


def test_a_refusal_is_a_reply(session):
    def refused():
        raise InvalidParams("no")

    requests = [refused, partial(session.text, "Once", PARAMS)]
    first, second = session.run(requests, is_streaming=False)
    assert (first.place, first.output, str(first.refusal), first.is_last) == (0, None, "no", True)
    assert second.output.finished


def test_closing_ends_what_runs(session):
    endless = PARAMS.clone(max_tokens=None)
    with closing(session.run([partial(session.text, "Once", endless)], is_streaming=True)) as replies:
        assert not next(replies).is_last
        assert session._driver.has_work()
    assert not session._driver.has_work()
    assert len(list(session.run([partial(session.text, "Once", PARAMS)], is_streaming=False))) == 1


def test_params_are_the_models_with_what_was_given_over_them(session):
    assert session.params({}, max_tokens=77).max_tokens == 77
    assert session.params({"max_tokens": 5, "top_k": 3}, max_tokens=77).max_tokens == 5
    assert session.params({}, max_tokens=None).max_tokens is None
    with pytest.raises(InvalidParams):
        session.params({"top_p": 2.0}, max_tokens=1)
