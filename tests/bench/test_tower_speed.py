"""A layer of a tower alone: what is in it, and that it runs without a weight. How long it takes is nobody's test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from albireo.api.machine.devices import planning_device
from albireo.api.media.perception import Vision, open_perception
from albireo.api.sources.source import open_source
from albireo.bench.tower_speed import layer_program, layer_seconds
from albireo.config import EngineConfig
from in_turn import in_turn

tiny_sights = pytest.importorskip("tiny_sights")

#: Families whose patches are rows as they are, or whose layers are all before the tower's own graph.
WITHOUT_LAYERS = ("gemma4_unified", "got_ocr2", "idefics2", "ovis2", "pp_chart2table")


def vision_of(folder: Path, dtype: str = "float32") -> Vision:
    config = EngineConfig(model=str(folder), dtype=dtype)
    found = open_perception(config, open_source(folder, config), planning_device(config))
    assert isinstance(found, Vision)
    return found


@in_turn(("name", tiny_sights.FAMILIES), ("dtype", ["float32", "bfloat16"]))
def test_a_layer_runs_without_weights(name: str, dtype: str, tmp_path: Path) -> None:
    vision = vision_of(tiny_sights.save(tmp_path, name), dtype)
    tower = vision.programs[0]
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    layer = layer_program(tower)
    of_layer, of_tower = (Counter(call.family for call in program.calls) for program in (layer, tower))
    writes = of_layer["qkv_rope_kv"] + of_layer["kv_write"]
    if name in WITHOUT_LAYERS:
        assert layer == tower and not of_tower["attention"]
    else:
        assert of_layer["attention"] == writes == 1 < of_tower["attention"]
        assert of_layer["linear"] >= 3, "out, up and down"
        assert of_layer["linear"] * of_tower["attention"] <= of_tower["linear"]
        read = {name for call in layer.calls for name in call.args.values()}
        assert set(layer.constants) == read & set(tower.constants) and len(layer.constants) < len(tower.constants)
    seconds = layer_seconds(layer, vision.tower.patches(*vision.processor.largest_tile()), 1)
    assert 1 <= len(seconds) <= 8 and min(seconds) > 0


def test_a_tower_of_one_layer_is_taken_whole(tmp_path: Path) -> None:
    tower = vision_of(tiny_sights.save(tmp_path, "idefics3")).programs[0]
    layer = layer_program(tower)
    assert layer_program(layer) == layer
