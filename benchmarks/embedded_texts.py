"""The texts that embeddings.py and embeddings_vllm.py embed: random token ids, fixed by a seed. numpy only."""

from __future__ import annotations

import numpy as np


def texts(vocab_size: int) -> dict[str, list[list[int]]]:
    """Sets of texts by name, each text its token ids: many of one length, of mixed lengths, and one alone."""
    rng = np.random.default_rng(0)
    lengths = {
        "32 of 128": [128] * 32,
        "32 of 8 to 300": rng.integers(8, 301, 32).tolist(),
        "1 of 16": [16],
        "1 of 128": [128],
        "1 of 512": [512],
    }
    return {name: [rng.integers(1000, vocab_size, n).tolist() for n in each] for name, each in lengths.items()}
