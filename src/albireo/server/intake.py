"""Fields of a request -> what the engine takes, or the 4xx that says why not.

Used by the endpoints for completions and chats. Everything is checked here, before anything runs, so that a stream that
began does not end in a refusal.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from albireo.api.requests.beam_search import beam_sampling
from albireo.api.requests.prompts import Prompt
from albireo.api.requests.submission import Submission
from albireo.engine.request import check_request
from albireo.errors import EngineError, PromptTooLong, UnsupportedFeature
from albireo.params import SamplingParams
from albireo.server.conversation import readable
from albireo.server.dialects.llama_sampling import left_out, window_of
from albireo.server.errors import HttpError, cannot, refused, unsupported
from albireo.server.forms import asked_form
from albireo.server.output_plan import OutputPlan
from albireo.server.protocol.chat import CHAT_NEUTRAL, ChatRequest
from albireo.server.protocol.completions import COMPLETION_NEUTRAL, CompletionRequest
from albireo.server.protocol.fields import SAMPLING, GenerationFields, unneutral
from albireo.server.serving import INLINE_CHARS, Serving
from albireo.server.settings import SWITCHES
from albireo.text.conversation import has_media
from albireo.text.infill import InfillMarks

#: What OpenAI's completions produce when nothing is said.
DEFAULT_MAX_TOKENS = 16
#: Most entries of lists of token ids and of logit_bias.
MAX_IDS = 4096


async def completion(serving: Serving, request: CompletionRequest) -> list[Submission]:
    """One submission a prompt. Raises: HttpError."""
    _check(serving, request, COMPLETION_NEUTRAL)
    if request.best_of not in (None, request.n or 1):
        raise unsupported("best_of", request.best_of, "ask for n continuations and choose")
    echo, asked = bool(request.echo), request.logprobs
    max_tokens = request.max_tokens
    if max_tokens == 0 and not echo:
        raise HttpError(
            400, "max_tokens=0 produces nothing; it must be at least 1, unless echo is on", param="max_tokens"
        )
    if request.logprob_token_ids and asked is None:
        raise HttpError(400, "logprob_token_ids needs logprobs to be a number, as 0", param="logprob_token_ids")
    form = asked_form(request)
    if request.use_beam_search and form is not None:
        raise refused(_no_form(), "prompt")
    wants: dict[str, Any] = {
        "logprobs": asked,
        "max_tokens": max(max_tokens, 1) if max_tokens is not None else None,
        "structured_outputs": form,
    }
    if echo and asked is not None:
        wants["prompt_logprobs"] = asked
    prompts = one_or_several(request.prompt, "prompt")
    marks = _infill_marks(serving, request, prompts) if request.suffix else None
    if marks is not None and not request.ignore_eos:
        wants["stop_token_ids"] = [*(request.stop_token_ids or ()), *marks.end_token_ids]
    if len(prompts) * (request.n or 1) > serving.settings.max_n:
        raise HttpError(
            400, f"{len(prompts)} prompts with n={request.n or 1} are more than {serving.settings.max_n}", param="n"
        )
    params = _params(serving, request, wants, serving.admission.default_params().max_tokens or DEFAULT_MAX_TOKENS)
    special = request.add_special_tokens is not False

    def prepare() -> list[Submission]:
        found = []
        for prompt in prompts:
            if isinstance(prompt, str) and marks is not None:
                suffix = str(request.suffix)
                ids = serving.admission.prompts.infilled(marks, prompt, suffix, add_special_tokens=special)
                made = Submission(marks.joined(prompt, suffix), ids, params, request.cache_salt)
                found.append(serving.admission.budgeted(made))
            elif isinstance(prompt, str):
                ids = serving.admission.prompts.encode(prompt, params, add_special_tokens=special)
                # of one that may have been cut, what is left is told
                text = prompt if params.truncate_prompt_tokens is None else None
                found.append(serving.admission.budgeted(Submission(text, ids, params, request.cache_salt)))
            else:
                found.append(serving.admission.submission(Prompt(None, prompt, request.cache_salt), params))
        return found

    longest = max(len(prompt) for prompt in prompts) + len(request.suffix or "")
    if longest > serving.max_prompt_chars and params.truncate_prompt_tokens is None:
        raise HttpError(
            400,
            f"a prompt of length {longest} cannot fit the model's context of {serving.ready.max_model_len} tokens; "
            "shorten it, or have it cut by truncate_prompt_tokens",
            param="prompt",
            code="context_length_exceeded",
        )
    num_chars = sum(len(prompt) + len(request.suffix or "") for prompt in prompts)
    return await _admitted(serving, request, prepare, num_chars, "prompt")


def _infill_marks(serving: Serving, request: CompletionRequest, prompts: list[str | list[int]]) -> InfillMarks:
    """How a gap before the suffix is filled. Raises: HttpError 400 where it cannot be."""
    if any(not isinstance(prompt, str) for prompt in prompts):
        raise HttpError(400, "suffix needs a prompt that is a text: what stands before the gap", param="suffix")
    if request.echo or request.truncate_prompt_tokens is not None:
        other = "echo" if request.echo else "truncate_prompt_tokens"
        raise HttpError(400, f"suffix and {other} exclude each other: the prompt has marks in it", param="suffix")
    try:
        return serving.admission.prompts.infill_marks()
    except EngineError as error:
        raise HttpError(400, str(error), param="suffix") from None


async def chat(serving: Serving, request: ChatRequest, *, leaves_room: bool = False) -> list[Submission]:
    """One submission. Args: leaves_room: one that leaves less room than it asks for is refused. Raises: HttpError."""
    _check(serving, request, CHAT_NEUTRAL)
    if request.best_of not in (None, request.n or 1):
        raise unsupported("best_of", request.best_of, "ask for n answers and choose")
    if (request.n or 1) > serving.settings.max_n:
        raise HttpError(400, f"n={request.n} is more than {serving.settings.max_n}", param="n")
    if request.max_tokens == 0:
        raise HttpError(400, "max_tokens=0 produces nothing; it must be at least 1", param="max_tokens")
    if request.top_logprobs is not None and request.top_logprobs != 0 and not request.logprobs:
        raise HttpError(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
    if request.logprob_token_ids and not request.logprobs:
        raise HttpError(400, "logprob_token_ids needs logprobs to be true", param="logprob_token_ids")
    plan = OutputPlan.of(serving.dialect, request)
    wants = {
        "logprobs": (request.top_logprobs or 0) if request.logprobs else None,
        "max_tokens": request.max_completion_tokens or request.max_tokens,
        "skip_special_tokens": False if plan.needs_special_tokens else None,
    }
    try:
        params = _params(serving, request, wants, serving.admission.advice.get("max_tokens"))
    except HttpError as error:
        if error.param == "logprobs":  # in a chat top_logprobs says how many
            error.param, error.message = "top_logprobs", f"top_{error.message}"
        raise
    options = chat_options(serving, request)

    def prepare() -> list[Submission]:
        messages = readable(request.messages, options["chat_template"] or serving.dialect.template)
        made = serving.admission.chat(messages, params, options)
        template, name = _template(serving, request)
        serving.unshown_tools.look(plan.tools, made.prompt or "", template, name)
        form = plan.form(made.prompt or "")
        if form is not None and request.use_beam_search:
            raise _no_form()
        held = made.params if form is None else made.params.clone(structured_outputs=form)
        return [Submission(made.prompt, made.prompt_token_ids, held, request.cache_salt, images=made.images)]

    num_chars = INLINE_CHARS * bool(request.tools or request.documents or request.chat_template)
    num_chars += sum(_num_chars(message.get("content")) + 100 for message in request.messages)
    has = has_media(request.messages)
    return await _admitted(serving, request, prepare, num_chars, "messages", has, leaves_room=leaves_room)


async def num_tokens(serving: Serving, request: ChatRequest) -> int:
    """How many tokens a chat is as the model's template writes it; of any number. Raises: HttpError."""
    OutputPlan.of(serving.dialect, request)  # what is wrong with the tools is said here, too
    admission, options = serving.admission, chat_options(serving, request)
    messages = readable(request.messages, serving.dialect.template)
    try:
        made = await serving.in_thread(lambda: admission.chat(messages, SamplingParams(), options))
    except EngineError as error:
        raise refused(error, "messages") from None
    return len(made.prompt_token_ids)


