"""Heads that draft on the executor for GPUs, its kernels interpreted: the tokens of the CPU's kernels without drafts.

Hidden states lie in tensors, where a model leaves them behind its steps and a head reads them. All drafts are taken.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from albireo import LLM, SamplingParams
from albireo.api import load
from albireo.backends.cuda.compile_ahead import launch_all
from albireo.backends.cuda.hidden_states import DeviceHiddenStates
from albireo.backends.cuda.model import CudaModel
from albireo.errors import ConfigError, OutOfMemory
from albireo.execution.ahead import AheadRunner
from albireo.execution.draft_head import HeadModel, HiddenStates
from albireo.execution.inputs import pack_step
from albireo.models import load_architecture
from albireo.step import SampleTask, SequenceWork, StepPlan
from backends.cuda.test_draft_models import recording, with_grammar
from backends.cuda.test_drafts import Always
from backends.cuda.test_end_to_end import MODELS, StandIn, llm, tokens
from e2e.test_draft_heads import gemma4_config
from engine.test_model_guesses import give_freely
from tiny_heads import config_with_mtp, eagle3_head, eagle_head, gemma4_assistant, markov, mtp_weights
from tiny_models import make_checkpoint

GREEDY = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True)
#: Greedy, drawn, changed; the second of two continuations.
PARAMS = [
    GREEDY,
    GREEDY.clone(temperature=0.8, top_p=0.9, seed=3, n=2),
    GREEDY.clone(temperature=1.0, repetition_penalty=1.3, logit_bias={9: 2.0}, seed=4),
]
PROMPTS = [[5, 9, 30, 7, 11, 2, 8, 40, 3, 12, 17, 4, 9], [6, 31, 2], [8, 8, 9, 10]]


@pytest.fixture(autouse=True)
def all_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    give_freely(monkeypatch)
    monkeypatch.setattr("albireo.engine.drafting.Pacing", Always)


def on_gpu(directory: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], **config: Any) -> LLM:
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    asked = {"num_speculative_tokens": 3, **asked}
    return llm(directory, **{"device": "cuda", "speculative_config": asked, "max_num_seqs": 4, **config})


def guesser(engine: LLM) -> tuple[CudaModel, DeviceHiddenStates]:
    """The head, and what it reads."""
    assert engine.loaded is not None and engine.loaded.method is not None
    runner = getattr(engine.loaded.method.execute, "__self__", None)
    head, states = head_of(runner), engine.loaded.hidden_states
    assert isinstance(head._model, CudaModel) and isinstance(states, DeviceHiddenStates)
    return head._model, states


def head_of(runner: Any) -> HeadModel:
    """Drawn from where it lies, or by the host."""
    head = runner._device if isinstance(runner, AheadRunner) else runner._model
    assert isinstance(head, HeadModel)
    return head


@pytest.mark.parametrize("kind", ["mimo", pytest.param("deepseek_v3", marks=pytest.mark.thorough)])
def test_a_layer_that_knows_the_model_is_right(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tables of tokens are the model's, and its blocks are as many; steps are recorded, or launched."""
    config = config_with_mtp(kind)
    directory = make_checkpoint(tmp_path, config, weights=markov(mtp_weights(config, 5), config))
    wanted = tokens(llm(directory, device="cpu"), PROMPTS, PARAMS)
    gpu = on_gpu(directory, monkeypatch, {"method": "mtp"})
    head, states = guesser(gpu)
    recorders = [recording(model) for model in (MODELS[-1], head)]
    assert tokens(gpu, PROMPTS, PARAMS) == wanted
    stats = gpu.stats()
    assert stats.num_accepted_tokens > 0.9 * stats.num_draft_tokens > 10
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert head._matrices[name] is MODELS[-1]._matrices[name]
    assert head.num_blocks == MODELS[-1].num_blocks == len(states._flat) // 8
    sent = {name for model in (head, MODELS[-1]) for names in model._results._sets for name in names}
    assert "tokens" in sent and not sent & {"tap0", "next_of_top", "logits"}
    assert all(recorder.num_replayed > 0 for recorder in recorders)
    if kind == "mimo":  # what it takes in the interpreter is each step's once more
        before = len(head._recordings)
        assert gpu.loaded is not None
        while gpu.loaded.prepare():
            pass
        assert len(head._recordings) > before
    if config["vocab_size"] > 128:  # of which that grammar's masks are
        return
    found, _ = with_grammar(gpu)
    monkeypatch.undo()
    assert found == with_grammar(llm(directory, device="cpu"))[0]


