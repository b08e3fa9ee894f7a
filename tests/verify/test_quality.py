"""Perplexity, divergence and agreement of any two things that give logits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from albireo.encodings import ENCODINGS, plain_encoding
from albireo.graph.builder import GraphBuilder
from albireo.verify.limits import LIMITS, coarsest, quality_stage
from albireo.verify.native_logits import NativeLogits
from albireo.verify.quality import F32, Quality, measure, windows
from albireo.verify.text import TokenText
from verify.models import loaded


class Table:
    """Logits that depend on the token alone, in parts of a given size, each in the same memory."""

    def __init__(self, table: F32, part: int) -> None:
        self._table, self._part = table, part

    def logits(self, token_ids: Sequence[int]) -> Iterator[F32]:
        room = np.zeros((self._part, self._table.shape[1]), np.float32)
        for start in range(0, len(token_ids), self._part):
            ids = list(token_ids[start : start + self._part])
            room[: len(ids)] = self._table[ids]
            yield room[: len(ids)]


def table(*rows: Sequence[float]) -> F32:
    """Logarithms of probabilities, and a constant that must not matter."""
    return (np.log(np.array(rows)) + 3).astype(np.float32)


EVEN, UNEVEN = table([0.5, 0.5], [0.5, 0.5]), table([0.25, 0.75], [0.5, 0.5])


def test_numbers_by_hand() -> None:
    """Tokens 0 0 1 0: predicted from 0, 0 and 1."""
    seen: list[int] = []
    found = measure(Table(UNEVEN, 2), Table(EVEN, 3), [[0, 0, 1, 0]], seen.append)
    assert found.perplexity == pytest.approx((0.25 * 0.75 * 0.5) ** (-1 / 3), rel=1e-6)
    assert found.oracle_perplexity == pytest.approx(2, rel=1e-6)
    one = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert found.mean_kl == pytest.approx(2 / 3 * one, rel=1e-6)
    assert found.max_kl == pytest.approx(one, rel=1e-6)
    assert found.top1_agreement == pytest.approx(1 / 3)
    assert (found.num_clear, found.clear_top1_agreement) == (0, 1.0)
    assert sum(seen) == found.num_predictions == 3


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_type_of_weights_has_limits(name: str) -> None:
    """K types of GGUF are read as they lie: their few bits allow no more than without nests."""
    b = GraphBuilder()
    b.weight("w", (4, 256), name)
    plain = plain_encoding(ENCODINGS[name])
    assert coarsest(b.graph, "bfloat16") == ("fp8" if plain.kind == "float" else f"int{plain.bits}")
    assert coarsest(b.graph, "bfloat16") in LIMITS


def test_clear_choices_count_alone() -> None:
    found = measure(Table(EVEN, 1), Table(UNEVEN, 1), [[0, 0, 1, 0]], lambda _: None)
    assert (found.num_clear, found.clear_top1_agreement) == (2, 0.0)


def test_a_model_beside_itself() -> None:
    found = measure(Table(UNEVEN, 2), Table(UNEVEN, 5), [[0, 1], [1, 0, 1]], lambda _: None)
    assert (found.mean_kl, found.max_kl, found.top1_agreement, found.mean_kl_error) == (0, 0, 1, 0)
    assert found.perplexity == found.oracle_perplexity


def test_windows() -> None:
    assert windows([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4]]
    assert windows([1, 2, 3], 10) == [[1, 2, 3]]


def test_logits_of_an_engine_are_those_of_its_steps(built: tuple[Path, Path]) -> None:
    """In chunks of 64 or of 9: the same rows, to the bit."""
    model = loaded(built[1]).model
    tokens = list(range(3, 80))
    whole = np.concatenate([part.copy() for part in NativeLogits(model, model.program).logits(tokens)])
    small = NativeLogits(model, model.program)
    small._chunk = 9
    cut = np.concatenate([part.copy() for part in small.logits(tokens)])
    assert len(whole) == 77
    assert np.array_equal(whole, cut)
    assert np.array_equal(next(iter(NativeLogits(model, model.program).logits(tokens[:5]))), whole[:5])


def quality(**changes: float) -> Quality:
    fine = dict.fromkeys(("mean_kl", "mean_kl_error", "max_kl"), 0.0) | {"perplexity": 10.0, "oracle_perplexity": 10.0}
    counts = {"num_predictions": 100, "num_clear": 50, "top1_agreement": 1.0, "clear_top1_agreement": 1.0}
    return Quality(**(fine | counts | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"mean_kl": LIMITS["bfloat16"].mean_kl}, ""),
        ({"mean_kl": 0.5}, "mean KL divergence is 0.5, bfloat16 allows 0.002"),
        ({"perplexity": 9.0}, "change of perplexity is 0.1, bfloat16 allows 0.01"),
        ({"clear_top1_agreement": 0.5}, "disagreement where float32 is clear (first choice 1.5 times the next) is 0.5"),
        ({"mean_kl": math.nan}, "mean KL divergence is nan"),
    ],
)
def test_limits(changes: dict[str, float], said: str) -> None:
    stage = quality_stage(quality(**changes), TokenText("a text", range(9), True, 0), 512, ["bfloat16"])
    assert stage.finding.startswith(said)
    assert (stage.verdict == "failed") == bool(said)
