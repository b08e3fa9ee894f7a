"""Models that choose what they see, served: bits of a request are those of it alone, in whatever pieces its prompt is
computed; tensors under other names are the same model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.compiler.pipeline import compile_graph
from albireo.errors import UnsupportedModel
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from e2e.serving import Server, assert_same_answers
from e2e.test_invariance import NO_CACHE, requests
from tiny_choosing import CHOOSING
from tiny_models import as_written, make_checkpoint, parse_tiny, random_weights, write_safetensors

#: How their authors call tensors, where transformers calls them otherwise; or the other way round.
OTHER_NAMES = {
    "axk2": (("q_b_proj", "q_gate_proj"), ("W_down", "mlp.fc1"), ("W_up", "mlp.fc2")),
    "hy_v4": (
        *((".attn_hc.", ".hc_pre.hc_attn_layer.hc_"), (".ffn_hc.", ".hc_pre.hc_mlp_layer.hc_")),
        *((".hc_head.hc_", ".hc_pre.hc_head.hc_head_"), (".sinks", ".learnable_sink_param")),
        (".self_attn.gate_proj.", ".self_attn.linear_gate."),
    ),
}


@pytest.mark.parametrize("name", sorted(CHOOSING))
def test_bits_are_those_of_a_request_alone(name: str, tmp_path: Path) -> None:
    """Prompts are longer than what is chosen; pieces of seven tokens end within blocks, and within what is chosen."""
    directory = make_checkpoint(tmp_path, load_architecture(name).tiny, seed=2)
    wanted = Server.load(directory, max_num_batched_tokens=96, **NO_CACHE).alone(requests())
    for config in ({"max_num_batched_tokens": 7, "num_threads": 2}, {"max_num_batched_tokens": 64}):
        answers, _ = Server.load(directory, **config).serve(requests())
        assert_same_answers(answers, wanted)


@pytest.mark.parametrize("name", sorted(OTHER_NAMES))
def test_tensors_under_other_names(name: str, tmp_path: Path) -> None:
    tiny = load_architecture(name).tiny
    directory = make_checkpoint(tmp_path, tiny, seed=3)
    graph = build_graph(load_config(directory), 64)
    with open_checkpoint(directory, graph) as checkpoint:
        wanted = {each: checkpoint.tensor(each).to_float32() for each in checkpoint.names}
    renamed = {}
    for each, array in as_written(tiny, random_weights(tiny, 3)).items():
        for ours, theirs in OTHER_NAMES[name]:
            each = each.replace(ours, theirs)
        renamed[each] = array
    write_safetensors(directory / "model.safetensors", renamed, "float32")
    with open_checkpoint(directory, graph) as checkpoint:
        assert set(checkpoint.names) == set(wanted)
        for each, numbers in wanted.items():
            assert np.array_equal(checkpoint.tensor(each).to_float32(), numbers), each


def test_streams_are_refused_on_a_gpu() -> None:
    graph = build_graph(parse_tiny("hy_v4"), 64)
    options = {"maxima": {"T": 16, "R": 4, "G": 4}, "block_size": 16, "max_positions": 64}
    assert compile_graph(graph, CpuCatalog(isa_levels()), **options).calls
    with pytest.raises(UnsupportedModel, match=r"several residual streams, .* choose --device cpu"):
        compile_graph(build_graph(parse_tiny("hy_v4"), 64), CudaCatalog(), **options)