def chat_options(serving: Serving, request: ChatRequest) -> dict[str, Any]:
    """How messages are rendered: options of ChatEncoder.encode(). Raises: HttpError 400."""
    options = {
        "add_generation_prompt": _default(request.add_generation_prompt, not request.continue_final_message),
        "continue_final_message": bool(request.continue_final_message),
        "cache_salt": request.cache_salt,
        "chat_template": template_of(serving, request.chat_template),
        "tools": request.tools or None,
        "documents": _documents(serving, request),
        "chat_template_kwargs": template_kwargs(serving, request.chat_template_kwargs, request.reasoning_effort),
    }
    if options["add_generation_prompt"] and options["continue_final_message"]:
        raise HttpError(
            400, "continue_final_message and add_generation_prompt exclude each other", param="continue_final_message"
        )
    return options


def template_of(serving: Serving, given: str | None) -> str | None:
    """The template of a request, or the server's own. Raises: HttpError 400 where requests may bring none."""
    if given is None:
        return serving.chat_template
    if not serving.settings.trust_request_chat_template:
        advice = "leave it out, or start the server with --trust-request-chat-template"
        raise unsupported("chat_template", given, advice)
    return given


def _template(serving: Serving, request: ChatRequest) -> tuple[str, str]:
    """What renders a chat, and what it is called."""
    if request.chat_template is not None:
        return request.chat_template, "the chat_template of a request"
    if serving.chat_template is not None:
        return serving.chat_template, f"the chat template {serving.settings.chat_template}"
    return serving.dialect.template, f"the chat template of {serving.names[0]}"


