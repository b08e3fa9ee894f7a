"""Pairs of texts to be scored -> the prompts that are computed for them, and what came of these -> a score each; or
classes.

Called by llm.py, async_llm.py and the server. Does not know requests, nor how prompts are encoded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any, NamedTuple, TypeVar

from albireo.errors import InvalidParams
from albireo.image_input import GivenImage
from albireo.outputs import (
    ClassificationOutput,
    ClassificationRequestOutput,
    EmbeddingRequestOutput,
    PoolingOutput,
    PoolingRequestOutput,
    ScoringOutput,
    ScoringRequestOutput,
)

T = TypeVar("T")

#: Of two texts' tokens, at once: 8 MiB.
_PRODUCTS = 1 << 20


class Part(NamedTuple):
    """A text of a pair. max_tokens: it is cut to so many, what is put round it aside; None: it is not. content: texts
    and pictures in order, where it is not a text alone, of whose texts text is then all."""

    text: str
    max_tokens: int | None = None
    content: tuple[str | GivenImage, ...] = ()

    @property
    def images(self) -> list[GivenImage]:
        return [each for each in self.content if isinstance(each, GivenImage)]


class Place(NamedTuple):
    """Where a text was given. side: 0 or 1, the first or the second of a pair; at: in the list of that side."""

    side: int
    at: int


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """Fields:
    prompts: what is computed, each once: a text, or a pair of them.
    places: of each prompt, where it was first given; of a pair that is its second text.
    pairs: of each score, the numbers of its prompts: two whose embeddings are compared, or one that is a pair.
    is_dot: embeddings are compared by their product, not by its cosine.
    width: values of each token, where each has an embedding of its own: the score is then the sum over the first text's
        tokens of how near the nearest of the second's is (ColBERT's late interaction); 0: texts have one each.
    """

    prompts: list[tuple[Part, ...]]
    places: list[Place]
    pairs: list[tuple[int, ...]]
    width: int = 0
    is_dot: bool = False

    def scores(self, vectors: Sequence[Sequence[float]]) -> Iterator[float]:
        """Args: vectors: of each prompt, its embedding, those of its tokens, or the one score of a pair."""
        if self.width:
            yield from self._nearest(vectors)
            return
        squares = [1.0 if self.is_dot else _product(vector, vector) for vector in vectors]
        for numbers in self.pairs:
            if len(numbers) == 1:
                yield vectors[numbers[0]][0]
            else:
                one, other = numbers
                if self.is_dot:
                    yield _product(vectors[one], vectors[other])
                    continue
                length = math.sqrt(squares[one] * squares[other])
                # of parallel vectors it may be a rounding above 1
                yield max(-1.0, min(_product(vectors[one], vectors[other]) / length, 1.0)) if length else 0.0

    def _nearest(self, vectors: Sequence[Sequence[float]]) -> Iterator[float]:
        import numpy as np  # a server has none until it is asked for this

        def tokens(number: int) -> Any:
            return np.asarray(vectors[number], np.float32).reshape(-1, self.width).astype(np.float64)

        for one, other in self.pairs:
            first, second, nearest = tokens(one), tokens(other), list[float]()
            most = max(1, _PRODUCTS // len(second))
            for start in range(0, len(first), most):
                # not a BLAS product: its sums depend on how many threads it has
                products = np.einsum("id,jd->ij", first[start : start + most], second)
                nearest += products.max(axis=1).tolist()
            yield math.fsum(nearest)

    def outputs(self, found: Sequence[EmbeddingRequestOutput]) -> list[ScoringRequestOutput]:
        """The scores as callers get them. Args: found: of each prompt."""
        scores = self.scores([output.outputs.embedding for output in found])
        return [
            _output([found[at] for at in numbers], score) for numbers, score in zip(self.pairs, scores, strict=True)
        ]


def plan_cosines(firsts: Sequence[Part], seconds: Sequence[Part], width: int = 0, *, is_dot: bool = False) -> ScorePlan:
    """Each pair's embeddings are compared. A text that is given several times is embedded once; pictures are each.

    Args: firsts: one for all of seconds, or one each. width, is_dot: see ScorePlan.
    """
    prompts: list[tuple[Part, ...]] = []
    known: dict[Part, int] = {}
    places: list[Place] = []

    def number(part: Part, place: Place) -> int:
        found = len(prompts) if part.content else known.setdefault(part, len(prompts))
        if found == len(prompts):
            prompts.append((part,))
            places.append(place)
        return found

    ones = [number(part, Place(0, at)) for at, part in enumerate(firsts)]
    others = [number(part, Place(1, at)) for at, part in enumerate(seconds)]
    return ScorePlan(prompts, places, list(zip(_each(ones, len(others)), others, strict=True)), width, is_dot)


def plan_pairs(firsts: Sequence[Part], seconds: Sequence[Part]) -> ScorePlan:
    """Each pair is a prompt, which a classifier scores. Args: see plan_cosines()."""
    pairs = list(zip(_each(firsts, len(seconds)), seconds, strict=True))
    return ScorePlan([*pairs], [Place(1, at) for at in range(len(pairs))], [(at,) for at in range(len(pairs))])


def classified(found: EmbeddingRequestOutput) -> ClassificationRequestOutput:
    """What came of a prompt, where it is a classifier's."""
    probs = ClassificationOutput(found.outputs.embedding)
    rest = found.finished, found.num_cached_tokens, found.metrics
    return ClassificationRequestOutput(found.request_id, probs, found.prompt_token_ids, *rest)


def as_numbers(found: EmbeddingRequestOutput, *, of_tokens: bool) -> PoolingRequestOutput[PoolingOutput]:
    """What came of a prompt, whatever it is. Args: of_tokens: each of its tokens has values of its own."""
    import numpy as np

    data = np.array(found.outputs.embedding, np.float32)
    if of_tokens:
        data = data.reshape(len(found.prompt_token_ids), -1)
    rest = found.finished, found.num_cached_tokens, found.metrics
    return PoolingRequestOutput(found.request_id, PoolingOutput(data), found.prompt_token_ids, *rest)


def check_pairs(num_firsts: int, num_seconds: int, first: str, second: str) -> None:
    """Args: first, second: what the lists are called. Raises: InvalidParams for numbers that make no pairs."""
    if not num_firsts or not num_seconds:
        raise InvalidParams(f"{second if num_firsts else first} holds no texts; give at least one")
    if num_firsts not in (1, num_seconds):
        raise InvalidParams(
            f"{first} holds {num_firsts} texts and {second} {num_seconds}; give one, or as many as {second} holds"
        )


def _each(values: Sequence[T], num: int) -> Sequence[T]:
    return [values[0]] * num if len(values) == 1 else values


def _product(one: Iterable[float], other: Iterable[float]) -> float:
    """Of values of float32: products are exact in float64, and the sum is rounded once, whatever its order."""
    return math.fsum(map(mul, one, other))


def _output(of: Sequence[EmbeddingRequestOutput], score: float) -> ScoringRequestOutput:
    return ScoringRequestOutput(
        "_".join(each.request_id for each in of),
        ScoringOutput(score),
        [token for each in of for token in each.prompt_token_ids],
        True,
        sum(each.num_cached_tokens for each in of),
        of[0].metrics if len(of) == 1 else None,
    )
