"""Rounds the linears of one group by the method of the recipe, and says what that cost.

Called by run.py. Knows methods, not models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from albireo.compress.statistics import Inputs
from albireo.encodings import Encoding, encoding
from albireo.quantization.encoded import F32, Encoded
from albireo.quantization.methods.gptq import compensation, gptq
from albireo.quantization.methods.grid import Grid, errors_of, to_groups
from albireo.quantization.methods.progressive import search_progressive
from albireo.quantization.methods.search import group_costs, moment_blocks, search_grid
from albireo.quantization.rounding import round_tokens

#: Methods that look at second moments of inputs.
MOMENT_METHODS = ("awq", "gptq")
#: Progressive int4 is left for plain int4 where its error is larger than this times the plain one's.
PROGRESSIVE_LIMIT = 1.1


@dataclass(frozen=True, slots=True)
class Rounded:
    """A linear in few bits.

    Fields:
        matrix: what is stored.
        error: of its outputs on the sample, relative: norm of the difference over norm of the outputs, inputs rounded
            as at run time.
        note: what a reader should know; may be empty.
    """

    matrix: Encoded
    error: float
    note: str


def round_group(
    weights: Mapping[str, F32], choice: Mapping[str, Encoding], inputs: Inputs, method: str, dtype: str
) -> dict[str, Rounded]:
    """Each weight of a group that is chosen to be rounded. dtype: of the checkpoint, which scales must fit.

    Progressive int4 is decided for the group together, so that its linears can still be merged.
    """
    chosen = {name: choice[name] for name in weights if name in choice}
    if not chosen:
        return {}
    moments = inputs.moments if method in MOMENT_METHODS else None
    by = compensation(moments) if method == "gptq" and moments is not None else None
    counts = moments if by is None else by.weighting
    grids = {name: _grid(weights[name], coding, counts, dtype) for name, coding in chosen.items()}
    notes = dict.fromkeys(grids, "")
    progressive = [name for name, coding in chosen.items() if coding.kind == "progressive"]
    if progressive:
        ratio, plain = _against_plain({name: weights[name] for name in progressive}, grids, counts, dtype)
        if ratio > PROGRESSIVE_LIMIT:
            grids |= plain
            notes |= dict.fromkeys(progressive, f"int4p would have {ratio:.2f} times the error of int4")
    done = {}
    for name, grid in grids.items():
        weight = weights[name]
        matrix = grid.encode(weight) if by is None else gptq(weight, by, grid)
        done[name] = Rounded(matrix, relative_error(weight, matrix, inputs.sample), notes[name])
    return done


def relative_error(weight: F32, matrix: Encoded, sample: F32) -> float:
    """See Rounded.error."""
    wanted = sample @ weight.T
    x = sample
    if matrix.encoding.activation == "int8.token":
        q, scale = round_tokens(sample)
        x = q * scale
    lost, size = _square(x @ matrix.decode().T - wanted), _square(wanted)
    return float((lost / size) ** 0.5) if size > 0 else 0.0


def _square(x: F32) -> float:
    return float(np.einsum("ij,ij->", x, x, dtype=np.float64))


def _grid(weight: F32, coding: Encoding, counts: F32 | None, dtype: str) -> Grid:
    search = search_progressive if coding.kind == "progressive" else search_grid
    return search(weight, coding, counts, dtype)


def _against_plain(
    weights: Mapping[str, F32], grids: Mapping[str, Grid], counts: F32 | None, dtype: str
) -> tuple[float, dict[str, Grid]]:
    """Error of the progressive grids over that of plain ones (as a norm), and the plain ones."""
    plain = {
        name: search_grid(weight, encoding(f"int4.g{grids[name].encoding.group}"), counts, dtype)
        for name, weight in weights.items()
    }
    lost = [sum(_cost(weights[name], side[name], counts) for name in weights) for side in (grids, plain)]
    return (lost[0] / lost[1]) ** 0.5 if lost[1] > 0 else 1.0, plain


def _cost(weight: F32, grid: Grid, counts: F32 | None) -> float:
    errors = errors_of(to_groups(weight, grid.encoding), grid)
    return float(group_costs(errors, moment_blocks(counts, grid.encoding)).sum(dtype=np.float64))
