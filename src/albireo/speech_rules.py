"""SpeechRules: which tokens may come next in what a model of speech writes down, whatever is said.

Made by api/transcribe/whisper_transcriber.py, a part of SamplingParams, followed by sampling/speech.py. A leaf module
of integers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRules:
    """A function of the output so far, and of one row of logits.

    Fields:
        opening: of each of the first tokens, which it may be: a language, what to do. They say how to write, and are no
            part of the text: the likeliest is taken, whatever the temperature.
        never: ids that never come; never_first: that do not come first behind the opening.
        times: id of the token that says 0.00 s, behind which all say times. is_timed: the text has some; else none
            comes.
        text_end: the ids of text are those below it: the id that ends an output.
        silence: id of the token that says that nothing is said: with the first token its raw log-probability is told,
            too, where any is; None: there is none.
        last_first_time: latest time that a text may begin with, in steps; None: any.
    """

    opening: tuple[tuple[int, ...], ...] = ()
    never: tuple[int, ...] = ()
    never_first: tuple[int, ...] = ()
    times: int
    text_end: int
    is_timed: bool = False
    silence: int | None = None
    last_first_time: int | None = None
