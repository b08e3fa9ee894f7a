"""CudaModel on CPU tensors: whole models in Triton's interpreter, against the interpreter of their graphs.

The same launches in the same order as on a GPU. Recorded steps are replayed here too: a recorder that notes what it was
given shows which steps share a recording, and that a replay reads what was filled in later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from triton.runtime.interpreter import GridExecutor

from albireo.backends.cuda import recordings
from albireo.backends.cuda.capture import Launches, NotRecorded
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.compile_ahead import launch_all
from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.open import open_model
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import round_to
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.passes import choose_precision, narrow_activations, widen_activations
from albireo.compiler.pipeline import compile_graph, run_passes
from albireo.errors import InvariantError
from albireo.graph.node import Graph
from albireo.models import build_graph, encoder_types
from albireo.models.config_keys import parse_config
from albireo.params import SamplingParams
from albireo.sampling.sampler import Sampler
from albireo.step import SampleTask
from backends.cpu.harness import F32, assert_same_bits
from backends.cpu.test_pack import Stored, Weights
from representatives import ALL_REPRESENTATIVES, IN_ANOTHER_ORDER
from step_batches import Rows, Work, make_step
from tiny_models import random_weights, weights_read
from variants import architecture_of, tiny_of

MAXIMA = {"T": 16, "R": 16, "G": 4}
MAX_POSITIONS = 64
NUM_BLOCKS = 12
CPU = torch.device("cpu")


class Numbers(Weights):
    """A checkpoint of numbers; what is wanted in few bits is rounded on the way."""

    encodings: Mapping[str, str] = {}


class Recorder:
    """Remembers how often it was asked. Fields: room: recordings there is memory for."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.num_recorded = self.num_replayed = 0
        self.is_inside = False

    def record(self, launches: Launches) -> Launches:
        self._launch(launches)
        if self.num_recorded == self.room:
            raise NotRecorded("CUDA error: out of memory")
        self.num_recorded += 1

        def replay() -> None:
            self.num_replayed += 1
            self._launch(launches)

        return replay

    def _launch(self, launches: Launches) -> None:
        self.is_inside = True
        launches()
        self.is_inside = False


def graph_of(name: str, dtype: str, encoding: str | None = None) -> Graph:
    graph = build_graph(parse_config(tiny_of(name), architecture_of(name).rules).with_dtype(dtype), MAX_POSITIONS)
    if encoding is not None:
        choose_precision.run(graph, lambda name, role: encoding)
    return graph


#: Weights with which no token is between two experts so nearly that rounding decides.
SEEDS = {"dots1": 3}


def weights_of(name: str, dtype: str) -> dict[str, F32]:
    if name in encoder_types():
        weights = weights_read(graph_of(name, "float32"), 1)
    else:
        weights = random_weights(tiny_of(name), SEEDS.get(name, 1))
    return {key: round_to(value, dtype) for key, value in weights.items()}


def model_of(
    name: str,
    dtype: str,
    encoding: str | None = None,
    kv_dtype: str | None = None,
    recorder: Recorder | None = None,
    capability: int | None = None,
) -> CudaModel:
    program = compile_graph(
        graph_of(name, dtype, encoding),
        CudaCatalog(capability),
        maxima=MAXIMA,
        block_size=8,
        max_positions=MAX_POSITIONS,
        kv_dtype=kv_dtype,
    )
    weights = Numbers({key: Stored(value, dtype) for key, value in weights_of(name, dtype).items()})
    return open_model(
        program,
        weights,
        num_blocks=NUM_BLOCKS,
        max_positions=MAX_POSITIONS,
        num_state_slots=4,
        device=CPU,
        recorder=recorder,
    )


#: Tokens of two prompts; of one of them, of the other and of a third that begins. Of the first the second block begins,
#: and what a window of five does not reach.
FEW = ((7, 2), (2, 1, 3))
#: In which the second prompt fills a block, and steps are as large as they may be.
MANY = ((7, 8), (4, 1, 9))


