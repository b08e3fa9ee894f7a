"""Op by op and layer by layer: right models pass at every type and level; damage is found in the call that reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import LEVELS, isa_levels
from albireo.backends.cpu.model import CpuModel
from albireo.compiler.pipeline import compile_graph, passes_of
from albireo.dtypes import COMPUTE_DTYPES
from albireo.models import load_architecture, open_checkpoint
from albireo.verify.numerics import Numerics, layers_stage, ops_stage, run_numerics
from albireo.verify.steps import NUM_BLOCKS, walk_steps
from backends.cpu.harness import pool
from in_turn import in_turn
from representatives import REPRESENTATIVES
from tiny_models import make_checkpoint
from verify.models import constants, damage, graph_of, loaded

TOKENS = np.random.default_rng(3).integers(0, 90, 90).tolist()


def numerics(model: CpuModel, checkpoint: Path, dtype: str, graph_dtype: str | None = None) -> Numerics:
    graph = graph_of(checkpoint, graph_dtype or dtype)
    steps = walk_steps(TOKENS, 100, model.program.kv.block_size)
    with open_checkpoint(checkpoint, graph) as weights:
        return run_numerics(model, graph, weights, steps, lambda _: None, passes_of(model.program))


@in_turn(("name", REPRESENTATIVES), ("dtype", COMPUTE_DTYPES), ("level", isa_levels()))
def test_a_right_model_passes(name: str, dtype: str, level: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, load_architecture(name).tiny, seed=4, dtype=dtype)
    graph = graph_of(checkpoint, dtype)
    program = compile_graph(
        graph,
        CpuCatalog(LEVELS[LEVELS.index(level) :]),
        maxima={"T": 64, "R": 8, "G": 8},
        block_size=8 if level == "scalar" else 16,
        max_positions=128,
    )
    with open_checkpoint(checkpoint, graph) as weights:
        model = CpuModel(program, weights, pool(), NUM_BLOCKS)
    found = numerics(model, checkpoint, dtype)
    assert found.wrong is None, ops_stage(found, []).finding
    assert {check.kernel for check in found.checks} == {call.kernel for call in program.calls}
    stage = layers_stage(found.layers)
    assert stage.verdict == "passed", stage.finding
    layers = [f"layers.{i}" for i in range(program.kv.num_layers)]
    assert [layer.name for layer in found.layers] == ["embed", *layers, "logits"]
    assert found.layers[0].error == 0
    assert 0 < found.layers[-1].error < {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype]


def test_each_damaged_constant_is_found_in_the_first_call_that_reads_it(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint, engine = built
    program = json.loads((engine / "program.json").read_text())
    names = [constant["name"] for constant in constants(engine)]
    assert len(names) == 19
    for name in names:
        damaged = Path(shutil.copytree(engine, tmp_path / "engine"))
        damage(damaged, name)
        found = numerics(loaded(damaged).model, checkpoint, "bfloat16")
        readers = [call["origin"] for call in program["calls"] if name in call["args"].values()]
        assert found.wrong is not None, name
        # a table is read at the rows of the tokens at hand, by the head in all of them
        assert found.wrong.origin in readers, name
        assert found.wrong.origin == readers[0] or name == "model.embed_tokens.weight", name
        stage = ops_stage(found, [])
        assert stage.verdict == "failed"
        assert found.wrong.kernel in stage.finding
        assert "times the tolerance" in stage.finding or "equality is wanted" in stage.finding
        shutil.rmtree(damaged)


def test_a_graph_of_other_numbers_is_found(built: tuple[Path, Path], tmp_path: Path) -> None:
    """The reference says what the checkpoint's config means; a program of another eps is wrong at its first norm."""
    checkpoint, engine = built
    other = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.01}))
    found = numerics(loaded(engine).model, other, "bfloat16")
    assert found.wrong is not None
    assert (found.wrong.origin, found.wrong.index, found.wrong.step_idx) == ("layers.0.attn.norm", 1, 0)
    assert found.layers == []
