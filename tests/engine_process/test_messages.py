"""Frames: messages survive the wire, however the bytes are cut."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from albireo import errors
from albireo.engine_process.client import _error
from albireo.engine_process.messages import (
    MAX_FRAME_BYTES,
    Add,
    Frames,
    FromWorker,
    Progress,
    Stepped,
    ToWorker,
    Update,
    frame,
)
from albireo.params import PoolingParams, SamplingParams
from albireo.step import TokenLogprobs

PARAMS = SamplingParams(
    n=2, seed=-(2**63), stop=["a"], logit_bias={3: 0.5}, allowed_token_ids=[1, 2], logprobs=-1, bad_words=["b"],
    bad_words_token_ids=((1, 2), (3,)), max_tokens=None,
)  # fmt: skip
ADD = Add(7, [1, 2, 3], PARAMS, -1, "salt", 12.5, [[4, 5], None])
EMBED = Add(8, [1, 2], SamplingParams(), 0, None, 1.0, None, PoolingParams(pooling_type="mean", dimensions=3))
LOGPROBS = TokenLogprobs([5, 6], [-0.25, -1.5], [1, 2])
PROGRESS = Progress(1.0, 2.0, 16, 1, 3, 0.5, None, [LOGPROBS])
STEPPED = Stepped(
    [
        Update(7, 1, [5], [LOGPROBS], "stop", "END", PROGRESS), Update(8, 0, [6]),
        Update(9, 0, [], None, "stop", None, None, b"\x00\x00\x80?"),
    ],
    1.0, 2.0, 3, 4, 5, 6, 0.5, 7, 8, 9, 10, 0.25,
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_messages_survive_however_they_are_cut(size: int) -> None:
    data = frame(ADD) + frame(EMBED) + frame(ADD)
    frames = Frames()
    found = [p for start in range(0, len(data), size) for p in frames.feed(data[start : start + size])]
    decoded = [msgspec.msgpack.decode(payload, type=ToWorker) for payload in found]
    assert decoded == [ADD, EMBED, ADD]
    assert decoded[0].params == PARAMS  # type: ignore[union-attr]


def test_a_step_survives() -> None:
    (payload,) = Frames().feed(frame(STEPPED))
    assert msgspec.msgpack.decode(payload, type=FromWorker) == STEPPED


def test_a_frame_beyond_the_limit_is_no_frame() -> None:
    with pytest.raises(ValueError, match=str(MAX_FRAME_BYTES + 1)):
        Frames().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "little"))


@pytest.mark.parametrize(
    "name", [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)]
)
def test_an_error_is_what_it_was_in_the_other_process(name: str) -> None:
    """Its name and its message are all that comes: a class that wants more could not be made of them."""
    found = _error(name, "no room", errors.ConfigError)
    assert (type(found), str(found)) == (getattr(errors, name), "no room")
    assert str(pickle.loads(pickle.dumps(found))) == "no room"