def steps(
    logits: Rows = "all", top: Rows = "last", lengths: tuple[tuple[int, ...], tuple[int, ...]] = FEW
) -> list[StepInputs]:
    """Two prompts; one goes on beside a token of the other and a third that begins; then a token of each.

    A row costs the interpreter as much as the next: many are for what depends on how many there are.
    """
    first, second, third = [7, 2, 9], [4, 1], [5, 11, 3]
    (one, two), (more, another, three) = lengths

    def tokens(count: int, seed: int) -> list[int]:
        return [int(t) for t in np.random.default_rng(seed).integers(0, 90, count)]

    plans = [
        [Work(tokens(one, 1), 0, first, 2), Work(tokens(two, 2), 0, second, 0)],
        [
            Work(tokens(more, 3), one, first, 2),
            Work(tokens(another, 4), two, second, 0),
            Work(tokens(three, 5), 0, third, 1),
        ],
        [
            Work(tokens(1, 6), two + another, second, 0),
            Work(tokens(1, 7), three, third, 1),
            Work(tokens(1, 8), one + more, first, 2),
        ],
    ]
    return [make_step(plan, 8, logits, top) for plan in plans]


NAMES = sorted(ALL_REPRESENTATIVES)
#: Types in turn: what a type changes, and what an architecture does, each is seen in several.
CASES: list[Any] = [*product(NAMES[::2], ["float32"]), *product(NAMES[1::2], ["bfloat16"]), ("qwen3", "float16")]
CASES += product(IN_ANOTHER_ORDER, ["bfloat16"])
CASES += [("qwen2_moe, as wide", "float32")]
OTHERS = [*product(NAMES[::2], ["bfloat16"]), *product(NAMES[1::2], ["float32"])]
CASES += [pytest.param(*case, marks=pytest.mark.thorough) for case in OTHERS]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of exp in gelu's tanh form, where it gives the limit
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_a_program_computes_what_its_graph_says(name: str, dtype: str) -> None:
    """As near to the interpreter as roundings allow: see the test of the same name of the CPU's kernels."""
    model, weights = model_of(name, dtype), weights_of(name, dtype)
    graph, exact_graph = graph_of(name, dtype), graph_of(name, "float32")
    rounded, exact = ReferenceKV(NUM_BLOCKS, 8, dtype), ReferenceKV(NUM_BLOCKS, 8)
    ours, ideal, noise = [], [], []
    for step in steps():
        outputs = model.run(step)
        wanted = interpret(graph, step, weights, rounded).outputs
        best = wanted if dtype == "float32" else interpret(exact_graph, step, weights, exact).outputs
        ours.append(outputs.logits.copy())
        ideal.append(wanted["logits"])
        noise.append(wanted["logits"] - best["logits"])
        assert np.array_equal(outputs.top_ids[:, 0], outputs.logits[step.top_rows].argmax(axis=1))
        assert_same_bits(
            outputs.top_values[:, 0], outputs.logits[step.top_rows].max(axis=1), "both ways through the head"
        )
    got, want = np.concatenate(ours), np.concatenate(ideal)
    off = np.linalg.norm(got - want) / np.linalg.norm(want)
    rounding = float(np.linalg.norm(np.concatenate(noise)) / np.linalg.norm(want))
    assert off <= (2e-6 if dtype == "float32" else 1.1 * rounding)


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_a_program_without_logits_gives_hidden_states(name: str) -> None:
    """Two texts that see both ways, the second of them of two types; then what is compiled ahead for such a program."""
    weights, model = weights_of(name, "bfloat16"), model_of(name, "bfloat16")
    step = make_step([Work(list(range(3, 13)), 0, [7, 2]), Work([30, 8, 21, 9, 17], 0, [4])], 8, "all", "none")
    step = replace(step, token_types=np.array([0] * 12 + [1] * 3, np.int32))
    outputs = model.run(step)
    graph = graph_of(name, "bfloat16")
    wanted = interpret(graph, step, weights, ReferenceKV(NUM_BLOCKS, 8, "bfloat16"))["hidden"]
    best = interpret(graph_of(name, "float32"), step, weights, ReferenceKV(NUM_BLOCKS, 8))["hidden"]
    assert np.linalg.norm(outputs.hidden - wanted) <= 1.1 * np.linalg.norm(wanted - best)
    assert len(outputs.logits) == len(outputs.top_ids) == len(outputs.top_values) == 0
    task = SampleTask(0, SamplingParams(), 0, [], [])
    assert not model.can_draw([task])
    with pytest.raises(InvariantError, match="has no logits"):
        model.submit(step, [task], [0])
    untyped = model.run(replace(step, token_types=None)).hidden
    assert np.array_equal(untyped[:10], outputs.hidden[:10])
    assert np.array_equal(untyped[10:], outputs.hidden[10:]) == (name == "modernbert"), "which has no types"
    assert launch_all(model) == 2, "a prompt of one token, and the largest step"


