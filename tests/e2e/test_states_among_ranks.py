"""Models whose layers keep a state, on several ranks: transformers' tokens, and the bits of one, however served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.build import build
from albireo.config import BuildConfig
from albireo.verify.run import verify
from compiler.ranks import wide_hybrid
from e2e.serving import Server, assert_same_answers
from e2e.test_invariance import preempted, requests
from e2e.test_parity import all_rows, assert_greedy, distance, reference, serve
from tiny_models import make_checkpoint

torch = pytest.importorskip("torch")

#: Ranks that have parts of states, that share heads of keys, that keep all.
SIZES = {"qwen3_next": 8, "lfm2_moe": 2, "nemotron_h": 4, "falcon_h1": 4, "olmo_hybrid": 2, "zamba2": 4, "bamba": 2}
WAYS: dict[str, dict[str, Any]] = {
    "chunks of 7": {"max_num_batched_tokens": 7},
    "preempted": {"num_gpu_blocks_override": 8},
}


@pytest.mark.parametrize("model", SIZES)
def test_logits_and_tokens_of_transformers(model: str, tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, wide_hybrid(model), seed=3)
    sequences, answers = serve(directory, tensor_parallel_size=SIZES[model], num_threads=SIZES[model])
    logits = reference(directory, "float64", sequences)  # float32 of some processors is 3e-6 off by itself
    assert_greedy(sequences, answers, logits)
    assert distance(all_rows(answers), np.concatenate(logits)) < 3e-6


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("model", "size"), [("qwen3_5_moe_text", 2), ("lfm2", 4), ("falcon_h1", 8), ("kimi_linear", 4)]
)
def test_served_by_ranks_as_by_one(model: str, size: int, way: str, tmp_path: Path) -> None:
    """States are found again behind prefixes, and computed again where a sequence gave way."""
    directory = make_checkpoint(tmp_path, wide_hybrid(model), seed=5, dtype="bfloat16")
    alone = Server.load(directory, tp_invariant=True).alone(requests())
    among = {"tensor_parallel_size": size, "num_threads": size}
    answers, stats = Server.load(directory, **among, **WAYS[way]).serve(requests(), stagger=1)
    assert_same_answers(answers, alone)
    assert way != "preempted" or preempted(stats, answers)


def test_a_directory_of_ranks_keeps_states_in_memory_for_all(tmp_path: Path) -> None:
    """Built and run; a slot has what all ranks keep of a sequence. Drafts that do not come true are taken back."""
    directory = make_checkpoint(tmp_path / "model", wide_hybrid("qwen3_next"), seed=5, dtype="bfloat16")
    alone = Server.load(directory, tp_invariant=True).alone(requests())
    engine = build(directory, tmp_path / "engine", BuildConfig(tensor_parallel_size=2)).directory
    server = Server.load(engine, num_threads=2, max_num_seqs=4, enable_prefix_caching=False)
    assert_same_answers(server.serve(requests())[0], alone)
    ranks = server.loaded.model.ranks
    sizes = [rank.program.states.slot_bytes for rank in ranks]
    # of one rank: two layers of three rows of its channels, and its heads of 8 x 12
    assert sizes == [2 * 4 * (3 * (2 * 2 * 8 + 4 * 12) + 4 * 8 * 12)] * 2
    assert server.loaded.memory.state_bytes == 4 * sum(sizes)
    assert [len(part) for part in server.loaded.model.state_content(1)] == sizes
    drafts = {"method": "ngram", "num_speculative_tokens": 3}
    among = {"tensor_parallel_size": 4, "num_threads": 4, "speculative_config": drafts}
    assert_same_answers(Server.load(directory, **among).serve(requests())[0], alone)


def test_a_directory_of_ranks_is_verified(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "model", wide_hybrid("lfm2"), seed=5, dtype="bfloat16")
    engine = build(directory, tmp_path / "engine", BuildConfig(tensor_parallel_size=2)).directory
    found = verify(engine, str(directory), num_tokens=60)
    assert found.is_verified, found.finding
