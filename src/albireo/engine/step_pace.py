"""StepPace: how many tokens a step has, so that nobody's stream waits for another's prompt longer than it should.

Used by scheduler.py, which tells it what its steps took. Nothing is assumed of the device, nor of the model.

While sequences decode, a step with tokens of a prompt is to take target_s seconds. How many tokens do is what the last
such steps show, as tokens a second. Steps of more tokens have more a second, since they read the weights once as well,
so the number settles where a step takes as long as it is to. A prompt's bits do not depend on how it is cut, so it may
be cut anew in each step.

Prompts go on, however slow the machine or long the line of those that decode: they have as many tokens as these, and no
fewer than FEWEST. Where nobody decodes, only who may come is waited for: a step may take ALONE times as long.
"""

from __future__ import annotations

from math import sqrt

#: Tokens of prompts that a step has at least. As many rows are multiplied while the weights are read.
FEWEST = 16
#: Target of a step beside which nobody decodes, as a multiple: whoever comes waits for its end. Of 500 ms and a model
#: that computes 80 tokens of prompts a second these are 120, which take 5 % longer than long steps; 240 cost nothing.
ALONE = 3
#: Of a prompt's first step, before anything is known.
FIRST = 64


class StepPace:
    """Invariant: limit() is at least num_decoding + FEWEST, unless most is less."""

    def __init__(self, target_s: float, most: int) -> None:
        """Args: target_s: 0: steps are as long as they may. most: tokens of a step."""
        self._target_s, self._most = target_s, most
        #: None: there was no step with prompts yet.
        self._tokens_per_s: float | None = None

    def limit(self, num_decoding: int) -> int:
        """Most tokens of the next step. Args: num_decoding: those that need one token each."""
        if not self._target_s:
            return self._most
        if self._tokens_per_s is None:
            for_prompts = FIRST
        else:
            target_s = self._target_s if num_decoding else self._target_s * ALONE
            for_prompts = int(min(target_s * self._tokens_per_s, self._most)) - num_decoding
        # Whole blocks: the next part then begins where one does.
        for_prompts = FEWEST * round(max(for_prompts, num_decoding, FEWEST) / FEWEST)
        return min(self._most, num_decoding + for_prompts)

    def observe(self, num_tokens: int, num_of_prompts: int, seconds: float) -> None:
        """A step took so long. One that was held up, by pictures or by whoever has the machine, counts by its root."""
        if not self._target_s or num_of_prompts < FEWEST:
            return
        found = num_tokens / max(seconds, 1e-9)
        self._tokens_per_s = found if self._tokens_per_s is None else sqrt(self._tokens_per_s * found)
