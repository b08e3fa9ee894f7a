"""LLM on the executor for GPUs, its kernels interpreted: the tokens of the CPU's kernels, in float32, all the way down.

Scheduler, blocks, steps ahead, drawing on the device, and the whole program of a small model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from albireo import LLM, BeamSearchParams, PoolingParams, SamplingParams
from albireo.api import load, programs
from albireo.api.drafts.beside import FEW_BLOCKS, MakeBeside
from albireo.api.machine import swapping
from albireo.api.machine.cuda_device import CudaDevice
from albireo.api.machine.device import Advance, ImageNeeds
from albireo.api.machine.memory import MemoryPlan
from albireo.api.sources.source import ModelSource
from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.open import open_model
from albireo.backends.weights import Weights
from albireo.config import EngineConfig
from albireo.engine.engine import Engine
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config
from tiny_models import make_checkpoint, weights_read
from variants import tiny_of

#: The newest one; others are not kept alive.
MODELS: list[CudaModel] = []


class StandIn(CudaDevice):
    """The executor of a GPU of Hopper on CPU tensors."""

    def __init__(self) -> None:
        """There is no GPU to require."""
        self._capability = 90

    def machine_bytes(self) -> int:
        return 4 << 30

    def model(
        self,
        config: EngineConfig,
        source: ModelSource,
        graph: Graph,
        programs: Sequence[Program],
        memory: MemoryPlan,
        advance: Advance,
        images: ImageNeeds | None = None,
        beside: MakeBeside | None = None,
    ) -> tuple[CudaModel, MemoryPlan]:
        with source.weights(graph) as weights:
            model = open_model(
                programs[0],
                weights,
                num_blocks=memory.num_blocks,
                max_positions=memory.max_model_len,
                num_host_blocks=self.swapping(config, programs[0]).num_blocks,
                num_state_slots=memory.num_state_slots,
                max_num_seqs=config.step_limits.max_num_seqs,
                has_axes=images is not None and images.has_axes,
                is_eager=config.enforce_eager,
                device=torch.device("cpu"),
                advance=advance,
                beside=None if beside is None else lambda model: beside(model, FEW_BLOCKS),
            )
        MODELS[:] = [model]
        return model, memory

    def tower(
        self, config: EngineConfig, program: Program, weights: Weights, num_blocks: int, advance: Advance
    ) -> CudaModel:
        return open_model(
            program,
            weights,
            num_blocks=num_blocks,
            max_positions=program.maxima["T"],
            is_tower=True,
            is_eager=True,
            device=torch.device("cpu"),
            advance=advance,
        )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), load_architecture("qwen2").tiny, seed=5)


def llm(directory: Path, **config: Any) -> LLM:
    defaults = {"max_num_seqs": 3, "max_num_batched_tokens": 12, "block_size": 8, "num_gpu_blocks_override": 12}
    return LLM(str(directory), skip_tokenizer_init=True, **{**defaults, **config})


def tokens(engine: LLM, prompts: list[list[int]], params: list[SamplingParams]) -> list[list[list[int]]]:
    given: list[Any] = [{"prompt_token_ids": prompt} for prompt in prompts]
    outputs = engine.generate(given, params, use_tqdm=False)
    return [[list(one.token_ids) for one in output.outputs] for output in outputs]


def test_tokens_are_those_of_the_cpu(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy, sampled and restricted, two continuations of one, a common beginning, more requests than seats."""
    rng = np.random.default_rng(1)
    common = rng.integers(3, 60, 9).tolist()
    prompts = [[*common, 7], [*common, 8, 9], rng.integers(3, 60, 14).tolist(), [5]]
    params = [
        SamplingParams(temperature=0, max_tokens=5, ignore_eos=True),
        SamplingParams(temperature=0.8, top_p=0.9, seed=3, max_tokens=5, ignore_eos=True),
        SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, repetition_penalty=1.4, logit_bias={9: 2.0}),
        SamplingParams(temperature=1.0, top_k=70, seed=4, n=2, max_tokens=4, ignore_eos=True),
    ]
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    engine = llm(directory, device="cuda")
    assert tokens(engine, prompts, params) == wanted
    assert MODELS[-1].num_blocks == 12 * MODELS[-1].program.kv.num_groups


