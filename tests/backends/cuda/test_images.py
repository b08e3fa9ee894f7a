"""Answers about pictures on the executor for GPUs, its kernels interpreted: the tokens of the CPU's kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from albireo import LLM, SamplingParams
from albireo.api import load
from backends.cuda.test_end_to_end import MODELS, StandIn, check_logprobs
from e2e.test_images import said
from tiny_sights import picture, save

#: Sizes of pictures that are few patches.
SMALL = {"idefics3": (32, 32), "qwen3_vl": (48, 16), "gemma3": (30, 20)}


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of exp in gelu's tanh form, where it gives the limit
@pytest.mark.parametrize("name", SMALL)
def test_answers_about_pictures_are_those_of_the_cpu(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one step and in pieces, beside a prompt without a picture, and decoding behind all of them."""
    folder = save(tmp_path, name)
    chats = [said("A ", picture(*SMALL[name], seed=1), "?"), said("B")]
    greedy = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True, logprobs=1)

    def answers(device: str, **settings: Any) -> list[Any]:
        settings = {"max_num_seqs": 2, "max_model_len": 128, "block_size": 8, **settings}
        with LLM(str(folder), device=device, dtype="float32", num_threads=1, **settings) as llm:
            return [output.outputs[0] for output in llm.chat(chats, greedy, use_tqdm=False)]

    wanted = answers("cpu")
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    for ours, theirs in zip(answers("cuda"), wanted, strict=True):
        assert ours.token_ids == theirs.token_ids
        check_logprobs(ours.logprobs, theirs.logprobs)
    assert MODELS
