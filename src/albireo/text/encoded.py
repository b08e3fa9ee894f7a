"""A prompt of one text or a pair of texts as token ids, and how it is cut to so many of them.

Called by tokenizer.py. Does not know models: how many tokens there may be is the caller's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from albireo.errors import PromptTooLong, UnsupportedFeature

if TYPE_CHECKING:
    import tokenizers


@dataclass(frozen=True, slots=True)
class Encoded:
    """Fields: type_start: of a pair, place of the first token whose type (token_type_ids) is 1, as those behind it are;
    -1: none has it."""

    ids: list[int]
    type_start: int = -1


@dataclass(frozen=True, slots=True)
class Cut:
    """How many tokens may stay; None: any number.

    Fields: all: what is put round texts included; first, second: of the texts' own. from_start: what all says goes from
        the start of the text, not from its end.
    """

    all: int | None = None
    first: int | None = None
    second: int | None = None
    from_start: bool = False


#: Nothing is cut.
WHOLE = Cut()


def encoded(found: tokenizers.Encoding, prefix: list[int], cut: Cut) -> Encoded:
    """What the library made of one text or two, as much of it as may stay.

    What is put round texts stays. Where that and the texts are too much, the end of the one text goes, or the end of
    the second, of which a token at least stays: a score of a text that was left out says nothing.

    Args: prefix: ids in front of all, not the library's.
    Raises: PromptTooLong when what has to stay is too much; UnsupportedFeature for types other than 0, then 1.
    """
    ids, types, texts = found.ids, found.type_ids, found.sequence_ids
    for text, most in ((0, cut.first), (1, cut.second)):
        num_surplus = 0 if most is None else texts.count(text) - most
        if num_surplus > 0:
            ids, types, texts = (_without(each, texts, text, num_surplus) for each in (ids, types, texts))
    num_surplus = 0 if cut.all is None else len(prefix) + len(ids) - cut.all
    if cut.all is not None and num_surplus > 0:
        last = 1 if 1 in texts else 0
        num_last = texts.count(last)
        if num_surplus >= num_last:
            raise PromptTooLong(_too_much(len(prefix) + len(ids) - num_last, cut.all, last == 1))
        ids, types = (_without(each, texts, last, num_surplus, cut.from_start) for each in (ids, types))
    if found.n_sequences < 2:
        return Encoded([*prefix, *ids])
    start = types.index(1) if 1 in types else len(types)
    if any(kind != (at >= start) for at, kind in enumerate(types)):
        raise UnsupportedFeature(
            f"the tokenizer gives tokens of a pair the types {sorted(set(types))} in an order other than 0, then 1; "
            "join the texts to one"
        )
    return Encoded([*prefix, *ids], -1 if start == len(types) else len(prefix) + start)


def _without(values: list[Any], texts: list[int | None], text: int, num: int, from_start: bool = False) -> list[Any]:
    """Values of all tokens but the last, or the first, so many of a text. texts: which text each token is of."""
    if from_start:
        start = texts.index(text)
        return values[:start] + values[start + num :]
    end = len(texts) - texts[::-1].index(text)
    return values[: end - num] + values[end:]


def _too_much(num_kept: int, max_tokens: int, is_pair: bool) -> str:
    what = "the first text and the tokens put round both" if is_pair else "the tokens put round a text"
    return (
        f"{what} are {num_kept}, and {max_tokens} may be kept: the {'second ' * is_pair}text would be cut to nothing; "
        f"keep {num_kept + 1} or more{', or shorten the first text' * is_pair}"
    )
