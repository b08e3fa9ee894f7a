"""Layers with a window let their KV blocks go: fewer blocks, and not a bit of difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from albireo.api.build import build
from albireo.api.load import load
from albireo.backends.backend import BLOCK_GROUPS
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.config import BuildConfig, EngineConfig
from albireo.engine.block_tables import blocks_needed
from albireo.engine_process.messages import Ready
from albireo.engine_process.worker import _ready
from albireo.errors import PromptTooLong
from albireo.params import SamplingParams
from albireo.tune.measure import step_of
from albireo.verify.run import verify
from e2e.serving import Ask, Server, assert_same_answers
from tiny_models import make_checkpoint
from variants import tiny_of

#: Layers that see all and others; both, of two shapes; all with one window; last layers that share caches; chunks.
MODELS = ("gpt_oss", "gemma4_text", "mistral", "gemma4_text, shared caches", "llama4_text")
LONG = {"max_num_batched_tokens": 24, "block_size": 8}


def ask(length: int, seed: int, max_tokens: int) -> Ask:
    prompt = tuple(np.random.default_rng(seed).integers(3, 90, length).tolist())
    return Ask(prompt, SamplingParams(temperature=0.8, seed=seed, max_tokens=max_tokens, ignore_eos=True, logprobs=0))


@pytest.mark.parametrize("kv", ["auto", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_bits_are_those_of_one_group_of_blocks(
    name: str, kv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far behind every window, in a cache with room for hardly more than one request; three of them, and again."""
    key = "attention_chunk_size" if name == "llama4_text" else "sliding_window"
    directory = make_checkpoint(tmp_path, tiny_of(name) | {key: 11}, seed=3)
    asks = [ask(50, 1, 70), ask(3, 2, 30), ask(70, 3, 20)]
    with monkeypatch.context() as patch:
        patch.setattr(CpuCatalog, "abilities", CpuCatalog.abilities - {BLOCK_GROUPS})
        plain = Server.load(directory, kv_cache_dtype=kv, enable_prefix_caching=False, **LONG)
        assert plain.loaded.settings.windows == (None,)
        wanted, _ = plain.serve(asks)
    server = Server.load(directory, kv_cache_dtype=kv, **LONG)
    settings = server.loaded.settings
    if settings.windows == (None,):
        assert kv == "int8" and name.startswith("gemma4_text")  # codes are not handed to layers of another shape
        return
    assert len(settings.groups_in_chunks) == (name == "llama4_text")
    room = blocks_needed(120, 8, settings.windows, 24)
    assert room < blocks_needed(120, 8, tuple(None for _ in settings.windows), 24)
    server.loaded = replace(server.loaded, settings=replace(settings, num_blocks=1 + room))
    got, stats = server.serve(asks)
    assert_same_answers(got, wanted)
    assert stats.num_failed_steps == 0
    server.loaded = replace(server.loaded, settings=settings)
    again, _ = server.serve([asks[0], *asks], waves=4)
    assert_same_answers(again[1:], wanted)
    assert again[1].num_cached_tokens == 48


def test_a_prompt_is_as_long_as_its_blocks_allow(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, tiny_of("gpt_oss") | {"sliding_window": 11}, seed=3)
    server = Server.load(directory, **LONG)
    windows = server.loaded.settings.windows
    assert len(windows) == 3
    # 9 blocks for layers that see all, and 6 for each group of others
    server.loaded = replace(server.loaded, settings=replace(server.loaded.settings, num_blocks=1 + 9 + 2 * 6))
    (answer,), _ = server.serve([ask(66, 1, 7)])
    assert len(answer.tokens[0]) == 7
    with pytest.raises(PromptTooLong, match="need 22 KV blocks of 8, the cache has 21"):
        server.serve([ask(66, 1, 8)])


def test_a_server_refuses_what_its_engine_would(tmp_path: Path) -> None:
    """By what it is told when the engine is ready."""
    directory = make_checkpoint(tmp_path, tiny_of("gpt_oss") | {"sliding_window": 11}, seed=3)
    loaded = Server.load(directory, num_gpu_blocks_override=9, **LONG).loaded
    ready = msgspec.msgpack.decode(msgspec.msgpack.encode(_ready(loaded, {})), type=Ready)
    told = ready.settings()
    assert told.windows == (None, 11, 11) and told.num_blocks == 1 + 8 + 2 * 6
    assert told.capacity_tokens == loaded.settings.capacity_tokens == 64


def test_a_directory_of_groups_is_verified_and_tuned(tmp_path: Path) -> None:
    """Each call alone, on steps with one block table, whose blocks of all groups lie side by side."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", tiny_of("gpt_oss") | {"sliding_window": 11}, seed=3)
    directory = tmp_path / "engine"
    build(checkpoint, directory, BuildConfig())
    assert verify(directory, str(checkpoint)).finding == ""
    settings: dict[str, Any] = {"max_num_seqs": 4, "max_num_batched_tokens": 16, "num_threads": 1}
    loaded = load(EngineConfig(model=str(directory), skip_tokenizer_init=True, **settings))
    assert loaded.program.kv.num_groups == 3
    model, step = loaded.one_rank, step_of("T", 16, loaded)
    wanted = model.run(step).logits.copy()
    model.runner(model.program.calls)(step)
    assert np.array_equal(model.outputs(step).logits, wanted)
