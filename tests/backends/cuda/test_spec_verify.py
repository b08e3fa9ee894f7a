"""Drafts stand up to the first that the sequence would not have drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from albireo.backends.cuda.kernels.spec_verify import spec_verify
from albireo.params import SamplingParams
from albireo.sampling.sampler import Sampler
from albireo.step import SampleTask
from backends.cuda.draws import drawn


def verified(drafts: Sequence[Sequence[int]], drawn: Sequence[Sequence[int]]) -> list[list[int]]:
    most = max(map(len, drafts))
    padded = torch.full((len(drafts), most), 99, dtype=torch.int32)
    for row, draft in zip(padded, drafts, strict=True):
        row[: len(draft)] = torch.tensor(draft, dtype=torch.int32)
    first = np.concatenate(([0], np.cumsum([len(each) for each in drawn])[:-1])).astype(np.int32)
    tokens = torch.full((len(drafts), most + 1), 77, dtype=torch.int32)
    num = torch.zeros(len(drafts), dtype=torch.int32)
    spec_verify(
        padded,
        torch.tensor([len(draft) for draft in drafts], dtype=torch.int32),
        torch.tensor([token for each in drawn for token in each], dtype=torch.int32),
        torch.from_numpy(first),
        tokens,
        num,
    )
    for row, count in zip(tokens.tolist(), num.tolist(), strict=True):
        assert set(row[count:]) <= {-1}
    return [row[:count] for row, count in zip(tokens.tolist(), num.tolist(), strict=True)]


def test_up_to_the_first_that_differs() -> None:
    drafts = [[4, 5, 6], [4, 5, 6], [4, 5, 6], [], [3], [8, 9]]
    drawn = [[4, 5, 6, 7], [4, 5, 1, 2], [0, 5, 6, 7], [2], [3, -1], [-1, 9, 9]]
    assert verified(drafts, drawn) == [[4, 5, 6, 7], [4, 5, 1], [0], [2], [3, -1], [-1]]


def test_the_tokens_are_those_without_drafts() -> None:
    """A toy model, whose logits follow from the last token; drafts that are right, and wrong from some place on."""
    rng = np.random.default_rng(1)
    model = (rng.standard_normal((30, 30)) * 2).astype(np.float32)
    for temperature, wrong_at in [(0.0, 2), (0.9, 2), (0.9, 3), (1.5, 0)]:
        params = SamplingParams(temperature=temperature, top_p=0.9, max_tokens=9)
        plain: list[int] = []
        while len(plain) < 4:
            task = SampleTask(0, params, 11, [3], list(plain))
            last = plain[-1] if plain else 3
            plain.append(Sampler(30).sample(model[[last]], [task], [0])[0].token_id)
        drafts = plain[:3]
        drafts[wrong_at:] = [(token + 1) % 30 for token in drafts[wrong_at:]]
        tasks = [SampleTask(0, params, 11, [3], drafts[:i]) for i in range(4)]
        out = drawn(model[[3, *drafts]], tasks, range(4))
        assert verified([drafts], [out]) == [plain[: wrong_at + 1]]
