"""LLM on several ranks, each a process, on CPU tensors: the tokens of the CPU; and what becomes of it when one dies."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, SamplingParams
from albireo.api import load
from albireo.api.machine.cuda_device import CudaDevice
from albireo.backends.cuda import model
from albireo.errors import InvariantError, RankLost
from albireo.execution import inputs
from backends.cuda.test_drafts import Always
from backends.cuda.test_end_to_end import llm, tokens
from backends.cuda.test_model import Recorder, steps
from compiler.ranks import wide_config, wide_hybrid
from tiny_models import make_checkpoint


class Ranks(CudaDevice):
    """Several GPUs of Hopper that are processes of this machine."""

    rank_command = (sys.executable, str(Path(__file__).parent / "rank_stand_in.py"))

    def __init__(self) -> None:
        self._capability = 90

    def machine_bytes(self) -> int:
        return 4 << 30

    @contextmanager
    def _compiling(self, *_: Any) -> Iterator[Callable[[], None]]:
        """Nothing is compiled where kernels are interpreted."""
        yield lambda: None

    def rank_devices(self, size: int) -> list[str]:
        return ["cpu"] * size


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), wide_config("qwen3"), seed=5)


@pytest.fixture
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are padded, recorded and replayed on every rank."""
    of_cpu = load.open_device
    monkeypatch.setattr(load, "open_device", lambda config, _: Ranks() if config.device == "cuda" else of_cpu(config))
    monkeypatch.setattr(model, "DirectLaunches", Recorder)


@pytest.fixture
def two(directory: Path, monkeypatch: pytest.MonkeyPatch, _stand_in: None) -> LLM:
    """On two ranks."""
    monkeypatch.setattr("albireo.engine.drafting.Pacing", Always)
    drafts = {"method": "ngram", "num_speculative_tokens": 2}
    return llm(directory, device="cuda", tensor_parallel_size=2, speculative_config=drafts)


def test_a_model_of_two_processes(directory: Path, two: LLM) -> None:
    """Greedy and drawn tokens, log-probabilities, a common beginning, two continuations of one, drafts, an embedding;
    what is recorded ahead. Then one is killed."""
    rng = np.random.default_rng(1)
    common = rng.integers(3, 60, 9).tolist()
    prompts = [[*common, 7], [*common, 8, 9], [5], [4, 9, 4, 9, 4, 9]]
    greedy = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
    params = [
        greedy,
        greedy.clone(temperature=0.8, top_p=0.9, seed=3),
        greedy.clone(temperature=1.0, top_k=70, seed=4, n=2, max_tokens=4, logprobs=2),
        greedy.clone(logit_bias={9: 50.0}, max_tokens=8),  # which can be guessed
    ]
    one = llm(directory, device="cpu")
    assert tokens(two, prompts, params) == tokens(one, prompts, params)
    loaded: Any = two.loaded
    runner, recordings = loaded.execute.__self__, loaded.model._recordings
    assert runner.num_found > 3, "steps that began ahead"
    assert two.stats().num_draft_tokens > 0
    made = len(recordings)
    assert made > 2 and loaded.prepare() and len(recordings) == made + 1
    wanted = one.embed({"prompt_token_ids": prompts[1]}, use_tqdm=False)[0].outputs.embedding
    found = two.embed({"prompt_token_ids": prompts[1]}, use_tqdm=False)[0].outputs.embedding
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert tokens(two, prompts[:1], params[:1]) == tokens(one, prompts[:1], params[:1])
    (pid,) = loaded.model.leader.pids
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RankLost, match="rank 1 ended by signal 9; the model is to be loaded again"):
        tokens(two, prompts, params)


@pytest.mark.usefixtures("_stand_in")
def test_states_and_experts_of_two_processes(tmp_path: Path) -> None:
    """Two continuations of one, who is preempted, and a prompt that goes on from a snapshot: both copy slots."""
    kinds = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"], "mlp_only_layers": []}
    directory = make_checkpoint(tmp_path, wide_hybrid("qwen3_next", **kinds), seed=5)
    prompts = [[5, 9, 30, 7, 11, 2, 8, 40, 3, 12, 17, 4, 9], [6, 31, 2, 7, 9, 1, 3], [8]]
    greedy = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    params = [greedy, greedy.clone(temperature=0.8, top_p=0.9, seed=3, n=2), greedy]
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    engine = llm(directory, device="cuda", tensor_parallel_size=2, num_gpu_blocks_override=6, max_num_seqs=4)
    assert tokens(engine, prompts, params) == wanted
    stats = engine.stats()
    assert stats.num_preemptions > 0 and stats.num_failed_steps == 0
    assert tokens(engine, prompts[:1], params[:1]) == wanted[:1]
    assert engine.stats().prefix_cache_hits == stats.prefix_cache_hits + 8


@pytest.mark.usefixtures("_stand_in")
def test_every_rank_is_told_that_prompts_see_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its heads are causal, and tokens are others; a step that brings more than ranks are told is none."""
    directory = make_checkpoint(tmp_path, wide_config("hrm_text", prefix_lm=True, num_key_value_heads=8), seed=5)
    prompts = [np.random.default_rng(3).integers(3, 60, n).tolist() for n in (13, 7, 20)]
    params = [SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)] * 3
    wanted = tokens(llm(directory, device="cpu", max_num_batched_tokens=40), prompts, params)
    engine = llm(directory, device="cuda", tensor_parallel_size=2, max_num_batched_tokens=40)
    assert tokens(engine, prompts, params) == wanted
    with monkeypatch.context() as context:
        context.setattr(inputs, "_row_ends", lambda *_: None)
        assert tokens(llm(directory, device="cpu", max_num_batched_tokens=40), prompts, params) != wanted
    placed = engine.loaded.model.placed  # type: ignore[attr-defined]
    with pytest.raises(InvariantError, match="brings rows or rotations, of which the others are not told"):
        placed.ends_of(replace(steps()[0], given_rows=np.zeros(1, np.int32)))
