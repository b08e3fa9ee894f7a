"""Adapters (LoRA): against PEFT's merged weights, and the same bits whatever else is in the batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo import LLM, BeamSearchParams, EngineConfig, LoRARequest, PoolingParams, SamplingParams
from albireo.api.build import build
from albireo.backends.cpu.machine import isa_levels
from albireo.compiler.pipeline import optional_passes
from albireo.config import BuildConfig
from albireo.engine.stats import EngineStats
from albireo.errors import ConfigError, InvalidParams, OutOfMemory
from albireo.models import load_architecture
from compiler.ranks import wide_config
from e2e.serving import Answer, Ask, Server, assert_same_answers
from e2e.test_invariance import Scenario, preempted
from in_turn import meets
from representatives import LATENT, REPRESENTATIVES
from tiny_adapters import make_adapter
from tiny_layer_norm import LAYER_NORMS
from tiny_models import MIXTURES, make_checkpoint
from transformers_models import transformers
from variants import MIXED, VARIANTS, tiny_of

#: A head_dim of 80, groups of three query heads, an FFN that fills no panel, a tied head.
WIDE = {
    **load_architecture("llama").tiny,
    "hidden_size": 96,
    "intermediate_size": 172,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 80,
    "tie_word_embeddings": True,
}
#: Of mixtures PEFT adapts experts, too, and of Phi-3 and others matrices that are joined, or whose rows are taken in
#: another order, which nothing here has adapters of.
WHOLE = sorted(set(REPRESENTATIVES) - set(MIXTURES) - set(LATENT) - {"phi3"} - set(LAYER_NORMS) | {"opt", "starcoder2"})
CONFIGS = {name: {**load_architecture(name).tiny} for name in (*WHOLE, "qwen2", "qwen3")} | {"llama wide": WIDE}
CONFIGS |= {name: tiny_of(name) for name in VARIANTS if name not in MIXED}
SERVED = [*WHOLE, "llama wide"]
#: Of several ranks: KV heads that some share; and what weights in few bits can be cut of.
CONFIGS |= {"ranks": wide_config("llama"), "ranks, few bits": wide_config("qwen3", intermediate_size=256)}
#: Everything of one rank; attention alone; ranks and scales of their own.
ADAPTERS: tuple[dict[str, Any], ...] = (
    {"rank": 4},
    {"rank": 8, "targets": ("q_proj", "v_proj"), "use_rslora": True},
    {
        "rank": 5,
        "targets": ("k_proj", "o_proj", "up_proj", "down_proj"),
        "ranks": {"up_proj": 2},
        "alpha_pattern": {"o_proj": 3, "^model.layers.1.mlp.down_proj": 7},
    },
)
MAX_RANK = 8
GREEDY = SamplingParams(temperature=0.0, max_tokens=10, ignore_eos=True, logprobs=0, prompt_logprobs=0)


def prompts() -> list[tuple[int, ...]]:
    """Shorter and longer than any window, and longer than a tile of attention; the last begins as the one before."""
    rng = np.random.default_rng(3)
    found = [tuple(rng.integers(3, 90, length).tolist()) for length in (3, 17, 40, 90)]
    return [*found, (*found[-1][:70], 5, 6)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, list[Path]]]:
    """(config, dtype) -> a model directory, and those of its adapters."""
    root = tmp_path_factory.mktemp("lora")

    @functools.cache
    def make(config: str, dtype: str) -> tuple[Path, list[Path]]:
        directory = make_checkpoint(root / f"{config}-{dtype}", CONFIGS[config], seed=5, dtype=dtype)
        return directory, [
            make_adapter(root / f"{config}-{dtype}-{i}", CONFIGS[config], seed=i, dtype=dtype, **settings)
            for i, settings in enumerate(ADAPTERS)
        ]

    return make


def serving(directory: Path, adapters: list[Path], **config: Any) -> tuple[Server, list[int]]:
    """A server with slots for all of them, and their numbers."""
    server = Server.load(directory, **{"enable_lora": True, "max_loras": 3, "max_lora_rank": MAX_RANK, **config})
    assert server.loaded.adapters is not None
    return server, [server.loaded.adapters.load(path) for path in adapters]


def asks(numbers: list[int], params: SamplingParams = GREEDY) -> list[Ask]:
    """Each prompt without an adapter and with each of them, side by side."""
    return [Ask(prompt, params, number) for prompt in prompts() for number in (None, *numbers)]


# -- what they compute -------------------------------------------------------------------------------------------------


def merged(directory: Path, adapter: Path, sequences: list[list[int]]) -> list[NDArray[np.float32]]:
    """transformers' logits at every position of each sequence, with PEFT's merged weights."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    model = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().eval()
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits[0].numpy() for ids in sequences]


