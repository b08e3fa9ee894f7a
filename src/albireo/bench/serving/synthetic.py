"""Prompts of random tokens, as vLLM's random and prefix_repetition data sets make them.

A prompt is sent as text, which every server takes. Tokens are drawn, made text, and read again until the text has as
many tokens as were wanted: a neighbour may merge with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from albireo.bench.serving.request import ServeRequest, needed
from albireo.bench.workload import RandomWorkload, random_requests
from albireo.errors import ConfigError
from albireo.text.tokenizer import Tokenizer

#: vLLM's number of tries for a text of exactly so many tokens.
_MAX_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomPrompts:
    """Lengths drawn around a mean; all prompts may begin with the same tokens.

    Fields: as in RandomWorkload; input_len includes the special tokens a server adds, as in vLLM.
    """

    input_len: int = 1024
    output_len: int = 128
    range_ratio: float = 0.0
    prefix_len: int = 0

    def requests(self, num_prompts: int, seed: int, tokenizer: Tokenizer | None) -> list[ServeRequest]:
        """num_prompts requests. Raises: ConfigError for lengths that are not allowed."""
        words = PromptText(needed(tokenizer, "random"), seed)
        workload = RandomWorkload(
            num_prompts=num_prompts,
            input_len=max(1, self.input_len - words.num_special) if self.input_len > 0 else self.input_len,
            output_len=self.output_len,
            range_ratio=self.range_ratio,
            prefix_len=self.prefix_len,
            seed=seed,
        )
        drawn = random_requests(workload, words.vocab_size, words.special_ids)
        return [ServeRequest(*words.text(each.prompt_token_ids), each.output_len) for each in drawn]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixRepetition:
    """num_prefixes different beginnings, each with as many endings, in mixed order: what a prefix cache is for."""

    prefix_len: int = 256
    suffix_len: int = 256
    num_prefixes: int = 10
    output_len: int = 128
    is_shuffled: bool = True

    def requests(self, num_prompts: int, seed: int, tokenizer: Tokenizer | None) -> list[ServeRequest]:
        """num_prompts requests, rounded down to a multiple of num_prefixes, as in vLLM."""
        if self.num_prefixes < 1 or num_prompts < self.num_prefixes:
            raise ConfigError(
                f"num_prompts={num_prompts} is fewer than {self.num_prefixes} prefixes; every prefix needs a prompt"
            )
        if min(self.prefix_len, self.suffix_len) < 0 or self.prefix_len + self.suffix_len < 1 or self.output_len < 1:
            raise ConfigError(
                f"lengths of prefix {self.prefix_len}, suffix {self.suffix_len} and output {self.output_len} are not "
                "allowed; prompt and output have at least one token"
            )
        words = PromptText(needed(tokenizer, "prefix_repetition"), seed)
        found = []
        for _ in range(self.num_prefixes):
            prefix = words.draw(self.prefix_len)
            for _ in range(num_prompts // self.num_prefixes):
                prompt = words.tokenizer.decode([*prefix, *words.draw(self.suffix_len)], skip_special_tokens=False)
                found.append(ServeRequest(prompt, words.count(prompt), self.output_len))
        if self.is_shuffled:
            order = words.rng.permutation(len(found))
            found = [found[i] for i in order]
        return found


class PromptText:
    """Draws tokens of a vocabulary that are no special ones, and makes them text."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer = tokenizer
        self.rng = np.random.default_rng([seed, 1])
        self.vocab_size = tokenizer.vocab_size
        self.special_ids = tokenizer.special_ids
        self.num_special = len(tokenizer.encode(""))
        self._allowed = np.setdiff1d(np.arange(self.vocab_size), np.array(sorted(self.special_ids), dtype=int))

    def text(self, token_ids: list[int]) -> tuple[str, int]:
        """Text of about these tokens, and how many it has: len(token_ids) but for rare texts that never settle."""
        wanted = len(token_ids)
        prompt = ""
        for _ in range(_MAX_TRIES):
            prompt = self.tokenizer.decode(token_ids, skip_special_tokens=False)
            token_ids = self.tokenizer.encode(prompt, add_special_tokens=False)
            if len(token_ids) == wanted:
                break
            missing = max(0, wanted - len(token_ids))
            token_ids = [*token_ids[:wanted], *self.rng.choice(self._allowed, missing).tolist()]
        return prompt, self.count(prompt)

    def draw(self, num_tokens: int) -> list[int]:
        """Random tokens that stay themselves when they are made text and read again."""
        prompt, _ = self.text(self.rng.choice(self._allowed, num_tokens).tolist())
        return self.tokenizer.encode(prompt, add_special_tokens=False)

    def count(self, prompt: str) -> int:
        """Tokens of a text, without those a server adds."""
        return len(self.tokenizer.encode(prompt, add_special_tokens=False))
