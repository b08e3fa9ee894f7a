"""Random damage to the JSON of a directory, hashes mended: it loads and runs, or is refused; nothing else happens."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from albireo import EngineError
from albireo.artifact.reader import open_engine
from artifact.engines import make_engine, run, seal
from compiler.ranks import WIDE, wide_hybrid

#: `make fuzz` sets another number of rounds, and other seeds.
NUM_ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "40"))
SEED = os.environ.get("FUZZ_SEED", "albireo")
FILES = ("manifest.json", "graph.json", "program.json")
#: What a value is replaced by; a place may also be deleted, doubled, or swapped with another.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 63, 64, 65, 2**31, 2**40, 2**63, 10**30, 0.5, -0.0, 1e308, "", "T", "R", "S", "kv",
    "x", "token_ids", "positions", "float32", "bfloat16", "p64.float16", "\ud7ff", [], {}, [1], {"rope": 0},
    [["w", 0, 1]],
)  # fmt: skip


def places(value: Any, found: list[tuple[Any, Any]]) -> None:
    """(container, key) of everything in a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], (dict, list)):
            places(value[key], found)


def damage(data: Any, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        found: list[tuple[Any, Any]] = []
        places(data, found)
        container, key = rng.choice(found)
        kind = rng.randrange(6)
        if kind == 0:
            del container[key]
        elif kind == 1:
            other, place = rng.choice(found)
            container[key] = copy.deepcopy(other[place])
        elif kind == 2 and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif kind == 3 and isinstance(container[key], (int, float)) and not isinstance(container[key], bool):
            container[key] += rng.choice((-1, 1, 2, 64, 4096))
        else:
            container[key] = copy.deepcopy(rng.choice(VALUES))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("model", "ranks"), [("qwen3", 1), ("qwen3", 2), ("qwen3_next", 2)])
def test_it_runs_or_is_refused(name: str, model: str, ranks: int, tmp_path: Path) -> None:
    """Of a dense model, and of one with experts and states."""
    wide = WIDE if model == "qwen3" else wide_hybrid(model)
    _, engine = make_engine(tmp_path, model, "bfloat16", wide if ranks > 1 else {}, tensor_parallel_size=ranks)
    intact = {file: (engine / file).read_bytes() for file in FILES}
    rng, num_refused = random.Random(f"{SEED} {name} {ranks}" + ("" if model == "qwen3" else model)), 0
    num_rounds = NUM_ROUNDS // ranks**2
    for i in range(num_rounds):
        for file, data in intact.items():
            (engine / file).write_bytes(data)
        data = json.loads(intact[name])
        damage(data, rng)
        (engine / name).write_text(json.dumps(data))
        if name != "manifest.json":
            seal(engine, name)
        try:
            run(engine, [[3, 4, 5]], num_threads=ranks)
        except EngineError as error:
            assert str(error), f"round {i}"
            num_refused += 1
    assert num_refused > num_rounds // 2


def test_random_bytes(tmp_path: Path) -> None:
    _, engine = make_engine(tmp_path, "llama", "float32")
    rng = random.Random(7)
    for name in (*FILES, "target.json"):
        intact = (engine / name).read_bytes()
        for _ in range(40):
            data = bytearray(intact)
            for _ in range(rng.choice((1, 3))):
                data[rng.randrange(len(data))] = rng.randrange(256)
            if rng.random() < 0.3:
                del data[rng.randrange(len(data)) :]
            (engine / name).write_bytes(data)
            if name != "manifest.json":
                seal(engine, name)
            try:
                open_engine(engine)
            except EngineError as error:
                assert "albireo build MODEL" in str(error)
            (engine / name).write_bytes(intact)
            if name != "manifest.json":
                seal(engine, name)
    assert open_engine(engine)


def test_a_copy_of_a_directory_is_as_good(tmp_path: Path) -> None:
    _, engine = make_engine(tmp_path, "llama", "float32")
    shutil.copytree(engine, tmp_path / "copy")
    assert run(tmp_path / "copy") == run(engine)
