"""Log-probabilities and ranks are those that the host reports."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.reporting import Reporting, Reports
from albireo.backends.cuda.reporting import reported as told
from albireo.sampling import logprobs as host
from albireo.step import TokenLogprobs


def reported(
    logits: np.ndarray, rows: list[int], tokens: list[int], nums: list[int | None], drawn: list[int] | None = None
) -> list[TokenLogprobs | None] | None:
    """By the kernels, of a step with a report and a row more than are looked at."""
    num_rows, vocab = logits.shape
    reports = Reports(rows, tokens, nums)
    arrays = {
        "report_rows": np.full(len(rows) + 1, 9, np.int32),
        "report_tokens": np.full(len(rows) + 1, 9, np.int32),
        "best_counts": np.full(num_rows, 9, np.int32),
    }
    reports.write(arrays)
    known = np.array(drawn or [0], np.int32)
    reporting = Reporting(len(rows) + 3, num_rows + 1, vocab, torch.device("cpu"))
    columns = {name: torch.from_numpy(array) for name, array in arrays.items()}
    reporting.launch(torch.from_numpy(logits), columns, torch.from_numpy(known))
    found = {name: tensor.numpy() for name, tensor in reporting.found.items()}
    return told(reports, known, found["ids"], found["logprobs"], found["ranks"])


@pytest.mark.parametrize("vocab", [1, 60, 5000])
def test_they_are_those_of_the_host(vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    logits = (rng.standard_normal((4, vocab)) * 6).astype(np.float32)
    logits[1] = np.round(logits[1])
    logits[2, 1:] = -np.inf
    rows = [0, 1, 1, 2, 3]
    tokens = [0, *rng.integers(0, vocab, 2).tolist(), 0, int(logits[3].argmax())]
    nums = [0, *(min(num, vocab) for num in (5, 64, 3, 20))]
    # two of them drawn on the device a moment ago
    drawn = [tokens[4], tokens[1]]
    given = [tokens[0], -2, tokens[2], tokens[3], -1]
    found = reported(logits, rows, given, [*nums], drawn)
    assert found is not None
    for ours, row, token, num in zip(found, rows, tokens, nums, strict=True):
        assert ours is not None
        theirs = host.token_logprobs(logits[row], token, num, "it")
        assert ours.token_ids == theirs.token_ids
        assert ours.ranks == theirs.ranks
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, rtol=1e-13, atol=1e-13)


def test_a_row_does_not_depend_on_the_others() -> None:
    logits = np.random.default_rng(2).standard_normal((3, 4500)).astype(np.float32)
    together = reported(logits, [0, 1, 2], [5, 6, 7], [4, 4, 4])
    assert together is not None
    for i in range(3):
        assert reported(logits[i : i + 1], [0], [5 + i], [4]) == [together[i]]


def test_what_asks_for_nothing_is_there_for_its_place_alone() -> None:
    logits = np.random.default_rng(3).standard_normal((2, 50)).astype(np.float32)
    found = reported(logits, [0, 1, 1], [-1, -2, 7], [None, 2, None], [4, 5])
    assert found is not None and [found[0], found[2]] == [None, None]
    assert found[1] == reported(logits, [1], [5], [2])[0]  # type: ignore[index]


@pytest.mark.parametrize("damage", [np.nan, np.inf])
def test_a_damaged_row_is_left_to_the_host(damage: float) -> None:
    logits = np.zeros((2, 5000), np.float32)
    logits[1, 4500] = damage
    with np.errstate(invalid="ignore"):  # inf - inf, in the interpreter
        assert reported(logits, [0, 1], [3, 3], [2, None]) is not None
        assert reported(logits, [0, 1], [3, 3], [2, 0]) is None
    assert reported(logits, [0], [-1], [2], [-1]) is None, "a token that could not be drawn"
