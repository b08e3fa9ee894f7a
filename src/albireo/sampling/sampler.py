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
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

from albireo.backends.cpu.machine import ThreadPool
from albireo.backends.cpu.rows import Truncation, draw_tokens
from albireo.errors import InvalidParams, InvariantError
from albireo.sampling.logprobs import prompt_logprobs, token_logprobs
from albireo.sampling.penalties import adjusted_logits
from albireo.sampling.rng import uniform
from albireo.sampling.speech import followed, is_opening
from albireo.step import SampledToken, SampleTask, TokenLogprobs

Logits = npt.NDArray[np.float32]
TopIds = npt.NDArray[np.int32]


class Sampler:
    """Draws tokens; keeps no state between calls and never writes to the logits it is given.

    Args:
        vocab_size: width V of every row of logits.
        threads: among which rows are shared out; None: the calling one draws all.
    """

    def __init__(self, vocab_size: int, threads: ThreadPool | None = None) -> None:
        self.vocab_size = vocab_size
        self._threads = threads

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
        raw = [np.ascontiguousarray(logits[row]) for row in rows]
        draws = [_prepared(row, task) for row, task in zip(raw, tasks, strict=True)]
        tokens = _drawn(draws, self._threads)
        return [_reported(row, task, token) for row, task, token in zip(raw, tasks, tokens, strict=True)]

    def sample_top(
        self, ids: TopIds, values: Logits, tasks: Sequence[SampleTask], rows: Sequence[int]
    ) -> list[SampledToken] | None:
        """As sample(), to the bit, from the best logits of each row, for tasks whose params say num_top > 0.

        Args: ids, values: [G, n] best first, of equals the lowest id first; -1 and -inf behind the last there is. Of
            a row that is not greedy, num_top + 1.
        Returns: None when these logits do not decide: one is not finite, or others equal the last of the best.
        Cost: O(n) a task.
        """
        draws: list[int | _Draw] = []
        for row, task in zip(rows, tasks, strict=True):
            draw = _prepared_top(ids[row], values[row], task)
            if draw is None:
                return None
            draws.append(draw)
        return [SampledToken(task.seq_id, token) for task, token in zip(tasks, _drawn(draws), strict=True)]

    def sample_one(self, row: Logits, task: SampleTask) -> SampledToken:
        """Draw the token of one task from its [V] raw logits; see sample()."""
        raw = np.ascontiguousarray(row)
        return _reported(raw, task, _drawn([_prepared(raw, task)])[0])

    def prompt_logprobs(self, logits: Logits, targets: Sequence[int], num: int) -> list[TokenLogprobs]:
        """Log-probabilities of a prompt's tokens: targets[i] under logits[i]; [n, V] float32, n >= len(targets).

        Returns: one entry a target: that token, then the num best (-1: all).
        Raises: InvariantError when a row is damaged.
        """
        self._check(logits)
        return prompt_logprobs(logits, targets, num, self._threads)

    def _check(self, logits: Logits) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.vocab_size or logits.dtype != np.float32:
            raise InvariantError(
                f"logits are {logits.dtype} of shape {logits.shape}; expected float32 [rows, {self.vocab_size}]"
            )


@dataclass(frozen=True, slots=True)
class _Draw:
    """What a token is drawn from.

    Fields: row: logits, one a place. ids: tokens at its places; None: the places themselves. fraction: of the weight.
    """

    row: Logits
    ids: npt.NDArray[np.integer] | None
    settings: Truncation
    fraction: float

    def token_at(self, place: int) -> int:
        return place if self.ids is None else int(self.ids[place])


def _drawn(draws: Sequence[int | _Draw], threads: ThreadPool | None = None) -> list[int]:
    """The token of each; some are known, as those of greedy tasks."""
    drawn = [draw for draw in draws if isinstance(draw, _Draw)]
    rows, settings, fractions = [d.row for d in drawn], [d.settings for d in drawn], [d.fraction for d in drawn]
    places = iter(draw_tokens(rows, settings, fractions, threads) if drawn else ())
    return [draw.token_at(next(places)) if isinstance(draw, _Draw) else draw for draw in draws]


def _prepared(raw: Logits, task: SampleTask) -> int | _Draw:
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
    settings = Truncation(peak, params.temperature, params.top_k, params.top_p, params.min_p)
    fraction = uniform(task.seed, len(task.output_token_ids))
    return _Draw(row if places is None else row[places], places, settings, fraction)


def _prepared_top(ids: npt.NDArray[np.int32], values: npt.NDArray[np.float32], task: SampleTask) -> int | _Draw | None:
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
    settings = Truncation(peak, params.temperature, 0, params.top_p, params.min_p)
    return _Draw(values[by_id], ids[by_id], settings, uniform(task.seed, len(task.output_token_ids)))


def _reported(raw: Logits, task: SampleTask, token_id: int) -> SampledToken:
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


def _few_left(row: Logits) -> npt.NDArray[np.intp] | None:
    """Where a row is not masked, when that is at fewer than half of its places: then the rest need not be summed up."""
    left = row != -np.inf
    return np.flatnonzero(left) if 2 * np.count_nonzero(left) < row.size else None


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
