"""Fields of a request whose prompts are pooled -> what the engine takes, or the 4xx that says why not.

Used by the endpoints for embeddings, scores and classes. As in intake.py everything is checked before anything runs:
all prompts are computed, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from albireo.api.requests.prompts import Prompt
from albireo.api.requests.submission import Submission
from albireo.engine.pooling import num_token_values
from albireo.engine.request import check_request
from albireo.engine.settings import EngineSettings
from albireo.errors import EngineError, RequestError
from albireo.params import PoolingParams, PoolingTaskName
from albireo.server.conversation import readable
from albireo.server.errors import HttpError, cannot, refused, unsupported
from albireo.server.intake import one_or_several, template_kwargs, template_of, with_adapter
from albireo.server.protocol.fields import unneutral
from albireo.server.protocol.pooling import POOLING_NEUTRAL, EncodedFields, InputFields, PoolingFields
from albireo.server.serving import INLINE_CHARS, Serving
from albireo.text.conversation import has_media

#: Most that one request may ask for where tokens, or entries of a vocabulary, have values of their own: 256 MiB, and
#: five times that as JSON.
MAX_VALUES = 2**26


def begin(
    serving: Serving,
    request: PoolingFields,
    neutral: dict[str, tuple[Any, ...]] = POOLING_NEUTRAL,
    task: PoolingTaskName | None = None,
) -> None:
    """What is looked at before any prompt is. Args: task: what has to become of it. Raises: HttpError."""
    serving.check_open()
    serving.check_model(request.model)
    try:
        if task is not None:
            serving.admission.pooling.check_task(task)
    except EngineError as error:
        raise cannot(error) from None
    asked = unneutral(request, neutral)
    if asked is not None:
        raise unsupported(*asked)


def pooling_params(serving: Serving, request: PoolingFields, dimensions: int | None = None) -> PoolingParams:
    """What is wanted of each prompt. Raises: HttpError 400."""
    try:
        return PoolingParams(
            pooling_type=request.pooling_type or serving.settings.pooling_type,  # type: ignore[arg-type]  # it checks
            dimensions=dimensions,
            use_activation=request.use_activation,
            truncate_prompt_tokens=request.truncate_prompt_tokens,
            truncation_side=request.truncation_side,
        )
    except RequestError as error:
        raise refused(error, "input") from None


def prompt_name(request: EncodedFields) -> str | None:
    """Of what texts begin with. Raises: HttpError 400 beside a chat, whose template writes it."""
    if request.prompt_name is not None and request.messages is not None:
        raise unsupported("prompt_name", request.prompt_name, "it goes with input, and there is a chat")
    return request.prompt_name


def check_number(serving: Serving, field: str, num: int) -> None:
    """Raises: HttpError 400 for more inputs than are taken."""
    limit = serving.settings.max_embedding_inputs
    if num > limit:
        words = f"{field} holds {num} inputs, at most {limit} are taken (--max-embedding-inputs)"
        raise HttpError(400, words, param=field)


def check_length(serving: Serving, request: PoolingFields, place: str, prompt: str | list[int]) -> None:
    """Raises: HttpError 400 for a prompt that cannot fit, and is not to be cut."""
    if request.truncate_prompt_tokens is None and len(prompt) > serving.max_prompt_chars:
        raise HttpError(
            400,
            f"{place} of length {len(prompt)} cannot fit the model's context of {serving.ready.max_model_len} tokens; "
            "shorten it, or have it cut by truncate_prompt_tokens",
            param=_field(place),
            code="context_length_exceeded",
        )


async def admitted_inputs(
    serving: Serving, request: InputFields, make: Callable[[Prompt], Submission]
) -> tuple[list[Submission], list[str]]:
    """A chat, or one prompt or several, none of them empty, and what each is called. Raises: HttpError."""
    field = "input"
    if (request.input is None) == (request.messages is None):
        code = "missing_required_parameter" if request.input is None else "invalid_value"
        raise HttpError(400, "give input or messages, one of them", param=field, code=code)
    if request.messages is not None:
        return await _admitted_chat(serving, request, request.messages, make), ["messages"]
    for name in ("add_generation_prompt", "continue_final_message", "chat_template", "chat_template_kwargs"):
        if value := getattr(request, name):
            raise unsupported(name, value, "it goes with messages, and there is an input")
    assert request.input is not None, "one of both is there"
    inputs = one_or_several(request.input, field)
    check_number(serving, field, len(inputs))
    places, salt = places_of(field, len(inputs)), request.cache_salt
    for place, each in zip(places, inputs, strict=True):
        if not each:
            raise HttpError(400, f"{place} is empty; there is nothing to compute", param=field)
        check_length(serving, request, place, each)
    prompts = [Prompt(each, None, salt) if isinstance(each, str) else Prompt(None, each, salt) for each in inputs]
    num_chars = sum(len(prompt.text or ()) for prompt in prompts)
    return await admitted(serving, request, [partial(make, each) for each in prompts], places, num_chars), places


async def _admitted_chat(
    serving: Serving, request: InputFields, messages: list[dict[str, Any]], make: Callable[[Prompt], Submission]
) -> list[Submission]:
    """What the model's template makes of a chat; unlike one that is to be answered without what begins an answer."""
    if request.add_special_tokens:
        raise unsupported("add_special_tokens", True, "a chat has those that its template writes")
    template = template_of(serving, request.chat_template)
    options = {
        "add_generation_prompt": bool(request.add_generation_prompt),
        "continue_final_message": bool(request.continue_final_message),
        "chat_template": template,
        "chat_template_kwargs": template_kwargs(serving, request.chat_template_kwargs, None),
        "cache_salt": request.cache_salt,
    }

    def made() -> Submission:
        said = readable(messages, template or serving.dialect.template)
        return make(serving.admission.pooling.chat_prompt(said, options))

    # in a thread: a template may take its time
    return await admitted(serving, request, [made], ["messages"], INLINE_CHARS + 1, has_media(messages))


