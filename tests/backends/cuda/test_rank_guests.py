"""What is beside a model of several ranks, each a process, on CPU tensors: adapters, of which each rank has its part.
Tokens are the CPU's, of one rank."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, LoRARequest, PoolingParams, SamplingParams
from albireo.errors import RankLost
from backends.cuda import test_adapters_end_to_end as with_adapters
from backends.cuda.test_drafts import Always
from backends.cuda.test_rank_processes import _stand_in  # noqa: F401 - a fixture
from compiler.ranks import wide_config
from engine.test_model_guesses import give_freely
from tiny_adapters import make_adapter
from tiny_models import make_checkpoint

pytestmark = pytest.mark.usefixtures("_stand_in")
GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
CONFIG = wide_config("qwen3", num_hidden_layers=1)
TWO: dict[str, Any] = {"device": "cuda", "tensor_parallel_size": 2}
SEATS: dict[str, Any] = {"max_num_seqs": 4, "max_num_batched_tokens": 24}
#: Greedy, drawn, changed; the second of two continuations.
PARAMS = [
    GREEDY,
    GREEDY.clone(temperature=0.8, top_p=0.9, seed=3, n=2),
    GREEDY.clone(temperature=1.0, repetition_penalty=1.3, logit_bias={9: 2.0}, seed=4),
]
PROMPTS = [[5, 9, 30, 7, 11, 2, 8, 40, 3, 12, 17, 4, 9], [6, 31, 2], [8, 8, 9, 10]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[LoRARequest]]:
    """A model directory, and its adapters."""
    root = tmp_path_factory.mktemp("guests")
    directory = make_checkpoint(root / "model", CONFIG, seed=5)
    settings = with_adapters.ADAPTERS
    paths = [make_adapter(root / str(i), CONFIG, seed=i, **each) for i, each in enumerate(settings)]
    return directory, [LoRARequest(f"adapter {i}", 1 + i, str(path)) for i, path in enumerate(paths)]


@pytest.fixture
def all_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    give_freely(monkeypatch)
    monkeypatch.setattr("albireo.engine.drafting.Pacing", Always)


def loaded(engine: LLM) -> Any:
    return engine.loaded


def test_adapters_of_two_processes(made: tuple[Path, list[LoRARequest]]) -> None:
    """Some without one, three for two slots, prompts in pieces, greedy and drawn; steps that began ahead; one recorded
    ahead; an embedding, whose program knows adapters, too. Then a rank is killed, and whoever wants a slot is told."""
    directory, (one, two, three) = made
    prompts = with_adapters.prompts_of(5, 14, 3, 2, 6)
    drawn = GREEDY.clone(temperature=0.8, top_p=0.9, seed=3)
    params, lora = [GREEDY, GREEDY, drawn, drawn.clone(n=2), GREEDY], [one, None, two, three, one]
    on_cpu = with_adapters.llm(directory, device="cpu")
    wanted = with_adapters.tokens(on_cpu, prompts, params, lora)
    assert with_adapters.tokens(on_cpu, prompts, params, None) != wanted
    engine = with_adapters.llm(directory, **TWO)
    assert with_adapters.tokens(engine, prompts, params, lora) == wanted
    assert loaded(engine).execute.__self__.num_found > 3 and engine.stats().num_failed_steps == 0
    ids: list[Any] = [{"prompt_token_ids": prompts[0]}]
    wants = PoolingParams(pooling_type="mean")
    (theirs,), (ours,) = (each.embed(ids, wants, use_tqdm=False) for each in (on_cpu, engine))
    np.testing.assert_allclose(ours.outputs.embedding, theirs.outputs.embedding, rtol=0, atol=1e-5)
    adapted = loaded(engine).adapters.runner.program()
    num_recorded = len(adapted._recordings)
    assert num_recorded > 0 and adapted.record_next() and len(adapted._recordings) == num_recorded + 1
    assert with_adapters.tokens(engine, prompts[:1], [GREEDY], [one]) == wanted[:1]
    (pid,) = loaded(engine).model.leader.pids
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RankLost, match="rank 1 ended by signal 9"):
        with_adapters.tokens(engine, prompts[:1], [GREEDY], [two])
