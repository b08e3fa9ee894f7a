"""What recurrent layers keep of each sequence: who has which slot, and who begins anew.

The toy device of conftest.py has a layer that keeps what it has seen of a sequence, and fails where that is not what
the sequence has computed.
"""

from __future__ import annotations

from typing import Any

import pytest

from albireo.engine.settings import EngineSettings
from albireo.errors import ConfigError
from albireo.speculative_config import SpeculativeConfig

PROMPT = list(range(1, 18))
STATES = {"num_state_slots": 4, "max_num_seqs": 4, "enable_prefix_caching": False}


def held(run: Any) -> list[int]:
    return [seq.work.state_slot for seq in run.engine._scheduler.places.running]


def test_a_slot_is_given_back_and_given_again(bench: Any) -> None:
    run = bench(**STATES)
    for i in range(7):
        run.add([*PROMPT, i], max_tokens=3 + i % 3)
    run.step()
    assert sorted(held(run)) == [0, 1, 2, 3]
    run.run()
    run.check_all_ended()
    run.engine._scheduler.places.states.check_invariants([])


def test_continuations_go_on_from_copies(bench: Any) -> None:
    """Siblings take the state that the prompt left, before the first of them changes it."""
    run = bench(**STATES)
    run.add(PROMPT, n=3, max_tokens=6)
    run.step()
    first, *others = held(run)
    assert run.engine._scheduler.places.states.copies == [(first, other) for other in others]
    assert len(set(held(run))) == 3
    num_prompt = run.toy.num_computed_tokens
    run.run()
    run.check_all_ended()
    # every token of theirs but the last, which nobody computes, and the prompt once
    assert num_prompt == len(PROMPT) and run.toy.num_computed_tokens == len(PROMPT) + 3 * 5


def test_continuations_without_a_seat_compute_the_prompt_again(bench: Any) -> None:
    run = bench(**STATES | {"num_state_slots": 2, "max_num_seqs": 2})
    run.add(PROMPT, n=4, max_tokens=3)
    run.run()
    run.check_all_ended()


def test_copies_to_those_that_have_ended_do_no_harm(bench: Any) -> None:
    run = bench(**STATES)
    run.add(PROMPT, n=3, max_tokens=6)
    run.step()
    run.finish("0", 1)
    run.add([5, 6], max_tokens=4)  # finds the slot to which a copy is still to be made
    run.run()
    run.check_all_ended()


def test_whoever_is_preempted_begins_anew(bench: Any) -> None:
    run = bench(**STATES | {"num_blocks": 7})
    for i in range(3):
        run.add([*PROMPT, i], max_tokens=9)
    run.run()
    run.check_all_ended()
    assert run.engine.stats().num_preemptions > 0


@pytest.mark.parametrize("how", ["before", "within"])
def test_all_begin_anew_when_a_step_failed(bench: Any, step_failed: type[Exception], how: str) -> None:
    run = bench(**STATES | {"max_num_batched_tokens": 20})
    for i in range(3):
        run.add([*PROMPT, i], max_tokens=5)
    for _ in range(3):
        run.step()
    with pytest.raises(step_failed):
        run.step(fail=how)
    assert held(run) == []
    run.run()
    run.check_all_ended()


@pytest.mark.parametrize(
    "changes",
    [
        {"max_num_seqs": 5},
        {"speculative": SpeculativeConfig(method="ngram"), "lookahead": 1},
        {"num_host_blocks": 3},
    ],
)
def test_what_states_do_not_go_with(changes: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"num_state_slots=4, max_num_seqs=5|states (of sequences are not swapped|that steps)"
    ):
        EngineSettings(num_blocks=9, max_model_len=32, vocab_size=9, **(STATES | changes))
