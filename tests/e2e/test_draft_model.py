"""Draft models: the same answers to the bit, whoever guesses; where they come from; what they take; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from albireo import LLM, BuildConfig, SamplingParams, build
from albireo.api.load import plan
from albireo.api.sources.source import open_source
from albireo.backends.cpu.model import CpuModel
from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.execution.runner import Runner
from albireo.models import load_architecture
from compiler.ranks import wide_config
from e2e.serving import Answer, Server, assert_same_answers
from e2e.test_speculative import Eager, requests
from engine.test_model_guesses import give_freely
from tiny_models import make_checkpoint

ITSELF = {"method": "draft_model", "quantization": "int8", "num_speculative_tokens": 4}
WIDE = wide_config("qwen2", num_key_value_heads=8)
#: What is served, and ways to serve it.
WAYS: dict[str, dict[str, Any]] = {
    "one thread": {},
    "no prefix cache": {"enable_prefix_caching": False},
    "preempted": {"num_gpu_blocks_override": 14, "block_size": 8, "max_num_batched_tokens": 40},
    "two threads, short steps": {"num_threads": 2, "max_num_batched_tokens": 16},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), WIDE, seed=5, dtype="bfloat16")


@pytest.fixture(scope="module")
def plain(checkpoint: Path) -> list[Answer]:
    return Server.load(checkpoint, enable_prefix_caching=False).alone(requests())


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    give_freely(monkeypatch)
    monkeypatch.setattr("albireo.engine.drafting.Pacing", Eager)


@pytest.mark.parametrize("way", WAYS)
def test_served_as_without_drafts(way: str, checkpoint: Path, plain: list[Answer]) -> None:
    """The model itself, rounded to 8 bits, is mostly right; greedy and sampled, since it draws by the same numbers."""
    got, stats = Server.load(checkpoint, **WAYS[way], speculative_config=ITSELF).serve(requests(), stagger=2)
    assert_same_answers(got, plain)
    assert ("num_gpu_blocks_override" in WAYS[way]) == (stats.num_preemptions > 0)
    assert stats.num_accepted_tokens > 0.6 * stats.num_draft_tokens > 0


@pytest.mark.parametrize("size", [2, 8])
def test_ranks_are_guessed_for_as_one_is(size: int, checkpoint: Path) -> None:
    """The draft model is whole, and on all threads; what it guesses for adds in the order of ranks."""
    wanted = Server.load(checkpoint, tp_invariant=True, enable_prefix_caching=False).alone(requests())
    settings: dict[str, Any] = {"num_gpu_blocks_override": 14, "block_size": 8, "max_num_batched_tokens": 40}
    ranks = {"tensor_parallel_size": size, "num_threads": size}
    got, stats = Server.load(checkpoint, **settings, **ranks, speculative_config=ITSELF).serve(requests(), stagger=2)
    assert_same_answers(got, wanted)
    assert stats.num_preemptions > 0 and stats.num_accepted_tokens > 0.6 * stats.num_draft_tokens > 0


def test_another_model_guesses(checkpoint: Path, plain: list[Answer], tmp_path: Path) -> None:
    """A small one of another kind, whose context is shorter, and which knows nothing."""
    tiny = load_architecture("llama").tiny | {"vocab_size": WIDE["vocab_size"], "max_position_embeddings": 48}
    other = make_checkpoint(tmp_path / "other", tiny, seed=9)
    server = Server.load(checkpoint, speculative_config={"model": str(other), "num_speculative_tokens": 3})
    assert server.loaded.config.speculative_config is not None
    got, stats = server.serve(requests(), stagger=2)
    assert_same_answers(got, plain)
    assert stats.num_draft_tokens > stats.num_accepted_tokens


def test_layers_with_windows_and_with_states(tmp_path: Path) -> None:
    """Block groups: guesses are in that of layers which see all. States: the model goes back to before wrong drafts."""
    for name, draft in (("gemma3_text", "gemma3_text"), ("qwen3_5_text", "llama")):
        config = dict(load_architecture(name).tiny)
        tiny = load_architecture(draft).tiny | {"vocab_size": config["vocab_size"]}
        other = make_checkpoint(tmp_path / f"{name} draft", tiny, seed=5, dtype="bfloat16")
        directory = make_checkpoint(tmp_path / name, config, seed=5, dtype="bfloat16")
        wanted = Server.load(directory).alone(requests()[:5])
        got, stats = Server.load(directory, speculative_config={"model": str(other)}).serve(requests()[:5], stagger=2)
        assert_same_answers(got, wanted)
        assert stats.num_draft_tokens > 0
        assert name != draft or stats.num_accepted_tokens > 0.9 * stats.num_draft_tokens


def test_a_directory_as_a_draft_model_takes_the_steps_of_the_model(checkpoint: Path, tmp_path: Path) -> None:
    """Not those of the profile that it was built for, which are shorter."""
    build(checkpoint, tmp_path / "draft", BuildConfig(profile="latency", quantization="int8"))
    server = Server.load(checkpoint, max_num_batched_tokens=None, speculative_config={"model": str(tmp_path / "draft")})
    assert server.loaded.method is not None
    runner = getattr(server.loaded.method.execute, "__self__", None)
    assert isinstance(runner, Runner) and isinstance(runner._model, CpuModel)
    assert runner._model.program.maxima["T"] == server.loaded.settings.max_num_batched_tokens == 960


def test_the_draft_model_has_its_part_of_the_memory(checkpoint: Path) -> None:
    found = []
    for asked in (None, ITSELF):
        config = EngineConfig(model=str(checkpoint), device="cpu", max_num_seqs=8, speculative_config=asked)
        source = open_source(checkpoint, config)
        found.append(plan(source.adopt(config), source)[1])
    without, beside = found
    assert beside.weight_bytes > 1.4 * without.weight_bytes
    # a block of the model is of a third of its layers, a block of the draft model of all
    assert beside.num_blocks == without.num_blocks and beside.kv_bytes == 4 * without.kv_bytes


def test_the_bundled_model_guesses_for_itself() -> None:
    """Chats, grammars and stop strings as without; the tokens of both are compared, since a name is given."""
    texts = []
    for asked in (None, {"method": "draft_model", "quantization": "int4"}):
        llm = LLM(device="cpu", num_threads=1, max_model_len=256, speculative_config=asked)
        form = {"json": {"type": "array", "items": {"enum": ["yes", "no"]}, "minItems": 4, "maxItems": 9}}
        params = [
            SamplingParams(temperature=t, seed=3, max_tokens=40, structured_outputs=f, stop=stop)
            for t, f, stop in ((0, None, None), (0.8, None, ["dog"]), (0, form, None), (1.0, form, None))
        ]
        texts.append([each.outputs[0].text for each in llm.generate(["Once upon a time"] * 4, params, use_tqdm=False)])
        stats = llm.stats()
    assert texts[0] == texts[1]
    assert stats.num_accepted_tokens > 0.5 * stats.num_draft_tokens > 0


def test_what_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    states = make_checkpoint(tmp_path / "states", load_architecture("lfm2").tiny | {"vocab_size": 90}, dtype="bfloat16")
    mistral = load_architecture("mistral").tiny | {"sliding_window": 24}
    windows = make_checkpoint(tmp_path / "windows", mistral)
    build_of_ranks = tmp_path / "ranks"
    build(checkpoint, build_of_ranks, BuildConfig(tensor_parallel_size=2))
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (checkpoint, {"speculative_config": {"model": str(states)}}, "that keeps states cannot go back .* and lfm2"),
        (
            checkpoint,
            {"speculative_config": {"model": str(build_of_ranks)}},
            "a draft model runs whole, and .* is built for 2 ranks; name its checkpoint",
        ),
        (
            checkpoint,
            {"speculative_config": {"model": str(tmp_path / "none")}},
            r"speculative_config.model: there is no",
        ),
        (windows, {"speculative_config": ITSELF}, "all layers of this model have windows"),
    ]
    for directory, config, message in cases:
        with pytest.raises(ConfigError, match=message):
            Server.load(directory, **config)


def test_a_model_of_other_tokens_is_refused(tmp_path: Path) -> None:
    config = load_architecture("llama").tiny | {"vocab_size": 512}
    other = make_checkpoint(tmp_path, config, tokenizer=True)
    with pytest.raises(ConfigError, match=r"of its 512 tokens are the model's, which has \d+; a draft model must have"):
        LLM(device="cpu", max_model_len=64, speculative_config={"model": str(other)})
