"""Logits -> tokens. The order of operations, which is vLLM's (V1 Sampler.forward):

 1. log-probabilities and ranks, when asked for, are of the raw logits: nothing below changes them;
 2. allowed_token_ids: all others are masked (-inf); so is what the grammar of structured_outputs does not allow, or
    what the rules of a model of speech do not;
 3. bad_words: the last token of a word is masked when the output ends in the rest of it;
 4. min_tokens: stop ids are masked while fewer tokens are out, unless a grammar leaves nothing else;
 5. logit_bias is added;
 6. penalties: repetition (prompt and output), frequency, presence (output);
    where thinking_token_budget is spent, all that was left by 2 to 6 gives way to the next token of its end, unless a
    grammar does not allow that;
 7. greedy (temperature below 1e-5): the arg max, lowest id on ties, is the token. Otherwise:
 8. temperature divides;
 9. min_p, relative to the most probable token;
10. top_k, then top_p over the renormalised rest;
11. one draw: inverse CDF in the order of token ids at uniform(seed, number of output tokens).

Called by execution/runner.py. Does not know models, batches (a row's result depends on its logits and its task,
to the last bit) or text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import numpy.typing as npt

from albireo.errors import InvalidParams, InvariantError
from albireo.sampling.logprobs import prompt_logprobs, token_logprobs
from albireo.sampling.penalties import adjusted_logits
from albireo.sampling.rng import uniform
from albireo.sampling.speech import followed, is_opening
from albireo.sampling.truncation import draw, truncated_weights
from albireo.step import SampledToken, SampleTask, TokenLogprobs

Logits = npt.NDArray[np.float32]
TopIds = npt.NDArray[np.int32]


class Sampler:
    """Draws tokens; keeps no state between calls and never writes to the logits it is given.

    Args: vocab_size: width V of every row of logits.
    """

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def sample(self, logits: Logits, tasks: Sequence[SampleTask], rows: Sequence[int]) -> list[SampledToken]:
        """Draw one token for each task.

        Args:
            logits: [R, V] float32, raw.
            tasks, rows: task i reads row rows[i]; several may read the same row.
        Returns: one entry a task, in order.
        Raises: InvariantError when a row is damaged (NaN, +inf, nothing above -inf); InvalidParams when a task's
            own parameters leave no token. Both name the sequence; to go on with the others, call sample_one.
        Cost: O(V) a task.
        """
        self._check(logits)
        return [self.sample_one(logits[row], task) for task, row in zip(tasks, rows, strict=True)]

    def sample_top(
        self, ids: TopIds, values: Logits, tasks: Sequence[SampleTask], rows: Sequence[int]
    ) -> list[SampledToken] | None:
        """As sample(), to the bit, from the best logits of each row, for tasks whose params say num_top > 0.

        Args: ids, values: [G, n] best first, of equals the lowest id first; -1 and -inf behind the last there is. Of
            a row that is not greedy, num_top + 1.
        Returns: None when these logits do not decide: one is not finite, or others equal the last of the best.
        Cost: O(n) a task.
        """
        tokens = []
        for row, task in zip(rows, tasks, strict=True):
            token_id = _top_token(ids[row], values[row], task)
            if token_id is None:
                return None
            tokens.append(SampledToken(task.seq_id, token_id))
        return tokens

    def sample_one(self, row: Logits, task: SampleTask) -> SampledToken:
        """Draw the token of one task from its [V] raw logits; see sample()."""
        raw = np.ascontiguousarray(row)
        token_id = self._token(raw, task)
        num, rules, output = task.params.logprobs, task.params.speech_rules, task.output_token_ids
        if num is None:
            return SampledToken(task.seq_id, token_id)
        # of what a model of speech may write, as its thresholds are; but for silence, which it may not
        told = raw if rules is None else followed(raw, rules, output)
        named = task.params.logprob_token_ids or ()
        logprobs = token_logprobs(told, token_id, num, f"sequence {task.seq_id}", named)
        if rules is not None and rules.silence is not None and not output:
            silence = token_logprobs(raw, rules.silence, 0, f"sequence {task.seq_id}")
            logprobs = TokenLogprobs(*(a + b for a, b in zip(astuple(logprobs), astuple(silence), strict=True)))
        return SampledToken(task.seq_id, token_id, logprobs)

    def prompt_logprobs(self, logits: Logits, targets: Sequence[int], num: int) -> list[TokenLogprobs]:
        """Log-probabilities of a prompt's tokens: targets[i] under logits[i]; [n, V] float32, n >= len(targets).

        Returns: one entry a target: that token, then the num best (-1: all).
        Raises: InvariantError when a row is damaged.
        """
        self._check(logits)
        return prompt_logprobs(logits, targets, num)

    def _token(self, raw: Logits, task: SampleTask) -> int:
        # Overflow in a penalty is found below as a peak that is not finite; numpy need not say it too.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            row = adjusted_logits(raw, task)
        best = int(row.argmax())
        peak = float(row[best])  # NaN if any logit is: argmax prefers NaN
        if not math.isfinite(peak):
            raise _no_token(raw, peak, task)
        params = task.params
        if params.is_greedy or is_opening(params.speech_rules, task.output_token_ids):
            return best
        places = None if task.matcher is None else _few_left(row)
        if places is not None:
            row = row[places]
        ids, weights = truncated_weights(row, peak, params.temperature, params.top_k, params.top_p, params.min_p)
        idx = draw(weights, uniform(task.seed, len(task.output_token_ids)))
        place = idx if ids is None else int(ids[idx])
        return place if places is None else int(places[place])

    def _check(self, logits: Logits) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.vocab_size or logits.dtype != np.float32:
            raise InvariantError(
                f"logits are {logits.dtype} of shape {logits.shape}; expected float32 [rows, {self.vocab_size}]"
            )


def _few_left(row: Logits) -> npt.NDArray[np.intp] | None:
    """Where a row is not masked, when that is at fewer than half of its places: then the rest need not be summed up."""
    left = row != -np.inf
    return np.flatnonzero(left) if 2 * np.count_nonzero(left) < row.size else None


def _top_token(ids: npt.NDArray[np.int32], values: npt.NDArray[np.float32], task: SampleTask) -> int | None:
    params = task.params
    peak = float(values[0])
    if not math.isfinite(peak):
        return None
    if params.is_greedy:
        return int(ids[0])
    num = min(params.num_top, int(np.count_nonzero(ids >= 0)))
    is_parted = num == ids.size or values[num] < values[num - 1]
    if not math.isfinite(values[num - 1]) or not is_parted:
        return None
    by_id = np.argsort(ids[:num])
    kept, weights = truncated_weights(values[by_id], peak, params.temperature, 0, params.top_p, params.min_p)
    idx = draw(weights, uniform(task.seed, len(task.output_token_ids)))
    return int(ids[by_id[idx if kept is None else kept[idx]]])


def _no_token(raw: Logits, peak: float, task: SampleTask) -> InvariantError | InvalidParams:
    """The error for a row without a largest finite logit: the model's fault, or the parameters'."""
    raw_peak = float(raw.max())
    if not math.isfinite(raw_peak):
        return InvariantError(
            f"sequence {task.seq_id}: {np.isnan(raw).sum()} NaN, {np.isposinf(raw).sum()} +inf and "
            f"{np.isneginf(raw).sum()} -inf among its {raw.size} logits after {len(task.output_token_ids)} output "
            f"tokens; the model's output is damaged, its weights may be too"
        )
    if peak == -math.inf:
        return InvalidParams(
            f"sequence {task.seq_id}: allowed_token_ids, structured_outputs, bad_words, min_tokens and logit_bias "
            f"together leave none of {raw.size} tokens after {len(task.output_token_ids)} output tokens; allow "
            "at least one more"
        )
    return InvalidParams(
        f"sequence {task.seq_id}: logit_bias and penalties turn a largest logit of {raw_peak:g} into {peak} "
        f"(repetition_penalty={task.params.repetition_penalty}); use smaller ones"
    )
