"""A device that runs ahead of the engine gives the tokens of one that does not, whatever is guessed wrong on the way.

A real model on the CPU, behind a device that computes a submitted step at once and hands it out when it is collected;
what the engine would see on a GPU. Requests come and go at random, with and without pressure on the blocks, and with
host memory for those that are preempted: blocks of the model that the engine does not know of stand in for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.api.load import Loaded, load
from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import REFUSED, DrawnTokens, StepOutputs
from albireo.config import EngineConfig
from albireo.engine.engine import Engine
from albireo.errors import InvariantError
from albireo.execution.ahead import LOOKAHEAD, AheadRunner
from albireo.execution.runner import DeviceModel, Runner
from albireo.models import load_architecture
from albireo.params import MAX_TOP, SamplingParams
from albireo.sampling.logprobs import token_logprobs
from albireo.sampling.sampler import Sampler
from albireo.step import SampleTask, TokenLogprobs
from tiny_models import make_checkpoint

#: The model's blocks from here on are the host's.
HOST, NUM_HOST = 200, 40
VOCAB = load_architecture("llama").tiny["vocab_size"]


@dataclass(frozen=True)
class Ticket:
    serial: int
    drawn: DrawnTokens


@dataclass
class Deferred:
    """Draws tokens, and finds those of rows in the step before, as a device does that was not told them.

    Fields: bad_step: of submitted ones, which cannot be drawn from.
    """

    model: DeviceModel
    bad_step: int = -1
    num_submitted: int = 0
    num_begun: int = 0
    num_told: int = 0
    num_recorded: int = 0
    drawn: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))

    def run(self, inputs: StepInputs) -> StepOutputs:
        self.num_begun += 1
        return self.model.run(inputs)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.model.copy_blocks(pairs)

    def swap_out(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.model.copy_blocks([(block, HOST + kept) for block, kept in pairs])

    def swap_in(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.model.copy_blocks([(HOST + kept, block) for kept, block in pairs])

    def can_draw(self, tasks: Sequence[SampleTask]) -> bool:
        return all(0 <= (task.params.logprobs or 0) <= MAX_TOP for task in tasks)

    def submit(
        self,
        inputs: StepInputs,
        tasks: Sequence[SampleTask],
        rows: Sequence[int],
        sources: NDArray[np.int32] | None = None,
        targets: Sequence[tuple[int, int, int]] = (),
        has_drafts: bool = False,
    ) -> Ticket:
        if sources is not None:
            known = np.where(sources >= 0, self.drawn[np.maximum(sources, 0)].clip(min=0), inputs.token_ids)
            inputs = replace(inputs, token_ids=known.astype(np.int32))
            tasks = [replace(task, output_token_ids=[*task.output_token_ids, 0]) for task in tasks]
        outputs = self.run(inputs)
        logprobs: list[TokenLogprobs | None] = []
        told = [token_logprobs(outputs.logits[row], token, num, "it") for row, token, num in targets]
        if len(inputs.logit_rows):
            sampled = Sampler(VOCAB).sample(outputs.logits, tasks, rows)
            tokens, logprobs = [token.token_id for token in sampled], [token.logprobs for token in sampled]
        else:
            tokens = [int(outputs.top_ids[row, 0]) for row in rows]
        if self.num_submitted == self.bad_step:
            tokens = [-1 for _ in tokens]
        if has_drafts:
            tokens = judged(inputs, tokens)
        self.num_submitted += 1
        self.drawn = np.array(tokens or [0], np.int32)
        self.num_told += len(told) + sum(each is not None for each in logprobs)
        found = np.array(tokens, np.int32)
        return Ticket(self.num_begun, DrawnTokens(found, not (found == -1).any(), logprobs, told))

    def record_next(self) -> bool:
        self.num_begun += 5
        self.drawn = np.full(64, 3, np.int32)
        self.num_recorded += 1
        return True

    def collect(self, ticket: Ticket) -> DrawnTokens:
        assert self.num_begun - ticket.serial <= 2, "what it holds was overwritten"
        return ticket.drawn


def judged(inputs: StepInputs, tokens: list[int]) -> list[int]:
    """What of a step with drafts stands: see AheadDevice.submit()."""
    assert len(tokens) == inputs.num_tokens
    found = []
    for first, end in pairwise(inputs.query_start.tolist()):
        num = 1
        while first + num < end and tokens[first + num - 1] == inputs.token_ids[first + num]:
            num += 1
        found += [*tokens[first : first + num], *[REFUSED] * (end - first - num)]
    return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_on_cpu(make_checkpoint(tmp_path_factory.mktemp("model"), load_architecture("llama").tiny, seed=3))


def load_on_cpu(directory: Path, **settings: Any) -> Loaded:
    return load(
        EngineConfig(
            model=str(directory),
            device="cpu",
            num_threads=1,
            max_num_seqs=5,
            max_num_batched_tokens=24,
            num_gpu_blocks_override=HOST + NUM_HOST,
            block_size=8,
            skip_tokenizer_init=True,
            **settings,
        )
    )


@dataclass(frozen=True)
class Ask:
    """A request: at which step it comes, and at which its caller gives up (-1: never)."""

    prompt: list[int]
    params: SamplingParams
    comes: int
    leaves: int = -1


def asks(seed: int, num: int = 14) -> list[Ask]:
    rng = np.random.default_rng(seed)
    common = rng.integers(3, 60, 19).tolist()
    found = []
    for i in range(num):
        own = rng.integers(3, 60, int(rng.integers(1, 20))).tolist()
        params = SamplingParams(
            temperature=float(rng.choice([0.0, 0.0, 0.0, 1.0])),
            seed=i,
            max_tokens=int(rng.integers(1, 24)),
            n=int(rng.choice([1, 1, 1, 3])),
            logprobs=[None, None, None, 2][int(rng.integers(4))],
            prompt_logprobs=[None, None, None, 1][int(rng.integers(4))],
            ignore_eos=bool(rng.integers(2)),
            stop_token_ids=rng.integers(3, 60, 2).tolist(),
        )
        prompt = common + own if rng.integers(2) else own
        found.append(Ask(prompt, params, int(rng.integers(0, 40)), int(rng.choice([-1, -1, -1, 45]))))
    return found


#: Tokens and what was told of them; of a prompt under continuation -1.
Served = dict[tuple[int, int], list[int | TokenLogprobs]]


def serve(engine: Engine, requests: list[Ask], between: Callable[[], object] = lambda: None) -> Served:
    """By request and continuation; of a request that was given up those it had by then. between: steps."""
    tokens: Served = {(i, index): [] for i, ask in enumerate(requests) for index in range(-1, ask.params.n)}
    for step in count():
        for i, ask in enumerate(requests):
            if ask.comes == step:
                engine.add_request(str(i), ask.prompt, ask.params)
            if ask.leaves == step:
                engine.abort(str(i))
        for update in engine.step():
            tokens[int(update.request_id), update.index] += update.token_ids
            tokens[int(update.request_id), update.index] += update.logprobs or []
            tokens[int(update.request_id), -1] = list(update.progress.prompt_logprobs or [])
        engine.check_invariants()
        between()
        if step > 60 and not engine.has_work():
            return tokens
    raise AssertionError("not reached")


def engines(loaded: Loaded, num_blocks: int, device: Deferred, num_host: int = 0) -> tuple[Engine, Engine, AheadRunner]:
    states: Any = loaded.model if loaded.program.states else None
    plain = Runner(loaded.model, VOCAB, 8, states=states)
    ahead = AheadRunner(device, VOCAB, 8, loaded.memory.max_model_len, states=states)
    settings = replace(loaded.settings, num_blocks=num_blocks)
    return (
        Engine(settings, plain.execute, lambda: 0.0),
        Engine(replace(settings, lookahead=LOOKAHEAD, num_host_blocks=num_host), ahead.execute, lambda: 0.0),
        ahead,
    )


@pytest.mark.parametrize(
    ("num_blocks", "num_host"), [(200, 0), (14, 0), (14, NUM_HOST)], ids=["room", "pressure", "swapping"]
)
@pytest.mark.parametrize("seed", range(2))
def test_tokens_are_those_of_a_device_that_waits(loaded: Loaded, seed: int, num_blocks: int, num_host: int) -> None:
    device = Deferred(loaded.model)
    plain, running_ahead, runner = engines(loaded, num_blocks, device, num_host)
    requests = [ask for ask in asks(seed) if len(ask.prompt) + (ask.params.max_tokens or 0) <= (num_blocks - 1) * 8]
    wanted, got = serve(plain, requests), serve(running_ahead, requests)
    for key, tokens in wanted.items():
        if requests[key[0]].leaves < 0:
            assert got[key] == tokens, key
    assert runner.num_found > 20, "rows were found computed"
    assert device.num_told > 20, "log-probabilities came from the device"
    assert plain.stats().num_preemptions > 0 or num_blocks > 14
    assert (running_ahead.stats().num_swap_outs > 0) == (num_host > 0)


def test_steady_decoding_is_found_computed(loaded: Loaded) -> None:
    """All but the steps that compute prompts, and the first after each, also across the bounds of blocks."""
    device = Deferred(loaded.model)
    _, engine, runner = engines(loaded, 200, device)
    params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    with_logprobs = params.clone(logprobs=1)
    serve(engine, [Ask([5 + i, 6, 7], with_logprobs if i == 3 else params, 0) for i in range(4)])
    assert (runner.num_found, runner.num_computed) == (4 * 29, 4)
    assert device.num_submitted == 30, "nobody was guessed to go on who could not"
    assert device.num_told == 30


def test_a_prompt_is_begun_before_the_step_ahead_is_read(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the device has something to compute while the host reads: of each step, how many were begun behind it."""
    device, behind = Deferred(loaded.model), []
    collect = device.collect

    def noted(ticket: Ticket) -> DrawnTokens:
        behind.append(device.num_begun - ticket.serial)
        return collect(ticket)

    monkeypatch.setattr(device, "collect", noted)
    _, engine, _ = engines(loaded, 200, device)
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    engine.add_request("a", [5, 6, 7], params)
    for _ in range(4):
        engine.step()
    assert behind == [0, 1, 1, 1], "a prompt, then steps ahead of the next"
    engine.add_request("b", [8, 9], params)
    engine.step()
    assert behind[4:] == [1, 0], "the token of a in flight, with b's prompt behind it; then that"


