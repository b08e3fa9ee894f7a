"""What a beam search takes of an engine, and the numbers by which one is refused.

Called by request.py. Does not know beams that run.
"""

from __future__ import annotations

from bisect import bisect_right

from albireo.engine.beams import Beams
from albireo.engine.block_tables import blocks_needed
from albireo.engine.settings import EngineSettings
from albireo.errors import InvalidParams, InvariantError, PromptTooLong
from albireo.params import SamplingParams


def longest_beams(num_prompt: int, max_len: int, params: SamplingParams, settings: EngineSettings) -> int:
    """The longest that all beams of a search can be together, up to max_len tokens.

    Raises: InvalidParams when there are too few seats or tokens; PromptTooLong when what is asked for does not fit.
    """
    asked = params.beam_search
    if asked is None or asked.beam_width != params.n or not params.is_greedy:
        raise InvariantError("a beam search has as many continuations as beams, and draws nothing")
    width = asked.beam_width
    if width > settings.max_num_seqs:
        raise InvalidParams(
            f"beam_width={width} beams run at once, max_num_seqs={settings.max_num_seqs}; ask for fewer, or raise it"
        )
    if width > settings.vocab_size:
        raise InvalidParams(f"beam_width={width} is more than the vocabulary of {settings.vocab_size} tokens")

    def num_needed(length: int) -> int:
        """Blocks of all beams, which share those that the prompt fills; the last token of each needs no place."""
        size, windows = settings.block_size, settings.windows
        num = blocks_needed(length - 1, size, windows, settings.max_num_batched_tokens, num_sequences=width)
        return num - (width - 1) * windows.count(None) * (num_prompt // size)

    num_blocks = settings.num_blocks - 1
    if num_needed(max_len) <= num_blocks:
        return max_len
    if params.max_tokens is None:
        max_len = num_prompt + bisect_right(range(num_prompt + 1, max_len), num_blocks, key=num_needed)
    if params.max_tokens is not None or max_len == num_prompt:
        raise PromptTooLong(
            f"the prompt's {num_prompt} tokens with max_tokens={params.max_tokens} and beam_width={width} need "
            f"{num_needed(max(max_len, num_prompt + 1))} KV blocks of {settings.block_size}, the cache has "
            f"{num_blocks}; lower max_tokens or the width, shorten the prompt or raise kv_cache_memory_bytes"
        )
    return max_len


def task_params(params: SamplingParams, num_stops: int, settings: EngineSettings) -> SamplingParams:
    """What the sampler is asked for, of each beam: the log-probabilities of the likeliest tokens."""
    asked = params.beam_search
    assert asked is not None, "it searches"
    num = max(Beams.num_offered(asked.beam_width, num_stops), params.logprobs or 0)
    all_of_them = params.logprobs == -1 or num >= settings.vocab_size
    return params.clone(logprobs=-1 if all_of_them else num)
