"""LLM with adapters on the executor for GPUs, its kernels interpreted: tokens of the CPU, and of merged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, LoRARequest, PoolingParams, SamplingParams
from albireo.api import load
from albireo.api.sources.source import open_source
from albireo.config import EngineConfig
from albireo.execution.ahead import AheadRunner
from albireo.models import load_architecture
from backends.cuda.test_drafts import Always
from backends.cuda.test_end_to_end import StandIn
from compiler.ranks import wide_config
from e2e.test_lora import merged
from engine.test_model_guesses import give_freely
from tiny_adapters import make_adapter
from tiny_heads import eagle3_head
from tiny_models import make_checkpoint, weight_shapes

CONFIG = load_architecture("qwen2").tiny
#: Everything; attention alone, of another rank and scale; a part of each merged linear.
ADAPTERS: tuple[dict[str, Any], ...] = (
    {"rank": 4},
    {"rank": 7, "targets": ("q_proj", "v_proj"), "use_rslora": True},
    {"rank": 5, "targets": ("k_proj", "o_proj", "up_proj", "down_proj"), "ranks": {"up_proj": 2}},
)
GREEDY = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[LoRARequest]]:
    """A model directory, and its adapters."""
    root = tmp_path_factory.mktemp("lora")
    directory = make_checkpoint(root / "model", CONFIG, seed=5)
    paths = [make_adapter(root / str(i), CONFIG, seed=i, **settings) for i, settings in enumerate(ADAPTERS)]
    return directory, [LoRARequest(f"adapter {i}", 1 + i, str(path)) for i, path in enumerate(paths)]


def llm(directory: Path, **config: Any) -> LLM:
    defaults = {"max_num_seqs": 3, "max_num_batched_tokens": 12, "block_size": 8, "num_gpu_blocks_override": 12}
    lora = {"enable_lora": True, "max_loras": 2, "max_lora_rank": 7}
    return LLM(str(directory), skip_tokenizer_init=True, **{**defaults, **lora, **config})


def on_gpu(monkeypatch: pytest.MonkeyPatch, directory: Path, **config: Any) -> LLM:
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    return llm(directory, device="cuda", **config)


def tokens(engine: LLM, prompts: list[list[int]], params: Any, lora: Any) -> list[list[list[int]]]:
    given: list[Any] = [{"prompt_token_ids": prompt} for prompt in prompts]
    outputs = engine.generate(given, params, use_tqdm=False, lora_request=lora)
    return [[list(one.token_ids) for one in output.outputs] for output in outputs]


def prompts_of(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(3, 60, length).tolist() for length in lengths]


def test_tokens_are_those_of_the_cpu(made: tuple[Path, list[LoRARequest]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Some without an adapter, three adapters for two slots, more requests than seats, prompts in pieces; greedy and
    drawn; steps ahead find their rows, also where the step before was another program's."""
    directory, (one, two, three) = made
    prompts = prompts_of(5, 14, 3, 2, 6, 4)
    drawn = GREEDY.clone(temperature=0.8, top_p=0.9, seed=3)
    params = [GREEDY, GREEDY, drawn, GREEDY.clone(max_tokens=9), drawn.clone(n=2), GREEDY]
    lora = [one, None, two, None, three, one]
    on_cpu = llm(directory, device="cpu")
    wanted = tokens(on_cpu, prompts, params, lora)
    assert tokens(on_cpu, prompts, params, None) != wanted
    found = 0
    execute = AheadRunner.execute

    def counted(self: AheadRunner, plan: Any) -> Any:
        nonlocal found
        result = execute(self, plan)
        found = self.num_found
        return result

    monkeypatch.setattr(AheadRunner, "execute", counted)
    engine = on_gpu(monkeypatch, directory)
    assert tokens(engine, prompts, params, lora) == wanted
    assert found > 12 and engine.stats().num_failed_steps == 0


