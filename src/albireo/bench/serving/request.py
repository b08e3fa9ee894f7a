"""One request of a serving benchmark, and what makes a list of them.

Used by the data sets of this folder and by session.py. Does not know servers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from albireo.errors import ConfigError
from albireo.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """One prompt, and how many tokens to ask for.

    Fields:
        prompt: text, or token ids.
        prompt_len: tokens of it, special ones that the server adds aside; the server's usage corrects it.
        arrival_s: when a trace has it arrive, in seconds from its first; None: by the request rate.
    """

    prompt: str | list[int]
    prompt_len: int
    output_len: int
    arrival_s: float | None = None


class Dataset(Protocol):
    """Where requests come from; the same seed gives the same requests."""

    def requests(self, num_prompts: int, seed: int, tokenizer: Tokenizer | None) -> list[ServeRequest]:
        """At most num_prompts requests. Raises: ConfigError for data that cannot be used."""
        ...


def needed(tokenizer: Tokenizer | None, name: str) -> Tokenizer:
    """The tokenizer. Raises: ConfigError when there is none."""
    if tokenizer is None:
        raise ConfigError(f"the data set {name} needs a tokenizer; leave out --skip-tokenizer-init")
    return tokenizer