def test_steps_of_texts_are_recorded_when_they_are_met_again_and_not_ahead() -> None:
    """Padded to 16 tokens of 4 sequences, each row has the bits of a step at its own size."""
    recorder = Recorder()
    model, plain = model_of("bert", "bfloat16", recorder=recorder), model_of("bert", "bfloat16")
    counts = []
    for seed in range(3):
        tokens = np.random.default_rng(seed).integers(3, 90, 13).tolist()
        step = make_step([Work(tokens[:8], 0, [7]), Work(tokens[8 + seed :], 0, [4])], 8, "last", "none")
        step = replace(step, token_types=None if seed == 1 else (step.positions > 3).astype(np.int32))
        assert_same_bits(model.run(step).hidden, plain.run(step).hidden, f"step {seed}")
        assert not model.record_next()
        counts.append((recorder.num_recorded, recorder.num_replayed))
    assert counts == [(0, 0), (1, 0), (1, 1)]
    every = make_step([Work([5, 6], 0, [7]), Work([8], 0, [4])], 8, "all", "none")
    assert_same_bits(model.run(every).hidden, plain.run(every).hidden, "as long as a step of four tokens")


@pytest.mark.parametrize("encoding", ["int8", "int4.g32", "int4p.g32", "fp8"])
def test_weights_in_few_bits(encoding: str) -> None:
    """Sums are the same; a probability that bfloat16 rounds turns a code of 8 bits here and there."""
    model, weights = model_of("llama", "bfloat16", encoding), weights_of("llama", "bfloat16")
    kv = ReferenceKV(NUM_BLOCKS, 8, "bfloat16")
    graph, _ = run_passes(graph_of("llama", "bfloat16", encoding), [widen_activations.run])
    for step in steps():
        got = model.run(step).logits
        wanted = interpret(graph, step, weights, kv)["logits"]
        assert np.linalg.norm(got - wanted) <= 3e-2 * np.linalg.norm(wanted)
        first = step.positions == 0
        if encoding not in ("fp8", "int4.g32"):  # whose products are sums of floats
            assert np.abs(got - wanted)[first].max(initial=0) <= 1e-5, "a row alone has one probability"


def test_e4m3_on_both_sides() -> None:
    """The narrowed graph's numbers, but where a bit before a rounding turns a code, as one in a probability does."""
    model, weights = model_of("qwen3", "bfloat16", "fp8", capability=90), weights_of("qwen3", "bfloat16")
    assert sum(call.family == "norm" for call in model.program.calls) == 3, "the others are in linears"
    graph, _ = run_passes(graph_of("qwen3", "bfloat16", "fp8"), [narrow_activations.run])
    kv = ReferenceKV(NUM_BLOCKS, 8, "bfloat16")
    for step in steps():
        got, wanted = model.run(step).logits, interpret(graph, step, weights, kv)["logits"]
        assert np.linalg.norm(got - wanted) <= 0.1 * np.linalg.norm(wanted)
        assert np.abs(got - wanted)[step.positions == 0].max(initial=0) <= 1e-4, "a row alone has one probability"


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
def test_a_cache_of_codes(kv_dtype: str) -> None:
    model, weights = model_of("qwen3", "bfloat16", kv_dtype=kv_dtype), weights_of("qwen3", "bfloat16")
    kv = ReferenceKV(NUM_BLOCKS, 8, kv_dtype)
    for step in steps():
        got = model.run(step).logits
        wanted = interpret(graph_of("qwen3", "bfloat16"), step, weights, kv)["logits"]
        assert np.linalg.norm(got - wanted) <= 2e-2 * np.linalg.norm(wanted)