TOKENS = [(i * 37) % 83 + 4 for i in range(19)]
#: Blocks of the one sequence in each block group, in no order.
TABLES = ([3, 1, 5], [6, 4, 2], [9, 8, 7])


def checkpoints(kind: str, path: Path) -> tuple[Path, dict[str, Any]]:
    """A model, and a head that knows nothing of it: of each kind that there is."""
    config = dict(load_architecture("llama").tiny) | {"num_hidden_layers": 4}
    if kind == "mimo":
        config = config_with_mtp(kind)
        return make_checkpoint(path / "model", config, weights=mtp_weights(config, 5)), {"method": "mtp"}
    if kind == "assistant":
        config = gemma4_config(sliding_window=9)
        head, _ = gemma4_assistant(path / "head", config, 1)
        return make_checkpoint(path / "model", config, seed=5), {"method": "mtp", "model": str(head)}
    if kind == "windows":
        config = dict(load_architecture("gpt_oss").tiny) | {"num_hidden_layers": 4}
        config |= {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 5}
    make, more = (eagle_head, {}) if kind == "eagle" else (eagle3_head, {"draft_vocab_size": 60})
    head, _ = make(path / "head", config, 3, **more)
    method = kind if kind == "eagle" else "eagle3"
    return make_checkpoint(path / "model", config, seed=5), {"method": method, "model": str(head)}