def _documents(serving: Serving, request: ChatRequest) -> list[dict[str, Any]] | None:
    """Raises: HttpError 400 where the template would not look at them."""
    template = request.chat_template or serving.dialect.template
    if request.documents and "documents" not in template:
        raise unsupported("documents", request.documents, "the chat template reads none; put them into a message")
    return request.documents or None


def template_kwargs(serving: Serving, given: dict[str, Any] | None, reasoning_effort: str | None) -> dict[str, Any]:
    """Variables for the chat template: of a request those on the list, and plain values only, over the server's own.

    Args: reasoning_effort: turns thinking off (none) or on, where the variables say neither.
    Raises: HttpError 400.
    """
    found = dict(given or {})
    if reasoning_effort is not None:
        found.setdefault("reasoning_effort", reasoning_effort)
    allowed = serving.settings.chat_template_kwarg
    if reasoning_effort is not None and not any(name in found for name in SWITCHES):
        found |= {name: reasoning_effort != "none" for name in SWITCHES if name in allowed}
    for name, value in found.items():
        if name not in allowed:
            raise HttpError(
                400,
                f"chat_template_kwargs has {name!r:.80}; allowed: {', '.join(allowed)} (--chat-template-kwarg)",
                param="chat_template_kwargs",
            )
        if value is not None and not isinstance(value, (bool, int, float, str)):
            raise HttpError(400, f"chat_template_kwargs[{name!r}] must be a plain value", param="chat_template_kwargs")
    return serving.template_defaults | found


# -- parts -------------------------------------------------------------------------------------------------------------


def _check(serving: Serving, request: GenerationFields, neutral: dict[str, tuple[Any, ...]]) -> None:
    serving.check_open()
    serving.check_model(request.model)
    try:
        serving.admission.check_text()
    except EngineError as error:
        raise cannot(error) from None
    asked = unneutral(request, neutral)
    if asked is not None:
        raise unsupported(*asked)
    if request.length_penalty not in (None, 1) and not request.use_beam_search:
        message = f"length_penalty={request.length_penalty} needs use_beam_search to be true"
        raise HttpError(400, message, param="length_penalty")
    if request.stream_options is not None and not request.stream and request.stream_options.asks:
        raise HttpError(400, "stream_options needs stream to be true", param="stream_options")
    if request.stream_interval is not None and not request.stream:
        raise HttpError(400, "stream_interval needs stream to be true", param="stream_interval")
    limit, field = serving.ready.max_model_len, _said_max(request)
    if field is not None and getattr(request, field) > limit:
        raise HttpError(
            400,
            f"an output of {getattr(request, field)} tokens is more than the model's context of {limit}; ask for "
            "fewer, or leave it out",
            param=field,
            code="invalid_value",
        )
    limit = serving.settings.max_stop
    for name in ("stop", "bad_words"):
        texts = getattr(request, name)
        if isinstance(texts, list) and len(texts) > limit:
            raise HttpError(400, f"{name} holds {len(texts)} strings, at most {limit} are taken", param=name)
    for name in ("stop_token_ids", "logit_bias", "logprob_token_ids"):
        if len(getattr(request, name) or ()) > MAX_IDS:
            raise HttpError(400, f"{name} holds more than {MAX_IDS} entries", param=name)
    if request.prompt_logprobs is not None and request.stream:
        raise HttpError(400, "prompt_logprobs are not told in a stream; leave one of them out", param="prompt_logprobs")