def test_neither_padding_nor_a_recording_changes_a_bit() -> None:
    """A decoding step of three sequences is padded to four and replayed; each of them alone is a step of one."""
    recorder = Recorder()
    model = model_of("llama", "bfloat16", recorder=recorder)
    prompts, _, decode = steps("none", "last", MANY)
    model.run(prompts)
    model.run(steps("none", "last", MANY)[1])
    assert recorder.num_recorded == 1, "the second step with prompts of up to 16 tokens"
    recorder.num_recorded = 0
    together = model.run(decode)
    ids, values = together.top_ids.copy(), together.top_values.copy()
    assert (recorder.num_recorded, recorder.num_replayed) == (1, 0), "recording computes the step"
    again = model.run(decode)
    assert (recorder.num_recorded, recorder.num_replayed) == (1, 1)
    assert_same_bits(again.top_values, values, "the same step again")
    plan = [([4, 1], 9), ([5, 11, 3], 9), ([7, 2, 9], 11)]
    for index, (blocks, position) in enumerate(plan):
        token = int(decode.token_ids[index])
        alone = model.run(make_step([Work([token], position, blocks)], 8, "none", "last"))
        assert np.array_equal(alone.top_ids[0], ids[index])
        assert_same_bits(alone.top_values[0], values[index], f"sequence {index} alone")
    assert recorder.num_recorded == 2, "steps of one share a recording"
    assert prompts.num_tokens == 15


def test_a_step_with_prompts_is_padded_once_it_was_met() -> None:
    """To 16 tokens of 4 sequences: launched, recorded, replayed. Each row has the bits of a step at its own size."""
    recorder = Recorder()
    model = model_of("qwen3", "bfloat16", "fp8", recorder=recorder, capability=90)
    plain, counts = model_of("qwen3", "bfloat16", "fp8", capability=90), []
    given = [step for step in steps("none", "last", MANY)[:2] for _ in range(2)]
    for step in given:
        got, wanted = model.run(step), plain.run(step)
        assert_same_bits(got.top_values, wanted.top_values, f"step {len(counts)}")
        assert np.array_equal(got.top_ids, wanted.top_ids)
        counts.append((recorder.num_recorded, recorder.num_replayed))
    assert counts == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_states_go_on_in_padded_and_recorded_steps() -> None:
    """The bits of steps at their own size, and of snapshots, which no recording had; and a copy of a slot."""
    recorder = Recorder()
    model, plain = model_of("qwen3_5_text", "bfloat16", recorder=recorder), model_of("qwen3_5_text", "bfloat16")
    counts: list[tuple[int, int]] = []
    first, second, third = steps("none", "last", MANY)
    slots = np.array([3, -1, -1], np.int32)
    orders = {"snapshot_slots": slots, "snapshot_rows": (slots == 3).astype(np.int32)}
    for given in (first, second, third, replace(third, **orders)):
        assert_same_bits(model.run(given).top_values, plain.run(given).top_values, f"step {len(counts)}")
        counts.append((recorder.num_recorded, recorder.num_replayed))
    assert counts == [(0, 0), (1, 0), (2, 0), (2, 1)], "16 tokens of 4 sequences twice, then 4 of one token"
    assert torch.equal(model._states._numbers[3], model._states._numbers[0]), "of all layers"
    kept = plain._states.of(1)
    assert torch.equal(model._states.of(1), kept) and kept.any(dim=1).all()
    plain.copy_states([(2, 0)])
    assert torch.equal(kept[0], kept[2])


