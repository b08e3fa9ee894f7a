"""Who gets a request: the rule, with numbers alone."""

from __future__ import annotations

import hashlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from albireo.replicas.prefixes import Prefixes, block_keys
from albireo.replicas.router import SEQUENCE_TOKENS, Router, Standing

SIZE = 16


def router(num_engines: int = 2, num_blocks: int = 100) -> Router:
    return Router(num_engines, SIZE, num_blocks)


def standing(index: int, num_pending: int = 0, num_sequences: int = 0, num_seats: int = 8) -> Standing:
    return Standing(index, num_pending, num_sequences, num_seats)


def keys(num: int, name: str = "a") -> list[bytes]:
    return [f"{name}{i}".encode() for i in range(num)]


def test_keys_are_those_of_the_engine() -> None:
    tokens = list(range(40))
    for salt, root in ((None, bytes(32)), ("mine", hashlib.sha256(b"mine").digest())):
        first = hashlib.sha256(root + struct.pack("<16I", *tokens[:16])).digest()
        second = hashlib.sha256(first + struct.pack("<16I", *tokens[16:32])).digest()
        assert block_keys(tokens, SIZE, salt) == [first, second]
    assert block_keys(tokens[:15], SIZE, None) == []


@given(st.lists(st.integers(1, 400), max_size=40), st.integers(1, 5))
def test_requests_that_share_nothing_are_dealt_out(prompts: list[int], num_engines: int) -> None:
    """Equal prompts come to engines whose numbers of sequences differ by one at most."""
    made, counts = router(num_engines), [0] * num_engines
    for i in range(len(prompts)):
        there = [standing(e, 50 * counts[e], counts[e], 1000) for e in range(num_engines)]
        chosen = made.choose(keys(3, str(i)), 50, there)
        made.sent(chosen, keys(3, str(i)))
        counts[chosen] += 1
    assert max(counts) - min(counts) <= 1


def test_a_prefix_is_followed_as_far_as_it_saves_more_than_it_costs() -> None:
    made, prompt = router(), keys(40)
    made.sent(1, prompt)
    saved = 40 * SIZE
    most = saved // SEQUENCE_TOKENS
    busy = [standing(0), standing(1, num_sequences=most)]
    assert made.choose(prompt, saved + 1, busy) == 1 or most * SEQUENCE_TOKENS == saved
    assert made.choose(prompt, saved + 1, [standing(0), standing(1, num_sequences=most - 1)]) == 1
    assert made.choose(prompt, saved + 1, [standing(0), standing(1, num_sequences=most + 1)]) == 0
    assert made.choose(prompt, saved + 1, [standing(0), standing(1, num_pending=saved + 1)]) == 0
    assert made.choose(keys(40, "other"), saved + 1, [standing(0), standing(1)]) == 0


def test_the_longer_prefix_counts_and_only_from_the_beginning() -> None:
    made, prompt = router(3), keys(10)
    made.sent(0, prompt[:3])
    made.sent(1, prompt[:7])
    made.sent(2, prompt[1:])
    assert [made.num_missing(e, prompt, 165) for e in range(3)] == [165 - 48, 165 - 112, 165]
    assert made.choose(prompt, 165, [standing(e) for e in range(3)]) == 1
    assert made.num_missing(1, prompt[:7], 112) == 1, "the last token is computed in any case"


def test_no_prefix_is_worth_a_seat() -> None:
    made, prompt = router(), keys(90)
    made.sent(0, prompt)
    full = standing(0, num_sequences=8)
    assert made.choose(prompt, 1441, [full, standing(1, num_sequences=7)]) == 1
    assert made.choose(prompt, 1441, [full, standing(1, num_sequences=8)]) == 0, "where all are full it counts again"


def test_a_process_that_died_has_forgotten() -> None:
    made, prompt = router(), keys(20)
    made.sent(1, prompt)
    made.forget(1)
    assert made.num_missing(1, prompt, 321) == 321


def test_the_next_turn_of_a_chat_follows_the_answer() -> None:
    made = router()
    made.sent(0, keys(2))
    made.ended(0, keys(5))
    assert made.num_missing(0, keys(6), 100) == 20


def test_as_much_is_remembered_as_the_engine_has_blocks() -> None:
    held = Prefixes(5)
    held.add(keys(4))
    held.add(keys(3, "b"))
    assert held.num_held(keys(3, "b")) == 3
    assert held.num_held(keys(4)) == 2, "the ends of prompts go first"
    held.add(keys(9))
    assert held.num_held(keys(9)) == 5 and held.num_held(keys(3, "b")) == 0