@pytest.mark.filterwarnings("ignore")  # of PEFT and transformers about each other
def test_what_it_says_is_what_merged_weights_say(
    made: tuple[Path, list[LoRARequest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probabilities of the whole vocabulary, of every adapter and of none in one batch."""
    directory, requests = made
    engine, prompts = on_gpu(monkeypatch, directory, max_logprobs=-1), prompts_of(6, 3, 9)
    params = GREEDY.clone(max_tokens=3, logprobs=-1)
    given: list[Any] = [{"prompt_token_ids": prompt} for prompt in prompts]
    for prompt, request, output in zip(
        prompts, requests, engine.generate(given, params, use_tqdm=False, lora_request=requests), strict=True
    ):
        (one,) = output.outputs
        sequence = [*prompt, *one.token_ids]
        (logits,) = merged(directory, Path(request.lora_path), [sequence])
        rows = logits[len(prompt) - 1 : -1].astype(np.float64)
        wanted = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        assert one.token_ids == rows.argmax(axis=1).tolist()
        for at, row in enumerate(one.logprobs):
            ours = np.array([row[token].logprob for token in range(rows.shape[1])])
            assert np.abs(ours - wanted[at]).max() < 2e-5 * np.abs(rows).max()


def test_guesses_are_verified_with_the_adapter_that_they_are_for(
    made: tuple[Path, list[LoRARequest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, (one, two, _) = made
    prompts, lora = prompts_of(5, 4, 3), [one, None, two]
    params = GREEDY.clone(max_tokens=24)
    guessing = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2, "prompt_lookup_min": 1}
    wanted = tokens(llm(directory, device="cpu"), prompts, params, lora)
    engine = on_gpu(monkeypatch, directory, speculative_config=guessing)
    assert tokens(engine, prompts, params, lora) == wanted
    assert engine.stats().num_accepted_tokens > 0


def test_an_embedding_is_of_the_model_without_adapters_and_in_few_bits_both_answer(
    made: tuple[Path, list[LoRARequest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program of hidden states knows adapters, too. Codes of 8 bits are exact sums: tokens of the CPU's kernels."""
    directory, (one, *_) = made
    ids: list[Any] = [{"prompt_token_ids": prompt} for prompt in prompts_of(6, 3)]
    wants = PoolingParams(pooling_type="mean")
    plain = llm(directory, device="cpu", enable_lora=False)
    wanted = [output.outputs.embedding for output in plain.embed(ids, wants, use_tqdm=False)]
    engine = on_gpu(monkeypatch, directory, quantization=None)
    got = [output.outputs.embedding for output in engine.embed(ids, wants, use_tqdm=False)]
    assert np.abs(np.array(got) - np.array(wanted)).max() < 1e-5
    few = {"quantization": "int8"}
    of_cpu = tokens(llm(directory, device="cpu", **few), prompts_of(6, 3), GREEDY, [one, None])
    assert tokens(on_gpu(monkeypatch, directory, **few), prompts_of(6, 3), GREEDY, [one, None]) == of_cpu


def test_slots_come_out_of_the_memory_that_the_cache_would_have(made: tuple[Path, list[LoRARequest]]) -> None:
    directory, _ = made
    device, found = StandIn(), []
    for is_enabled in (False, True):
        config = EngineConfig(model=str(directory), device="cuda", enable_lora=is_enabled, max_loras=2, max_lora_rank=7)
        source = open_source(directory, config)
        found.append(load.plan(source.adopt(config), source, device))
    (plain, without), (program, memory) = found
    assert program.calls == plain.calls and not without.adapter_bytes
    adapted, max_rank, floats = 0, 8, 0
    for name, shape in weight_shapes(CONFIG).items():
        if name.endswith("_proj.weight"):
            outputs, inputs = shape
            rows = -(-outputs // 32) * 32 if "gate" in name or "up" in name else outputs
            # A, B, the rank, and which of the weight's rows are the module's
            adapted, floats = adapted + 1, floats + 2 * (max_rank * (inputs + rows) + 1) + rows
    assert adapted == 7 * CONFIG["num_hidden_layers"]
    sums = 1024 * 2 * 128  # gate and up, whose 100 rows each are whole turns of 32
    assert memory.adapter_bytes == 4 * (floats + sums)
    assert memory.kv_bytes + memory.adapter_bytes <= memory.budget_bytes - memory.weight_bytes


def test_one_that_adds_in_the_order_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters are added leaf by leaf, where the model has leaves."""
    config = wide_config("llama")
    directory = make_checkpoint(tmp_path / "model", config, seed=5)
    lora = [LoRARequest("one", 1, str(make_adapter(tmp_path / "one", config, seed=1))), None]
    prompts, params = prompts_of(9, 3), [GREEDY, GREEDY.clone(temperature=0.8, seed=3)]
    wanted = tokens(llm(directory, device="cpu", tp_invariant=True), prompts, params, lora)
    engine = on_gpu(monkeypatch, directory, tp_invariant=True)
    assert tokens(engine, prompts, params, lora) == wanted != tokens(engine, prompts, params, None)
    assert engine.loaded is not None
    assert any("chunks" in call.attrs for call in engine.loaded.program.calls)


@pytest.mark.parametrize("method", ["eagle3", "draft_model"])
def test_what_guesses_beside_adapters_changes_nothing(
    method: str, made: tuple[Path, list[LoRARequest]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It guesses as the model without them would; who has an adapter has its own tokens all the same."""
    directory, (one, _, three) = made
    asked: dict[str, Any] = {"method": method, "num_speculative_tokens": 2}
    if method == "eagle3":
        deep = CONFIG | {"num_hidden_layers": 4}  # a head reads three of them
        directory = make_checkpoint(tmp_path / "model", deep, seed=5)
        asked["model"] = str(eagle3_head(tmp_path / "head", deep, 3)[0])
    else:
        asked["quantization"] = "int8"
    prompts, lora = prompts_of(5, 9, 3), [one, None, three]
    wanted = tokens(llm(directory, device="cpu"), prompts, GREEDY, lora)
    give_freely(monkeypatch)
    monkeypatch.setattr("albireo.engine.drafting.Pacing", Always)
    engine = on_gpu(monkeypatch, directory, speculative_config=asked)
    assert tokens(engine, prompts, GREEDY, lora) == wanted
    stats = engine.stats()
    assert stats.num_failed_steps == 0 and stats.num_draft_tokens > 0
