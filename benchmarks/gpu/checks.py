"""What checks of kernels give, and how they become rows: an error as a part of what is allowed, and where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from report import Row
from setup import Setup


@dataclass(frozen=True)
class Finding:
    """error: as a part of what is allowed; up to 1 is good. where: the worst element, or what differs."""

    what: str
    error: float
    where: str = ""


#: Gives findings, or pairs of what and error.
Check = Callable[[Setup], Iterator[Finding | tuple[str, float]]]


def run_checks(setup: Setup, checks: Mapping[str, Check]) -> Iterator[Row]:
    for what, check in checks.items():
        if setup.seconds_left < 2:
            yield Row(what, note="no time was left", is_good=False)
            continue
        try:
            for found in check(setup):
                finding = found if isinstance(found, Finding) else Finding(*found)
                error = finding.error
                # JSON knows neither NaN nor infinity
                value, is_good = min(error, 1e99) if error == error else 1e99, error <= 1
                yield Row(finding.what, value, "of the bound", "" if is_good else finding.where, is_good)
        except ImportError as error:
            yield Row(what, note=f"left out: {error}")
        except Exception as error:
            yield Row(what, note=f"{type(error).__name__}: {str(error).strip()[:200]}", is_good=False)


def worst(what: str, got: torch.Tensor, wanted: torch.Tensor, allowed: torch.Tensor) -> Finding:
    """Element by element; what is no number is as wrong as can be."""
    off = ((got.double() - wanted).abs() / allowed.clamp(min=1e-300)).nan_to_num(nan=float("inf"))
    at = int(off.argmax())
    place = tuple(int(i) for i in torch.unravel_index(torch.tensor(at), off.shape))
    wrong = int((off > 1).sum())
    numbers = f"{float(got.flatten()[at]):.6g} instead of {float(wanted.flatten()[at]):.6g}"
    where = f"at {place}: {numbers}; {wrong} of {off.numel()} are off"
    return Finding(what, float(off.flatten()[at]), where)


def same_bits(setup: Setup, what: str, found: Mapping[int, torch.Tensor]) -> Finding:
    """Rows of steps of so many tokens, against those of the largest of them. Not judged in the interpreter, whose
    products are a library's: their order of sums depends on the number of rows."""
    largest = max(found)
    wrong = []
    for count, rows in found.items():
        whole = found[largest][:count]
        if not torch.equal(rows, whole):
            differ = rows != whole
            first = int(differ.flatten(1).any(1).nonzero()[0])
            most = float((rows.double() - whole.double()).abs().max())
            wrong.append(f"{count} tokens: {int(differ.sum())} of {differ.numel()}, first row {first}, by {most:.2g}")
    where = f"other bits than in a step of {largest}: {'; '.join(wrong)}"
    return Finding(what, float("inf") if wrong and not setup.is_dry else 0.0, where)
