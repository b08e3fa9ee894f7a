"""What tests of models that see, watch or hear have in common: which families a test is of, and what answers are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, RequestOutput, SamplingParams

Chat = list[dict[str, Any]]


def of_some(families: Iterable[str]) -> Callable[..., pytest.MarkDecorator]:
    """Marks a test of what families do in the same way: of those named always, of the others where everything is asked
    for. That answers are transformers' is asked of all."""
    known = list(families)

    def of(*names: str) -> pytest.MarkDecorator:
        assert set(names) <= set(known)
        each = [pytest.param(name, marks=() if name in names else pytest.mark.thorough) for name in known]
        return pytest.mark.parametrize("folder", each, indirect=True)

    return of


def greedy(num_tokens: int) -> SamplingParams:
    """So many tokens, and how likely each was."""
    return SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True, logprobs=1)


def check_tokens(output: RequestOutput, tokens: list[int], values: Sequence[float]) -> None:
    """An answer is these tokens, nearly as likely."""
    (answer,) = output.outputs
    assert answer.token_ids == tokens and answer.logprobs is not None
    found = [step[token].logprob for step, token in zip(answer.logprobs, tokens, strict=True)]
    np.testing.assert_allclose(found, values, atol=2e-4)


def check_same_bits(
    folder: Path, chats: list[Chat], sampling: SamplingParams, *more: dict[str, Any], least: int = 8
) -> None:
    """Answers have the bits of each alone: beside others, in pieces of least tokens, after the first was met before,
    and with more settings."""

    def answers(**settings: Any) -> list[list[tuple[int, float]]]:
        with LLM(str(folder), dtype="float32", num_threads=2, block_size=8, **settings) as llm:
            llm.chat(chats[:1], sampling, use_tqdm=False)
            found = llm.chat(chats, sampling, use_tqdm=False)
            return [
                [(token, step[token].logprob) for token, step in zip(o.token_ids, o.logprobs or [], strict=True)]
                for o in (output.outputs[0] for output in found)
            ]

    alone = answers(max_num_seqs=1, enable_prefix_caching=False)
    for settings in ({"enable_prefix_caching": False}, {"max_num_batched_tokens": least}, *more):
        assert answers(**settings) == alone, settings
