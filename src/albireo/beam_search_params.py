"""BeamSearchParams: what a caller may ask of a beam search. Names and meanings are vLLM's.

Checked once, on construction; frozen afterwards. A leaf module: does not know tokens or models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from albireo.errors import InvalidParams, UnsupportedFeature, short

#: Far beyond any use; the longest context to its power is a number still.
MAX_LENGTH_PENALTY = 10.0
MAX_BEAM_WIDTH = 16384


@dataclass(frozen=True, slots=True)
class BeamSearchParams:
    """Fields:
        beam_width: beams that go on at each token, and that are given at the end, the best first.
        max_tokens: most tokens of an output.
        ignore_eos: go on after the model's end of text; else it ends a beam.
        temperature: 0 or 1, which mean the same: beams are compared by the model's own probabilities.
        length_penalty: a beam's score is its log-probability, divided by its number of tokens to this power, the
            prompt's counted and the end of text not. 0: the log-probability alone; more favours long outputs; from -10
            to 10.
        include_stop_str_in_output: the end of text is part of the text, if special tokens are.

    Raises: InvalidParams naming field, value and limit; UnsupportedFeature for another temperature.
    """

    beam_width: int
    max_tokens: int | None
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False

    def __post_init__(self) -> None:
        _count("beam_width", self.beam_width, MAX_BEAM_WIDTH)
        if self.max_tokens is not None:
            _count("max_tokens", self.max_tokens, None)
        for name in ("ignore_eos", "include_stop_str_in_output"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidParams(f"{name}={short(getattr(self, name))} is not allowed; it must be true or false")
        if not _is_number(self.temperature) or self.temperature not in (0, 1):
            raise UnsupportedFeature(
                f"temperature={short(self.temperature)} is not supported in a beam search, which draws nothing; leave "
                "it out, or 0 or 1"
            )
        penalty = self.length_penalty
        if not _is_number(penalty) or not -MAX_LENGTH_PENALTY <= penalty <= MAX_LENGTH_PENALTY:
            limit = f"a number from {-MAX_LENGTH_PENALTY:g} to {MAX_LENGTH_PENALTY:g}"
            raise InvalidParams(f"length_penalty={short(penalty)} is not allowed; it must be {limit}")


def _count(name: str, value: Any, most: int | None) -> None:
    if type(value) is not int or value < 1 or (most is not None and value > most):
        limit = "a whole number of at least 1" + ("" if most is None else f" and at most {most}")
        raise InvalidParams(f"{name}={short(value)} is not allowed; it must be {limit}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
