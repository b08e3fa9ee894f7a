"""Whole: what differs in a model with a text part from a model of text alone.

Listed in wholes.py. Does not know what the other parts compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Whole:
    """A model with a text part.

    Fields:
        class_name: what the whole is an instance of. other_classes: what it may be, too.
        parts: what the text part's model_type may be, first what it is where it is not said -> the architecture.
        defaults: what absent keys of the text part mean, where that differs from its architecture.
        always: keys of the text part that are what the part does, whatever they say: any other value is refused.
        neutral: keys of the text part that say nothing as long as they have these values; any other is refused.
        ignored: keys of the text part that say nothing. beside: of the whole.
        sees_images_both_ways: tokens of an image see all of it; or the value of use_bidirectional_attention of the text
            part by which they do. are_windows_kept: of what is before them, they see what layers with a window see.
        sees_prompts_both_ways: tokens of a prompt with pictures do, all of them.
        sections: pairs of the rotation that turn by each of three axes where files do not say; none: positions are
            numbers. takes_turns: pairs of the three axes do; else those of one are side by side. are_beside: there are
            four axes, of which the first is the position in the prompt, see execution.images.RopeAxes; where files
            say three, the first of these turns nothing.
        ends_with_time: sections are those of rows, of columns and of time: pairs of the first two take turns.
        may_be_flat: the whole may have the keys of its text part among its own.
        multiplies_images: rows of pictures are multiplied as embeddings are, where those are.
        cuts_width: heads of the text part are equal parts of its width where nothing is said, whatever they are in a
            model of text alone.
    """

    class_name: str
    parts: Mapping[str, str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    always: Mapping[str, Any] = field(default_factory=dict)
    neutral: Mapping[str, Any] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()
    sees_images_both_ways: bool | str = False
    are_windows_kept: bool = False
    sees_prompts_both_ways: bool = False
    sections: tuple[int, ...] | None = None
    takes_turns: bool = True
    are_beside: bool = False
    ends_with_time: bool = False
    may_be_flat: bool = False
    cuts_width: bool = False
    multiplies_images: bool = False
    other_classes: tuple[str, ...] = ()
