"""Swapped or computed again: the same bits in every logit, on real kernels with KV caches of numbers and of codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from albireo.models import load_architecture
from albireo.params import SamplingParams
from e2e.serving import Ask, Server, assert_same_answers
from tiny_models import make_checkpoint

NUM_HOST = 30


def asks() -> list[Ask]:
    """Prompts with a common beginning and without, siblings, and one whose prompt rows are all looked at."""
    rng = np.random.default_rng(3)
    common = tuple(rng.integers(3, 90, 20).tolist())
    found = []
    for i, length in enumerate([30, 9, 26, 17, 12]):
        own = tuple(rng.integers(3, 90, length).tolist())
        params = SamplingParams(
            temperature=[0.0, 0.9][i % 2], seed=i, max_tokens=25, ignore_eos=True, n=[1, 1, 1, 2, 1][i], logprobs=0,
            prompt_logprobs=[None, 0][i == 2],
        )  # fmt: skip
        found.append(Ask((*common, *own) if i % 2 else own, params))
    return found


@pytest.mark.parametrize("has_cache", [True, False], ids=["prefix cache", "no prefix cache"])
@pytest.mark.parametrize("kv_dtype", ["auto", "int8"])
def test_bits_do_not_depend_on_how_blocks_come_back(tmp_path: Path, kv_dtype: str, has_cache: bool) -> None:
    directory = make_checkpoint(tmp_path, load_architecture("qwen3").tiny, seed=7)
    config = {
        "kv_cache_dtype": kv_dtype, "enable_prefix_caching": has_cache, "block_size": 8, "max_num_batched_tokens": 29,
    }  # fmt: skip
    alone = Server.load(directory, **config).alone(asks())
    pressed = Server.load(directory, **config, num_gpu_blocks_override=13)
    recomputed, stats = pressed.serve(asks())
    assert stats.num_preemptions > 0 and stats.num_swap_outs == 0
    swapping = Server.load(directory, **config, num_gpu_blocks_override=13 + NUM_HOST)
    swapping.num_host = NUM_HOST
    swapped, swap_stats = swapping.serve(asks())
    assert swap_stats.num_swap_outs > 2 and swap_stats.cpu_cache_usage == 0
    assert swap_stats.num_computed_tokens < stats.num_computed_tokens
    assert_same_answers(recomputed, alone)
    assert_same_answers(swapped, alone)