@pytest.mark.parametrize("kind", ["mimo", "eagle", "eagle3", "windows", "assistant"])
def test_what_a_head_reads_and_says_is_the_cpus(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a prompt in two pieces; behind the last token, and behind a draft."""
    directory, asked = checkpoints(kind, tmp_path)
    found = []
    for device in ("cpu", "cuda"):
        if device == "cuda":
            monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
        loaded = llm(directory, device=device, speculative_config=asked, max_num_batched_tokens=20).loaded
        assert loaded is not None and loaded.method is not None and loaded.hidden_states is not None
        tables = TABLES[: len(loaded.settings.windows)]
        for start, end in ((0, 11), (11, len(TOKENS) - 1)):
            loaded.execute(plan(TOKENS[start:end], start, tables))
        own = tables if kind == "assistant" else tables[loaded.settings.windows.index(None) :][:1]
        first = TOKENS[-1:] if kind == "assistant" else TOKENS[1:]
        start = len(TOKENS) - 2 if kind == "assistant" else 0
        read, said = [], []
        for step in (plan(first, start, own), plan(TOKENS[:1], start + len(first) - (kind == "assistant"), own)):
            inputs = pack_step(step, 8, num_ahead=1).inputs
            read.append(loaded.hidden_states.read(loaded.hidden_states.slots(inputs)))
            rows = inputs.top_rows
            inputs = replace(inputs, logit_rows=rows, top_rows=rows[:0], top_counts=rows[:0])
            runner = getattr(loaded.method.execute, "__self__", None)
            said.append(head_of(runner).run(inputs).logits.copy())
        found.append((*read, *said))
    for ours, theirs in zip(*reversed(found), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs[np.isfinite(theirs)]).max())
    assert not np.array_equal(found[1][2], found[1][3])
    assert (MODELS[-1].program.kv.units != (1,)) == (kind in ("windows", "assistant"))


def plan(tokens: list[int], start: int, tables: tuple[list[int], ...]) -> StepPlan:
    work = SequenceWork(0, tokens, start, tables, (SampleTask(0, GREEDY, 0, [], []),))
    return StepPlan(0, [work], len(tokens), waits=True)


@pytest.mark.parametrize(
    "kind", ["windows", *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("eagle", "assistant"))]
)
def test_served_as_without_drafts(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a head that knows nothing: a common beginning that is found again, who is preempted, prompts in pieces."""
    directory, asked = checkpoints(kind, tmp_path)
    prompts = [*PROMPTS, [*PROMPTS[0][:9], 7, 7]]
    params = [*PARAMS, GREEDY.clone(max_tokens=11)]
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    gpu = on_gpu(directory, monkeypatch, asked, num_gpu_blocks_override=7)
    assert tokens(gpu, prompts, params) == wanted
    assert tokens(gpu, prompts[:1], params[:1]) == wanted[:1]
    stats = gpu.stats()
    assert stats.num_preemptions > 0 and stats.prefix_cache_hits > 0 and stats.num_failed_steps == 0
    assert stats.num_draft_tokens > stats.num_accepted_tokens
    head, _ = guesser(gpu)
    # an assistant reads the model's own, where that is now
    assert (head._kv is MODELS[-1]._kv) == (kind == "assistant")


def test_a_head_that_fails_disturbs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory, asked = checkpoints("eagle", tmp_path)
    wanted = tokens(llm(directory, device="cpu"), PROMPTS[:2], [GREEDY] * 2)
    gpu = on_gpu(directory, monkeypatch, asked)

    def fails(inputs: Any, *rest: Any, **named: Any) -> Any:
        raise OutOfMemory("the GPU is out of memory in a step")

    monkeypatch.setattr(guesser(gpu)[0], "submit", fails)
    with caplog.at_level(logging.WARNING):
        assert tokens(gpu, PROMPTS[:2], [GREEDY] * 2) == wanted
    assert caplog.text.count("the draft model failed for sequence") == 2
    assert gpu.stats().num_failed_steps == gpu.stats().num_draft_tokens == 0


def test_hidden_states_that_are_not_kept_disturb_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory, asked = checkpoints("eagle3", tmp_path)
    wanted = tokens(llm(directory, device="cpu"), PROMPTS[:2], [GREEDY] * 2)
    gpu = on_gpu(directory, monkeypatch, asked)

    def fails(rows: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(guesser(gpu)[1], "_combine", fails)
    with caplog.at_level(logging.WARNING):
        assert tokens(gpu, PROMPTS[:2], [GREEDY] * 2) == wanted
    assert caplog.text.count("hidden states of a step are not kept") == 1
    stats = gpu.stats()
    assert stats.num_failed_steps == 0 and stats.num_draft_tokens > stats.num_accepted_tokens


def test_steps_of_each_kind_are_launched_ahead_of_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those processes do that compile its kernels."""
    directory, asked = checkpoints("mimo", tmp_path)
    head, states = guesser(on_gpu(directory, monkeypatch, asked, max_num_seqs=2))
    states._flat[:] = 7.0
    assert launch_all(head) > 8
    assert (states._flat[1:] == 7.0).all() and not (states._flat[0] == 7.0).any(), "padding goes to the null block"


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, asked = checkpoints("eagle", tmp_path)
    with pytest.raises(ConfigError, match="guesses among all tokens, draft_vocab_size=60 is not done there"):
        on_gpu(directory, monkeypatch, {**asked, "draft_vocab_size": 60})
    with pytest.raises(ConfigError, match="reads hidden states, and these are not swapped; leave swap_space out"):
        on_gpu(directory, monkeypatch, asked, swap_space=0.001)
    config = config_with_mtp("qwen3_5_text")
    states = make_checkpoint(tmp_path / "states", config, weights=mtp_weights(config, 5))
    with pytest.raises(ConfigError, match="on a GPU drafts are not taken back from it yet"):
        on_gpu(states, monkeypatch, {"method": "mtp"})


def test_hidden_states_lie_by_place_and_are_rounded_as_on_the_cpu() -> None:
    """Of a group whose blocks kernels count otherwise; copies of blocks, one after another."""
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.standard_normal((20, 6), np.float32), [[0.0, -0.0, 1e30, -1e-30, 3.0, 1 + 2.0**-8]]])
    rows = rows.astype(np.float32)
    slots = np.array([5, 6, 7, *range(32, 40), *range(8, 16), 17, 18], np.int32)
    pairs = [(4, 7), (7, 6)]
    counted = torch.from_numpy(slots // 8 * 24 + slots % 8)
    halves = [torch.from_numpy(rows[:, :4]), torch.from_numpy(rows[:, 4:])]
    for is_exact in (False, True):
        theirs = HiddenStates(9, 8, 6, is_exact=is_exact)
        theirs.write(slots, rows)
        theirs.copy_blocks(pairs)
        settings: dict[str, Any] = {"is_exact": is_exact, "group": 1, "unit": 3}
        plain = DeviceHiddenStates(9, 8, 6, torch.device("cpu"), **settings)
        plain.keep([torch.from_numpy(rows)], counted)
        joined = DeviceHiddenStates(9, 8, 6, torch.device("cpu"), combine=lambda found: found * 2, **settings)
        joined.keep([each / 2 for each in halves], counted)
        everywhere = np.arange(8, 72, dtype=np.int32)
        for ours in (plain, joined):
            ours.copy_blocks(pairs)
            np.testing.assert_array_equal(ours.read(everywhere), theirs.read(everywhere))
        out = torch.full((len(slots), 6), 7.0)
        plain.give(torch.from_numpy(slots), out)
        np.testing.assert_array_equal(out.numpy(), theirs.read(slots))
        plain.leave(torch.from_numpy(rows), torch.from_numpy(slots[::-1].copy()))
        np.testing.assert_array_equal(plain.read(slots[::-1].copy()), theirs.read(slots))
        plain.take_blocks(3)
        assert len(plain._flat) == 24 and not plain._flat.any()