def places_of(field: str, num: int) -> list[str]:
    """What each of so many inputs is called."""
    return [field] if num == 1 else [f"{field}[{place}]" for place in range(num)]


async def admitted(
    serving: Serving,
    request: PoolingFields,
    making: Sequence[Callable[[], Submission]],
    places: Sequence[str],
    num_chars: int,
    with_media: bool = False,
) -> list[Submission]:
    """Encode, and refuse what can never run or has no room.

    Args: making: makes each submission; places: what it is called in a refusal, the field in front.
    Raises: HttpError naming the one that is refused.
    """

    def prepare() -> list[Submission]:
        made = []
        for place, make in zip(places, making, strict=True):
            try:
                made.append(make())
            except EngineError as error:
                raise placed(refused(error, _field(place)), place) from None
        return made

    submissions = prepare() if num_chars <= INLINE_CHARS else await serving.in_thread(prepare, with_media)
    settings, priority = serving.ready.settings(), request.priority or 0
    for place, made in zip(places, submissions, strict=True):
        try:
            check_request(made.prompt_token_ids, made.params, priority, settings, made.pooling, made.images)
        except RequestError as error:
            raise placed(refused(error, _field(place)), place) from None
    check_values(submissions, settings, _field(places[0]))
    serving.check_queue(len(submissions), sum(len(made.prompt_token_ids) for made in submissions))
    return with_adapter(serving, submissions, request.model)


def check_values(submissions: Sequence[Submission], settings: EngineSettings, field: str) -> None:
    """Raises: HttpError 400 for more values than one answer may have, where each token has some, or each entry of a
    vocabulary, of which there may be 250,000."""
    pooled = [(len(made.prompt_token_ids), made.pooling) for made in submissions]
    if settings.pooling_rule.vocabulary is None:
        whose, num = (
            "inputs' tokens",
            sum(num_token_values(num, how, settings) for num, how in pooled if how is not None),
        )
    else:
        whose, num = "inputs", settings.embedding_size * len(pooled)
    if num > MAX_VALUES:
        words = (
            f"the {whose} have {num} values in all, at most {MAX_VALUES} are given at once; send fewer inputs in each"
        )
        raise HttpError(400, f"{words} request", param=field)


def placed(error: HttpError, place: str) -> HttpError:
    """A refusal that blames the field of an input says which input, where there are several."""
    if error.param in (None, _field(place)) and place != _field(place):
        error.message = f"{place}: {error.message}"
    return error


def _field(place: str) -> str:
    return place.partition("[")[0]
