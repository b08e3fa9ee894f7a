"""The promise with ranks: every number of them gives the bits of one, however requests are served."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albireo.api.build import build
from albireo.backends.cpu.machine import isa_levels
from albireo.compress.recipe import Recipe
from albireo.compress.run import quantize
from albireo.compress.texts import Text
from albireo.config import BuildConfig
from albireo.verify.run import verify
from compiler.ranks import wide_config
from e2e.serving import Answer, Server, assert_same_answers
from e2e.test_invariance import ALL_AT_ONCE, NO_CACHE, everything, requests
from models.gguf.writer import LLAMA, write_gguf
from tiny_models import make_checkpoint

#: KV heads that are shared by ranks, biases; as many as query heads, a tied head; norms of q and k.
MODELS = {
    "llama": wide_config("llama"),
    "qwen2": wide_config("qwen2", num_key_value_heads=8),
    "qwen3": wide_config("qwen3", num_key_value_heads=4),
    # experts: one that all tokens have; biases, and sinks of heads
    "qwen2_moe": wide_config("qwen2_moe", moe_intermediate_size=44, shared_expert_intermediate_size=48),
    "gpt_oss": wide_config("gpt_oss"),
}
MIXED = ("qwen2_moe", "gpt_oss")
DTYPES = ("float32", "bfloat16")
#: Each model on two ranks in one type and on four in the other; eight, who wait for each other longest, in one model.
SEEN = {("llama", "bfloat16", 8)} | {(each, DTYPES[i % 2], 2) for i, each in enumerate(("llama", "qwen2", "qwen3"))}
SEEN |= {(each, DTYPES[i % 2], 4) for i, each in enumerate(("qwen2", "llama", "qwen3"))}
CASES: list[Any] = [
    pytest.param(model, dtype, size, marks=() if (model, dtype, size) in SEEN else pytest.mark.thorough)
    for model in MODELS
    if model not in MIXED
    for dtype in DTYPES
    for size in (2, 4, 8)
]
CASES += [("qwen2_moe", "bfloat16", 2), ("qwen2_moe", "float32", 8), ("gpt_oss", "bfloat16", 4)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    root = tmp_path_factory.mktemp("models")

    @functools.cache
    def make(model: str, dtype: str) -> Path:
        return make_checkpoint(root / f"{model}-{dtype}", MODELS[model], seed=5, dtype=dtype)

    return make


@pytest.fixture(scope="module")
def of_one(checkpoint: Callable[[str, str], Path]) -> Callable[[str, str, str], list[Answer]]:
    """(model, dtype, level) -> the answer to each request alone, of one rank that adds in the order of several."""

    @functools.cache
    def answers(model: str, dtype: str, level: str) -> list[Answer]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ALBIREO_ISA_MAX", level)
            return Server.load(checkpoint(model, dtype), tp_invariant=True, **NO_CACHE).alone(requests())

    return answers


@pytest.mark.parametrize(("model", "dtype", "size"), CASES)
def test_served_by_ranks_as_by_one(
    model: str,
    dtype: str,
    size: int,
    checkpoint: Callable[[str, str], Path],
    of_one: Callable[[str, str, str], list[Answer]],
) -> None:
    """Batched, in chunks, with preemption and the prefix cache."""
    settings = {**ALL_AT_ONCE, "num_threads": size, "tensor_parallel_size": size}
    server = Server.load(checkpoint(model, dtype), **settings)
    answers, stats = server.serve(requests())
    assert_same_answers(answers, of_one(model, dtype, isa_levels()[0]))
    # windows of most layers let so many blocks go that nobody is preempted
    assert everything(stats, answers) != (model == "qwen2")
    assert stats.prefix_cache_hits > 0


@pytest.mark.parametrize("level", isa_levels()[1:])
def test_at_every_level(
    level: str,
    checkpoint: Callable[[str, str], Path],
    of_one: Callable[[str, str, str], list[Answer]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    server = Server.load(checkpoint("llama", "bfloat16"), tensor_parallel_size=2, num_threads=2)
    assert_same_answers(server.serve(requests())[0], of_one("llama", "bfloat16", level))


def test_the_same_tokens_as_without_the_order(checkpoint: Callable[[str, str], Path]) -> None:
    """A chain and a tree differ in last bits of logits; greedy tokens, and here the drawn ones too, do not."""
    plain, _ = Server.load(checkpoint("llama", "float32")).serve(requests())
    ranks, _ = Server.load(checkpoint("llama", "float32"), tensor_parallel_size=4, num_threads=4).serve(requests())
    assert [answer.tokens for answer in ranks] == [answer.tokens for answer in plain]
    assert any((a.rows[p] != b.rows[p]).any() for a, b in zip(ranks, plain, strict=True) for p in a.rows)


@pytest.fixture(scope="module")
def few_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in progressive int4, whose leaves are whole groups; v in int8."""
    root = tmp_path_factory.mktemp("few bits")
    config = wide_config("qwen3", hidden_size=128, head_dim=64, intermediate_size=512)
    source = make_checkpoint(root / "source", config, seed=5, dtype="bfloat16")
    ids = tuple(tuple(range(start, start + 40)) for start in (3, 40, 80))
    recipe = Recipe(scheme="int4", method="rtn", keep=("v_proj",))
    quantize(source, root / "out", recipe, Text("drawn", ids), [])
    return root / "out"


