"""Fields of a request for scores -> pairs of texts, and what is run for them; or the 4xx that says why not.

Used by endpoints/scoring.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from albireo.api.requests.scored_content import content_of
from albireo.api.requests.scoring import Part, ScorePlan, check_pairs
from albireo.api.requests.submission import Submission
from albireo.errors import EngineError, UnsupportedFeature
from albireo.server.errors import HttpError, cannot, refused
from albireo.server.pooling_intake import admitted, check_length, check_number, places_of, pooling_params
from albireo.server.protocol.scoring import Content, ScoreRequest, ScoringFields, Texts
from albireo.server.serving import INLINE_CHARS, Serving

#: By these names the two texts of a pair come.
_PAIRS = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


def named_texts(request: ScoreRequest) -> dict[str, Texts]:
    """The first texts and the second, by the names they came by. Raises: HttpError 400."""
    found = {name: getattr(request, name) for name in dict.fromkeys(name for pair in _PAIRS for name in pair)}
    given = {name: texts for name, texts in found.items() if texts is not None}
    if tuple(given) not in _PAIRS:
        known = ", ".join(" and ".join(pair) for pair in _PAIRS)
        words = f"texts are named {known}; given are {', '.join(given) or 'none'}"
        raise HttpError(400, words, param=next(iter(given), None))
    return given


async def scored(
    serving: Serving, request: ScoringFields, texts: dict[str, Texts]
) -> tuple[ScorePlan, list[Submission], list[str]]:
    """What the scores are made of, what is run for it, and what each of that is called.

    Args: texts: by the names that they came by, the first of each pair and the second. Raises: HttpError.
    """
    problem, has_content = serving.admission.pooling.content_problem(), False
    limits = request.max_tokens_per_query, request.max_tokens_per_doc
    sides, names = [], []
    for (field, given), limit in zip(texts.items(), limits, strict=True):
        several = given if isinstance(given, list) else [given]
        check_number(serving, field, len(several))
        places = places_of(field, len(several))
        sides.append([_part(each, place, limit or None, problem) for place, each in zip(places, several, strict=True)])
        for place, part in zip(places, sides[-1], strict=True):
            if not limit:
                check_length(serving, request, place, part.text)
        has_content |= any(part.content for part in sides[-1])
        names.append(places)
    firsts, seconds = sides
    try:
        check_pairs(len(firsts), len(seconds), *texts)
        params = pooling_params(serving, request)
        plan = serving.admission.pooling.score_plan(firsts, seconds, params)
    except UnsupportedFeature as error:
        raise cannot(error) from None
    except EngineError as error:
        raise refused(error, next(iter(texts))) from None
    making = [partial(serving.admission.pooling.scored, parts, params, request.cache_salt) for parts in plan.prompts]
    called = [names[place.side][place.at] for place in plan.places]
    num_chars = _num_chars(plan.prompts)
    return plan, await admitted(serving, request, making, called, num_chars, has_content), called


def _part(given: str | Content, place: str, limit: int | None, problem: str) -> Part:
    """Args: limit: tokens that a text is cut to. problem: why there is text alone; empty: there may be pictures.
    Raises: HttpError 400."""
    field = place.partition("[")[0]
    if isinstance(given, str):
        return Part(given, limit)
    if (given.text is None) == (given.content is None):
        raise HttpError(400, f"{place} has text or content, one of them", param=field)
    if given.content is None:
        return Part(given.text or "", limit)
    if problem:
        raise HttpError(400, f"{place} has content; {problem}", param=field, code="unsupported")
    try:
        return content_of(given.content, place, set())._replace(max_tokens=limit)
    except EngineError as error:
        raise refused(error, field) from None


def _num_chars(prompts: Sequence[tuple[Part, ...]]) -> int:
    return sum(INLINE_CHARS + 1 if part.images else len(part.text) for parts in prompts for part in parts)
