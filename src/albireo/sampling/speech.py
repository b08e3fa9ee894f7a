"""What a model of speech may write next; one row of logits.

Called by penalties.py. Source: Radford et al. 2022, Robust Speech Recognition via Large-Scale Weak Supervision, and the
decoding that was published with it: times come in pairs, one that ends a text and one that begins the next, and never
go back; where all times together are likelier than each token of text, a time is written.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from albireo.speech_rules import SpeechRules

Row = npt.NDArray[np.float32]


def follow_rules(row: Row, rules: SpeechRules, output: Sequence[int]) -> None:
    """Set what may not come next to -inf, in place. Args: row: [V] logits. output: ids so far."""
    place = len(output) - len(rules.opening)
    if place < 0:
        ids = list(rules.opening[len(output)])
        kept = row[ids]
        row[:] = -np.inf
        row[ids] = kept
        return
    row[list(rules.never)] = -np.inf
    if place == 0:
        row[list(rules.never_first)] = -np.inf
    if rules.is_timed:
        _follow_times(row, rules, output[len(rules.opening) :])
    else:
        row[rules.times :] = -np.inf


def followed(row: Row, rules: SpeechRules, output: Sequence[int]) -> Row:
    """A copy of a row that follow_rules() has changed."""
    changed = row.copy()
    follow_rules(changed, rules, output)
    return changed


def is_opening(rules: SpeechRules | None, output: Sequence[int]) -> bool:
    """Whether the next token says how is written: the likeliest then, whatever else is asked."""
    return rules is not None and len(output) < len(rules.opening)


def _follow_times(row: Row, rules: SpeechRules, text: Sequence[int]) -> None:
    times = rules.times
    is_time = [token >= times for token in text[-2:]]
    if is_time and is_time[-1]:
        if len(text) < 2 or is_time[-2]:  # one begins a text, or two did
            row[times:] = -np.inf
        else:  # one has ended a text: another begins the next, or nothing comes
            row[: rules.text_end] = -np.inf
    told = next((token for token in reversed(text) if token >= times), None)
    if told is not None:
        # where the last token is a time that has ended a text, the same may begin the next
        row[times : told + (not is_time[-1])] = -np.inf
    if not text:
        row[:times] = -np.inf
        if rules.last_first_time is not None:
            row[times + rules.last_first_time + 1 :] = -np.inf
    if _are_times_likelier(row, times):
        row[:times] = -np.inf


def _are_times_likelier(row: Row, times: int) -> bool:
    """Whether any of the times is likelier than the likeliest of all others."""
    others, told = row[:times], row[times:]
    if not told.size or not np.isfinite(most := told.max()):
        return False
    likelihood = float(most) + float(np.log(np.exp(told.astype(np.float64) - most).sum()))
    return likelihood > float(others.max(initial=-np.inf))
