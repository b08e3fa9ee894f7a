"""What may not be drawn at all: tokens outside a grammar, ends that come too early, thoughts beyond their budget. One
row of logits.

Called by penalties.py. Does not know grammars (a matcher gives the token mask), truncation or chance.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from albireo.step import SampleTask

Row = npt.NDArray[np.float32]


def mask_outside_grammar(row: Row, task: SampleTask) -> None:
    """Set what the task's grammar does not allow next to -inf, in place; nothing without a grammar.

    Args: row: [V] logits.
    Raises: InvalidParams naming the sequence when its grammar gives up.
    Cost: the matcher's, and O(V): 20 µs for 150,000 tokens.
    """
    mask = task.token_mask(row.size)
    if mask is None:
        return
    allowed = np.unpackbits(np.frombuffer(mask, np.uint8), count=row.size, bitorder="little").view(np.bool_)
    np.copyto(row, -np.inf, where=~allowed)


def only_end_of_thinking(row: Row, token_id: int) -> Row:
    """A row in which this token alone is left: whatever else is asked, bad words and allowed ids too, thinking ends.

    Args: row: [V] raw logits; never written to. One that is damaged stays so.
    """
    forced = np.full_like(row, -np.inf)
    forced[token_id] = row.max()
    return forced


def put_off_end(row: Row, task: SampleTask) -> None:
    """Set ids that end the sequence to -inf, in place, as far as min_tokens and ignore_eos want it.

    A grammar has the last word: where it leaves nothing but an end, the end stays.
    """
    ends = task.early_ends
    # A model's own EOS ids may lie beyond the rows of its head; such an id cannot be drawn anyway.
    ids = [token_id for token_id in ends if token_id < row.size]
    if not ids:
        return
    values = row[ids]
    row[ids] = -np.inf
    if task.matcher is not None and row.max() == -np.inf:
        row[ids] = values
