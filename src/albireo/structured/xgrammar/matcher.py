"""The state of one sequence in its grammar, which a process of xgrammar's holds.

Made by backend.py, asked by the sampler. Does not know logits, requests or schedules.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.errors import InvalidParams
from albireo.step import allows
from albireo.structured.xgrammar import wire
from albireo.structured.xgrammar.host import GrammarProcess


class Matcher:
    """Implements step.TokenMatcher. Invariant: as llguidance's, the answer depends on the grammar and the output tokens
    alone; what the process keeps only saves reading them again.

    Attributes: eos_token_ids: ids that end the output; the grammar says where.
    """

    def __init__(self, process: GrammarProcess, eos_token_ids: Sequence[int]) -> None:
        self.eos_token_ids = tuple(eos_token_ids)
        self._process = process
        self._id = process.matcher_id()
        self._num_seen = 0

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        """See step.TokenMatcher. Cost: the mask's and twice from one process to another; bounded by Limits.mask_s."""
        num_kept = self._num_seen if len(output_token_ids) >= self._num_seen else 0
        self._num_seen = 0
        try:
            status, said = self._process.mask(self._id, num_kept, output_token_ids[num_kept:])
            if status == wire.UNKNOWN:
                status, said = self._process.mask(self._id, 0, output_token_ids)
        except InvalidParams as error:
            raise self._error(f"the token after {len(output_token_ids)} output tokens", str(error)) from None
        if status == wire.REFUSED:
            (place,) = wire.STATUS.unpack(said)
            where = f"token {output_token_ids[place]} after {place} output tokens"
            raise self._error(where, "it does not follow the grammar")
        if status != wire.DONE:
            raise self._error(f"the token after {len(output_token_ids)} output tokens", "xgrammar gives up")
        self._num_seen = len(output_token_ids)
        return said

    def ahead(self, output_token_ids: Sequence[int], draft_token_ids: Sequence[int]) -> list[bytes]:
        """See step.TokenMatcher. Cost: as allowed(), a draft."""
        masks: list[bytes] = []
        num_before = len(output_token_ids)
        try:
            mask = self.allowed(output_token_ids)
            for draft in draft_token_ids:
                if not allows(mask, draft):
                    break
                status, mask = self._process.mask(self._id, num_before + len(masks), [draft])
                if status != wire.DONE:
                    break
                masks.append(mask)
        except InvalidParams:  # and says so again to whoever needs it
            pass
        return masks

    def forced(self, output_token_ids: Sequence[int]) -> Sequence[int]:
        """See step.TokenMatcher: the process is not asked."""
        return []

    def _error(self, where: str, why: str) -> InvalidParams:
        return InvalidParams(f"structured_outputs cannot go on with {where}: {why}")

    def __del__(self) -> None:
        self._process.drop(self._id)
