"""The promise: a request's logits and tokens do not change by one bit with anything but the request.

Small random models of every architecture and type, at every level of instructions, through load and the engine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.backends.backend import BLOCK_GROUPS
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels
from albireo.compiler.pipeline import optional_passes
from albireo.dtypes import COMPUTE_DTYPES
from albireo.engine.stats import EngineStats
from albireo.models import architectures, load_architecture
from albireo.params import SamplingParams
from e2e.serving import Answer, Ask, Server, assert_same_answers
from in_turn import meets
from representatives import REPRESENTATIVES
from tiny_models import make_checkpoint
from variants import VARIANTS, tiny_of

#: Those that differ where weights are numbers; kernels of weights in few bits are in test_quantized.py.
LEVELS = tuple(level for level in isa_levels() if level not in ("amx", "avx512vnni", "avxvnni", "neondot"))
#: A head_dim of 80, groups of three query heads, an FFN that fills no panel, a tied head.
WIDE = {
    **load_architecture("llama").tiny,
    "hidden_size": 96,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 80,
    "tie_word_embeddings": True,
}
CONFIGS = {name: tiny_of(name) for name in (*architectures(), *VARIANTS)} | {"llama wide": WIDE}
SERVED = [*REPRESENTATIVES, "llama wide"]
SAMPLED = {"temperature": 0.9, "top_p": 0.95, "seed": 11}


def tokens(length: int, seed: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(3, 90, length).tolist())


def ask(prompt: tuple[int, ...], **params: Any) -> Ask:
    return Ask(
        prompt, SamplingParams(**{"temperature": 0.0, "max_tokens": 10, "ignore_eos": True, "logprobs": 0, **params})
    )


def requests() -> list[Ask]:
    """Short and long, greedy and sampled, two with a common beginning, one whose every prompt row is looked at."""
    common = tokens(35, 1)
    return [
        ask(tokens(3, 2)),
        ask((*common, *tokens(6, 3)), prompt_logprobs=0),
        ask((*common, *tokens(40, 4)), **SAMPLED),
        ask(tokens(17, 5), **SAMPLED, repetition_penalty=1.3, top_k=20),
        ask(tokens(64, 6), max_tokens=20),
        ask(tokens(1, 7), temperature=1.5, seed=12),
    ]


@dataclass(frozen=True)
class Scenario:
    """A way to serve the requests. check: that what the scenario is about did happen."""

    config: dict[str, Any] = field(default_factory=dict)
    waves: int = 1
    stagger: int = 0
    check: Callable[[EngineStats, list[Answer]], bool] = lambda stats, answers: True


def preempted(stats: EngineStats, answers: list[Answer]) -> bool:
    return stats.num_preemptions > 0


def hit(stats: EngineStats, answers: list[Answer]) -> bool:
    return answers[2].num_cached_tokens > 0


def everything(stats: EngineStats, answers: list[Answer]) -> bool:
    return preempted(stats, answers) and stats.prefix_cache_hits > 0


def came_about(how: Scenario, server: Server, stats: EngineStats, answers: list[Answer]) -> bool:
    """A model whose layers all have windows takes no more blocks than at first: nobody is preempted."""
    return how.check(stats, answers) or None not in server.loaded.settings.windows


NO_CACHE = {"enable_prefix_caching": False}
ALL_AT_ONCE = {"max_num_batched_tokens": 29, "block_size": 8, "num_gpu_blocks_override": 14}
SCENARIOS = {
    "batched": Scenario(NO_CACHE),
    "arriving while others run": Scenario(NO_CACHE, stagger=3),
    "chunks of one token": Scenario(NO_CACHE | {"max_num_batched_tokens": 1, "max_num_seqs": 1}),
    "chunks of 7": Scenario(NO_CACHE | {"max_num_batched_tokens": 7}),
    "chunks of 50": Scenario(NO_CACHE | {"max_num_batched_tokens": 50}),
    "blocks of 8": Scenario(NO_CACHE | {"block_size": 8}),
    "blocks of 32": Scenario(NO_CACHE | {"block_size": 32}),
    "profile latency": Scenario(
        {"profile": "latency", "max_num_batched_tokens": None, "max_num_seqs": None, "target_itl_ms": None}, check=hit
    ),
    "profile throughput": Scenario(
        {"profile": "throughput", "max_num_batched_tokens": None, "max_num_seqs": None}, check=hit
    ),
    "cut by the clock": Scenario(NO_CACHE | {"target_itl_ms": 1}, stagger=3),
    "nothing fused": Scenario(ALL_AT_ONCE | {"without": optional_passes()}, check=everything),
    "two threads": Scenario(NO_CACHE | {"num_threads": 2}),
    "three threads": Scenario(NO_CACHE | {"num_threads": 3}),
    "preempted": Scenario(NO_CACHE | {"num_gpu_blocks_override": 8, "max_num_batched_tokens": 40}, check=preempted),
    "prefix cache, at once": Scenario(check=hit),
    "prefix cache, one after another": Scenario(waves=6, check=hit),
    "all of it": Scenario(ALL_AT_ONCE, check=everything),
    "all of it, two threads": Scenario(ALL_AT_ONCE | {"num_threads": 2}, check=everything),
}
#: The scenario that goes through the most code: for every model, type and level.
MOST = "all of it"


def type_of(model: int, level: str) -> str:
    """A type in which a model is served here: one a level, so that every type meets five models or more at each."""
    return COMPUTE_DTYPES[(model + LEVELS.index(level)) % len(COMPUTE_DTYPES)]


def case(model: int, dtype: str, level: str, scenario: str, is_seen: bool) -> Any:
    """Every scenario meets four models or more, of every type; every model four scenarios. thorough: the others."""
    is_seen = is_seen and dtype == type_of(model, level) and meets(model // len(COMPUTE_DTYPES), LEVELS.index(level))
    return pytest.param(SERVED[model], dtype, level, scenario, marks=() if is_seen else pytest.mark.thorough)


CASES = [case(i, t, level, MOST, True) for i in range(len(SERVED)) for t in COMPUTE_DTYPES for level in LEVELS]
CASES += [
    case(i, type_of(i, LEVELS[0]), LEVELS[0], scenario, (i + j) % 4 == 0)
    for i in range(len(SERVED))
    for j, scenario in enumerate(each for each in SCENARIOS if each != MOST)
]
CASES += [pytest.param(name, "bfloat16", LEVELS[0], "all of it, two threads") for name in VARIANTS]
#: What a head gives is asked of every model in one type, and in all when all is.
IN_TYPES = [
    pytest.param(name, t, marks=() if t == type_of(i, LEVELS[0]) else pytest.mark.thorough)
    for i, name in enumerate(SERVED)
    for t in COMPUTE_DTYPES
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """(config, dtype) -> a model directory."""
    root = tmp_path_factory.mktemp("models")

    @functools.cache
    def make(config: str, dtype: str) -> Path:
        return make_checkpoint(root / f"{config}-{dtype}", CONFIGS[config], seed=5, dtype=dtype)

    return make


@pytest.fixture(scope="module")
def alone(checkpoint: Callable[[str, str], Path]) -> Callable[..., list[Answer]]:
    """(config, dtype, level[, type of the KV cache]) -> the answer to each request when nothing else is asked."""

    @functools.cache
    def answers(config: str, dtype: str, level: str, kv: str = "auto") -> list[Answer]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ALBIREO_ISA_MAX", level)
            return Server.load(checkpoint(config, dtype), kv_cache_dtype=kv, **NO_CACHE).alone(requests())

    return answers


@pytest.mark.parametrize(("config", "dtype", "level", "scenario"), CASES)
def test_served_as_if_alone(
    config: str,
    dtype: str,
    level: str,
    scenario: str,
    checkpoint: Callable[[str, str], Path],
    alone: Callable[[str, str, str], list[Answer]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = alone(config, dtype, level)
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    how = SCENARIOS[scenario]
    server = Server.load(checkpoint(config, dtype), **how.config)
    kernels = {call.kernel.split(".")[2] for call in server.loaded.program.calls}
    assert level in kernels or (level in ("avx512bf16", "neonmm") and dtype != "bfloat16")
    got, stats = server.serve(requests(), how.waves, how.stagger)
    assert came_about(how, server, stats, got), f"{scenario} did not come about: {stats}"
    assert_same_answers(got, wanted)


#: What looks at a KV cache otherwise than the run alone.
KV_SCENARIOS = ("batched", "chunks of 7", "blocks of 8", "blocks of 32", "nothing fused", "all of it, two threads")
KV_MODELS = [
    ("llama wide", "bfloat16", "int8"),
    ("llama wide", "bfloat16", "fp8"),
    ("mistral", "bfloat16", "int8"),
    ("qwen3", "float32", "int8"),
    ("llama", "float16", "fp8"),
    ("llama", "float32", "bf16"),
]
KV_CASES = [
    (*model, level, scenario)
    for model in KV_MODELS
    for level in LEVELS
    for scenario in (KV_SCENARIOS if level == LEVELS[0] and model[1] == "bfloat16" else KV_SCENARIOS[-1:])
]
#: Of models that meet all of them one meets the first and the fourth, one the second and the fifth, one the third.
KV_CASES = [
    pytest.param(*each, marks=pytest.mark.thorough)
    if (each[4] != KV_SCENARIOS[-1] and KV_SCENARIOS.index(each[4]) % 3 != KV_MODELS.index(each[:3]))
    or not meets(KV_MODELS.index(each[:3]), LEVELS.index(each[3]))
    else pytest.param(*each)
    for each in KV_CASES
]


@pytest.mark.parametrize(("config", "dtype", "kv", "level", "scenario"), KV_CASES)
def test_a_kv_cache_of_another_type_is_served_as_if_alone(
    config: str,
    dtype: str,
    kv: str,
    level: str,
    scenario: str,
    checkpoint: Callable[[str, str], Path],
    alone: Callable[..., list[Answer]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = alone(config, dtype, level, kv)
    assert not np.array_equal(wanted[4].rows[63], alone(config, dtype, level)[4].rows[63]), "the type has no effect"
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    how = SCENARIOS[scenario]
    server = Server.load(checkpoint(config, dtype), kv_cache_dtype=kv, **how.config)
    got, stats = server.serve(requests(), how.waves, how.stagger)
    assert came_about(how, server, stats, got), f"{scenario} did not come about: {stats}"
    assert_same_answers(got, wanted)


def test_the_requests_tell_answers_apart(alone: Callable[[str, str, str], list[Answer]]) -> None:
    """Were all tokens equal, or all rows, the tests above would prove little."""
    answers = alone("llama", "float32", LEVELS[0])
    assert len({tuple(a.tokens[0]) for a in answers}) == len(answers)
    assert min(len(set(a.tokens[0])) for a in answers) > 2
    assert answers[1].rows.keys() >= set(range(41 + 9))
    assert len({row.tobytes() for row in answers[1].rows.values()}) == len(answers[1].rows)


@pytest.mark.parametrize(("config", "dtype"), IN_TYPES)
def test_the_arg_max_is_the_token(
    config: str, dtype: str, checkpoint: Callable[[str, str], Path], alone: Callable[[str, str, str], list[Answer]]
) -> None:
    """Greedy requests that want no logits take another way through the head; the tokens are the same."""
    greedy = [i for i, r in enumerate(requests()) if r.params.is_greedy]
    asks = [Ask(requests()[i].prompt, requests()[i].params.clone(logprobs=None, prompt_logprobs=None)) for i in greedy]
    wanted = [alone(config, dtype, LEVELS[0])[i].tokens for i in greedy]
    server = Server.load(checkpoint(config, dtype), max_num_batched_tokens=20)
    got, _ = server.serve(asks)
    assert [a.tokens for a in got] == wanted
    assert not server.rows, "logits were written out"
    mixed, _ = server.serve([*asks, ask(tokens(9, 8), **SAMPLED)])
    assert [a.tokens for a in mixed[:-1]] == wanted


@pytest.mark.parametrize(("config", "dtype"), IN_TYPES)
def test_the_best_logits_give_the_token_of_all(config: str, dtype: str, checkpoint: Callable[[str, str], Path]) -> None:
    """Top-k requests that want no log-probabilities take the way of the arg max; the tokens are those of the logits."""
    drawn = {"temperature": 1.5, "top_p": 0.9}
    asks = [ask(tokens(5 + i, i), top_k=1 + 9 * i, seed=i, n=1 + i % 2, **drawn) for i in range(7)]
    server = Server.load(checkpoint(config, dtype), max_num_batched_tokens=20)
    wanted, _ = server.serve(asks)
    assert server.rows
    got, _ = server.serve([Ask(a.prompt, a.params.clone(logprobs=None)) for a in asks])
    assert [a.tokens for a in got] == [a.tokens for a in wanted]
    assert not server.rows, "logits were written out"
    assert len({tuple(a.tokens[0]) for a in got}) == len(asks)


@pytest.mark.parametrize(("config", "dtype"), IN_TYPES)
def test_continuations_of_one_prompt_are_those_of_their_seeds(
    config: str, dtype: str, checkpoint: Callable[[str, str], Path]
) -> None:
    """Continuation i has seed + i; blocks of the prompt are shared, and copied when written to."""
    prompt, server = tokens(21, 9), Server.load(checkpoint(config, dtype), max_num_batched_tokens=16)
    single = server.alone([ask(prompt, temperature=0.9, seed=100 + i) for i in range(3)])
    (together, other), _ = server.serve([ask(prompt, temperature=0.9, seed=100, n=3), ask(tokens(30, 10))])
    assert together.tokens == [a.tokens[0] for a in single]
    assert_same_answers([Answer(together.tokens[:1], together.rows)], single[:1])
    assert_same_answers([other], server.alone([ask(tokens(30, 10))]))


LONG_CONFIG = {
    **load_architecture("mistral").tiny,
    "max_position_embeddings": 2200,
    "sliding_window": 1030,
    "num_hidden_layers": 2,
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
def test_contexts_of_several_segments(dtype: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past 1,024 positions, where attention closes a segment, and past a window; whole, in chunks, and preempted."""
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    length = 1100 if level == "scalar" else 2040
    directory = make_checkpoint(tmp_path, LONG_CONFIG, seed=6, dtype=dtype)
    asks = [ask(tokens(100, 3), max_tokens=60), ask(tokens(length, 1)), ask(tokens(length // 2, 2), **SAMPLED)]
    wanted = Server.load(directory, max_num_batched_tokens=2200, **NO_CACHE).alone(asks)
    # Room for the second, and for a little more than the first has when that begins.
    threads = 2 if level == LEVELS[0] else 1
    blocks, chunked = (length + 10) // 8 + 15, {"max_num_batched_tokens": 300, "block_size": 8, "num_threads": threads}
    # With windows that let blocks go there would be no want of any.
    monkeypatch.setattr(CpuCatalog, "abilities", CpuCatalog.abilities - {BLOCK_GROUPS})
    server = Server.load(directory, num_gpu_blocks_override=blocks, max_model_len=length + 60, **chunked)
    got, stats = server.serve(asks)
    assert stats.num_preemptions > 0
    assert_same_answers(got, wanted)