@pytest.mark.parametrize(("name", "kind"), [("mixtral", "preset Q3_K_M"), ("qwen3_moe", "mixed")])
def test_experts_of_a_gguf_file_are_those_of_the_cpu(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes in groups meet codes of 8 bits, so that sums are the CPU's, of nests but for last bits."""
    pytest.importorskip("gguf")
    from models.gguf.writer import MIXTURES, write_gguf

    write_gguf(tmp_path / "m.gguf", MIXTURES[name], kind)
    prompts = [[5, 9, 30, 7], [8, 11]]
    params = [SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)] * 2
    wanted = tokens(llm(tmp_path / "m.gguf", device="cpu", dtype="float32"), prompts, params)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    engine = llm(tmp_path / "m.gguf", device="cuda", dtype="float32")
    experts = {c.kernel for c in MODELS[-1].program.calls if c.family == "expert_linear"}
    wanted_types = {"int8.g32", "int4.g32"} if kind == "mixed" else {"q3_k"}
    assert wanted_types <= {each.removeprefix("expert_linear.").removesuffix(".triton") for each in experts}, experts
    assert tokens(engine, prompts, params) == wanted


def test_beams_are_those_of_the_cpu(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log-probabilities come from the device."""
    given: list[Any] = [[5, 9, 30]]
    params = BeamSearchParams(2, 3, ignore_eos=True)
    wanted = llm(directory, device="cpu").beam_search(given, params)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    found = llm(directory, device="cuda").beam_search(given, params)
    for one, other in zip(found, wanted, strict=True):
        assert [each.tokens for each in one.sequences] == [each.tokens for each in other.sequences]
        told = [[each.cum_logprob for each in output.sequences] for output in (one, other)]
        assert told[0] == pytest.approx(told[1], rel=1e-4)


def test_tokens_of_a_model_with_experts_are_those_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of experts and others, a shared expert with a gate; steps of prompts and of single tokens."""
    directory = make_checkpoint(tmp_path, load_architecture("qwen2_moe").tiny, seed=5)
    prompts = [[5, 9, 30, 7, 11, 2, 8, 40], [6, 31]]
    params = [
        SamplingParams(temperature=0, max_tokens=3, ignore_eos=True),
        SamplingParams(temperature=0.8, top_p=0.9, seed=3, max_tokens=3, ignore_eos=True),
    ]
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    assert tokens(llm(directory, device="cuda"), prompts, params) == wanted


def test_tokens_of_a_model_that_keeps_states_are_those_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts in pieces beside single tokens, two continuations of one, who is preempted; slots are taken again; and a
    prompt goes on from the snapshot within its first piece."""
    directory = make_checkpoint(tmp_path, load_architecture("qwen3_next").tiny, seed=5)
    prompts = [[5, 9, 30, 7, 11, 2, 8, 40, 3, 12, 17, 4, 9], [6, 31, 2, 7, 9, 1, 3], [8]]
    greedy = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    params = [greedy, greedy.clone(temperature=0.8, top_p=0.9, seed=3, n=2), greedy]
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    engine = llm(directory, device="cuda", num_gpu_blocks_override=6, max_num_seqs=4)
    assert tokens(engine, prompts, params) == wanted
    stats = engine.stats()
    assert stats.num_preemptions > 0 and stats.num_failed_steps == 0
    assert tokens(engine, prompts[:1], params[:1]) == wanted[:1]
    assert engine.stats().prefix_cache_hits == stats.prefix_cache_hits + 8
    assert engine.loaded is not None and engine.loaded.memory.state_bytes == 20 * MODELS[-1].program.states.slot_bytes


@pytest.mark.parametrize("name", [pytest.param("gpt_oss", marks=pytest.mark.thorough), "gemma4_text"])
def test_tokens_of_a_model_with_windows_are_those_of_the_cpu(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks behind windows are let go and taken by others; two continuations of one, swaps, a prefix found again."""
    tiny = tiny_of(name) | {"sliding_window": 5}
    directory = make_checkpoint(tmp_path, tiny, seed=5)
    prompts = [[5, 9, 30, 7, 11, 2, 8, 40, 3, 12, 17, 4, 9], [6, 31, 2, 7, 9, 1, 3], [5, 9, 30, 7, 11, 2, 8, 40, 8]]
    greedy = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    params = [greedy, greedy.clone(temperature=0.8, top_p=0.9, seed=3, n=2), greedy]
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    monkeypatch.setattr(swapping, "PREFILL_FLOPS_PER_S", 1.0)
    engine = llm(directory, device="cuda", num_gpu_blocks_override=4, swap_space=0.001)
    assert tokens(engine, prompts, params) == wanted
    stats = engine.stats()
    assert stats.num_swap_outs > 0 and stats.num_failed_steps == 0
    kv = MODELS[-1].program.kv
    assert kv.num_groups > 1 and MODELS[-1].num_blocks == 4 * kv.num_groups


def test_log_probabilities_are_told_by_the_device(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of greedy and drawn tokens and of prompts; whole logits go to the host for those who ask for more than the best
    64 alone."""
    params = [
        SamplingParams(temperature=0, max_tokens=3, ignore_eos=True, logprobs=2, prompt_logprobs=0),
        SamplingParams(temperature=0.9, top_p=0.95, seed=2, max_tokens=3, ignore_eos=True, logprobs=0, n=2),
        SamplingParams(temperature=0, max_tokens=3, ignore_eos=True, prompt_logprobs=64, presence_penalty=1.0),
    ]
    given: list[Any] = [{"prompt_token_ids": [5, 6, 7, 8]}, {"prompt_token_ids": [9]}, {"prompt_token_ids": [7, 5]}]
    wanted = llm(directory, device="cpu", max_logprobs=-1).generate(given, params, use_tqdm=False)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    engine = llm(directory, device="cuda", max_logprobs=-1)
    for ours, theirs in zip(engine.generate(given, params, use_tqdm=False), wanted, strict=True):
        check_logprobs(ours.prompt_logprobs, theirs.prompt_logprobs)
        for got, right in zip(ours.outputs, theirs.outputs, strict=True):
            assert got.token_ids == right.token_ids
            check_logprobs(got.logprobs, right.logprobs)
    sent = MODELS[-1]._results._sets
    assert not any("logits" in names for names in sent) and any("logprobs" in names for names in sent)
    everything = [SamplingParams(temperature=0, max_tokens=1, logprobs=-1)]
    (all_of_them,) = engine.generate(given[1:2], everything, use_tqdm=False)
    assert len(all_of_them.outputs[0].logprobs[0]) == load_architecture("qwen2").tiny["vocab_size"]
    assert any("logits" in names for names in sent)


def check_logprobs(ours: Any, theirs: Any) -> None:
    """Two devices' logits of float32 differ by a few 1e-6 and by a few units of the last place; equal ones are in the
    order of their ids on both."""
    assert (ours is None) == (theirs is None)
    for got, right in zip(ours or (), theirs or (), strict=True):
        assert (got is None) == (right is None)
        for token_id, told in (right or {}).items():
            assert got[token_id].logprob == pytest.approx(told.logprob, rel=1e-6, abs=1e-5)
            assert got[token_id].rank == told.rank


def test_embeddings_beside_what_is_generated_are_those_of_the_cpu(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second program on the same weights and KV cache; alone and in company to the same bits, as tokens are."""
    prompts = np.random.default_rng(2).integers(3, 60, (2, 14)).tolist()
    kinds = [PoolingParams(pooling_type="mean"), PoolingParams(dimensions=5)]

    def served(engine: LLM, which: list[int], num_generating: int) -> tuple[list[list[float]], list[int]]:
        assert engine.loaded is not None
        made = Engine(engine.loaded.settings, engine.loaded.execute, lambda: 0.0)
        for i in range(num_generating):
            greedy = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
            made.add_request(f"g{i}", [5 + i, 6, 7], greedy)
        for i in which:
            made.add_request(f"e{i}", prompts[i], SamplingParams(), pooling=kinds[i])
        vectors: dict[str, list[float]] = {}
        drawn: list[int] = []
        while made.has_work():
            for update in made.step():
                drawn += update.token_ids if update.request_id == "g0" else []
                if update.embedding is not None:
                    vectors[update.request_id] = update.embedding
        return [vectors[f"e{i}"] for i in which], drawn

    wanted, tokens_alone = served(llm(directory, device="cpu"), [0, 1], 1)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    engine = llm(directory, device="cuda")
    got, drawn = served(engine, [0, 1], 1)
    assert drawn == tokens_alone
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert served(engine, [0], 0)[0] == got[:1]


@pytest.mark.parametrize("name", ["bert", "modernbert", "nomic_bert", "albert", "mpnet", "t5", "deberta_v2"])
def test_embeddings_of_encoders_are_those_of_the_cpu(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts shorter and longer than windows, and one of two texts; alone and in company to the same bits."""
    architecture, rng = load_architecture(name), np.random.default_rng(3)
    graph = build_graph(parse_config(architecture.tiny, architecture.rules), 90)
    directory = make_checkpoint(tmp_path, architecture.tiny, weights=weights_read(graph, 5))
    prompts: list[Any] = [{"prompt_token_ids": rng.integers(3, 90, length).tolist()} for length in (1, 30, 17, 5)]
    kinds = [PoolingParams(pooling_type=kind) for kind in ("cls", "mean", "last", "mean")]
    if name == "bert":
        kinds[2] = PoolingParams(pooling_type="last", type_start=6)

    def served(device: str, which: Sequence[int]) -> list[list[float]]:
        engine = llm(directory, device=device, max_model_len=30, max_num_batched_tokens=48)
        outputs = engine.embed([prompts[i] for i in which], [kinds[i] for i in which], use_tqdm=False)
        assert not engine.stats().num_failed_steps
        return [output.outputs.embedding for output in outputs]

    wanted = served("cpu", range(4))
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    got = served("cuda", range(4))
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)
    assert served("cuda", [2]) == got[2:3]
    assert MODELS[-1].record_next() is False
    if name == "bert":
        kinds[2] = PoolingParams(pooling_type="last")
        assert np.abs(np.array(served("cuda", [2])) - got[2]).max() > 1e-2, "types of tokens are read"


def two(length: int, max_tokens: int) -> tuple[list[list[int]], list[SamplingParams]]:
    """One greedy, one sampled."""
    prompts = np.random.default_rng(4).integers(3, 60, (2, length)).tolist()
    greedy = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    return prompts, [greedy, greedy.clone(temperature=0.9, seed=5)]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of exp in gelu's tanh form, where it gives the limit
@pytest.mark.parametrize(
    "name", ["qwen2", pytest.param("gemma4_text, embeddings of layers", marks=pytest.mark.thorough)]
)
def test_swapped_blocks_come_back_as_they_were(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four blocks for two that want three each: the tokens are those of a CPU that has blocks for all.

    All layers are one group, as windows would leave blocks enough. Of the second model layers have caches of two
    shapes, and two layers have none.
    """
    directory = make_checkpoint(tmp_path, tiny_of(name), seed=5)
    prompts, params = two(15, 3)
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    monkeypatch.setattr(programs, "BLOCK_GROUPS", "")
    monkeypatch.setattr(swapping, "LINK_BYTES_PER_S", 1e30)  # the model is so small that it would not be worth it
    engine = llm(directory, device="cuda", num_gpu_blocks_override=5, swap_space=1e-4, enable_prefix_caching=False)
    moved: dict[str, list[tuple[int, int]]] = {"swap_out": [], "swap_in": []}
    for name, pairs in moved.items():
        move = getattr(MODELS[-1], name)
        monkeypatch.setattr(MODELS[-1], name, lambda some, move=move, pairs=pairs: (pairs.extend(some), move(some)))
    assert tokens(engine, prompts, params) == wanted
    assert len(moved["swap_out"]) == len(moved["swap_in"]) == 2


@pytest.mark.parametrize(("where", "num_failing"), [("the results", 1), ("a kernel", 2)])
def test_a_gpu_without_memory_fails_one_request_at_most(
    directory: Path, monkeypatch: pytest.MonkeyPatch, where: str, num_failing: int
) -> None:
    """Once: nobody notices. Twice: the last one ends with what it has, and the other with the CPU's tokens."""
    prompts, params = two(5, 4)
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    emptied: list[None] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(None))
    engine = llm(directory, device="cuda")
    emptied.clear()  # of loading
    model: Any = MODELS[-1]
    owner, name = {"the results": (model._results, "send"), "a kernel": (model.placed, "launch")}[where]
    works, calls = getattr(owner, name), count()

    def short(*args: Any, **kwargs: Any) -> Any:
        if 2 <= next(calls) < 2 + num_failing:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore words")
        return works(*args, **kwargs)

    monkeypatch.setattr(owner, name, short)
    given: list[Any] = [{"prompt_token_ids": prompt} for prompt in prompts]
    first, last = engine.generate(given, params, use_tqdm=False)
    assert len(emptied) == num_failing
    assert list(first.outputs[0].token_ids) == wanted[0][0]
    ended = last.outputs[0]
    if num_failing == 1:
        assert list(ended.token_ids) == wanted[1][0]
        return
    assert (ended.finish_reason, ended.stop_reason) == (
        "error",
        "OutOfMemory: the GPU is out of memory in a step: CUDA out of memory. Tried to allocate 2.00 GiB.",
    )
    assert list(ended.token_ids) == wanted[1][0][: len(ended.token_ids)] != wanted[1][0]
