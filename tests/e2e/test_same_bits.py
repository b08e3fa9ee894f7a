"""The bundled model's logits have the bits written down here, on x86 and on Arm: levels that multiply and add float32
numbers alike compute the same, whatever the processor."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from albireo import _native
from albireo.api.load import load
from albireo.api.sources.locate import BUNDLED
from albireo.config import EngineConfig
from step_batches import Work, make_step

BLOCK_SIZE = 16
#: Levels with fused multiply-adds, and what they compute: dtype, quantization, the digest of all logits.
FUSED = ("avxvnni", "avx2", "neondot", "neon")
WITH_FUSED = {
    ("float32", None): "b4833fbd339265a1",
    ("float16", None): "57f87c511c5c3936",
    ("bfloat16", None): "a828d00ecbb31d0a",
    ("bfloat16", "int8"): "41b5d85e13ef0aff",
    ("float32", "int4"): "171e54b420a0ac19",
    ("bfloat16", "fp8"): "82814b42733bbf7b",
}
#: The level without.
WITH_SCALAR = {("float32", None): "9ff49157c4a37467", ("bfloat16", "int8"): "055147dc1d1cc85f"}
CASES = [(level, *case, wanted) for level in FUSED for case, wanted in WITH_FUSED.items()]
CASES += [("scalar", *case, wanted) for case, wanted in WITH_SCALAR.items()]


@pytest.mark.parametrize(("level", "dtype", "quantization", "wanted"), CASES)
def test_logits_have_these_bits(
    level: str, dtype: str, quantization: str | None, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if level not in _native.isa_levels():
        pytest.skip(f"this processor has no {level}")
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    limits = {"max_num_seqs": 4, "max_num_batched_tokens": 128, "num_gpu_blocks_override": 16}
    model = load(
        EngineConfig(model=str(BUNDLED), dtype=dtype, quantization=quantization, device="cpu", num_threads=1, **limits)
    ).model
    tokens = np.random.default_rng(0).integers(3, 4096, 70).tolist()
    # more rows than a chunk, then a few of two sequences: tiles of many heights, keys that were written before
    steps = ([Work(tokens[:58], 0, [0, 1, 2, 3]), Work(tokens[58:61], 0, [4])],
             [Work(tokens[61:65], 58, [0, 1, 2, 3]), Work(tokens[65:66], 3, [4])])  # fmt: skip
    digest = hashlib.sha256()
    for works in steps:
        digest.update(model.run(make_step(works, BLOCK_SIZE, "all", "last")).logits.tobytes())
    assert digest.hexdigest()[:16] == wanted
