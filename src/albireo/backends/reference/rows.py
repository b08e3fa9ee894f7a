"""Ops that move rows and columns without arithmetic: embed, gather_rows, split, top_logits.

Called by interpret.py.
"""

from __future__ import annotations

import numpy as np

from albireo.backends.reference.call import Array, OpCall
from albireo.errors import InvariantError


def embed(call: OpCall) -> tuple[Array, ...]:
    ids, table = call["ids"], call["table"]
    # A negative id would read from the end of the table without a word.
    if ids.size and not (ids.min() >= 0 and ids.max() < len(table)):
        raise InvariantError(f"token ids {ids.min()}..{ids.max()} leave the vocabulary of {len(table)}")
    return (table[ids],)


def gather_rows(call: OpCall) -> tuple[Array, ...]:
    return (call["x"][call["rows"]],)


def split(call: OpCall) -> tuple[Array, ...]:
    return tuple(np.split(call["x"], np.cumsum(call.attrs["sizes"])[:-1], axis=-1))


def top_logits(call: OpCall) -> tuple[Array, ...]:
    """argmax takes the first, hence the lowest id, of equals."""
    logits = call["logits"]
    ids = logits.argmax(axis=-1).astype(np.int32)
    return ids, np.take_along_axis(logits, ids[:, None].astype(np.int64), axis=-1)[:, 0]
