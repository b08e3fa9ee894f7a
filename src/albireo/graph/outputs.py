"""What outputs of graphs are called beside logits: those that heads which draft read, and leave.

Used by models/, compiler/ and the backends.
"""

from __future__ import annotations

#: Hidden states of all rows, [T, E] float32 each: this and a number from 0 on.
TAP = "tap"
#: What stands for the hidden states of the next tokens, of the rows in logit_rows and in top_rows.
NEXT_OF_LOGITS, NEXT_OF_TOP = "next_of_logits", "next_of_top"
