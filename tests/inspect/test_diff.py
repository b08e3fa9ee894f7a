"""Two builds side by side: nothing where they are equal, and what was changed where they are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from albireo import BuildConfig, build
from albireo.errors import ConfigError, Corrupt
from albireo.inspect.diff import diff_lines, weights_are_compared
from albireo.inspect.side import open_sides
from artifact.engines import alter, make_engine


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_engine(tmp_path_factory.mktemp("diff"), "qwen3", max_num_seqs=4, max_num_batched_tokens=16)


def sections(first: Path, second: Path, **settings) -> dict[str, list[str]]:
    """What differs, by section."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in diff_lines(*open_sides(str(first), str(second), settings)):
        name = line[:14].strip() or name
        found.setdefault(name, []).append(line[14:])
    return found


def copy(engine: Path, to: Path) -> Path:
    shutil.copytree(engine, to)
    return to


def test_equal_builds(made, tmp_path) -> None:
    checkpoint, engine = made
    build(checkpoint, tmp_path / "again", BuildConfig(max_num_seqs=4, max_num_batched_tokens=16))
    assert sections(engine, tmp_path / "again") == {} == sections(engine, engine)


def test_a_checkpoint_is_compiled_for_what_the_build_was_built_for(made) -> None:
    checkpoint, engine = made
    assert sections(engine, checkpoint) == {} == sections(checkpoint, engine)
    sides = open_sides(str(engine), str(checkpoint), {})
    assert not weights_are_compared(*sides) and weights_are_compared(sides[0], sides[0])
    found = sections(engine, checkpoint, max_num_seqs=8)
    assert found["options"] == ["max_num_seqs 4 -> 8"]
    assert {"options", "arena"} == set(found) and "most rows G 4 -> 8" in found["arena"]


def test_an_option(made, tmp_path) -> None:
    checkpoint, engine = made
    build(checkpoint, tmp_path / "wide", BuildConfig(dtype="float32", max_num_seqs=4, max_num_batched_tokens=16))
    found = sections(engine, tmp_path / "wide")
    assert found["options"] == ["dtype bfloat16 -> float32"]
    assert any("packing p64.bfloat16 -> p64.float32: " in line for line in found["constants"])
    assert any(line.startswith("2 layers: kernel attention.bfloat16.") for line in found["calls"])
    assert any(line.startswith("weight bytes ") and "(+" in line for line in found["totals"])
    assert "source" not in found and "model" not in found
    assert found["files"] == ["4 of 7 differ: graph.json, program.json, report.md, weights.0.bin"]


def test_a_kernel(made, tmp_path) -> None:
    _, engine = made
    other = copy(engine, tmp_path / "other")

    def slower(program):
        for call in program["calls"]:
            if call["family"] == "linear":
                call["kernel"] = "linear.bfloat16.slow"

    alter(other, "program.json", slower)
    found = sections(engine, other)
    assert set(found) == {"calls", "files"} and len(found["calls"]) == 1
    assert found["calls"][0].startswith("2 layers and head.logits: kernel linear.bfloat16.")
    assert found["calls"][0].endswith(" -> linear.bfloat16.slow")


def test_constants(made, tmp_path) -> None:
    _, engine = made
    other = copy(engine, tmp_path / "other")

    def edit(program):
        first, second = program["constants"][1:3]
        first["sha256"] = "0" * 64
        second["made_of"] = "another"

    names = [c["name"] for c in json.loads((engine / "program.json").read_text())["constants"]]
    alter(other, "program.json", edit)
    assert sections(engine, other)["constants"] == [
        f"other bytes (sha256): {names[1]}",
        f"made of other rows: {names[2]}",
    ]


def test_another_checkpoint(made, tmp_path) -> None:
    _, engine = made
    _, other = make_engine(tmp_path, "llama", max_num_seqs=4, max_num_batched_tokens=16)
    found = sections(engine, other)
    assert found["model"][0] == "model_type qwen3 -> llama"
    assert any(line.startswith("model.safetensors sha256 ") for line in found["source"])
    assert any(line.startswith("2 layers: qkv_rope_kv q_norm ") for line in found["calls"])
    assert any(line.startswith("only in the first: 4 constants, ") for line in found["constants"])


def test_passes_that_fired_elsewhere(made, tmp_path) -> None:
    _, engine = made
    _, other = make_engine(tmp_path, changes={"num_hidden_layers": 3}, max_num_seqs=4, max_num_batched_tokens=16)
    found = sections(engine, other)
    assert "num_layers 2 -> 3" in found["model"] and "merge_qkv: fired 2× -> fired 3×" in found["passes"]
    assert found["calls"][0] == "20 -> 27" and any("KV layers 2 -> 3" in line for line in found["arena"])


def test_two_checkpoints(made, tmp_path) -> None:
    checkpoint, _ = made
    other = copy(checkpoint, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.25}))
    found = sections(checkpoint, other)
    assert found["model"] == ["rms_norm_eps 1e-06 -> 0.25"] and any(
        "norm eps 1e-06 -> 0.25" in x for x in found["calls"]
    )
    assert set(found) == {"model", "calls"}


def test_what_cannot_be_compared(made, tmp_path) -> None:
    checkpoint, engine = made
    with pytest.raises(ConfigError, match="max_num_seqs: given for a comparison of engine directories"):
        open_sides(str(engine), str(engine), {"max_num_seqs": 3})
    with pytest.raises(ConfigError, match="both sides are checkpoints, which have no hashes"):
        open_sides(str(checkpoint), str(checkpoint), {"verify_hashes": True})
    with pytest.raises(ConfigError, match="exceeds the model's"):
        open_sides(str(checkpoint), str(checkpoint), {"max_model_len": 10**6})
    other = copy(engine, tmp_path / "other")
    with open(other / "weights.0.bin", "r+b") as file:
        file.write(b"\x55\x55")
    assert sections(engine, other) == {}
    with pytest.raises(Corrupt, match="hash"):
        open_sides(str(engine), str(other), {"verify_hashes": True})
