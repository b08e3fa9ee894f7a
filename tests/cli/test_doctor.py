"""doctor: facts, measurements, the kernels that would be chosen, and what to do about what is missing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from albireo import _native
from albireo.bench.machine import MachineFacts
from albireo.cli.doctor import EXTRAS, gpus_text, missing
from albireo.cli.main import __file__ as main_file
from albireo.dtypes import COMPUTE_DTYPES
from albireo.graph.program_spec import COMMON_FAMILIES

FACTS = MachineFacts(
    cpu="a processor",
    num_cpus=4,
    cpu_quota=None,
    huge_pages="madvise",
    memory_bytes=2**33,
    available_bytes=2**32,
    gpus=(),
    system="Linux",
    python="3.11",
)
FOUND = {
    "cuda": {"problem": None, "fix": None},
    "native": {
        "error": None,
        "isa_levels": ["avx2", "scalar"],
        "isa_cap": None,
        "refused_levels": {},
        "num_threads": 4,
        "numa": {"processors": [4], "nodes": [], "spreads": None},
    },
    "extras": {"hub": "1.0"},
    "bundled_model": True,
}


@pytest.fixture
def uncapped(monkeypatch):
    monkeypatch.delenv("ALBIREO_ISA_MAX", raising=False)


def test_json(albireo, uncapped):
    result = albireo("doctor", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert set(found) == {"cuda", "machine", "extras", "native", "bundled_model", "missing"}
    assert found["extras"]["images"] == importlib.metadata.version("pillow")
    native = found["native"]
    assert native["isa_levels"] == _native.isa_levels()
    assert native["num_threads"] == len(_native.usable_cpus())
    assert native["read_bytes_per_s"]["best"] >= native["read_bytes_per_s"]["median"] > 0
    for dtype in ("bfloat16", "float32"):
        speed = native["dot_flops_per_s"][dtype]
        assert speed["best"] >= speed["median"] >= 0
    assert found["machine"]["num_cpus"] == len(os.sched_getaffinity(0))
    assert found["bundled_model"] is True


def test_every_family_has_a_kernel_of_a_level_the_machine_has(albireo):
    kernels = json.loads(albireo("doctor", "--json").stdout)["native"]["kernels"]
    levels = _native.isa_levels()
    built = {(family, level) for family, _, level in _native.kernels()}
    assert set(kernels) == set(COMMON_FAMILIES)
    for family, by_dtype in kernels.items():
        assert set(by_dtype) == set(COMPUTE_DTYPES)
        for dtype, identity in by_dtype.items():
            level = identity.split(".")[2]
            assert identity == f"{family}.{dtype}.{level}"
            assert level in levels
            assert (family, level) in built


def test_the_cap_is_seen_and_named(albireo, monkeypatch):
    monkeypatch.setenv("ALBIREO_ISA_MAX", "scalar")
    found = json.loads(albireo("doctor", "--json").stdout)
    assert found["native"]["isa_levels"] == ["scalar"]
    identities = [each for family in found["native"]["kernels"].values() for each in family.values()]
    assert all(identity.endswith(".scalar") for identity in identities)
    assert {"what": "ALBIREO_ISA_MAX=scalar caps the kernels", "fix": "unset ALBIREO_ISA_MAX"} in found["missing"]


def test_text(albireo):
    result = albireo("doctor", "--num-threads", "1")
    assert result.exit_code == 0
    for name in (
        "processor",
        "memory",
        "huge pages",
        "GPU",
        "ISA levels",
        "read",
        "dot bf16",
        "kernels",
        *COMMON_FAMILIES,
    ):
        assert any(line.strip().startswith(name) for line in result.stdout.splitlines()), name
    assert "what is missing and how to fix it" in result.stdout
    assert "threads       1\n" in result.stdout


def test_without_the_native_core_it_still_answers():
    code = (
        "import sys; sys.modules['albireo._native'] = None\n"
        "from albireo.cli.main import main\n"
        "main(['doctor', *sys.argv[1:]])"
    )
    env = {**os.environ, "PYTHONPATH": main_file.removesuffix("albireo/cli/main.py")}
    for args in ((), ("--json",)):
        child = subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True)
        assert child.returncode == 0, child.stderr
        assert "The native core does not load" in child.stdout
        assert "C++20 compiler" in child.stdout


def test_a_gpu_that_cuda_finds_is_there_also_where_the_driver_lists_none():
    found = {"name": "NVIDIA H200", "problem": None}
    assert gpus_text(FACTS, found) == "NVIDIA H200"
    assert gpus_text(replace(FACTS, gpus=("NVIDIA H200", "NVIDIA H200")), found) == "NVIDIA H200; NVIDIA H200"
    assert gpus_text(FACTS, {"name": None, "problem": "there is no NVIDIA driver"}) == "none found"


def test_nothing_is_missing_on_a_good_machine():
    assert missing(FACTS, FOUND) == []


@pytest.mark.parametrize(
    ("facts", "found", "what", "fix"),
    [
        ({"huge_pages": "never"}, {}, "Huge pages are off", "transparent_hugepage"),
        (
            {"gpus": ("NVIDIA H200",)},
            {"cuda": {"problem": "triton is not installed", "fix": "pip install 'albireo[cuda]'"}},
            "The GPU is not used: triton is not installed",
            "pip install 'albireo[cuda]'",
        ),
        ({"cpu_quota": 1.5}, {}, "4 threads compete for the 1.5 processors", "--num-threads 1"),
        ({}, {"bundled_model": False}, "bundled model", "reinstall"),
        ({}, {"extras": {"hub": None}}, "huggingface_hub", "pip install 'albireo[hub]'"),
        ({}, {"native": {"error": "no file"}}, "no file", "C++20"),
        (
            {},
            {"native": {**FOUND["native"], "refused_levels": {"amx": "its self-test failed"}}},
            "Kernels of level amx are off: its self-test failed",
            "the next level computes",
        ),
        (
            {},
            {"native": {**FOUND["native"], "numa": {"processors": [2, 2], "nodes": [0, 1], "spreads": False}}},
            "the KV cache may lie in one of them",
            "--cap-add SYS_NICE",
        ),
    ],
)
def test_what_is_missing_comes_with_a_fix(facts, found, what, fix):
    (problem,) = missing(replace(FACTS, **facts), FOUND | found)
    assert what in problem["what"]
    assert fix in problem["fix"]


def test_every_extra_is_looked_for():
    """As pyproject.toml has them, but for what only a GPU, a collector, a cluster or a developer needs."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"]
    assert set(EXTRAS) == set(wanted) - {"cuda", "otlp", "ray", "test"}
    for extra, (package, distribution, _) in EXTRAS.items():
        assert any(re.match(rf"{distribution}\b", needed) for needed in wanted[extra])
        assert find_spec(package) is not None or extra == "hub"  # tests have the others


def test_a_quota_of_all_processors_is_no_problem():
    assert missing(replace(FACTS, cpu_quota=4.0), FOUND) == []