@pytest.mark.filterwarnings("ignore")  # of PEFT and transformers about each other
def test_what_peft_saves_is_read(made: Callable[[str, str], tuple[Path, list[Path]]], tmp_path: Path) -> None:
    """Its adapter_config.json has more keys than ours."""
    pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    directory, adapters = made("llama", "float32")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    peft.PeftModel.from_pretrained(model, str(adapters[0])).save_pretrained(tmp_path)
    server, (ours, theirs) = serving(directory, [adapters[0], tmp_path])
    first, second = server.serve([Ask(prompts()[2], GREEDY, number) for number in (ours, theirs)])[0]
    assert first.tokens == second.tokens


@pytest.mark.filterwarnings("ignore")  # of PEFT and transformers about each other
@pytest.mark.parametrize("config", [*SERVED, *(set(VARIANTS) - set(MIXED)), "ranks"])
def test_logits_and_tokens_are_those_of_merged_weights(
    config: str, made: Callable[[str, str], tuple[Path, list[Path]]]
) -> None:
    """Of all adapters in one model, of the one that changes every matrix in the others."""
    directory, adapters = made(config, "float32")
    server, numbers = serving(
        directory,
        adapters if config == "llama wide" else adapters[:1],
        **({"tensor_parallel_size": 2, "num_threads": 2} if "ranks" in config else {}),
    )
    for adapter, number in zip(adapters, numbers, strict=False):
        answers, _ = server.serve([Ask(prompt, GREEDY, number) for prompt in prompts()])
        sequences = [[*prompt, *a.tokens[0]] for prompt, a in zip(prompts(), answers, strict=True)]
        plain, _ = server.serve([Ask(prompts()[2], GREEDY)])
        for i, (answer, wanted) in enumerate(zip(answers, merged(directory, adapter, sequences), strict=True)):
            for position, row in answer.rows.items():
                assert np.abs(row - wanted[position]).max() < 2e-5 * np.abs(wanted).max(), (i, position)
            start = len(prompts()[i]) - 1
            assert answer.tokens[0] == wanted[start : start + 10].argmax(axis=1).tolist()
        assert np.abs(plain[0].rows[39] - answers[2].rows[39]).max() > 0.1, "the adapter has no effect"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quantization", ["int8", "int4-g32", "fp8-a16"])
def test_weights_in_few_bits_stay_so_and_adapters_do_not(
    quantization: str, made: Callable[[str, str], tuple[Path, list[Path]]]
) -> None:
    """What rounding the weights costs is no more with an adapter than without one."""
    config = "llama wide"
    directory, adapters = made(config, "bfloat16")
    exact, plain_numbers = serving(directory, adapters)
    rounded, numbers = serving(directory, adapters, quantization=quantization)
    asked = [Ask(prompts()[3], GREEDY.clone(max_tokens=1), number) for number in (None, *plain_numbers)]
    assert numbers == plain_numbers
    wanted, got = exact.serve(asked)[0], rounded.serve(asked)[0]
    errors = [
        np.mean([np.abs(a.rows[at] - b.rows[at]).mean() for at in a.rows]) for a, b in zip(got, wanted, strict=True)
    ]
    assert errors[0] > 0 and max(errors[1:]) < 2 * errors[0]


