"""Texts and pictures in one space on the executor for GPUs, its kernels interpreted: the embeddings of the CPU's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from albireo import LLM
from albireo.api import load
from backends.cuda.test_end_to_end import StandIn
from tiny_pairs import NAMES, pictures, save_pair


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of exp in gelu's tanh form, where it gives the limit
@pytest.mark.parametrize("name", NAMES)
def test_embeddings_of_both_are_those_of_the_cpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_pair(tmp_path, name)
    prompts = ["a cat", {"prompt": "", "multi_modal_data": {"image": pictures()[0]}}]

    def served(device: str) -> np.ndarray:
        settings = {"max_num_seqs": 2, "block_size": 8, "num_threads": 1}
        with LLM(str(folder), device=device, dtype="float32", use_tqdm_on_load=False, **settings) as llm:
            assert llm.loaded is not None and llm.loaded.settings.image_problem == ""
            return np.array([output.outputs.embedding for output in llm.embed(prompts, use_tqdm=False)])

    wanted = served("cpu")
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    np.testing.assert_allclose(served("cuda"), wanted, rtol=0, atol=2e-6)