def _params(
    serving: Serving, request: GenerationFields, wants: dict[str, Any], max_tokens: int | None
) -> SamplingParams:
    """The model's recommended sampling, with what was given over it."""
    given = {name: value for name in SAMPLING if (value := getattr(request, name)) is not None}
    given |= {name: value for name, value in wants.items() if value is not None}
    own, theirs = given.get("repetition_penalty"), request.repeat_penalty
    if theirs is not None and own not in (None, theirs):
        words = f"repeat_penalty={theirs} and repetition_penalty={own} are the same; give one of them"
        raise HttpError(400, words, param="repeat_penalty")
    if theirs is not None:
        given["repetition_penalty"] = theirs
    given |= window_of(request.repeat_last_n) | left_out(request.samplers)
    given.setdefault("max_tokens", max_tokens)
    if request.n is not None:
        given["n"] = request.n
    if not given.get("stop", True):
        del given["stop"]  # an empty string, or list, asks for nothing
    try:
        if request.use_beam_search:
            # not the model's recommended sampling: nothing is drawn
            searched = {**given, "length_penalty": request.length_penalty}
            return serving.admission.prepare(beam_sampling(searched, request.n or 1))
        return serving.admission.prepare(serving.admission.default_params().clone(**given))
    except EngineError as error:
        raise refused(error, "prompt") from None


async def _admitted(
    serving: Serving,
    request: GenerationFields,
    prepare: Any,
    num_chars: int,
    field: str,
    with_images: bool = False,
    *,
    leaves_room: bool = False,
) -> list[Submission]:
    """Encode, and refuse what can never run. Where max_tokens is more than is left, the context ends the output."""
    try:
        is_short = num_chars <= INLINE_CHARS and not with_images
        submissions: list[Submission] = prepare() if is_short else await serving.in_thread(prepare, with_images)
        settings = serving.ready.settings()
        for made in submissions:
            num_prompt = len(made.prompt_token_ids)
            check_request(made.prompt_token_ids, made.params, request.priority or 0, settings, images=made.images)
            asked = made.params.max_tokens
            if leaves_room and asked is not None and num_prompt + asked > settings.max_model_len and _said_max(request):
                raise PromptTooLong(
                    f"the model's context is {settings.max_model_len} tokens; the prompt has {num_prompt} and "
                    f"max_tokens={asked} asks for more than is left; shorten the prompt or lower max_tokens"
                )
    except EngineError as error:
        blamed = refused(error, field)
        if blamed.param == "beam_width":
            blamed.param = "n"
        raise blamed from None
    serving.check_queue(len(submissions), sum(len(made.prompt_token_ids) for made in submissions))
    return with_adapter(serving, submissions, request.model)


def with_adapter(serving: Serving, submissions: list[Submission], model: str | None) -> list[Submission]:
    """Submissions to the adapter that a request names as its model, if it is one; as it is loaded now."""
    serving.check_model(model)
    number = serving.adapters.number(model)
    return submissions if number is None else [replace(made, adapter=number) for made in submissions]


def behind(serving: Serving, context: list[int], made: Submission) -> Submission:
    """The same behind tokens that stand before it, which begin as every prompt does. Raises: HttpError 400."""
    ids, begins = made.prompt_token_ids, serving.tokenizer.bos_token_id
    found = replace(made, prompt_token_ids=[*context, *(ids[1:] if begins is not None and ids[0] == begins else ids)])
    try:
        check_request(found.prompt_token_ids, found.params, 0, serving.ready.settings(), images=found.images)
    except EngineError as error:
        raise refused(error, "context") from None
    return found


def _no_form() -> UnsupportedFeature:
    return UnsupportedFeature("structured_outputs cannot be had of a beam search; leave it out")


def _said_max(request: GenerationFields) -> str | None:
    """The field that says how long an output may be."""
    names = ("max_completion_tokens", "max_tokens")
    return next((name for name in names if getattr(request, name, None) is not None), None)


def one_or_several(prompt: str | list[Any], field: str) -> list[str | list[int]]:
    """One prompt, or several, in the order given. Raises: HttpError 400."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise HttpError(400, f"{field} is empty; give a text or token ids", param=field)
    kinds = {type(each) for each in prompt}
    if kinds == {int}:
        return [list(prompt)]
    if kinds in ({str}, {list}):
        return prompt
    raise HttpError(400, f"{field} mixes texts and token ids; give one kind", param=field)


def _num_chars(content: Any) -> int:
    """Of a message: its text, or its parts' texts."""
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        return sum(
            len(text) for part in content if isinstance(part, dict) and isinstance(text := part.get("text"), str)
        )
    return 0


def _default(value: bool | None, otherwise: bool) -> bool:
    return otherwise if value is None else value