def test_a_sampled_step_is_wholly_in_its_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fed by the step before, drawn, changed, told of: no kernel is launched beside a replay, and tokens are those that
    the host's sampler draws from the logits of a model that does not record."""
    recorder, outside = Recorder(), 0
    model, plain = model_of("llama", "float32", recorder=recorder), model_of("llama", "float32")
    launch = GridExecutor.__call__

    def watched(self: GridExecutor, *args: Any, **options: Any) -> None:
        nonlocal outside
        outside += not recorder.is_inside
        launch(self, *args, **options)

    kinds: list[dict[str, Any]] = [
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 0.0, "logit_bias": {5: 1.5}},
        {"temperature": 1.1, "top_k": 3, "logprobs": 2},
    ]
    outputs: list[list[int]] = [[3], [4], [5]]
    tasks = [SampleTask(i, SamplingParams(**kind), 40 + i, [], outputs[i]) for i, kind in enumerate(kinds)]
    blocks, fed = [[4], [6], [2]], [7, 8, 9]
    tickets, wanted = [], []
    for position in range(3):
        works = [Work([fed[i]], position, blocks[i]) for i in range(3)]
        given = make_step(works, 8, "last", "none")
        logits = plain.run(given).logits
        wanted.append(Sampler(logits.shape[1]).sample(logits, tasks, [0, 1, 2]))
        if position:
            # the device knows its tokens; the host, whose outputs lack them, says so
            given = replace(given, token_ids=np.zeros(3, np.int32))
            for output in outputs:
                output.pop()
        sources = np.arange(3, dtype=np.int32) if position else None
        monkeypatch.setattr(GridExecutor, "__call__", watched)
        tickets.append(model.submit(given, tasks, [0, 1, 2], sources))
        monkeypatch.setattr(GridExecutor, "__call__", launch)
        fed = [each.token_id for each in wanted[-1]]
        for output, token, i in zip(outputs, fed, range(3), strict=True):
            output += [wanted[-2][i].token_id, token] if position else [token]
    assert outside == 0 and (recorder.num_recorded, recorder.num_replayed) == (1, 2)
    for ticket, sampled in zip(tickets, wanted, strict=True):
        drawn = model.collect(ticket)
        assert drawn.is_sound and drawn.tokens.tolist() == [each.token_id for each in sampled]
        assert drawn.logprobs[:2] == [None, None]
        ours, theirs = drawn.logprobs[2], sampled[2].logprobs
        assert ours is not None and theirs is not None
        assert (ours.token_ids, ours.ranks) == (theirs.token_ids, theirs.ranks)
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, rtol=1e-12, atol=1e-12)


def test_a_step_is_recorded_when_it_is_first_met_and_not_before() -> None:
    recorder = Recorder()
    model = model_of("llama", "float32", recorder=recorder)
    assert recorder.num_recorded == 0, "serving starts without"
    tasks = [SampleTask(0, SamplingParams(temperature=0.0), 0, [], [])]
    greedy, sampled = (make_step([Work([3], 0, [5])], 8, *rows) for rows in (("none", "last"), ("last", "none")))
    met = []
    for given in (greedy, sampled, greedy, sampled):
        model.collect(model.submit(given, tasks, [0]))
        met.append((recorder.num_recorded, recorder.num_replayed))
    assert met == [(1, 0), (2, 0), (2, 1), (2, 2)]


