"""The state of one sequence in its grammar, over llguidance.

Made by backend.py, asked by the sampler. Does not know logits, requests or schedules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import llguidance

from albireo.errors import InvalidParams
from albireo.step import allows


class Matcher:
    """Implements step.TokenMatcher. Invariant: the answer depends on the grammar and the output tokens alone; the state
    kept from the last call only saves reading them again. So a preempted, resumed or retried sequence goes on as ever.

    Attributes: eos_token_ids: ids that end the output; the grammar says where.
    """

    def __init__(
        self,
        make: Callable[[], llguidance.LLMatcher],
        eos_token_ids: Sequence[int],
        tokens_of: Callable[[bytes], Sequence[int]],
    ) -> None:
        """tokens_of: a text as the tokenizer has it."""
        self.eos_token_ids = tuple(eos_token_ids)
        self._make, self._tokens_of = make, tokens_of
        self._state = make()
        self._seen: list[int] = []

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        """See step.TokenMatcher. Cost: about 10 µs in JSON; at most a tenth of a second in grammars made to be slow."""
        self._read(output_token_ids)
        mask: bytes = self._state.compute_bitmask()
        if self._state.is_error():
            raise self._error(f"the token after {len(self._seen)} output tokens")
        return mask

    def ahead(self, output_token_ids: Sequence[int], draft_token_ids: Sequence[int]) -> list[bytes]:
        """See step.TokenMatcher. Cost: of a mask a draft."""
        try:
            mask = self.allowed(output_token_ids)
        except InvalidParams:  # and says so again to whoever needs it
            return []
        # a copy costs a microsecond; rollback() from behind an end leaves another mask than there was
        state = self._state.deep_copy()
        masks: list[bytes] = []
        for draft in draft_token_ids:
            if not allows(mask, draft) or not state.consume_token(draft):
                break
            mask = state.compute_bitmask()
            if state.is_error():
                break
            masks.append(mask)
        return masks

    def forced(self, output_token_ids: Sequence[int]) -> Sequence[int]:
        """See step.TokenMatcher. Cost: 10 to 50 µs; a millisecond where the lexer is somewhere new."""
        try:
            self._read(output_token_ids)
        except InvalidParams:  # and says so again to whoever needs it
            return []
        # a copy's states are those of all, but its error would be its own
        state = self._state.deep_copy()
        tokens: list[int] = state.compute_ff_tokens()
        return tokens or self._tokens_of(state.compute_ff_bytes())

    def _read(self, output_token_ids: Sequence[int]) -> None:
        """Take what is new. Raises: InvalidParams for a token that may not be there."""
        num_seen = len(self._seen)
        if len(output_token_ids) < num_seen or self._state.is_error():
            self._state, self._seen, num_seen = self._make(), [], 0
        for token_id in output_token_ids[num_seen:]:
            if not self._state.consume_token(token_id):
                raise self._error(f"token {token_id} after {len(self._seen)} output tokens")
            self._seen.append(token_id)

    def _error(self, where: str) -> InvalidParams:
        return InvalidParams(f"structured_outputs cannot go on with {where}: {reason(self._state.get_error())}")


def reason(error: str) -> str:
    """The library's message on one line, without the lines of the grammar that it quotes, or text of the output."""
    if "doesn't satisfy the grammar" in error:
        return "it does not follow the grammar"
    if error.startswith("NoExtension"):  # the library's name for a state that no token leads out of
        return "no text fits it"
    said = re.split(r"\n *\d+ \| |<non-verbose/>", error, maxsplit=1)[0]
    return " ".join(said.split())[:300]
