"""Beam searches on the toy: what vLLM's rule finds to the full length, in fewer steps where it can be known before."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.beam_search_params import BeamSearchParams
from albireo.errors import InvalidParams


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0, 4.0, -2.0])
@pytest.mark.parametrize("ends", [frozenset({0}), frozenset({0, 5, 11, 23})])
def test_an_end_before_its_length_changes_no_output(bench: Any, penalty: float, ends: frozenset[int]) -> None:
    """Also where there are more ends of text than the beam is wide."""
    num_steps = []
    for seed in range(12):
        run = bench(eos_token_ids=ends)
        prompt = [1 + (seed * 7 + i * 5) % 39 for i in range(1 + seed)]
        run.add(prompt, beam_search=BeamSearchParams(1 + seed % 4, 14, length_penalty=penalty))
        num_steps.append(run.run())
        run.check_all_ended()
    assert min(num_steps) < 14 or penalty == 4.0
    assert max(num_steps) == 14 or penalty <= 0.0


def test_a_step_that_fails_is_no_round(bench: Any, step_failed: type[Exception]) -> None:
    run = bench(num_state_slots=12, max_num_seqs=4, max_num_batched_tokens=9)
    for start in (1, 2):
        run.add(list(range(start, start + 11)), beam_search=BeamSearchParams(3, 12, ignore_eos=True))
    for fail in ("before", None, "within", None, None) * 3:
        if fail is None:
            run.step()
        else:
            with pytest.raises(step_failed):
                run.step(fail=fail)
    run.run()
    run.check_all_ended()


def test_a_search_has_nothing_to_go_on_from(bench: Any) -> None:
    with pytest.raises(InvalidParams, match="begins anew"):
        bench().add([1, 2], beam_search=BeamSearchParams(2, 5), seed=1, earlier=[[3], [4]])


def test_a_held_beam_gives_its_blocks_to_who_came_before(bench: Any) -> None:
    """Of two beams one has a seat beside those of another request, which need more and more blocks."""
    run = bench(num_blocks=18, max_num_seqs=3)
    run.add([1], n=2, max_tokens=60)
    run.step()
    run.add(list(range(1, 18)), beam_search=BeamSearchParams(2, 5, ignore_eos=True))
    running = run.engine._scheduler.places.running
    were_held = [set[int]()]
    while not any(before - {seq.seq_id for seq in running} for before in were_held):
        were_held = [{seq.seq_id for seq in running if seq.is_held}]
        run.step()
    assert run.engine.stats().num_preemptions > 0
    run.run()
    run.check_all_ended()