def decoded(model: CudaModel, prepares: bool = False) -> list[list[int]]:
    """A prompt of two sequences, then tokens of both, each drawn on the device. prepares: between any two steps."""
    params = [SamplingParams(temperature=0.0), SamplingParams(temperature=0.9, top_k=9)]
    outputs: list[list[int]] = [[], []]
    tasks = [SampleTask(i, params[i], 3 + i, [], outputs[i]) for i in range(2)]
    works = [Work([3, 8, 5], 0, [5]), Work([7, 2], 0, [4])]
    for _ in range(3):
        drawn = model.collect(model.submit(make_step(works, 8, "last", "none"), tasks, [0, 1]))
        assert drawn.is_sound
        works = [
            Work([token], work.num_computed_tokens + len(work.token_ids), work.blocks)
            for token, work in zip(drawn.tokens.tolist(), works, strict=True)
        ]
        for output, token in zip(outputs, drawn.tokens.tolist(), strict=True):
            output.append(token)
        if prepares:
            model.record_next()
    return outputs


@cache
def decoded_by_launches() -> list[list[int]]:
    return decoded(model_of("llama", "float32"))


def test_recordings_made_ahead_of_need_change_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "USUAL", recordings.USUAL[:2])
    recorder = Recorder()
    model = model_of("llama", "float32", recorder=recorder)
    wanted = decoded_by_launches()
    assert decoded(model, prepares=True) == wanted, "between steps"
    num_met = recorder.num_recorded
    while model.record_next():
        num_met += 1
    assert recorder.num_recorded == num_met == 4 * 2, "sizes 1, 2 and 4, and a step with prompts, each once"
    recorder.num_replayed = 0
    assert decoded(model) == wanted and recorder.num_replayed == 3, "after all of them"
    assert recorder.num_recorded == num_met


def test_a_gpu_without_room_for_recordings_serves_without_them(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(room=2)
    model = model_of("llama", "float32", recorder=recorder)
    assert [model.record_next() for _ in range(4)] == [True, True, False, False]
    assert len(caplog.messages) == 1 and "out of memory" in caplog.messages[0]
    assert decoded(model) == decoded_by_launches()
    assert (recorder.num_recorded, recorder.num_replayed) == (2, 0)
    tasks = [SampleTask(0, SamplingParams(temperature=0.0), 0, [], [])]
    model.collect(model.submit(make_step([Work([3], 0, [5])], 8, "none", "last"), tasks, [0]))
    assert recorder.num_replayed == 1, "what was recorded is of use still"


def test_a_step_that_cannot_be_recorded_is_computed_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """When it is met: once, where its states have changed, too; nobody's request ends."""
    recorder = Recorder(room=0)
    model = model_of("llama", "float32", recorder=recorder)
    assert decoded(model) == decoded_by_launches()
    assert len(caplog.messages) == 1 and "call by call" in caplog.messages[0]
    assert (recorder.num_recorded, recorder.num_replayed, model.record_next()) == (0, 0, False)


def test_a_model_that_records_nothing_has_nothing_to_do_ahead() -> None:
    assert not model_of("llama", "float32").record_next()


def test_copied_blocks_are_the_originals() -> None:
    model = model_of("llama", "bfloat16")
    prompt = list(range(3, 17))
    model.run(make_step([Work(prompt, 0, [4, 6])], 8))
    wanted = model.run(make_step([Work([20], 14, [4, 6])], 8)).logits.copy()
    model.copy_blocks([(4, 2), (6, 1), (1, 9)])
    model.run(make_step([Work([1] * 16, 0, [4, 6])], 8))
    model.run(make_step([Work([1] * 8, 0, [1])], 8))
    assert_same_bits(model.run(make_step([Work([20], 14, [2, 9])], 8)).logits, wanted, "after copying")


def test_a_step_larger_than_planned_is_refused() -> None:
    model = model_of("llama", "float32")
    with pytest.raises(InvariantError, match="T=17; memory is planned for 16"):
        model.run(make_step([Work([1] * 17, 0, [1, 2, 3])], 8, "none", "last"))
    with pytest.raises(InvariantError, match="B=5"):
        model.run(make_step([Work([1], 0, [block]) for block in range(1, 6)], 8, "last", "none"))
