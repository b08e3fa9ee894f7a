"""What steps give, on its way to the host: as many rows as were sent, and memory for what was."""

from __future__ import annotations

import torch

from albireo.backends.cuda.results import Results

LIKE = {"logits": torch.zeros(4, 1000), "tokens": torch.zeros(4, dtype=torch.int32)}


def test_rows_that_nobody_sent_have_no_memory() -> None:
    """Logits of all rows are a gigabyte of page-locked memory in some models; most steps send none."""
    results = Results(LIKE)
    found = results.receive(results.send({"logits": LIKE["logits"][:0], "tokens": torch.tensor([7, 8])}))
    assert found["logits"].shape == (0, 1000) and found["tokens"].tolist() == [7, 8]
    assert [set(names) for names in results._sets] == [{"tokens"}, set(), set()]
    assert results.receive(results.send({"logits": LIKE["logits"][:2]}))["logits"].shape == (2, 1000)


def test_a_step_is_good_until_two_more_were_begun() -> None:
    results = Results(LIKE)
    tickets = [results.send({"tokens": torch.tensor([i], dtype=torch.int32)}) for i in range(3)]
    assert [results.receive(ticket)["tokens"].tolist() for ticket in tickets] == [[0], [1], [2]]
