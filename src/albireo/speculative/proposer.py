"""What makes drafts: the contracts, and who fulfils them.

Asked by engine/drafting.py. A draft is judged elsewhere, by equality with the token drawn at its place; so a proposer
may guess as it likes, and changes nothing but speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from albireo.speculative.ngram import NgramProposer
from albireo.speculative_config import SpeculativeConfig
from albireo.step import StepPlan, StepResult

#: No sequence is as long.
MAX_POSITIONS = 1 << 62


class Proposer(Protocol):
    """Guesses what one sequence goes on with."""

    def propose(self, output_token_ids: Sequence[int], num: int) -> tuple[list[int], int]:
        """Guess.

        Args: output_token_ids: all of the output; it only ever grows. num: most drafts wanted, at least 1.
        Returns: up to num token ids, in order, none where there is no guess; and the kind of the guess, a number below
            Method.num_kinds: guesses of one kind come true about equally often.
        """
        ...


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make drafts: by a proposer for each sequence, or by a model for all.

    Fields: num_kinds: of its guesses. proposer: makes that of a sequence, from the ids of its prompt. execute: computes
        a plan of the draft model, which has a KV cache of its own with blocks of the same numbers; see
        engine/model_guesses.py. max_positions: longest sequence that it knows; vocab_size: its
        ids are below it.
        reads: what it reads of the model's, where it is a head: states, which are left at each position, beside the
            token behind it; cache: these and keys and values, and it has none of its own.
    """

    num_kinds: int
    proposer: Callable[[Sequence[int]], Proposer] | None = None
    execute: Callable[[StepPlan], StepResult] | None = None
    max_positions: int = MAX_POSITIONS
    vocab_size: int = 0
    reads: Literal["", "states", "cache"] = ""


def method_of(config: SpeculativeConfig) -> Method:
    """What config asks for, where no model is needed for it."""
    assert config.method == "ngram", "a draft model or a head is loaded by whoever loads the model"
    low, high = config.prompt_lookup_min, config.prompt_lookup_max
    return Method(high - low + 1, partial(NgramProposer, shortest=low, longest=high))
