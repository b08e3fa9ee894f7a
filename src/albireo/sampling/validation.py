"""Checks of sampling parameters that need the size of the vocabulary.

Called when a request is added, by whoever knows the model. Does not know tokenizers or logits; imports no arrays.
"""

from __future__ import annotations

from collections.abc import Iterable

from albireo.errors import InvalidParams
from albireo.params import SamplingParams

#: Far beyond any logit, and far enough below float32's limit that logit + bias stays finite.
MAX_LOGIT_BIAS = 1e30
#: Likewise: logits divided by the least, and multiplied by the largest, stay finite.
MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY = 1e-30, 1e30


def validate(params: SamplingParams, vocab_size: int) -> None:
    """Refuse parameters that name what the vocabulary does not have.

    Raises: InvalidParams naming the field, the ids and the limit.
    """
    _within("allowed_token_ids", params.allowed_token_ids or (), vocab_size)
    _within("logit_bias", params.logit_bias or (), vocab_size)
    _within("stop_token_ids", params.stop_token_ids or (), vocab_size)
    _within("logprob_token_ids", params.logprob_token_ids or (), vocab_size)
    for word in params.bad_words_token_ids:
        if not word:
            raise InvalidParams("bad_words holds a word without tokens; it would forbid everything: leave it out")
        _within("bad_words", word, vocab_size)
    for token_id, bias in (params.logit_bias or {}).items():
        if bias > MAX_LOGIT_BIAS:
            raise InvalidParams(
                f"logit_bias of token {token_id} is {bias}, above the limit {MAX_LOGIT_BIAS:g}; "
                f"100 already makes a token certain"
            )
    if not MIN_REPETITION_PENALTY <= params.repetition_penalty <= MAX_REPETITION_PENALTY:
        raise InvalidParams(
            f"repetition_penalty={params.repetition_penalty:g} is outside {MIN_REPETITION_PENALTY:g} to "
            f"{MAX_REPETITION_PENALTY:g}; 1 changes nothing"
        )
    for name in ("logprobs", "prompt_logprobs"):
        num = getattr(params, name)
        if num is not None and num > vocab_size:
            raise InvalidParams(f"{name}={num} exceeds the vocabulary of {vocab_size} tokens; -1 asks for all")


def _within(name: str, token_ids: Iterable[int], vocab_size: int) -> None:
    beyond = sorted({i for i in token_ids if not 0 <= i < vocab_size})
    if beyond:
        shown = ", ".join(map(str, beyond[:5])) + (f" and {len(beyond) - 5} more" if len(beyond) > 5 else "")
        raise InvalidParams(f"{name} holds token ids outside the vocabulary: {shown}; ids are 0 to {vocab_size - 1}")
