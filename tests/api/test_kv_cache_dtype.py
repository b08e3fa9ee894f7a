"""kv_cache_dtype from the front doors: what fits, what it costs in perplexity, and what an engine directory keeps."""

from __future__ import annotations

import json
import lzma
import math
from pathlib import Path

import pytest

from albireo.api.load import load
from albireo.artifact.reader import open_engine
from albireo.config import EngineConfig
from albireo.verify.native_logits import NativeLogits
from albireo.verify.quality import measure, windows
from artifact.engines import make_engine, run
from tiny_models import shared_data

#: Bytes of the bundled model's keys and values of a position: 6 layers, 2 heads of 64.
BYTES = {"bf16": 6 * 2 * 2 * 128, "int8": 6 * 2 * 2 * 68, "fp8": 6 * 2 * 2 * 68, "f32": 6 * 2 * 2 * 256}


@pytest.mark.parametrize("kv", BYTES)
def test_the_same_memory_holds_more_of_what_is_smaller(kv: str) -> None:
    loaded = load(EngineConfig(kv_cache_dtype=kv, kv_cache_memory_bytes=8 << 20, num_threads=1))
    assert loaded.memory.num_blocks == (8 << 20) // (16 * BYTES[kv])


def test_perplexity_on_stories_never_trained_on() -> None:
    """Within 0.3 % of a cache of bfloat16; what is measured in full is in docs/journal.md."""
    packed = shared_data("text", "tinystories-sample.txt.xz").read_bytes()
    text = lzma.decompress(packed).decode()
    stories = [story.strip() for story in text.split("<|endoftext|>") if story.strip()][::50]
    kept = {kv: load(_in_chunks(kv)) for kv in ("auto", "int8", "fp8")}
    tokenizer = kept["auto"].tokenizer
    assert tokenizer is not None
    cut = [w for story in stories[:8] for w in windows([0, *tokenizer.encode(story)], 512)]
    for kv in ("int8", "fp8"):
        found = measure(
            NativeLogits(kept[kv].model, kept[kv].program),
            NativeLogits(kept["auto"].model, kept["auto"].program),
            cut,
            lambda done: None,
        )
        assert found.num_predictions > 1500
        assert abs(math.log(found.perplexity / found.oracle_perplexity)) < 0.003, kv
        assert 0 < found.mean_kl < {"int8": 2e-4, "fp8": 2e-3}[kv]


def _in_chunks(kv: str) -> EngineConfig:
    return EngineConfig(
        kv_cache_dtype=kv, max_num_seqs=128, max_num_batched_tokens=128, num_gpu_blocks_override=40, num_threads=1
    )


def test_an_engine_directory_keeps_it_and_another_may_be_asked_for(tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, kv_cache_dtype="int8")
    assert open_engine(engine).manifest.options.kv_cache_dtype == "int8"
    assert json.loads((engine / "program.json").read_text())["kv"]["dtype"] == "int8"
    wanted = run(checkpoint, kv_cache_dtype="int8")
    assert run(engine) == wanted
    assert run(engine, kv_cache_dtype="bf16") == run(checkpoint) != wanted


def test_two_ranks_compute_what_one_does(tmp_path: Path) -> None:
    changes = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128, "intermediate_size": 64}
    checkpoint, _ = make_engine(tmp_path, "llama", changes=changes | {"hidden_size": 64, "head_dim": 16})
    one = run(checkpoint, kv_cache_dtype="fp8", tp_invariant=True)
    assert run(checkpoint, kv_cache_dtype="fp8", tensor_parallel_size=2, num_threads=2) == one
