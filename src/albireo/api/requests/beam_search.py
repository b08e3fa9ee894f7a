"""What is asked of a beam search -> sampling parameters that say so; what came of one -> BeamSearchOutput.

Called by llm.py, async_llm.py, commands and the server. Does not know requests, nor how beams are found
(engine/beams.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.beam_search_params import BeamSearchParams
from albireo.errors import InvalidParams, UnsupportedFeature, short
from albireo.outputs import BeamSearchOutput, BeamSearchSequence, RequestOutput
from albireo.params import SamplingParams
from albireo.text.tokenizer import Tokenizer

#: Sampling parameters that a beam search does not have -> values beside None that ask for nothing. Compared with ==.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "seed": (-1,),
    "stop": ("", [], ()),
    "stop_token_ids": ([], ()),
    "min_tokens": (0,),
    "logit_bias": ({},),
    "allowed_token_ids": (),
    "logprob_token_ids": ([], ()),
    "bad_words": ([], ()),
    "thinking_token_budget": (-1,),
    "structured_outputs": (),
    "repetition_detection": ({},),
    "penalty_window": (),
}
#: Fields of BeamSearchParams, whatever others are called.
_OWN = ("max_tokens", "ignore_eos", "temperature", "length_penalty", "include_stop_str_in_output")


def beam_sampling(given: Mapping[str, Any], beam_width: int) -> SamplingParams:
    """Sampling parameters of a beam search.

    Args: given: length_penalty, and sampling parameters by name, max_tokens among them; None: not said. n and best_of
        are the width, or not said.
    Raises: InvalidParams, UnsupportedFeature naming field and value.
    """
    said = {name: value for name, value in given.items() if value is not None}
    for name in ("n", "best_of"):
        if (value := said.pop(name, beam_width)) != beam_width:
            raise UnsupportedFeature(
                f"{name}={short(value)} is not supported with beam_width={beam_width}; leave it out"
            )
    for name, neutral in NEUTRAL.items():
        value = said.pop(name, None)
        if value is not None and value not in neutral:
            raise UnsupportedFeature(f"{name}={short(value)} is not supported in a beam search; leave it out")
    own = {name: said.pop(name) for name in _OWN if name in said}
    asked = BeamSearchParams(beam_width, own.pop("max_tokens", None), **own)
    return sampling_of(asked, **said)


def checked_params(given: Mapping[str, Any]) -> SamplingParams:
    """Sampling parameters by name; with beam_width those of a beam search. Raises: InvalidParams, UnsupportedFeature;
    TypeError for an unknown name."""
    rest = dict(given)
    width = rest.pop("beam_width", None)
    if width is not None:
        return beam_sampling(rest, width)
    if rest.pop("length_penalty", 1) != 1:
        raise InvalidParams(f"length_penalty={short(given['length_penalty'])} needs beam_width beside it")
    return SamplingParams(**rest)


def sampling_of(asked: BeamSearchParams, **kept: Any) -> SamplingParams:
    """The same as sampling parameters. Args: kept: others, which a beam search has too."""
    if not isinstance(asked, BeamSearchParams):
        raise InvalidParams(f"params must be BeamSearchParams, got {type(asked).__name__}")
    return SamplingParams(
        n=asked.beam_width,
        temperature=0.0,
        max_tokens=asked.max_tokens,
        ignore_eos=asked.ignore_eos,
        include_stop_str_in_output=asked.include_stop_str_in_output,
        beam_search=asked,
        **kept,
    )


def beam_output(output: RequestOutput, tokenizer: Tokenizer | None) -> BeamSearchOutput:
    """What became of a search whose log-probabilities were asked for: the beams, the best first."""
    prompt, ids = output.prompt, output.prompt_token_ids
    if prompt is None and tokenizer is not None:
        prompt = tokenizer.decode(ids)
    return BeamSearchOutput(
        [
            BeamSearchSequence(
                tokens=ids + each.token_ids,
                logprobs=each.logprobs or [],
                cum_logprob=each.cumulative_logprob or 0.0,
                text=None if prompt is None or tokenizer is None else prompt + each.text,
                finish_reason=each.finish_reason,
                stop_reason=each.stop_reason,
                lora_request=each.lora_request,
            )
            for each in output.outputs
        ]
    )