def test_more_log_probabilities_than_the_device_finds_come_from_the_host(loaded: Loaded) -> None:
    device = Deferred(loaded.model)
    plain, engine, _ = engines(loaded, 200, device)
    many = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True, logprobs=-1, prompt_logprobs=MAX_TOP + 1)
    requests = [Ask([5, 6, 7], many, 0), Ask([8, 9], SamplingParams(temperature=0, max_tokens=4, ignore_eos=True), 0)]
    assert serve(engine, requests) == serve(plain, requests)
    assert device.num_told == 0


def test_what_is_prepared_between_steps_is_seen_by_none(loaded: Loaded) -> None:
    """It leaves nothing of what was in flight; the engine prepares where there are no requests, which is less."""
    device = Deferred(loaded.model)
    plain, engine, runner = engines(loaded, 200, device)
    requests = [replace(ask, leaves=-1) for ask in asks(3)]
    rng = np.random.default_rng(1)
    wanted = serve(plain, requests)
    assert serve(engine, requests, lambda: rng.integers(4) or runner.prepare()) == wanted
    assert device.num_recorded > 5 and runner.num_found > 20


def test_a_damaged_row_ends_its_request_and_no_other(loaded: Loaded) -> None:
    """What was submitted ahead is computed again, in the open, where the guess holds no numbers."""
    device = Deferred(loaded.model, bad_step=4)
    _, engine, _ = engines(loaded, 200, device)
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    requests = [Ask([5 + i, 6, 7], params, 0) for i in range(3)]
    plain, _, _ = engines(loaded, 200, device)
    assert serve(engine, requests) == serve(plain, requests)


def test_a_step_that_fails_leaves_nothing_in_flight(loaded: Loaded) -> None:
    device = Deferred(loaded.model)
    _, engine, runner = engines(loaded, 200, device)
    engine.add_request("a", [5, 6, 7], SamplingParams(temperature=0, max_tokens=9, ignore_eos=True))
    tokens = [token for _ in range(3) for update in engine.step() for token in update.token_ids]
    run, device.collect = device.collect, _broken  # type: ignore[method-assign]
    with pytest.raises(InvariantError, match="lost"):
        engine.step()
    device.collect = run  # type: ignore[method-assign]
    while engine.has_work():
        tokens += [token for update in engine.step() for token in update.token_ids]
    plain, _, _ = engines(loaded, 200, device)
    again = Ask([5, 6, 7], SamplingParams(temperature=0, max_tokens=9, ignore_eos=True), 0)
    assert serve(plain, [again])[0, 0] == tokens
    assert runner.num_computed >= 2


def _broken(ticket: Ticket) -> DrawnTokens:
    raise InvariantError("lost")
