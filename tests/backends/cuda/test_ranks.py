"""Models on several ranks of the executor for GPUs, on CPU tensors: 1, 2, 4 and 8 give the same bits."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.open import open_model
from albireo.backends.cuda.peers import Peers, Seat
from albireo.backends.reference.rounding import round_to
from albireo.backends.step_outputs import StepOutputs
from albireo.compiler.passes import choose_precision
from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import compile_graph
from albireo.graph.node import Graph
from backends.cpu.harness import assert_same_bits
from backends.cpu.test_pack import Stored
from backends.cuda.rank_threads import on_all_ranks
from backends.cuda.test_model import CPU, MAX_POSITIONS, MAXIMA, NUM_BLOCKS, Numbers, steps
from compiler.ranks import wide_config, wide_graph
from tiny_models import random_weights

WIDE = {"qwen3": wide_config("qwen3", num_key_value_heads=4), "llama": wide_config("llama")}
#: Whose leaves are whole groups of e4m3 rows.
WIDE["qwen3 of 1024"] = wide_config("qwen3", hidden_size=128, head_dim=128, intermediate_size=1024)


def graph_of(name: str, dtype: str, encoding: str | None) -> Graph:
    graph = wide_graph(WIDE[name], dtype)
    if encoding is not None:
        choose_precision.run(graph, lambda name, role: encoding)
    return graph


@cache
def weights_of(name: str, dtype: str) -> Numbers:
    weights = random_weights(WIDE[name], 1)
    return Numbers({key: Stored(round_to(value, dtype), dtype) for key, value in weights.items()})


def model_of(
    name: str, dtype: str, part: Part | None, peers: Peers | None, encoding: str | None = None, **more: Any
) -> CudaModel:
    program = compile_graph(
        graph_of(name, dtype, encoding),
        CudaCatalog(90),
        maxima=MAXIMA,
        block_size=8,
        max_positions=MAX_POSITIONS,
        part=part,
    )
    seat = None if peers is None else Seat(peers, WIDE[name]["vocab_size"])
    weights = weights_of(name, dtype)
    return open_model(
        program, weights, num_blocks=NUM_BLOCKS, max_positions=MAX_POSITIONS, device=CPU, seat=seat, **more
    )


def outputs_of(model: CudaModel) -> list[StepOutputs]:
    found = []
    for inputs in steps():
        outputs = model.run(inputs)
        found.append(StepOutputs(*(np.array(each) for each in (outputs.logits, outputs.top_ids, outputs.top_values))))
    return found


def assert_same(ours: list[StepOutputs], theirs: list[StepOutputs]) -> None:
    for got, right in zip(ours, theirs, strict=True):
        assert_same_bits(got.logits, right.logits)
        assert (got.top_ids == right.top_ids).all()
        assert_same_bits(got.top_values, right.top_values)


@cache
def of_one(name: str, dtype: str, encoding: str | None = None) -> list[StepOutputs]:
    return outputs_of(model_of(name, dtype, Part(1, 0), None, encoding))


@pytest.mark.parametrize(
    ("name", "dtype", "size"),
    [("llama", "float32", 2), ("llama", "bfloat16", 8), ("qwen3", "bfloat16", 2), ("qwen3", "float16", 4)],
)
def test_every_number_of_ranks_gives_the_bits_of_one(name: str, dtype: str, size: int, ordered_dot: None) -> None:
    """Logits and the best few, whole on every rank; vocabularies do not divide."""
    found = on_all_ranks(size, lambda peers: outputs_of(model_of(name, dtype, Part(size, peers.rank), peers)))
    for outputs in found:
        assert_same(outputs, of_one(name, dtype))
