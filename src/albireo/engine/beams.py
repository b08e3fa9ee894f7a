"""Beams of one search: which go on, by which tokens, and which have ended best.

Held by a request, asked by engine.py. Does not know blocks, steps, or who runs: a beam has the index of the sequence
that computes it. What comes of it is a function of the log-probabilities alone, in whatever steps they come.

Once every beam has its next log-probabilities, that is a round. Each offers its likeliest tokens. An end of text ends
it there; of all others, over all beams, the best go on: several of one beam, none of another. As in vLLM a search goes
on until its outputs may be no longer; but it ends before where nothing that comes can be among the best.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from albireo.beam_search_params import BeamSearchParams
from albireo.errors import InvariantError
from albireo.outputs import FinishReason
from albireo.step import TokenLogprobs


@dataclass(frozen=True, slots=True)
class _Link:
    """A token of a beam, behind those before it. told: its log-probability and the best at its place, if asked for."""

    before: _Link | None
    token_id: int
    told: TokenLogprobs | None


@dataclass(frozen=True, slots=True)
class Beam:
    """One that goes on. Fields: index: of its sequence. logprob: of its tokens so far."""

    index: int
    logprob: float = 0.0
    last: _Link | None = None


#: Log-probability with a token, the beam, what it offers, and the token's place there.
_Choice = tuple[float, Beam, TokenLogprobs, int]


@dataclass(frozen=True, slots=True)
class Ended:
    """One that has ended. stop_token: that ended it; None: it may be no longer."""

    score: float
    last: _Link
    stop_token: int | None

    def output(self) -> tuple[list[int], list[TokenLogprobs] | None]:
        """Its tokens, and their log-probabilities where they were asked for."""
        links = list(_chain(self.last))
        told = [link.told for link in links if link.told is not None]
        return [link.token_id for link in links], told or None

    @property
    def reason(self) -> FinishReason:
        """Why."""
        return "length" if self.stop_token is None else "stop"


@dataclass(frozen=True, slots=True)
class Branch:
    """A beam of the next round: the sequence of this index goes on from where that of parent is, by a token."""

    index: int
    parent: int
    token_id: int


class Beams:
    """Invariant: while the search goes on, some beam does; at its end there are as many results as its width.

    Args:
        num_prompt: tokens of the prompt. max_len: most tokens of prompt and output.
        stop_ids: tokens that end a beam. num_told: log-probabilities that are told at each place; None: none are.
    """

    def __init__(
        self, params: BeamSearchParams, num_prompt: int, max_len: int, stop_ids: Collection[int], num_told: int | None
    ) -> None:
        self._width, self._penalty = params.beam_width, params.length_penalty
        self._stop_ids, self._max_len, self._num_told = stop_ids, max_len, num_told
        self._num_tokens = num_prompt
        #: The best first.
        self._going = [Beam(0)]
        self._offers: dict[int, TokenLogprobs] = {}
        #: The best first, of equals those that ended first; at most as many as the width.
        self._ended: list[Ended] = []

    @staticmethod
    def num_offered(width: int, num_stops: int) -> int:
        """Of how many best tokens the log-probabilities are wanted: the ends of text leave enough of them."""
        return max(2 * width, width + num_stops)

    def offer(self, index: int, logprobs: TokenLogprobs | None) -> bool:
        """What may follow a beam, the best first. Returns: whether all have told."""
        if logprobs is None:
            raise InvariantError(f"beam {index} has no log-probabilities")
        self._offers[index] = logprobs
        return len(self._offers) == len(self._going)

    def has_offer(self, index: int) -> bool:
        """Whether a beam has told what may follow it, and others have not."""
        return index in self._offers

    def next_round(self) -> list[Branch]:
        """All have told: who goes on. Each index is that of the parent itself, or of a sequence that no beam has.

        Returns: nobody, when the search is over.
        """
        for beam in self._going:
            offer = self._offers[beam.index]
            for place, token_id in enumerate(offer.token_ids):
                if token_id in self._stop_ids:
                    score = self._score(beam.logprob + offer.logprobs[place], self._num_tokens)
                    self._ended.append(Ended(score, self._link(beam, offer, place), token_id))
        chosen = self._chosen()
        self._offers.clear()
        self._num_tokens += 1
        self._going = list(self._grown(chosen))
        branches = [
            Branch(beam.index, parent.index, offer.token_ids[place])
            for beam, (_, parent, offer, place) in zip(self._going, chosen, strict=True)
        ]
        if self._num_tokens >= self._max_len:
            ends = (Ended(self._score(beam.logprob, self._num_tokens), _last(beam), None) for beam in self._going)
            self._ended += ends
            self._going = []
        self._ended.sort(key=lambda each: -each.score)
        del self._ended[self._width :]
        return branches if self._may_improve() else []

    def results(self) -> list[Ended]:
        """Of a search that is over, the best first."""
        return self._ended

    def _chosen(self) -> list[_Choice]:
        """The best tokens of all beams that are no ends; of equals those of better beams first, then the likelier.

        Cost: as many comparisons as the width, and few more.
        """
        heap: list[tuple[float, int, int]] = []
        chosen: list[_Choice] = []

        def push(number: int, place: int) -> None:
            """The best of a beam from a place on."""
            beam = self._going[number]
            offer = self._offers[beam.index]
            while place < len(offer.token_ids) and offer.token_ids[place] in self._stop_ids:
                place += 1
            if place < len(offer.token_ids):
                heappush(heap, (-(beam.logprob + offer.logprobs[place]), number, place))

        for number in range(len(self._going)):
            push(number, 0)
        while heap and len(chosen) < self._width:
            less, number, place = heappop(heap)
            beam = self._going[number]
            chosen.append((-less, beam, self._offers[beam.index], place))
            push(number, place + 1)
        return chosen

    def _grown(self, chosen: list[_Choice]) -> Iterator[Beam]:
        """Beams of the next round. The first that goes on from a beam has its sequence, so that only others move."""
        parents = {beam.index for _, beam, _, _ in chosen}
        free = iter([index for index in range(self._width) if index not in parents])
        kept: set[int] = set()
        for logprob, beam, offer, place in chosen:
            index = next(free) if beam.index in kept else beam.index
            kept.add(beam.index)
            yield Beam(index, logprob, self._link(beam, offer, place))

    def _link(self, beam: Beam, offer: TokenLogprobs, place: int) -> _Link:
        told = None if self._num_told is None else _chosen_first(offer, place, self._num_told)
        return _Link(beam.last, offer.token_ids[place], told)

    def _score(self, logprob: float, num_tokens: int) -> float:
        return logprob / math.pow(num_tokens, self._penalty)

    def _may_improve(self) -> bool:
        """Whether an output that is still to end may be among the best: none gets likelier by its further tokens."""
        if not self._going:
            return False
        if len(self._ended) < self._width:
            return True
        longest_or_shortest = self._max_len if self._penalty > 0 else self._num_tokens
        return self._score(self._going[0].logprob, longest_or_shortest) > self._ended[-1].score


def _last(beam: Beam) -> _Link:
    assert beam.last is not None, "it has a token"
    return beam.last


def _chain(last: _Link) -> Iterable[_Link]:
    found: list[_Link] = []
    link: _Link | None = last
    while link is not None:
        found.append(link)
        link = link.before
    return reversed(found)


def _chosen_first(offer: TokenLogprobs, place: int, num: int) -> TokenLogprobs:
    """The token at a place, then the num best of the others, as a token that was drawn is told."""
    others = [i for i in range(min(num, len(offer.token_ids))) if i != place]
    order = [place, *others]
    lists = (offer.token_ids, offer.logprobs, offer.ranks)
    return TokenLogprobs(*([each[i] for i in order] for each in lists))  # type: ignore[arg-type]