@pytest.mark.parametrize(
    ("scheme", "size"), [("int8", 4), ("fp8", 2), (None, 2), pytest.param(None, 8, marks=pytest.mark.thorough)]
)
def test_weights_in_few_bits(
    scheme: str | None, size: int, few_bits: Path, checkpoint: Callable[[str, str], Path]
) -> None:
    """Rounded while they are loaded, or read from the checkpoint and cut by columns."""
    model = checkpoint("qwen3", "bfloat16") if scheme else few_bits
    wanted = Server.load(model, tp_invariant=True, quantization=scheme, **NO_CACHE).alone(requests())
    settings = {**ALL_AT_ONCE, "num_threads": size, "tensor_parallel_size": size, "quantization": scheme}
    server = Server.load(model, **settings)
    kernels = {call.kernel.split(".")[1] for call in server.loaded.program.calls if call.family == "linear"}
    assert kernels >= ({scheme} if scheme else {"int4p"}), kernels
    answers, _ = server.serve(requests())
    assert_same_answers(answers, wanted)


def test_ranks_hold_no_nests(tmp_path: Path) -> None:
    """The 256 inputs of a block of Q4_K are too many to be cut: each group has a scale of its own then."""
    wide = {key: wide_config("llama")[key] for key in ("vocab_size", "max_position_embeddings")}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32}
    write_gguf(tmp_path / "m.gguf", LLAMA | wide | heads, "preset Q3_K_M", seed=7)
    wanted = Server.load(tmp_path / "m.gguf", tp_invariant=True, **NO_CACHE).alone(requests())
    server = Server.load(tmp_path / "m.gguf", **ALL_AT_ONCE, num_threads=2, tensor_parallel_size=2)
    packings = {constant.packing for constant in server.loaded.program.constants.values()}
    assert {"p64.int4.g32.affine", "p64.int8.g128"} <= packings and not any("_k" in each for each in packings)
    answers, _ = server.serve(requests())
    assert_same_answers(answers, wanted)


def test_a_directory_of_ranks_in_few_bits_is_verified(few_bits: Path, tmp_path: Path) -> None:
    for options in ({"tensor_parallel_size": 2}, {"tp_invariant": True}):
        engine = build(few_bits, tmp_path / "engine", BuildConfig(force=True, **options)).directory
        found = verify(engine, str(few_bits), num_tokens=60)
        assert found.is_verified, found.finding
