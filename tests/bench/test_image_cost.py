"""What a picture takes: counted as the tokenizer and the engine count it, and priced by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from albireo.bench.cost_model import MODEL_ERROR, CostModel
from albireo.bench.image_cost import PICTURE, first_token, image_figures
from albireo.bench.roofline import Limits, StepShape
from albireo.bench.tower_speed import layer_program
from albireo.engine.settings import EngineSettings
from albireo.images.decode import as_image
from albireo.images.prepared import row_tokens
from albireo.text.tokenizer import Tokenizer
from bench.test_tower_speed import vision_of

tiny_sights = pytest.importorskip("tiny_sights")
LIMITS = [Limits(1e9, 1e11)] * 3
SETTINGS = EngineSettings(num_blocks=200, max_model_len=2048, vocab_size=300)


class HandCosts(CostModel):
    """A step of the text part takes a second, and nothing beside."""

    def __init__(self) -> None:
        self.steps: list[StepShape] = []

    def step_s(self, shape: StepShape, limits: Limits) -> float:
        self.steps.append(shape)
        return 1.0

    def outside_s(self, shape: StepShape) -> float:
        return 0.0


@pytest.mark.parametrize("name", tiny_sights.FAMILIES)
def test_tokens_are_those_of_the_tokenizer(name: str, tmp_path: Path) -> None:
    vision = vision_of(tiny_sights.save(tmp_path, name))
    figures = image_figures(vision)
    prepared = vision.processor.prepare(as_image(np.zeros((PICTURE[1], PICTURE[0], 3), np.uint8)))
    tokenizer = Tokenizer.from_directory(tmp_path)
    ids = tokenizer.encode(prepared.text, add_special_tokens=False)
    rows = tokenizer.encode("".join(row_tokens(vision.processor)), add_special_tokens=False)
    assert figures["tokens"] == sum(ids.count(row) for row in rows) > 0
    blanks = sum(len(part) - 1 for part in prepared.text.split(">") if part.isspace())  # one token each, without merges
    assert figures["prompt_tokens"] == pytest.approx(len(ids) - blanks, abs=2)
    assert figures["tiles"] == len(prepared.tiles)


def test_tower_projector_and_steps_by_hand(tmp_path: Path) -> None:
    vision = vision_of(tiny_sights.save(tmp_path, "idefics3"))
    figures, text = image_figures(vision), HandCosts()
    tower, projector = (CostModel(program, 0) for program in vision.programs)
    layer = layer_program(vision.programs[0])
    patches, rows = figures["largest_tile_patches"], figures["tokens"] // figures["tiles"]
    of_layer = CostModel(layer, 0).step_s(StepShape(patches, 0, 0, ((patches, patches),)), LIMITS[0])
    found = first_token(vision, text, SETTINGS, LIMITS, layer, [2 * of_layer, of_layer, 3 * of_layer])
    assert found is not None
    tiles = figures["tiles"]
    assert len(text.steps) == tiles, "a step for each tile, as the engine cuts them"
    assert sum(step.num_tokens for step in text.steps) == figures["prompt_tokens"]
    one = tower.step_s(StepShape(patches, 0, 0, ((patches, patches),)), LIMITS[0])
    one += projector.step_s(StepShape(rows, 0, 0, ((rows, rows),)), LIMITS[0])
    assert found.expected == pytest.approx(2 * tiles * (one + 1))
    assert found.low == pytest.approx(tiles * (one + 1) * (1 - MODEL_ERROR))
    assert found.high == pytest.approx(3 * tiles * (one + 1) * (1 + MODEL_ERROR))


def test_what_is_before_a_tower_is_priced_by_hand(tmp_path: Path) -> None:
    """Four times as many rows, in whose last layer blocks of four see themselves."""
    vision = vision_of(tiny_sights.save(tmp_path, "minicpmv4_6"))
    figures, text = image_figures(vision), HandCosts()
    tower, projector, patches, before = (CostModel(program, 0) for program in vision.programs)
    layer = layer_program(vision.programs[0])
    count = figures["largest_tile_patches"]
    of_layer = CostModel(layer, 0).step_s(StepShape(count, 0, 0, ((count, count),)), LIMITS[0])
    found = first_token(vision, text, SETTINGS, LIMITS, layer, [of_layer])
    assert found is not None
    wanted, whole = float(len(text.steps)), 0.0
    for tile in vision.processor.prepare(as_image(np.zeros((PICTURE[1], PICTURE[0], 3), np.uint8))).tiles:
        given = vision.tower.patches(*tile.shape[:2])
        for costs, rows in ((tower, given), (projector, given // 4), (patches, 4 * given)):
            wanted += costs.step_s(StepShape(rows, 0, 0, ((rows, rows),)), LIMITS[0])
        whole += before.step_s(StepShape(4 * given, 0, 0, ((4 * given, 4 * given),)), LIMITS[0])
    # of blocks less, and each run of layers begins anew
    assert wanted + 0.5 * whole < found.expected < wanted + 1.5 * whole


def test_a_prompt_that_is_refused_has_no_time(tmp_path: Path) -> None:
    vision = vision_of(tiny_sights.save(tmp_path, "idefics3"))
    short = replace(SETTINGS, max_model_len=image_figures(vision)["prompt_tokens"])
    assert first_token(vision, HandCosts(), short, LIMITS, layer_program(vision.programs[0]), [1.0]) is None


def test_windows_of_a_tower_take_less_than_all_of_a_picture(tmp_path: Path) -> None:
    """A picture of 12,288 patches in one tile; layers are held to be as fast as the machine's limits say."""
    path = tiny_sights.save(tmp_path, "qwen2_5_vl") / "config.json"
    data, found = json.loads(path.read_text()), {}
    files = {"size": {"shortest_edge": 256, "longest_edge": 2**20}, "patch_size": 8}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(files))
    settings = EngineSettings(num_blocks=2000, max_model_len=16384, vocab_size=300)
    for whole in ((), (1,), (0, 1, 2)):
        data["vision_config"]["fullatt_block_indexes"] = list(whole)
        path.write_text(json.dumps(data))
        vision = vision_of(tmp_path)
        assert image_figures(vision)["patches"] == 12288
        layer, rows = layer_program(vision.programs[0]), 12288
        took = CostModel(layer, 0).step_s(StepShape(rows, 0, 0, ((rows, rows),)), LIMITS[0])
        text = HandCosts()
        estimate = first_token(vision, text, settings, LIMITS, layer, [took])
        assert estimate is not None
        found[whole] = estimate.expected - len(text.steps)
    assert 1.5 * found[()] < found[1,] < found[0, 1, 2] / 1.5
