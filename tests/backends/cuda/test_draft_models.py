"""Draft models on the executor for GPUs, its kernels interpreted: the tokens of the CPU's kernels without drafts.

All drafts are taken, and waited for. What guesses draws on the device, by the numbers that the model draws by.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from albireo import LLM, SamplingParams
from albireo.api import load
from albireo.api.machine import swapping
from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.recordings import Recordings
from albireo.engine.engine import Engine
from albireo.engine.stats import EngineStats
from albireo.errors import OutOfMemory
from albireo.execution.ahead import AheadRunner
from albireo.models import load_architecture
from backends.cuda.test_drafts import Always, Turns
from backends.cuda.test_end_to_end import MODELS, StandIn, llm, tokens
from backends.cuda.test_model import Recorder
from engine.test_model_guesses import give_freely
from tiny_models import make_checkpoint
from variants import tiny_of

TINY = {**load_architecture("qwen2").tiny, "num_hidden_layers": 1}
GREEDY = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), TINY, seed=5)


@pytest.fixture(autouse=True)
def all_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    give_freely(monkeypatch)
    monkeypatch.setattr("albireo.engine.drafting.Pacing", Always)


def on_gpu(directory: Path, monkeypatch: pytest.MonkeyPatch, draft: Path | None = None, **config: Any) -> LLM:
    """Where the draft model is; None: the model itself guesses for itself."""
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    asked = {"model": str(draft or directory), "num_speculative_tokens": 3}
    return llm(directory, **{"device": "cuda", "speculative_config": asked, "block_size": 8, **config})


def guesser(engine: LLM) -> CudaModel:
    assert engine.loaded is not None and engine.loaded.method is not None
    runner = getattr(engine.loaded.method.execute, "__self__", None)
    assert isinstance(runner, AheadRunner) and isinstance(runner._device, CudaModel)
    return runner._device


def recording(model: CudaModel) -> Recorder:
    """Make it pad its steps, and replay them."""
    recorder = Recorder()
    model._recordings = Recordings(model._buckets, recorder)
    return recorder


def test_a_model_that_guesses_for_itself_is_always_right(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy, drawn, penalised, biased, with words and ends that may not come: it draws as the model will."""
    common: dict[str, Any] = {"max_tokens": 8, "ignore_eos": True}
    kinds = [
        SamplingParams(temperature=0, **common),
        SamplingParams(temperature=0.8, top_p=0.9, seed=3, n=2, **common),
        SamplingParams(temperature=0, repetition_penalty=1.4, frequency_penalty=0.3, **common),
        SamplingParams(temperature=1.0, top_k=70, presence_penalty=0.6, logit_bias={9: 2.0}, seed=4, **common),
        SamplingParams(temperature=0, bad_words_token_ids=((5,), (6, 7)), allowed_token_ids=[5, 6, 7, 12], **common),
    ]
    rng = np.random.default_rng(1)
    prompts = [rng.integers(3, 60, 3 + i).tolist() for i in range(len(kinds))]
    wanted = tokens(llm(directory, device="cpu", max_num_batched_tokens=24), prompts, kinds)
    gpu = on_gpu(directory, monkeypatch, max_num_batched_tokens=24)
    assert tokens(gpu, prompts, kinds) == wanted
    stats = gpu.stats()
    assert stats.num_draft_tokens == stats.num_accepted_tokens > 20
    assert guesser(gpu).num_blocks == MODELS[-1].num_blocks == gpu.loaded.memory.num_blocks
    for model in (guesser(gpu), MODELS[-1]):
        assert not any("logits" in names for names in model._results._sets), "all of it was drawn there"


def test_steps_of_both_are_recorded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And replayed, padded, each model its own; ahead of need, those of the draft model behind the model's."""
    prompts = [[5, 6, 7, 8], [9, 3]]
    params = [GREEDY, GREEDY.clone(temperature=0.9, top_k=20, seed=5)]
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    gpu = on_gpu(directory, monkeypatch)
    recorders = [recording(model) for model in (MODELS[-1], guesser(gpu))]
    assert tokens(gpu, prompts, params) == wanted
    assert gpu.stats().num_accepted_tokens == gpu.stats().num_draft_tokens > 8
    assert all(recorder.num_replayed > 0 for recorder in recorders)
    before = [len(model._recordings) for model in (MODELS[-1], guesser(gpu))]
    assert gpu.loaded is not None
    num_prepared = 0
    while gpu.loaded.prepare():
        num_prepared += 1
    after = [len(model._recordings) for model in (MODELS[-1], guesser(gpu))]
    assert num_prepared == sum(after) - sum(before) and after[1] > before[1]
    assert tokens(gpu, prompts, params) == wanted


