"""Greedy tokens of the engine directory against those of the checkpoint loaded in memory: to the last bit.

Called by run.py. The same kernels read the same weights, so tokens and log-probabilities must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from albireo.api.llm import LLM
from albireo.outputs import CompletionOutput
from albireo.params import SamplingParams
from albireo.verify.result import Stage

PROVES = (
    "The directory says what its checkpoint says: greedy tokens and their log-probabilities, through scheduler and KV "
    "cache, are equal to the last bit where the kernels are the same."
)
NUM_TOKENS = 24
_LENGTHS = (5, 17, 33, 64)


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a model says to one prompt: token ids, and the log-probability of each."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


def prompts(token_ids: Sequence[int], model_len: int) -> list[list[int]]:
    """Four prompts of different lengths from one text; shorter where the model's context is."""
    room = max(1, model_len - NUM_TOKENS)
    return [[token_ids[(7 * i + at) % len(token_ids)] for at in range(min(n, room))] for i, n in enumerate(_LENGTHS)]


def continuations(llm: LLM, given: Sequence[Sequence[int]], model_len: int) -> list[Continuation]:
    """Run all prompts together, greedily."""
    longest = max(len(prompt) for prompt in given)
    params = SamplingParams(
        temperature=0.0,
        max_tokens=min(NUM_TOKENS, max(1, model_len - longest)),
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
    )
    outputs = llm.generate([{"prompt_token_ids": list(prompt)} for prompt in given], params, use_tqdm=False)
    return [_continuation(output.outputs[0]) for output in outputs]


def tokens_stage(
    seen: Sequence[Continuation], wanted: Sequence[Continuation], lengths: Sequence[int], same_kernels: bool
) -> Stage:
    """The verdict. Where kernels differ, last bits may, and with them a token between equals: then it is not judged."""
    num_tokens = sum(len(each.token_ids) for each in wanted)
    equal = sum(
        a == b for s, w in zip(seen, wanted, strict=True) for a, b in zip(s.token_ids, w.token_ids, strict=False)
    )
    finding = next((text for i in range(len(seen)) if (text := _difference(i, seen[i], wanted[i]))), "")
    summary = f"{equal} of {num_tokens} greedy tokens after {len(seen)} prompts are equal"
    figures = {
        "prompt_lengths": list(lengths),
        "num_tokens": num_tokens,
        "num_equal": equal,
        "same_kernels": same_kernels,
        "first_difference": finding,
    }
    if not finding:
        return Stage("tokens", PROVES, "passed", f"{summary}, and their log-probabilities too", "", figures)
    if same_kernels:
        return Stage("tokens", PROVES, "failed", summary, finding, figures)
    return Stage("tokens", PROVES, "not judged", f"{summary}; the kernels differ, so quality decides", "", figures)


def _continuation(output: CompletionOutput) -> Continuation:
    logprobs = tuple(step[i].logprob for step, i in zip(output.logprobs or (), output.token_ids, strict=True))
    return Continuation(tuple(output.token_ids), logprobs)


def _difference(index: int, seen: Continuation, wanted: Continuation) -> str:
    for at, (ours, right) in enumerate(zip(seen.token_ids, wanted.token_ids, strict=False)):
        if ours != right:
            return f"prompt {index + 1}, token {at + 1} is {ours}, the checkpoint says {right}"
        if seen.logprobs[at] != wanted.logprobs[at]:
            return (
                f"prompt {index + 1}, token {at + 1} has log-probability {seen.logprobs[at]!r}, "
                f"the checkpoint says {wanted.logprobs[at]!r}"
            )
    if len(seen.token_ids) != len(wanted.token_ids):
        return f"prompt {index + 1} has {len(seen.token_ids)} tokens, the checkpoint says {len(wanted.token_ids)}"
    return ""
