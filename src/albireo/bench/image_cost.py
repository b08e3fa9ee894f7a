"""What a picture takes: tiles, tokens of the prompt, and the time to the first token of an answer about it.

Called by plan.py before a weight is read, and by cli/facts.py. The engine itself plans the prompt; its steps and the
tower's are priced as cost_model.py does it, and all of that is held to what a layer of the tower takes here and now.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from albireo.api.media.perception import MAX_STEP_TILES, Ear, Perception, Vision
from albireo.backends.layer_runs import layer_runs
from albireo.bench.cost_model import CostModel
from albireo.bench.predict import Estimate, median_limits, schedule
from albireo.bench.roofline import Limits, StepShape
from albireo.engine.settings import EngineSettings
from albireo.errors import RequestError
from albireo.graph.program import Program
from albireo.image_input import ImageInput, Tile
from albireo.images.decode import as_image
from albireo.images.prepared import PreparedImage, row_tokens
from albireo.models.hearing.stem import ChoosesGraphs
from albireo.models.vision.patches import Sequences
from albireo.params import SamplingParams

#: Width and height of the picture that figures are of.
PICTURE = (1024, 768)
#: Marks between image tokens, as all tokenizers of these models have them: a token each, and blanks side by side.
_MARK = r"\]<\][^<>\[\]]+\[>\[|<[^<>]+>|\[[^\[\]]+\]|\s+|[^\s<\[]+|."


def image_figures(vision: Perception | str) -> dict[str, Any]:
    """Of one picture; problem: why none are read, else empty. prompt_tokens: with the marks between those of rows."""
    if not isinstance(vision, Vision):
        return {"problem": vision.sights if isinstance(vision, Ear) else str(vision)}
    prepared = _prepared(vision)
    patches = _patches(vision, prepared)
    image, length = _placed(vision, prepared)
    return {
        "problem": "",
        "picture": list(PICTURE),
        "tiles": len(patches),
        "patches": sum(patches),
        "largest_tile_patches": max(patches),
        "tokens": image.num_rows,
        "prompt_tokens": length,
    }


def first_token(
    vision: Vision,
    text: CostModel,
    settings: EngineSettings,
    limits: Sequence[Limits],
    layer: Program,
    layer_s: Sequence[float],
) -> Estimate | None:
    """Seconds from a prepared picture, which is the whole prompt, to the token behind it: tower, projector, and steps.

    Args:
        text: of the language model. settings: of an engine with blocks for the prompt.
        layer, layer_s: of the tower's largest tile, what a layer is, and what it took each time; see tower_speed.py.
    Returns: None where such a prompt is refused.
    """
    prepared = _prepared(vision)
    image, length = _placed(vision, prepared)
    engine = replace(
        settings, image_problem="", are_images_whole=vision.sees_both_ways, max_step_tiles=MAX_STEP_TILES["cpu"]
    )
    try:
        steps = schedule(engine, [(length, 1)], SamplingParams(temperature=0.0), (image,)).steps
    except RequestError:
        return None
    held = median_limits(limits)
    patches, projector = _patches(vision, prepared), CostModel(vision.programs[1], 0)
    seconds = _tower_s(vision, prepared, held)
    seconds += sum(_of_rows(projector, tile.num_rows, held) for tile in image.tiles)
    seconds += sum(text.step_s(step, held) + text.outside_s(step) for step in steps)
    times = sorted(seconds * each / _of_rows(CostModel(layer, 0), max(patches), held) for each in layer_s)
    return Estimate.of(median(times), times[0], times[-1])


def _prepared(vision: Vision) -> PreparedImage:
    width, height = PICTURE
    return vision.processor.prepare(as_image(np.zeros((height, width, 3), np.uint8)))


def _patches(vision: Vision, prepared: PreparedImage) -> list[int]:
    """Of each tile."""
    return [vision.tower.patches(*tile.shape[:2]) for tile in prepared.tiles]


def _placed(vision: Vision, prepared: PreparedImage) -> tuple[ImageInput, int]:
    """The picture where a prompt of nothing else has it, without its pixels; and how long that is."""
    row = "|".join(map(re.escape, row_tokens(vision.processor)))
    spans, length = [], 0
    for part in re.finditer(f"(?P<rows>(?:{row})+)|{_MARK}", prepared.text):
        count = len(re.findall(row, part["rows"])) if part["rows"] else 1
        if part["rows"]:
            spans.append((length, length + count))
        length += count
    sizes = [tile.shape[:2] for tile in prepared.tiles]
    tiles = tuple(Tile(height, width, b"", vision.tower.rows(height, width)) for height, width in sizes)
    return ImageInput(bytes(32), tiles, tuple(spans), prepared.grid), length


def _tower_s(vision: Vision, prepared: PreparedImage, limits: Limits) -> float:
    """Of all tiles: of each run of layers, as many patches at once as its layers see; what is before them, too."""
    seconds = 0.0
    for tile in prepared.tiles:
        size = tile.shape[:2]
        patches = vision.tower.patches(*size)
        seconds += _stem_s(vision, patches, size, limits)
        seconds += _sequences_s(vision.programs[0], vision.tower.sequences(*size) or ((patches,),), limits)
    return seconds


def _stem_s(vision: Vision, patches: int, size: tuple[int, int], limits: Limits) -> float:
    """Of what is computed before a tower of a tile of so many patches. Args: size: height and width of it in pixels."""
    stem, seconds = vision.tower.stem, 0.0
    if stem is None:
        return seconds
    counts, programs = stem.most_rows(patches), vision.programs[2:]
    orders: list[Sequence[int]] = [range(len(programs))]
    if isinstance(stem, ChoosesGraphs):
        orders = [stem.order(len(piece)) for piece in stem.pieces(np.zeros((*size, 3), np.float32))]
    for number in (number for order in orders for number in order):
        rows = counts[number]
        seconds += _sequences_s(programs[number], stem.sequences(number, rows) or ((rows,),), limits)
    return seconds


def _sequences_s(program: Program, sequences: Sequences, limits: Limits) -> float:
    """Of the rows of a program, of each layer of the KV cache in sequences of so many."""
    shapes = (StepShape(sum(each), 0, 0, tuple((rows, rows) for rows in each)) for each in sequences)
    # a program without attention has one list of calls, or none
    return sum(costs.step_s(shape, limits) for costs, shape in zip(_layer_costs(program), shapes, strict=False))


def _layer_costs(program: Program) -> list[CostModel]:
    """Of the calls of each layer of the KV cache: whose sequences those have."""
    runs = layer_runs(program.calls)
    calls = [tuple(program.calls[i] for of, run in runs for i in run if of == layer) for layer in sorted(dict(runs))]
    return [CostModel(replace(program, calls=some), 0) for some in calls]


def _of_rows(costs: CostModel, rows: int, limits: Limits) -> float:
    """A step of one sequence of so many rows, all of them new."""
    return costs.step_s(StepShape(rows, 0, 0, ((rows, rows),)), limits)
