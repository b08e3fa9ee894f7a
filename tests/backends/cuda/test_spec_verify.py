"""What is drawn behind drafts stands up to the first that the sequence would not have drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from albireo.backends.cuda.kernels.spec_verify import spec_verify
from albireo.backends.step_outputs import REFUSED
from albireo.params import SamplingParams
from albireo.sampling.sampler import Sampler
from albireo.speculative_config import MAX_DRAFTS
from albireo.step import SampleTask
from backends.cuda.draws import drawn


def verified(drafts: Sequence[Sequence[int]], drawn: Sequence[Sequence[int]]) -> list[list[int]]:
    """Behind a last known token 7 of each sequence, beside padding that must stay as it is."""
    fed = [token for draft in drafts for token in (7, *draft)]
    out = torch.tensor([*(token for each in drawn for token in each), 50, 51], dtype=torch.int32)
    starts = np.concatenate(([0], np.cumsum([1 + len(draft) for draft in drafts]))).astype(np.int32)
    spec_verify(torch.tensor([*fed, 50, 51], dtype=torch.int32), torch.from_numpy(starts), out)
    assert out[starts[-1] :].tolist() == [50, 51]
    found = [out[first:end].tolist() for first, end in pairwise(starts)]
    for row, each in zip(found, drawn, strict=True):
        assert len(row) == len(each)
    return [[token for token in row if token != REFUSED] for row in found]


def test_up_to_the_first_that_differs() -> None:
    drafts = [[4, 5, 6], [4, 5, 6], [4, 5, 6], [], [3], [8, 9]]
    drawn = [[4, 5, 6, 7], [4, 5, 1, 2], [0, 5, 6, 7], [2], [3, -1], [-1, 9, 9]]
    assert verified(drafts, drawn) == [[4, 5, 6, 7], [4, 5, 1], [0], [2], [3, -1], [-1]]


def test_a_row_that_cannot_be_drawn_from_is_told_where_it_is_reached_alone() -> None:
    drafts = [[4, 5], [4, 5], [4, 5]]
    assert verified(drafts, [[4, -1, 6], [3, -1, -1], [-1, 5, 6]]) == [[4, -1], [3], [-1]]


def test_as_many_drafts_as_there_may_be() -> None:
    most = list(range(100, 100 + MAX_DRAFTS))
    assert verified([most, [], most], [[*most, 3], [7], [*most[:-1], 1, 2]]) == [[*most, 3], [7], [*most[:-1], 1]]


def test_a_draft_that_is_the_next_sequences_token_is_not_judged_by_it() -> None:
    assert verified([[], [5]], [[7], [5, 6]]) == [[7], [5, 6]]


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
