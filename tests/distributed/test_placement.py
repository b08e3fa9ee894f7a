"""Which engine runs on which node, with numbers alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.api.machine.share import ALONE, Share
from albireo.config import EngineConfig
from albireo.distributed.placement import Node, place
from albireo.engine_process.messages import Ready
from albireo.errors import ConfigError
from albireo.models.settings.generation import GenerationDefaults
from albireo.server.serving import Serving
from albireo.server.settings import ServerSettings


def nodes(*num_cpus: int, gpus: tuple[int, ...] = ()) -> list[Node]:
    held = [*gpus, *[0] * len(num_cpus)]
    return [Node(f"n{i}", f"10.0.0.{i}", num, held[i]) for i, num in enumerate(num_cpus)]


def config(num: int, **but: object) -> EngineConfig:
    return EngineConfig.from_kwargs(data_parallel_size=num, **but)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.integers(1, 8))
def test_engines_are_alike_and_fit(num_cpus: list[int], num: int) -> None:
    cluster = nodes(*num_cpus)
    if sum(num_cpus) < num:
        with pytest.raises(ConfigError, match=f"data_parallel_size={num}"):
            place(cluster, config(num))
        return
    seats = place(cluster, config(num))
    assert len(seats) == num and len({seat.num_cpus for seat in seats}) == 1
    each = seats[0].num_cpus
    assert each >= 1 and sum(cpus // (each + 1) for cpus in num_cpus) < num, "no larger ones would fit"
    counts = Counter(seat.node.name for seat in seats)
    for node in cluster:
        assert counts[node.name] * each <= node.num_cpus
        there = [seat for seat in seats if seat.node is node]
        assert [seat.share for seat in there] == [Share(i, counts[node.name]) for i in range(len(there))]
        assert all(seat.num_threads == each * counts[node.name] for seat in there)


def test_threads_that_are_asked_for_are_divided() -> None:
    assert [seat.num_cpus for seat in place(nodes(8, 8), config(2, num_threads=6))] == [3, 3]
    assert {seat.node.name for seat in place(nodes(8, 8), config(2, num_threads=6))} == {"n0", "n1"}
    with pytest.raises(ConfigError, match=r"with 10 threads each does not fit the 2 nodes .* which have 8, 8 CPUs"):
        place(nodes(8, 8), config(2, num_threads=20))
    with pytest.raises(ConfigError, match="num_threads=1; each engine needs a thread"):
        place(nodes(8, 8), config(2, num_threads=1))


def test_a_gpu_each() -> None:
    cluster = nodes(8, 8, 8, gpus=(2, 0, 1))
    seats = place(cluster, config(3))
    assert sorted(seat.node.name for seat in seats) == ["n0", "n0", "n2"]
    assert all((seat.num_gpus, seat.share, seat.num_threads) == (1, ALONE, None) for seat in seats)
    with pytest.raises(ConfigError, match="data_parallel_size=4, and the 3 nodes of the Ray cluster have 3 GPUs"):
        place(cluster, config(4, device="cuda"))
    assert all(seat.num_gpus == 0 for seat in place(cluster, config(4, device="cpu")))


def test_a_gpu_for_each_rank_on_one_node() -> None:
    cluster = nodes(8, 8, gpus=(3, 4))
    seats = place(cluster, config(3, tensor_parallel_size=2))
    assert sorted((seat.node.name, seat.num_gpus) for seat in seats) == [("n0", 2), ("n1", 2), ("n1", 2)]
    with pytest.raises(ConfigError, match="have 7 GPUs; each engine needs 2 of its own on one node: lower it to 3"):
        place(cluster, config(4, tensor_parallel_size=2))


def test_files_as_overridden_are_made_on_this_node_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"of": 1}')
    config = EngineConfig(model=str(model), hf_overrides={"of": 2})
    there = "/home/of/another/node/.cache/albireo/overridden/0/model"
    ready = Ready({}, "", GenerationDefaults(), 1, 1, 1, 1, 1, {}, 0.0, config_directory=there)
    serving = Serving(ServerSettings(distributed_executor_backend="ray"), {})
    here = serving._config_directory(ready, config)
    assert here.is_relative_to(tmp_path / "cache") and json.loads((here / "config.json").read_text()) == {"of": 2}
    assert serving._config_directory(ready, EngineConfig(model=str(model))) == Path(there)
    assert Serving(ServerSettings(), {})._config_directory(ready, config) == Path(there)
