"""Steps ahead of a model whose layers keep states: a step that is guessed changes what the next one reads.

The device of test_ahead.py, with a model that keeps a state of each sequence in slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.api.load import Loaded
from albireo.backends.step_inputs import StepInputs
from albireo.errors import InvariantError
from albireo.models import load_architecture
from albireo.params import SamplingParams
from albireo.step import SampleTask
from e2e.test_ahead import VOCAB, Ask, Deferred, Ticket, asks, engines, load_on_cpu, serve
from tiny_models import make_checkpoint

GREEDY = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True)


class Snapshots(Deferred):
    """Fields: num_ahead: snapshots of steps that were submitted ahead."""

    num_ahead = 0

    def submit(
        self,
        inputs: StepInputs,
        tasks: Sequence[SampleTask],
        rows: Sequence[int],
        sources: NDArray[np.int32] | None = None,
        targets: Sequence[tuple[int, int, int]] = (),
        has_drafts: bool = False,
    ) -> Ticket:
        if sources is not None and inputs.snapshot_rows is not None:
            self.num_ahead += int(inputs.snapshot_rows.sum())
        return super().submit(inputs, tasks, rows, sources, targets, has_drafts)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    tiny = load_architecture("qwen3_5_text").tiny | {"vocab_size": VOCAB}
    return load_on_cpu(make_checkpoint(tmp_path_factory.mktemp("model"), tiny, seed=3))


@pytest.mark.parametrize(
    ("num_blocks", "num_slots"), [(200, 23), (14, 23), (14, 8)], ids=["room", "pressure", "few snapshots"]
)
@pytest.mark.parametrize("seed", range(2))
def test_tokens_are_those_of_a_device_that_waits(loaded: Loaded, seed: int, num_blocks: int, num_slots: int) -> None:
    """Requests end, are given up and preempted while a step is ahead of them; siblings go on from one state, others
    from snapshots, which rows ahead leave, too."""
    device, settings = Snapshots(loaded.model), replace(loaded.settings, num_state_slots=num_slots)
    plain, running_ahead, runner = engines(replace(loaded, settings=settings), num_blocks, device)
    requests = [ask for ask in asks(seed) if len(ask.prompt) + (ask.params.max_tokens or 0) <= (num_blocks - 1) * 8]
    wanted, got = serve(plain, requests), serve(running_ahead, requests)
    for key, tokens in wanted.items():
        if requests[key[0]].leaves < 0:
            assert got[key] == tokens, key
    assert runner.num_found > 20, "rows were found computed"
    assert running_ahead.stats().num_failed_steps == 0
    assert running_ahead.stats().num_preemptions > 0 or num_blocks > 14
    assert running_ahead.stats().prefix_cache_hits > 0 and device.num_ahead > 3


def test_a_state_that_a_wrong_guess_spoilt_is_not_gone_on_from(loaded: Loaded) -> None:
    """What is in flight is let go while its sequences run: the step fails, all begin anew, and get the same tokens."""
    plain, engine, runner = engines(loaded, 200, Deferred(loaded.model))
    requests = [Ask([5 + i, 6, 7], GREEDY, 0) for i in range(2)]
    wanted = serve(plain, requests)
    for i, ask in enumerate(requests):
        engine.add_request(str(i), ask.prompt, ask.params)
    found: list[list[int]] = [[], []]
    num_failed = 0
    while engine.has_work():
        try:
            for update in engine.step():
                found[int(update.request_id)] += update.token_ids
        except InvariantError as error:
            assert "goes on from a state that a token was guessed for" in str(error)
            num_failed += 1
        if len(found[0]) == 3 and not num_failed:
            runner.prepare()
    assert (num_failed, found) == (1, [wanted[0, 0], wanted[1, 0]])


def test_a_damaged_row_is_not_computed_again(loaded: Loaded) -> None:
    """It would go on from what it left; the error names whose it is, and those are tried from the beginning."""
    device = Deferred(loaded.model, bad_step=4)
    plain, engine, _ = engines(loaded, 200, device)
    wanted = serve(plain, [Ask([5, 6, 7], GREEDY, 0)])
    engine.add_request("0", [5, 6, 7], GREEDY)
    found = [token for _ in range(4) for update in engine.step() for token in update.token_ids]
    with pytest.raises(InvariantError, match=r"sequence \d+: its logits are no numbers, or leave no token"):
        engine.step()
    while engine.has_work():
        found += [token for update in engine.step() for token in update.token_ids]
    assert found == wanted[0, 0]