# -- whose bits they are -----------------------------------------------------------------------------------------------


def hit(stats: EngineStats, answers: list[Answer]) -> bool:
    return stats.prefix_cache_hits > 0


NO_CACHE = {"enable_prefix_caching": False}
SCENARIOS = {
    "batched": Scenario(NO_CACHE | {"max_num_seqs": 24}),
    "chunks of 7": Scenario(NO_CACHE | {"max_num_batched_tokens": 7}),
    "two threads": Scenario(NO_CACHE | {"num_threads": 2, "max_num_seqs": 24}),
    "slots change hands": Scenario(NO_CACHE | {"max_loras": 1, "max_num_seqs": 4}, stagger=2),
    "nothing fused": Scenario({"without": optional_passes(), "max_loras": 2}, check=hit),
    "preempted": Scenario({"num_gpu_blocks_override": 16, "max_loras": 2}, check=preempted),
    "prefix cache": Scenario(waves=5, check=hit),
}
LEVELS = isa_levels()
CASES = [
    *(("llama wide", "bfloat16", None, LEVELS[0], scenario) for scenario in SCENARIOS),
    *(("llama wide", "bfloat16", "int8", LEVELS[0], scenario) for scenario in ("batched", "preempted")),
    *((config, "float32", None, LEVELS[0], "slots change hands") for config in SERVED[::2]),
    *(("llama wide", dtype, None, LEVELS[0], "two threads") for dtype in ("float16", "bfloat16")),
    *(("qwen3", "bfloat16", "int8", level, "two threads") for level in LEVELS),
]
CASES = [
    *dict.fromkeys(CASES),
    *(
        pytest.param("llama wide", dtype, None, level, "two threads", marks=() if meets(i, j) else pytest.mark.thorough)
        for j, level in enumerate(LEVELS[1:], 1)
        for i, dtype in enumerate(("float16", "bfloat16"))
    ),
]


@pytest.fixture(scope="module")
def alone(made: Callable[[str, str], tuple[Path, list[Path]]]) -> Callable[..., list[Answer]]:
    """(config, dtype, quantization, level) -> the answers to asks() one by one, which are those of a model that knows
    no adapters where there is none."""

    @functools.cache
    def answers(config: str, dtype: str, quantization: str | None, level: str) -> list[Answer]:
        directory, adapters = made(config, dtype)
        few = {"quantization": quantization, **NO_CACHE}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ALBIREO_ISA_MAX", level)
            server, numbers = serving(directory, adapters, **few)
            asked = asks(numbers)
            found = server.alone(asked)
            plain = Server.load(directory, **few).alone([each for each in asked if each.adapter is None])
        assert_same_answers([a for a, each in zip(found, asked, strict=True) if each.adapter is None], plain)
        return found

    return answers


