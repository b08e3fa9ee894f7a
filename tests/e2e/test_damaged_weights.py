"""A model that computes something that is no number: an error that names the sequence, never a token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.backends.cpu.machine import isa_levels
from albireo.errors import InvariantError
from albireo.models import load_architecture
from albireo.params import SamplingParams
from e2e.serving import Server
from tiny_models import make_checkpoint, random_weights, write_safetensors

LEVELS = isa_levels()
DTYPES = ["float32", "float16", "bfloat16"]
QWEN3 = load_architecture("qwen3").tiny
CONFIG = {**QWEN3, "attention_bias": True, "tie_word_embeddings": False}
LAYER = "model.layers.1."
#: One number of each kind of tensor; none of them can be left out of a sum.
PLACES = [
    "model.norm.weight",
    "lm_head.weight",
    *(f"{LAYER}self_attn.{p}_proj.weight" for p in "qkvo"),
    *(f"{LAYER}self_attn.{p}_proj.bias" for p in "qkv"),
    *(f"{LAYER}self_attn.{p}_norm.weight" for p in "qk"),
    *(f"{LAYER}mlp.{p}_proj.weight" for p in ("gate", "up", "down")),
    f"{LAYER}input_layernorm.weight",
]
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 6, "ignore_eos": True}
#: Requests that take the arg max in the head, and that need logits.
WAYS: dict[str, dict[str, Any]] = {
    "arg max": GREEDY,
    "logits": GREEDY | {"logprobs": 0},
    "sampled": {"max_tokens": 6, "seed": 1, "top_k": 5},
}


def damaged(path: Path, dtype: str, damage: Callable[[dict[str, NDArray[np.float32]]], None]) -> Path:
    """A checkpoint whose weights damage() has changed."""
    make_checkpoint(path, CONFIG, seed=7, dtype=dtype)
    tensors = random_weights(CONFIG, seed=7)
    damage(tensors)
    # the writer rounds a NaN of bfloat16 by its bits: one with a low payload stays one
    write_safetensors(path / "model.safetensors", tensors, dtype)
    return path


def put(name: str, value: float) -> Callable[[dict[str, NDArray[np.float32]]], None]:
    def damage(tensors: dict[str, NDArray[np.float32]]) -> None:
        tensors[name].reshape(-1)[tensors[name].size // 2] = value

    return damage


def first_error(server: Server, **params: Any) -> str:
    engine = server.engine()
    engine.add_request("a", list(range(3, 40)), SamplingParams(**params))
    with pytest.raises(InvariantError) as caught:
        while engine.has_work():
            assert not any(update.token_ids for update in engine.step()), "a token was made of nothing"
    return str(caught.value)


def assert_named(server: Server) -> None:
    """Whatever way a request takes."""
    for way, params in WAYS.items():
        assert first_error(server, **params).startswith("sequence 0: "), way


@pytest.mark.parametrize(("place", "dtype"), [(place, DTYPES[i % 3]) for i, place in enumerate(PLACES)])
def test_one_nan_anywhere(place: str, dtype: str, tmp_path: Path) -> None:
    assert_named(Server.load(damaged(tmp_path, dtype, put(place, np.nan)), max_num_batched_tokens=16))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_at_every_level(dtype: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    for place in (f"{LAYER}self_attn.k_proj.weight", f"{LAYER}mlp.gate_proj.weight", "lm_head.weight"):
        assert_named(Server.load(damaged(tmp_path / place, dtype, put(place, np.nan))))


@pytest.mark.parametrize("place", ["lm_head.weight", "model.norm.weight", f"{LAYER}self_attn.v_proj.bias"])
def test_infinity_is_no_number_either(place: str, tmp_path: Path) -> None:
    assert_named(Server.load(damaged(tmp_path, "float32", put(place, np.inf))))


@pytest.mark.parametrize("level", LEVELS)
def test_keys_beyond_float16_are_not_averaged_away(level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key norm so large that keys overflow to infinity: scores are not numbers then, whatever the values are."""
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)

    def damage(tensors: dict[str, NDArray[np.float32]]) -> None:
        tensors[f"{LAYER}self_attn.k_norm.weight"][:] = 60000

    assert_named(Server.load(damaged(tmp_path, "float16", damage)))


@pytest.mark.parametrize("way", WAYS)
def test_only_the_sequence_to_blame_is_named_and_the_others_go_on(way: str, tmp_path: Path) -> None:
    """One token's embedding is damaged; who does not use it gets what it gets without that neighbour."""

    def damage(tensors: dict[str, NDArray[np.float32]]) -> None:
        tensors["model.embed_tokens.weight"][50] = np.nan

    server = Server.load(damaged(tmp_path, "bfloat16", damage))
    prompts, params = {"a": [5, 9, 12], "b": [7, 50, 3, 4], "c": [8] * 20}, SamplingParams(**WAYS[way])

    def run(names: str) -> tuple[dict[str, list[int]], list[str]]:
        engine = server.engine()
        for name in names:
            engine.add_request(name, prompts[name], params)
        made: dict[str, list[int]] = {name: [] for name in names}
        errors = []
        while engine.has_work():
            try:
                for update in engine.step():
                    made[update.request_id] += update.token_ids
            except InvariantError as error:
                errors.append(str(error))
                engine.abort("b")
        engine.check_invariants()
        return made, errors

    wanted, none = run("ac")
    made, errors = run("abc")
    assert none == []
    assert [error.split(":")[0] for error in errors] == ["sequence 1"]
    assert made == wanted | {"b": []}


def test_prompt_logprobs_name_the_sequence_too(tmp_path: Path) -> None:
    """The damaged row is in a chunk that draws no token yet."""

    def damage(tensors: dict[str, NDArray[np.float32]]) -> None:
        tensors["model.embed_tokens.weight"][50] = np.nan

    server = Server.load(damaged(tmp_path, "float32", damage), max_num_batched_tokens=8)
    engine = server.engine()
    engine.add_request("a", [3], SamplingParams(max_tokens=1, seed=1))
    engine.add_request("b", [50, *range(3, 33)], SamplingParams(max_tokens=2, prompt_logprobs=0))
    with pytest.raises(InvariantError, match="sequence 1"):
        while engine.has_work():
            engine.step()
