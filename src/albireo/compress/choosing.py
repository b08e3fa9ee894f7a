"""Chooses an encoding for each linear of a model, as the recipe asks.

Called by run.py before anything is rounded. Measures sensitivities where the recipe leaves the choice to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from albireo.compress.mixed import spend
from albireo.compress.recipe import HEADS, Choice, Recipe, fitting, fixed_choice, kept_weights
from albireo.compress.sensitivity import group_weights, measure_options
from albireo.compress.source import Source
from albireo.compress.stages import Stage
from albireo.compress.texts import Text
from albireo.errors import ConfigError

#: Shows progress: given what is done and how much there is; entered, it gives what to call with the part just done.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def choose(recipe: Recipe, stages: Sequence[Stage], source: Source, calibration: Text, progress: Progress) -> Choice:
    """Weight tensor -> what it becomes.

    Raises: ConfigError when nothing is left to quantize, or the fewest bits are more than asked for.
    """
    groups = [stage.group for stage in stages]
    widths = {name: source.checkpoint.shape(name)[1] for group in groups for name in group.weights}
    if recipe.target_bits is None:
        choice = fixed_choice(recipe, groups, widths)
    else:
        choice = _mixed_choice(recipe, recipe.target_bits, stages, source, calibration, progress)
    if not choice:
        raise ConfigError("keep leaves no linear to quantize")
    return choice


def _mixed_choice(
    recipe: Recipe, target_bits: float, stages: Sequence[Stage], source: Source, calibration: Text, progress: Progress
) -> Choice:
    groups = [stage.group for stage in stages]
    kept = kept_weights(recipe, groups)
    with progress("sensitivities", len(stages)) as advance:
        options = measure_options(stages, source, calibration, kept, advance)
    members = group_weights(groups, kept)
    shapes = {name: source.checkpoint.shape(name) for names in members.values() for name in names}
    weights = sum(math.prod(shapes[name]) for group in options for name in members[group])
    choice: Choice = {}
    for name, option in spend(options, target_bits, weights).items():
        if option.encoding is not None:
            choice |= dict.fromkeys(members[name], option.encoding)
    head = HEADS[recipe.head]
    for group in groups:
        if group.is_head and head is not None:
            choice |= {name: fitting(head, shapes[name][1]) for name in members[group.name]}
    return choice
