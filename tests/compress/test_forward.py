"""The float32 forward against the reference interpreter, and folding, which may not change it."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.compress.folding import Layer, fold
from albireo.compress.forward import run_nodes
from albireo.compress.source import Source
from albireo.compress.stages import cut
from albireo.compress.texts import batch
from albireo.errors import ConfigError, UnsupportedModel
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from albireo.quantization.rounding import round_tokens
from compress.tiny import JOINED
from representatives import LATENT, REPRESENTATIVES
from step_batches import Work, make_step
from tiny_layer_norm import LAYER_NORMS
from tiny_models import MIXTURES, make_checkpoint, parse_tiny

WINDOWS = (tuple(range(3, 33)), tuple(range(60, 71)))


def logits(directory: Path, scales: bool = False, rounded: frozenset[str] = frozenset()) -> np.ndarray:
    """[T, V]; scales: fold random ones into every place there is."""
    graph = build_graph(load_config(directory), 64)
    stages, rng = cut(graph), np.random.default_rng(0)
    window, env = batch(*WINDOWS), {}
    with open_checkpoint(directory, graph) as checkpoint:
        source = Source(checkpoint, graph)
        for _, group in groupby(stages, key=lambda stage: stage.layer):
            parts = list(group)
            values = tuple(dict.fromkeys(v for stage in parts for v in stage.constants))
            layer = Layer(source.constants(values, whole=parts[-1] is stages[-1]), set(), {})
            for stage in parts if scales else ():
                place, width = stage.group.fold, stage.group.input.type.dims[-1]
                if place is None:
                    continue
                found = np.exp(rng.normal(size=width)).astype(np.float32)
                if place.kind == "heads":
                    heads = found.reshape(place.num_kv_heads, place.num_heads // place.num_kv_heads, -1)
                    found = np.broadcast_to(heads[:, :1], heads.shape).reshape(-1)
                fold(stage.group, found, layer, source)
            for stage in parts:
                env = run_nodes(stage.before, env, window, layer.constants, stage.keep_before)
                env = run_nodes(stage.nodes, env, window, layer.constants, stage.keep, rounded)
    return env[stages[-1].keep[0]]


def reference(directory: Path) -> np.ndarray:
    graph = build_graph(load_config(directory), 64)
    with open_checkpoint(directory, graph) as checkpoint:
        weights = {name: checkpoint.tensor(name).to_float32() for name in checkpoint.names}
    kv = ReferenceKV(12, 8, "float32")
    work = [Work(WINDOWS[0], 0, [1, 2, 3, 4]), Work(WINDOWS[1], 0, [5, 6])]
    return interpret(graph, make_step(work, 8), weights, kv)["logits"]


@pytest.mark.parametrize(
    "model_type",
    # and one with a sink of each head
    sorted({*REPRESENTATIVES, "granite_swa"} - JOINED - set(MIXTURES) - set(LAYER_NORMS) - set(LATENT)),
)
def test_the_forward_is_the_model(tmp_path: Path, model_type: str) -> None:
    directory = make_checkpoint(tmp_path, load_architecture(model_type).tiny, seed=2)
    wanted = reference(directory)
    np.testing.assert_allclose(logits(directory), wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "model_type", sorted(set(REPRESENTATIVES) - JOINED - set(MIXTURES) - set(LAYER_NORMS) - set(LATENT))
)
def test_folding_leaves_the_model_as_it_was(tmp_path: Path, model_type: str) -> None:
    directory = make_checkpoint(tmp_path, load_architecture(model_type).tiny, seed=4)
    wanted = logits(directory)
    seen = logits(directory, scales=True)
    assert not np.array_equal(seen, wanted)
    assert np.linalg.norm(seen - wanted) < 1e-5 * np.linalg.norm(wanted)


def test_attention_that_is_not_computed_whole_is_refused() -> None:
    """Else another model would be calibrated on, and its quality told."""
    graph = build_graph(parse_tiny("llama"), 64)
    node = next(node for node in graph.nodes if node.op == "attention")
    node.attrs = {**node.attrs, "slopes": (0.5,) * node.attrs["num_heads"]}
    with pytest.raises(
        UnsupportedModel, match=r"layers\.0\.attn.*: its attention has slopes, which calibration does not"
    ):
        cut(graph)


def test_inputs_are_rounded_token_by_token_where_asked(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, load_architecture("llama").tiny, seed=2)
    x = np.random.default_rng(0).normal(size=(5, 48)).astype(np.float32)
    q, scale = round_tokens(x)
    assert np.abs(q * scale - x).max() <= np.abs(x).max() / 254 * 1.01
    plain, seen = logits(directory), logits(directory, rounded=frozenset({"model.layers.1.mlp.down_proj.weight"}))
    assert 1e-4 < np.linalg.norm(seen - plain) / np.linalg.norm(plain) < 0.05


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    config = load_architecture("llama").tiny
    directory = make_checkpoint(tmp_path, config, seed=2)
    graph = build_graph(load_config(directory), 64)
    first = cut(graph)[0]
    with open_checkpoint(directory, graph) as checkpoint:
        constants = Source(checkpoint, graph).constants(first.constants, whole=False)
    norm = next(value for value in constants if value.name.endswith("layernorm.weight"))
    constants[norm] = np.full(48, np.inf, np.float32)
    with pytest.raises(ConfigError, match=r"layers\.0\.attn\.norm: rms_norm gives numbers that are not finite"):
        run_nodes(first.before, {}, batch(*WINDOWS), constants, first.keep_before)
