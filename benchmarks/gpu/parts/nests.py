"""Nested weights, which GGUF files of K types and IQ types are: linears, tables of embeddings and layers of experts
against torch in float64; and bits of their rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from checks import Check, Finding, run_checks, worst
from checks_of_linears import codes_of, linear_of
from inputs import numbers_of
from model import fill_matrix
from report import Row
from setup import Setup

from parts.experts import layer_of

#: Those that layers are made of, in the linears of production; and one of each other way that codes and scales lie.
PRODUCTION, OTHERS = ("q4_k", "q6_k"), ("q2_k", "q3_k", "q5_k", "iq4_xs", "iq2_s", "iq1_s")


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.kernels.parts.chain_nests  # noqa: F401 - where it is missing the part is skipped

    production, others = setup.pick(PRODUCTION, PRODUCTION[:1]), setup.pick(OTHERS, ("q3_k", "iq2_s"))
    checks: dict[str, Check] = {f"layer of {name}": partial(codes_of, name, "int8.token") for name in production}
    checks |= {f"experts in {name}": partial(layer_of, name, None) for name in production}
    checks |= {f"linear {name}": partial(linear_of, name, None) for name in others}
    checks |= {f"embed {name}": partial(_table, name) for name in (*production, *others)}
    yield from run_checks(setup, checks)


def _table(dtype: str, setup: Setup) -> Iterator[Finding]:
    """Rows of a table, of which the last is one."""
    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.kernels.embed import embed

    rows, cols = setup.pick((32000, 4096), (40, 256))
    table = empty_matrix(dtype, rows, cols, setup.device)
    fill_matrix(table, setup, 2)
    ids = torch.tensor([0, 1, rows // 2, rows - 1], dtype=torch.int32, device=setup.device)
    out = torch.empty((len(ids), cols), device=setup.device)
    embed(ids, table, out)
    wanted = numbers_of(table)[ids.long()]
    # a product and an offset that all but cancel each other
    yield worst(f"embed {dtype}", out, wanted, (2.0**-20 * wanted.abs().amax(1, keepdim=True)).expand_as(wanted))