def test_another_model_whose_context_is_shorter(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another kind, that knows nothing, with more tokens than the model; prompts in pieces, who is preempted."""
    tiny = load_architecture("llama").tiny | {"vocab_size": TINY["vocab_size"] + 40, "max_position_embeddings": 20}
    other = make_checkpoint(tmp_path, tiny, seed=9)
    prompts = np.random.default_rng(4).integers(3, 60, (3, 11)).tolist()
    params = [GREEDY.clone(max_tokens=12), GREEDY.clone(temperature=0.9, seed=5), GREEDY]
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    gpu = on_gpu(directory, monkeypatch, other, num_gpu_blocks_override=6)
    assert tokens(gpu, prompts, params) == wanted
    stats = gpu.stats()
    assert stats.num_preemptions > 0 and stats.num_draft_tokens > stats.num_accepted_tokens


def test_prefixes_are_found_by_both(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the draft model has left in a block is found again."""
    prompts = np.random.default_rng(4).integers(3, 60, (2, 17)).tolist()
    wanted = tokens(llm(directory, device="cpu"), prompts, [GREEDY, GREEDY])
    gpu = on_gpu(directory, monkeypatch, max_num_batched_tokens=24)
    rows: list[int] = []
    draft = guesser(gpu)
    submit = draft.submit
    monkeypatch.setattr(draft, "submit", lambda inputs, *rest, **named: noted(rows, inputs, submit, *rest, **named))
    assert tokens(gpu, prompts[:1], [GREEDY]) == wanted[:1]
    assert rows[0] == 19, "behind the prompt a step was begun already"
    rows.clear()
    assert tokens(gpu, prompts[:1], [GREEDY]) == wanted[:1]
    assert rows[0] == 3, "two blocks are there"
    stats = gpu.stats()
    assert stats.prefix_cache_hits == 16 and stats.num_accepted_tokens == stats.num_draft_tokens > 8


def noted(rows: list[int], inputs: Any, submit: Any, *rest: Any, **named: Any) -> Any:
    rows.append(inputs.num_tokens)
    return submit(inputs, *rest, **named)


def test_who_is_swapped_out_is_guessed_for_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = np.random.default_rng(4).integers(3, 60, (2, 9)).tolist()
    params = [GREEDY.clone(max_tokens=11), GREEDY.clone(max_tokens=11, temperature=0.9, seed=5)]
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    monkeypatch.setattr(swapping, "LINK_BYTES_PER_S", 1e30)  # the model is so small that it would not be worth it
    config: dict[str, Any] = {"num_gpu_blocks_override": 5, "enable_prefix_caching": False, "swap_space": 1e-4}
    gpu = on_gpu(directory, monkeypatch, **config)
    assert tokens(gpu, prompts, params) == wanted
    stats = gpu.stats()
    assert stats.num_swap_outs > 0 and stats.num_accepted_tokens == stats.num_draft_tokens > 4


def test_layers_with_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the model they have blocks of their own; the draft model's lie where those of layers that see all do."""
    tiny = tiny_of("gemma4_text") | {"sliding_window": 5}
    directory = make_checkpoint(tmp_path, tiny, seed=5)
    prompts = [[5, 9, 30, 7, 11, 2, 8, 40, 3, 12, 17, 4, 9], [6, 31, 2]]
    params = [GREEDY, GREEDY.clone(temperature=0.8, seed=3)]
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    gpu = on_gpu(directory, monkeypatch)
    assert tokens(gpu, prompts, params) == wanted
    assert MODELS[-1].program.kv.num_groups > 1 == guesser(gpu).program.kv.num_groups
    assert gpu.stats().num_accepted_tokens == gpu.stats().num_draft_tokens > 4


def with_grammar(engine: LLM) -> tuple[list[list[int]], EngineStats]:
    """What one who follows a grammar is answered, and one beside it."""
    assert engine.loaded is not None
    made = Engine(engine.loaded.settings, engine.loaded.execute, lambda: 0.0, engine.loaded.method)
    drawn = GREEDY.clone(temperature=0.9, seed=3)
    made.add_request("0", [5, 6, 7], drawn.clone(structured_outputs={"regex": "unread"}), constraint=Turns())
    made.add_request("1", [8, 9], drawn)
    found: list[list[int]] = [[], []]
    while made.has_work():
        for update in made.step():
            found[int(update.request_id)] += update.token_ids
    return found, made.stats()


def test_it_draws_by_the_grammar(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn on the device, beside one without: no draft is refused."""
    wanted, _ = with_grammar(llm(directory, device="cpu"))
    found, stats = with_grammar(on_gpu(directory, monkeypatch))
    assert found == wanted
    assert stats.num_accepted_tokens == stats.num_draft_tokens > 8


@pytest.mark.parametrize("error", [OutOfMemory("the GPU is out of memory in a step"), RuntimeError("a kernel failed")])
def test_a_draft_model_that_fails_disturbs_nobody(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """A step that fails is computed again for each alone; who it fails for then has no drafts, others do."""
    prompts = [[5, 6, 7, 8], [9, 3], [7, 7, 8]]
    wanted = tokens(llm(directory, device="cpu"), prompts, [GREEDY] * 3)
    gpu = on_gpu(directory, monkeypatch)
    draft = guesser(gpu)
    submit = draft.submit
    num_failed = 0

    def fails(inputs: Any, tasks: Any, *rest: Any, **named: Any) -> Any:
        nonlocal num_failed
        if any(task.seq_id == 1 for task in tasks):
            num_failed += 1
            raise error
        return submit(inputs, tasks, *rest, **named)

    monkeypatch.setattr(draft, "submit", fails)
    with caplog.at_level(logging.WARNING):
        assert tokens(gpu, prompts, [GREEDY] * 3) == wanted
    stats = gpu.stats()
    assert num_failed == 2 and stats.num_failed_steps == 0
    assert caplog.text.count("the draft model failed for sequence 1") == 1
    assert stats.num_accepted_tokens == stats.num_draft_tokens > 8


def test_blocks_are_counted_for_both(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is free behind the trial steps of both, on a GPU with little memory."""
    asked: list[tuple[int, int, int]] = []

    def fit(wanted: int, block_bytes: int, reserve_bytes: int, least: int, device: torch.device) -> int:
        asked.append((wanted, block_bytes, reserve_bytes))
        return min(wanted, 7)

    monkeypatch.setattr("albireo.backends.cuda.model.blocks_that_fit", fit)
    gpu = on_gpu(directory, monkeypatch)
    model, draft = MODELS[-1], guesser(gpu)
    assert asked == [(2, draft.block_bytes, 0), (12, model.block_bytes + draft.block_bytes, 0)]
    assert model.num_blocks == draft.num_blocks == len(draft._kv.layers[0].k) == 7