@pytest.mark.parametrize(("config", "dtype", "quantization", "level", "scenario"), CASES)
def test_served_as_if_alone(
    config: str,
    dtype: str,
    quantization: str | None,
    level: str,
    scenario: str,
    made: Callable[[str, str], tuple[Path, list[Path]]],
    alone: Callable[..., list[Answer]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With an adapter and without: and without one as by a model that knows none."""
    wanted = alone(config, dtype, quantization, level)
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    directory, adapters = made(config, dtype)
    params = GREEDY if scenario in ("batched", "two threads") else GREEDY.clone(prompt_logprobs=None)
    how = SCENARIOS[scenario]
    server, numbers = serving(directory, adapters, quantization=quantization, **how.config)
    got, stats = server.serve(asks(numbers, params), how.waves, how.stagger)
    assert how.check(stats, got), f"{scenario} did not come about: {stats}"
    assert_same_answers(got, wanted)


@pytest.mark.parametrize(("config", "quantization"), [("ranks", None), ("ranks, few bits", "int8")])
def test_ranks_compute_what_one_does(
    config: str, quantization: str | None, made: Callable[[str, str], tuple[Path, list[Path]]]
) -> None:
    """With adapters and without, while slots change hands; without one as ranks that know none."""
    directory, adapters = made(config, "bfloat16")
    few = {"quantization": quantization}
    lone, numbers = serving(directory, adapters, tp_invariant=True, **few, **NO_CACHE)
    asked = asks(numbers, GREEDY.clone(prompt_logprobs=None))[4:16]
    wanted = lone.alone(asked)
    plain = Server.load(directory, tensor_parallel_size=2, num_threads=2, **few)
    without = [each for each in asked if each.adapter is None]
    assert_same_answers(plain.serve(without)[0], [a for a, each in zip(wanted, asked, strict=True) if each in without])
    for size in (2, 8) if quantization is None else (4,):
        how = {"tensor_parallel_size": size, "num_threads": size, "max_loras": 2}
        server, _ = serving(directory, adapters, **how, **few)
        assert_same_answers(server.serve(asked, 1, 2)[0], wanted)


def test_guesses_are_verified_with_the_adapter_that_they_are_for(
    made: Callable[[str, str], tuple[Path, list[Path]]],
) -> None:
    directory, adapters = made("llama wide", "bfloat16")
    server, numbers = serving(directory, adapters, **NO_CACHE)
    params = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True, logprobs=0)
    wanted, _ = server.serve(asks(numbers, params))
    config = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2, "prompt_lookup_min": 1}
    guessing, _ = serving(directory, adapters, speculative_config=config, **NO_CACHE)
    got, stats = guessing.serve(asks(numbers, params))
    assert stats.num_accepted_tokens > 20
    assert_same_answers(got, wanted)


# -- through the front door --------------------------------------------------------------------------------------------


def llm(directory: Path, **config: Any) -> LLM:
    return LLM(
        str(directory),
        **{
            "enable_lora": True,
            "max_loras": 2,
            "max_lora_rank": MAX_RANK,
            "skip_tokenizer_init": True,
            "num_threads": 1,
            "max_num_seqs": 8,
            **config,
        },
    )


def texts(model: LLM, lora: Any, **params: Any) -> list[list[int]]:
    sampling = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True, detokenize=False, **params)
    outputs = model.generate([list(prompt) for prompt in prompts()], sampling, lora_request=lora)
    return [continuation.token_ids for output in outputs for continuation in output.outputs]


def test_one_adapter_for_all_or_one_each(made: Callable[[str, str], tuple[Path, list[Path]]]) -> None:
    directory, adapters = made("llama", "float32")
    requests = [LoRARequest(f"adapter {i}", 1 + i, str(path)) for i, path in enumerate(adapters)]
    with llm(directory) as model:
        alone = [texts(model, request) for request in (None, *requests)]
        assert len({str(each) for each in alone}) == 4
        each = [None, *requests, requests[0]]
        mixed = [alone[0][0], alone[1][1], alone[2][2], alone[3][3], alone[1][4]]
        assert texts(model, each) == mixed
        assert model.list_loras() == {1, 2, 3}
        with pytest.raises(InvalidParams, match="2 lora_requests"):
            texts(model, requests[:2])
        with pytest.raises(InvalidParams, match="lora_int_id=1 is 'adapter 0'"):
            texts(model, LoRARequest("another", 1, str(adapters[1])))
        beams = BeamSearchParams(beam_width=2, max_tokens=3)
        outputs = model.generate([[1, 2], [3]], SamplingParams(n=2, max_tokens=2), lora_request=[requests[1], None])
        for output, request in zip(outputs, (requests[1], None), strict=True):
            assert output.lora_request is request and [each.lora_request for each in output.outputs] == [request] * 2
        (found,) = model.beam_search([[1, 2]], beams, requests[2])
        assert [each.lora_request for each in found.sequences] == [requests[2]] * 2
        several = texts(model, requests[0], n=3)
        assert several == [tokens for tokens in alone[1] for _ in range(3)]


def test_another_adapter_under_the_same_number_finds_no_old_blocks(
    made: Callable[[str, str], tuple[Path, list[Path]]],
) -> None:
    directory, adapters = made("llama", "float32")
    with llm(directory) as model:
        first, second = (LoRARequest("mine", 1, str(path)) for path in adapters[:2])
        wanted = texts(model, LoRARequest("second", 2, str(adapters[1])))
        old = texts(model, first)
        before = model.stats().prefix_cache_hits
        assert texts(model, first) == old and model.stats().prefix_cache_hits > before
        assert model.remove_lora(1) and not model.remove_lora(1)
        before = model.stats().prefix_cache_hits
        assert texts(model, second) == wanted != old
        # the last prompt begins as the one before it: that is all there is to find
        assert model.stats().prefix_cache_hits - before == 64


def test_an_embedding_beside_adapters_is_what_it_is_alone(
    made: Callable[[str, str], tuple[Path, list[Path]]],
) -> None:
    directory, adapters = made("llama", "float32")
    ids = [list(prompt) for prompt in prompts()]
    with llm(directory, enable_lora=False) as plain, llm(directory) as model:
        wanted = [output.outputs.embedding for output in plain.embed(ids, PoolingParams(pooling_type="mean"))]
        assert model.loaded is not None and model.loaded.adapters is not None
        number = model.loaded.adapters.load(adapters[0])
        tokens = texts(model, LoRARequest("a", 1, str(adapters[0])))
        driver = model._driver
        assert driver is not None
        records = []
        for i, prompt in enumerate(ids):
            params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True, detokenize=False)
            made_of = model._admission.submission(_prompt(prompt), model._admission.prepare(params))
            records.append(driver.add(f"g{i}", _with(made_of, number)))
            wants = PoolingParams(pooling_type="mean")
            records.append(driver.add(f"e{i}", model._admission.pooling.embedding(_prompt(prompt), wants)))
        while driver.has_work():
            driver.step()
        assert [record.output().outputs[0].token_ids for record in records[::2]] == tokens
        assert [record.embedding().outputs.embedding for record in records[1::2]] == wanted


def _prompt(ids: list[int]) -> Any:
    from albireo.api.requests.prompts import parse_prompt

    return parse_prompt(ids)


def _with(submission: Any, number: int) -> Any:
    from dataclasses import replace

    return replace(submission, adapter=number)


def test_an_engine_directory_runs_adapters(made: Callable[[str, str], tuple[Path, list[Path]]], tmp_path: Path) -> None:
    directory, adapters = made("qwen2", "bfloat16")
    built = tmp_path / "built"
    build(str(directory), built, BuildConfig(quantization="int8"))
    request = LoRARequest("a", 1, str(adapters[0]))
    with llm(directory, quantization="int8") as model, llm(built) as engine:
        assert texts(engine, request) == texts(model, request) != texts(model, None)


def test_what_cannot_be_is_refused(made: Callable[[str, str], tuple[Path, list[Path]]]) -> None:
    directory, adapters = made("llama", "float32")
    request = LoRARequest("a", 1, str(adapters[0]))
    with llm(directory, enable_lora=False) as model, pytest.raises(InvalidParams, match="enable_lora=True"):
        texts(model, request)
    with pytest.raises(ConfigError, match="enable_lora"):
        EngineConfig(enable_lora=True, data_parallel_size=2)
    with pytest.raises(OutOfMemory, match=r"1024 adapters of rank 4096 .*max_loras or max_lora_rank"):
        llm(directory, max_loras=1024, max_lora_rank=4096, memory_utilization=0.2)
    with llm(directory) as model, pytest.raises(InvalidParams, match="lora_int_id=0"):
        texts(model, LoRARequest("a", 0, str(adapters[0])))


def test_layers_that_are_gone_through_several_times_have_none(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, load_architecture("ouro").tiny)
    with pytest.raises(ConfigError, match="enable_lora: model_type ouro goes through its layers several times"):
        Server.load(tmp_path, enable_lora=True)
