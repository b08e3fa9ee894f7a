"""Fields of a request for embeddings -> what the engine takes, or the 4xx that says why not.

Used by the endpoint. As in intake.py everything is checked before anything runs: all inputs are embedded, or none.
"""

from __future__ import annotations

from albireo.api.admission import Submission
from albireo.api.prompts import Prompt
from albireo.engine.request import check_request
from albireo.errors import EngineError, RequestError
from albireo.params import PoolingParams
from albireo.server.errors import HttpError, refused, unsupported
from albireo.server.intake import engine_settings, one_or_several, with_adapter
from albireo.server.protocol.embeddings import EMBEDDING_NEUTRAL, EmbeddingRequest
from albireo.server.protocol.fields import unneutral
from albireo.server.serving import INLINE_CHARS, Serving

_FIELD = "input"


async def embeddings(serving: Serving, request: EmbeddingRequest) -> list[Submission]:
    """One submission an input. Raises: HttpError."""
    serving.check_open()
    serving.check_model(request.model)
    asked = unneutral(request, EMBEDDING_NEUTRAL)
    if asked is not None:
        raise unsupported(*asked)
    inputs = _inputs(serving, request)
    try:
        params = PoolingParams(
            pooling_type=request.pooling_type or serving.settings.pooling_type,  # type: ignore[arg-type]  # it checks
            dimensions=request.dimensions,
            use_activation=request.use_activation,
        )
    except RequestError as error:
        raise refused(error, _FIELD) from None
    special = request.add_special_tokens is not False

    def prepare() -> list[Submission]:
        return [
            serving.admission.embedding(
                Prompt(each, None, request.cache_salt)
                if isinstance(each, str)
                else Prompt(None, each, request.cache_salt),
                params,
                add_special_tokens=special,
            )
            for each in inputs
        ]

    is_short = sum(map(len, inputs)) <= INLINE_CHARS
    try:
        submissions = prepare() if is_short else await serving.in_thread(prepare)
    except EngineError as error:
        raise refused(error, _FIELD) from None
    _check(serving, submissions, request.priority or 0)
    serving.check_queue(len(submissions), sum(len(made.prompt_token_ids) for made in submissions))
    return with_adapter(serving, submissions, request.model)


def _inputs(serving: Serving, request: EmbeddingRequest) -> list[str | list[int]]:
    inputs, limit = one_or_several(request.input, _FIELD), serving.settings.max_embedding_inputs
    if len(inputs) > limit:
        raise HttpError(
            400,
            f"{_FIELD} holds {len(inputs)} inputs, at most {limit} are taken (--max-embedding-inputs)",
            param=_FIELD,
        )
    for place, each in enumerate(inputs):
        if not each:
            where = _FIELD if len(inputs) == 1 else f"{_FIELD}[{place}]"
            raise HttpError(400, f"{where} is empty; there is nothing to embed", param=_FIELD)
        if len(each) > serving.max_prompt_chars:
            raise HttpError(
                400,
                f"{_FIELD}[{place}] of length {len(each)} cannot fit the model's context of "
                f"{serving.ready.max_model_len} tokens",
                param=_FIELD,
                code="context_length_exceeded",
            )
    return inputs


def _check(serving: Serving, submissions: list[Submission], priority: int) -> None:
    """Raises: HttpError naming the input that can never run."""
    settings = engine_settings(serving)
    for place, made in enumerate(submissions):
        try:
            check_request(made.prompt_token_ids, made.params, priority, settings, made.pooling)
        except RequestError as error:
            answer = refused(error, _FIELD)
            if answer.param == _FIELD and len(submissions) > 1:
                answer.message = f"{_FIELD}[{place}]: {answer.message}"
            raise answer from None
