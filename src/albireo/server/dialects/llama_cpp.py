"""A request of llama.cpp's -> a request of a completion.

Used by endpoints/llama_cpp.py. What would not be done is refused; what asks for what is so anyway is taken. Some fields
say how llama.cpp keeps its cache, which each slot has for itself: prefixes are everybody's here (cache_prompt,
id_slot), and a text longer than the context is not shifted (n_keep, n_discard). t_max_prompt_ms does
nothing there either. Does not know the engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from albireo.server.dialects.llama_sampling import MOST, SAMPLING, left_out, window_of_theirs
from albireo.server.errors import HttpError, unsupported
from albireo.server.protocol.completions import CompletionRequest
from albireo.server.protocol.fields import unneutral
from albireo.server.protocol.llama_cpp import SAMPLED_NEUTRAL, SampledFields

#: Fields of a request here -> what they are called there.
FIELDS = {
    "max_tokens": "n_predict",
    "repetition_penalty": "repeat_penalty",
    "logprobs": "n_probs",
    "suffix": "input_suffix",
}
#: A token's id as the name of a field; what is longer, or of other digits, is a text.
_ID = re.compile(r"[0-9]{1,10}")
#: What is added to a token that is never to come; the largest there is.
_NEVER = -100.0


def as_completion(
    ask: SampledFields,
    prompt: str | list[Any],
    tokens_of: Callable[[str], Sequence[int]],
) -> CompletionRequest:
    """What is asked.

    Args:
        prompt: a text, or token ids.
        tokens_of: a text's.
    Raises: HttpError 400 that names a field.
    """
    asked = unneutral(ask, SAMPLED_NEUTRAL)
    if asked is not None:
        raise unsupported(*asked)
    wants = {ours: value for name, ours in SAMPLING.items() if (value := getattr(ask, name)) is not None}
    window = window_of_theirs(ask.repeat_last_n, wants)
    repeat_last_n = window.pop("penalty_window", None)
    wants |= window | left_out(ask.samplers)
    most = ask.max_tokens if ask.n_predict is None else ask.n_predict
    return CompletionRequest(
        model=ask.model,
        prompt=prompt,
        stream=ask.stream,
        max_tokens=None if most is None or most < 0 else most,
        echo=most == 0,  # the prompt alone is wanted
        ignore_eos=ask.ignore_eos,
        logprobs=ask.n_probs or None,
        logit_bias=_bias(ask, tokens_of),
        structured_outputs=_form(ask),
        repeat_last_n=repeat_last_n,
        **wants,
    )


def told_settings(ask: SampledFields, params: Any) -> dict[str, Any]:
    """What an answer says it was made with. Args: params: SamplingParams."""
    found = {name: getattr(params, ours) for name, ours in SAMPLING.items()}
    return {
        **found,
        "repeat_last_n": -1 if params.penalty_window in (None, MOST) else params.penalty_window,
        "n_predict": -1 if params.max_tokens is None else params.max_tokens,
        "ignore_eos": params.ignore_eos,
        "n_probs": ask.n_probs or 0,
        "stream": bool(ask.stream),
        "grammar": ask.grammar or "",
    }


def _bias(ask: SampledFields, tokens_of: Callable[[str], Sequence[int]]) -> dict[str, float] | None:
    given = ask.logit_bias
    pairs = list(given.items()) if isinstance(given, dict) else given or []
    found: dict[str, float] = {}
    for token, bias in pairs:
        if bias is True:
            raise HttpError(400, f"logit_bias of {token!r:.40} is true; it is a number, or false", param="logit_bias")
        is_id = isinstance(token, int) or (isinstance(given, dict) and _ID.fullmatch(token) is not None)
        for each in (int(token),) if is_id else tokens_of(str(token)):
            found[str(each)] = _NEVER if bias is False else float(bias)
    return found or None


def _form(ask: SampledFields) -> dict[str, Any] | None:
    if ask.grammar and ask.json_schema is not None:
        raise HttpError(400, "grammar and json_schema exclude each other; give one of them", param="json_schema")
    if ask.json_schema is not None:
        return {"json": ask.json_schema}
    return {"grammar": ask.grammar} if ask.grammar else None
