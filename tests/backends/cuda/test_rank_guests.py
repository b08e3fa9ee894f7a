"""What is beside a model of several ranks, each a process, on CPU tensors: adapters, of which each rank has its part,
and what guesses, whole on the first. Tokens are the CPU's, of one rank and without guesses."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, LoRARequest, PoolingParams, SamplingParams
from albireo.backends.cuda.hidden_states import DeviceHiddenStates
from albireo.errors import RankLost
from backends.cuda import test_adapters_end_to_end as with_adapters
from backends.cuda.test_drafts import Always
from backends.cuda.test_end_to_end import llm, tokens
from backends.cuda.test_rank_processes import _stand_in  # noqa: F401 - a fixture
from compiler.ranks import WIDE, wide_config
from engine.test_model_guesses import give_freely
from tiny_adapters import make_adapter
from tiny_heads import config_with_mtp, eagle3_head, markov, mtp_weights
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


def test_a_draft_model_guesses_for_two_processes(made: tuple[Path, list[LoRARequest]], all_are_taken: None) -> None:
    """The model itself, whole: so it is always right. Steps of both are recorded, each where it is computed."""
    directory, _ = made
    wanted = tokens(llm(directory, device="cpu"), PROMPTS, PARAMS)
    asked = {"model": str(directory), "num_speculative_tokens": 3}
    engine = llm(directory, **TWO, **SEATS, speculative_config=asked)
    assert tokens(engine, PROMPTS, PARAMS) == wanted
    stats, guesser = engine.stats(), loaded(engine).method.execute.__self__._device
    assert stats.num_draft_tokens == stats.num_accepted_tokens > 8
    assert guesser.leader is None and guesser.num_blocks == loaded(engine).model.num_blocks
    before = len(guesser._recordings)
    while loaded(engine).prepare():
        pass
    assert len(guesser._recordings) > before > 0
    assert tokens(engine, PROMPTS, PARAMS) == wanted
    (pid,) = loaded(engine).model.leader.pids
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RankLost, match="rank 1 ended by signal 9"):
        tokens(engine, PROMPTS, PARAMS)


def test_a_layer_that_knows_the_model_guesses_for_two_processes(tmp_path: Path, all_are_taken: None) -> None:
    """It reads the hidden states of the first rank, and its table of tokens; the model's head it has whole."""
    config = config_with_mtp("mimo") | {key: WIDE[key] for key in ("hidden_size", "head_dim", "intermediate_size")}
    config |= {"num_attention_heads": 8, "num_key_value_heads": 4}
    directory = make_checkpoint(tmp_path, config, weights=markov(mtp_weights(config, 5), config))
    wanted = tokens(llm(directory, device="cpu"), PROMPTS, PARAMS)
    engine = llm(directory, **TWO, **SEATS, speculative_config={"method": "mtp", "num_speculative_tokens": 3})
    assert tokens(engine, PROMPTS, PARAMS) == wanted
    stats, states = engine.stats(), loaded(engine).hidden_states
    assert stats.num_accepted_tokens > 0.8 * stats.num_draft_tokens > 0
    assert isinstance(states, DeviceHiddenStates) and states is loaded(engine).model.hidden_states
    head, model = loaded(engine).method.execute.__self__._device._model, loaded(engine).model
    assert head._matrices["model.embed_tokens.weight"] is model._matrices["model.embed_tokens.weight"]
    assert head._matrices["lm_head.weight"].rows == config["vocab_size"] > model._matrices["lm_head.weight/2"].rows


def test_a_head_and_adapters_beside_two_processes(tmp_path: Path, all_are_taken: None) -> None:
    """EAGLE 3 reads three layers, of steps with adapters and without; an embedding's program hands them out, too."""
    deep = CONFIG | {"num_hidden_layers": 4}
    directory, (head, _) = make_checkpoint(tmp_path / "model", deep, seed=5), eagle3_head(tmp_path / "head", deep, 3)
    asked = {"method": "eagle3", "num_speculative_tokens": 2, "model": str(head)}
    lora = [LoRARequest("one", 1, str(make_adapter(tmp_path / "one", deep, seed=1))), None, None]
    wanted = with_adapters.tokens(with_adapters.llm(directory, device="cpu"), PROMPTS, PARAMS, lora)
    engine = with_adapters.llm(directory, **TWO, **SEATS, speculative_config=asked)
    assert with_adapters.tokens(engine, PROMPTS, PARAMS, lora) == wanted
    stats = engine.stats()
    assert stats.num_failed_steps == 0 and stats.num_draft_tokens > 0
    engine.embed([{"prompt_token_ids": PROMPTS[0]}], use_tqdm=False)  # type: ignore[list-item]
    assert with_adapters.tokens(engine, PROMPTS[:1], PARAMS[:1], lora[:1]) == wanted[:1]
