"""Models on several ranks of the executor for GPUs, on CPU tensors: 1, 2, 4 and 8 give the same bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from albireo.backends.cuda.buckets import DRAWS, Bucket
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.hidden_states import taps_of
from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.open import open_model
from albireo.backends.cuda.peers import Peers, Seat
from albireo.backends.cuda.placed_program import PlacedProgram
from albireo.backends.cuda.recordings import Recordings
from albireo.backends.cuda.sum_parts import num_parts
from albireo.backends.cuda.turns import GatherSpace, elements_for
from albireo.backends.reference.rounding import round_to
from albireo.backends.step_outputs import StepOutputs
from albireo.compiler.passes import choose_precision, hidden_states, taps
from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import compile_graph
from albireo.errors import InvariantError
from albireo.graph.node import Graph
from backends.cpu.harness import assert_same_bits
from backends.cpu.test_pack import Stored
from backends.cuda.rank_threads import Meeting, ThreadPeers, on_all_ranks
from backends.cuda.test_model import CPU, MAX_POSITIONS, MAXIMA, NUM_BLOCKS, Numbers, Recorder, steps
from compiler.ranks import wide_config, wide_graph, wide_hybrid, wide_mixture
from tiny_models import random_weights

WIDE = {
    "llama": wide_config("llama", num_hidden_layers=2),
    # whose leaves are whole groups of e4m3 rows
    "qwen3, groups": wide_config("qwen3", head_dim=128, intermediate_size=1024, num_hidden_layers=1),
    # experts with biases, and beside one that all tokens have
    "gpt_oss": wide_mixture("gpt_oss", num_hidden_layers=1, layer_types=["full_attention"], intermediate_size=288),
    "qwen2_moe": wide_mixture("qwen2_moe"),
    # heads that share latents
    "deepseek_v3": wide_mixture("deepseek_v3"),
    # heads of two shapes
    "gemma4": wide_mixture(
        "gemma4_text, experts", num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"]
    ),
    # states that ranks have heads of, and ones that each has whole
    "qwen3_next": wide_hybrid("qwen3_next", linear_key_head_dim=16, linear_value_head_dim=16),
    "nemotron_h": wide_hybrid("nemotron_h", mamba_head_dim=16, ssm_state_size=16),
    # of which two ranks share each
    "nemotron_h, few groups": wide_hybrid("nemotron_h", mamba_head_dim=16, ssm_state_size=16, n_groups=2),
    "lfm2": wide_hybrid("lfm2"),
    # entries of several positions that each has whole, and experts by token
    "deepseek_v4": wide_hybrid("deepseek_v4", head_dim=16),
    # experts that give back what they read
    "longcat_flash": wide_mixture("longcat_flash"),
}


def graph_of(name: str, dtype: str, encoding: str | None) -> Graph:
    graph = wide_graph(WIDE[name], dtype)
    if encoding is not None:
        is_mixed = bool(graph.top_k)
        choose_precision.run(graph, lambda name, role: encoding if ".experts." in name or not is_mixed else None)
    return graph


@cache
def weights_of(name: str, dtype: str) -> Numbers:
    weights = random_weights(WIDE[name], 1)
    return Numbers({key: Stored(round_to(value, dtype), dtype) for key, value in weights.items()})


def model_of(
    name: str,
    dtype: str,
    part: Part,
    peers: Peers | None,
    encoding: str | None = None,
    least: Callable[[int], int] = int,
) -> CudaModel:
    program = compile_graph(
        graph_of(name, dtype, encoding),
        CudaCatalog(90),
        maxima=MAXIMA,
        block_size=8,
        max_positions=MAX_POSITIONS,
        part=part,
    )
    seat = None if peers is None else Seat(peers, WIDE[name]["vocab_size"], least)
    weights = weights_of(name, dtype)
    sizes = {"num_blocks": NUM_BLOCKS, "max_positions": MAX_POSITIONS, "num_state_slots": 4}
    return open_model(program, weights, device=CPU, seat=seat, **sizes)


def outputs_of(model: CudaModel) -> list[StepOutputs]:
    """Two prompts; then a token of each of three, of which one goes on from numbers that are not there."""
    found = []
    for inputs in steps()[::2]:
        outputs = model.run(inputs)
        found.append(StepOutputs(*(np.array(each) for each in (outputs.logits, outputs.top_ids, outputs.top_values))))
    return found


@pytest.mark.parametrize(
    ("name", "dtype", "encoding", "size"),
    [
        ("llama", "float32", None, 2),
        ("llama", "bfloat16", None, 8),
        ("qwen3, groups", "bfloat16", "fp8", 2),
        pytest.param("gpt_oss", "bfloat16", None, 4, marks=pytest.mark.thorough),
        ("gpt_oss", "bfloat16", "fp4.g32", 2),
        pytest.param("qwen2_moe", "float32", None, 2, marks=pytest.mark.thorough),
        ("deepseek_v3", "bfloat16", None, 2),
        ("gemma4", "bfloat16", None, 2),
        ("qwen3_next", "bfloat16", None, 2),
        pytest.param("nemotron_h, few groups", "bfloat16", None, 4, marks=pytest.mark.thorough),
        pytest.param("nemotron_h", "float32", None, 2, marks=pytest.mark.thorough),
        pytest.param("nemotron_h", "bfloat16", None, 8, marks=pytest.mark.thorough),
        ("lfm2", "bfloat16", None, 4),
        ("deepseek_v4", "bfloat16", None, 2),
        pytest.param("longcat_flash", "bfloat16", None, 2, marks=pytest.mark.thorough),
    ],
)
def test_every_number_of_ranks_gives_the_bits_of_one(
    name: str, dtype: str, encoding: str | None, size: int, ordered_dot: None
) -> None:
    """Logits and the best few, whole on every rank; vocabularies do not divide, and rows to be gathered take turns."""
    found = on_all_ranks(size, lambda peers: outputs_of(model_of(name, dtype, Part(size, peers.rank), peers, encoding)))
    wanted = outputs_of(model_of(name, dtype, Part(1, 0), None, encoding))
    for outputs in found:
        for ours, theirs in zip(outputs, wanted, strict=True):
            assert_same_bits(ours.logits, theirs.logits)
            assert (ours.top_ids == theirs.top_ids).all()
            assert_same_bits(ours.top_values, theirs.top_values)


def test_what_a_head_reads_is_whole_on_every_rank(ordered_dot: None) -> None:
    """Of a layer in between and of the last norm, in bfloat16: the bits of one rank, by which guesses are the same."""
    inputs = steps()[0]

    def taps_and_logits(part: Part, peers: Peers | None) -> list[np.ndarray[Any, Any]]:
        graph = graph_of("llama", "bfloat16", None)
        taps.run(graph, (1, taps.FINAL))
        program = compile_graph(
            graph, CudaCatalog(90), maxima=MAXIMA, block_size=8, max_positions=MAX_POSITIONS, part=part
        )
        seat = None if peers is None else Seat(peers, WIDE["llama"]["vocab_size"])
        sizes = {"num_blocks": NUM_BLOCKS, "max_positions": MAX_POSITIONS}
        model = open_model(program, weights_of("llama", "bfloat16"), device=CPU, seat=seat, **sizes)
        logits = model.run(inputs).logits.copy()
        found = [model.placed.output(name, inputs.num_tokens).float().numpy().copy() for name in taps_of(program)]
        return [logits, *found]

    wanted = taps_and_logits(Part(1, 0), None)
    assert len(wanted) == 3 and all(each.any() for each in wanted)
    for found in on_all_ranks(2, lambda peers: taps_and_logits(Part(2, peers.rank), peers)):
        for ours, theirs in zip(found, wanted, strict=True):
            assert_same_bits(ours, theirs)


def test_long_sums_are_cut_by_the_rows_that_a_rank_has() -> None:
    """So numbers of ranks may differ in last bits there, which is said in docs/tensor-parallel.md."""
    assert [num_parts(28672 // size, 4096, "bfloat16") for size in (1, 2, 4)] == [1, 4, 8]
    assert {num_parts(28672 // size, 1023, "bfloat16") for size in (1, 2, 4, 8)} == {1}
    assert {num_parts(28672 // size, 4096, "float32") for size in (1, 2, 4, 8)} == {1}


def test_rows_that_do_not_fit_take_turns() -> None:
    """The space is bounded, whatever a step has; what is gathered is in the order of ranks."""
    assert elements_for(4, 100, 50) == 4 * 100 * 50
    assert elements_for(8, 10_000, 4096) == 64 << 18, "64 MiB"
    assert elements_for(8, 10_000, 10_000_000) == 8 * 10_000_000, "a row at least"

    def gathered(peers: Peers) -> torch.Tensor:
        x = torch.arange(14.0).view(7, 2) + 100 * peers.rank
        parts = [rows.clone() for _, rows in GatherSpace(torch.zeros(2 * 2 * 3), peers).gather(x)]
        assert [part.shape[1] for part in parts] == [3, 3, 1]
        return torch.cat(parts, dim=1)

    for found in on_all_ranks(2, gathered):
        assert torch.equal(found, torch.stack([torch.arange(14.0).view(7, 2) + 100 * rank for rank in range(2)]))


def test_fewer_blocks_where_a_rank_has_room_for_fewer() -> None:
    peers = ThreadPeers(Meeting(1), 0)
    model = model_of("llama", "float32", Part(1, 0), peers, least=lambda count: min(count, 5))
    assert model.num_blocks == 5


def test_programs_that_take_turns_join_their_heads_in_one_place() -> None:
    """And one that has no logits takes no room for them: it may have thousands of rows."""
    peers = ThreadPeers(Meeting(1), 0)
    model = model_of("llama", "float32", Part(1, 0), peers)
    other = model.sharing(model.program)
    for name in ("logits", "top_ids", "top_values"):
        assert other.placed.output(name).data_ptr() == model.placed.output(name).data_ptr() != 0
    graph = graph_of("llama", "float32", None)
    hidden_states.run(graph)
    program = compile_graph(
        graph, CudaCatalog(90), maxima=MAXIMA, block_size=8, max_positions=MAX_POSITIONS, part=Part(1, 0)
    )
    for head in (
        model.sharing(program).placed._head,
        PlacedProgram(program, CPU, MAX_POSITIONS, seat=Seat(peers, 99))._head,
    ):
        assert head is not None and head.outputs.keys() == {"top_ids", "top_values"}
    assert head._rooms.own.numel() == 0


def test_ranks_record_the_same_at_once() -> None:
    """What rank 0 records ahead another records, too, though it has met no such step; what both meet, when both do."""
    model, recorder = model_of("llama", "float32", Part(1, 0), None), Recorder()
    model._recordings = Recordings(model._buckets, recorder)
    bucket = Bucket(2, True, DRAWS, 16)
    model.obey("record", bucket)
    assert recorder.num_recorded == 1
    model.obey("record", bucket)
    assert (recorder.num_recorded, recorder.num_replayed) == (1, 1)


def test_a_rank_does_only_what_ranks_are_told() -> None:
    model = model_of("llama", "float32", Part(1, 0), None)
    with pytest.raises(InvariantError, match="a rank is told to take_blocks"):
        model.obey("take_blocks", 3)
