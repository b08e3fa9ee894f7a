"""What a request forbids, favours and penalises: its own changes to one row of logits, before temperature.

Called by sampler.py. Does not know temperature, truncation, random numbers or the other rows of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from albireo.params import SamplingParams
from albireo.sampling.masking import mask_outside_grammar, only_end_of_thinking, put_off_end
from albireo.sampling.speech import follow_rules, is_opening
from albireo.step import SampleTask

Row = npt.NDArray[np.float32]


def adjusted_logits(row: Row, task: SampleTask) -> Row:
    """Apply what can change the arg max, in vLLM's order (the lines below, top to bottom).

    Args: row: [V] raw logits; never written to.
    Returns: [V] float32: a new array, or row itself when the task asks for no change.
    Cost: nothing when nothing is asked; else O(V) for one copy, and O(prompt + output tokens) with penalties.
    Source: vLLM V1 Sampler.forward (allowed ids, grammar, bad words, min_tokens, logit_bias, penalties).
    """
    params = task.params
    forced = task.forced_token(row.size)
    if forced is not None:
        return only_end_of_thinking(row, forced)
    if not (params.changes_logits or task.matcher is not None or task.early_ends):
        return row
    changed = _only_allowed(row, params.allowed_token_ids)
    mask_outside_grammar(changed, task)
    if params.speech_rules is not None:
        follow_rules(changed, params.speech_rules, task.output_token_ids)
    changed[task.bad_word_ends] = -np.inf
    put_off_end(changed, task)
    if params.logit_bias:
        changed[list(params.logit_bias)] += np.array(list(params.logit_bias.values()), np.float32)
    if not is_opening(params.speech_rules, task.output_token_ids):
        penalise(changed, params, task.prompt_token_ids, task.output_token_ids)
    return changed


def penalise(row: Row, params: SamplingParams, prompt: Sequence[int], output: Sequence[int]) -> None:
    """Apply repetition (over prompt and output), then frequency, then presence (over output), in place; all three over
    the last tokens of both, where there is a window.

    Source: CTRL (Keskar et al. 2019, section 4.1) for repetition; the OpenAI API reference for the other two;
    llama.cpp's sampler of penalties for the window.
    """
    if params.penalty_window is not None:
        kept = params.penalty_window - len(output)
        prompt, output = (), [*(prompt[-kept:] if kept > 0 else ()), *output[-params.penalty_window :]]
    if params.repetition_penalty != 1.0:
        penalty = np.float32(params.repetition_penalty)
        # A repeated id is written twice with the same value: both are computed before either is stored.
        seen = np.concatenate((np.asarray(prompt, np.int64), np.asarray(output, np.int64)))
        values = row[seen]
        row[seen] = np.where(values > 0, values / penalty, values * penalty)
    if len(output) and (params.frequency_penalty or params.presence_penalty):
        ids, counts = np.unique(np.asarray(output, np.int64), return_counts=True)
        values = row[ids] - np.float32(params.frequency_penalty) * counts.astype(np.float32)
        row[ids] = values - np.float32(params.presence_penalty)


def _only_allowed(row: Row, allowed: Sequence[int] | None) -> Row:
    if allowed is None:
        return row.copy()
    ids = np.asarray(allowed, np.int64)
    changed = np.full_like(row, -np.inf)
    changed[ids] = row[ids]
    return changed
