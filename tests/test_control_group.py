"""Limits of control groups, as the kernel writes them into files: both versions, nested, from inside and outside."""

from __future__ import annotations

import pytest

from albireo.api.machine import memory
from albireo.backends.cpu import machine
from albireo.control_group import ControlGroup, control_group, threads_allowed

#: What the kernel of version 1 says where there is no limit.
UNLIMITED = "9223372036854771712"


@pytest.fixture
def system(tmp_path):
    """Writes files below a root, and what /proc/self/cgroup says; reads limits from them."""

    def read(own: str, files: dict[str, str]) -> ControlGroup:
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        (tmp_path / "own").write_text(own)
        return control_group(tmp_path / "root", tmp_path / "own")

    return read


def test_a_container_sees_its_own_group_as_the_root(system):
    files = {"memory.max": "2147483648", "memory.current": "1000", "cpu.max": "150000 100000"}
    assert system("0::/\n", files) == ControlGroup(2 << 30, (2 << 30) - 1000, 1.5)


def test_a_service_lies_in_others_and_the_least_limit_counts(system):
    found = system(
        "0::/system.slice/albireo.service\n",
        {
            "cgroup.procs": "",
            "system.slice/memory.max": "4096",
            "system.slice/memory.current": "3000",
            "system.slice/cpu.max": "200000 100000",
            "system.slice/albireo.service/memory.max": "max",
            "system.slice/albireo.service/cpu.max": "50000 10000",
        },
    )
    assert found == ControlGroup(4096, 1096, 2.0)


def test_files_that_the_kernel_keeps_are_free(system):
    stat = "anon 600\nfile 350\nshmem 50\ninactive_file 200\nactive_file 100"
    found = system("0::/\n", {"memory.max": "1000", "memory.current": "950", "memory.stat": stat})
    assert found.free_bytes == 1000 - 950 + 300


def test_what_is_used_beyond_a_lowered_limit_leaves_nothing(system):
    assert system("0::/\n", {"memory.max": "1000", "memory.current": "1500"}).free_bytes == 0


def test_version_1_has_a_tree_for_each_controller(system):
    found = system(
        "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
        {
            "memory/memory.limit_in_bytes": UNLIMITED,
            "memory/docker/abc/memory.limit_in_bytes": "8192",
            "memory/docker/abc/memory.usage_in_bytes": "8000",
            "memory/docker/abc/memory.stat": "active_file 1\ntotal_active_file 500\ntotal_inactive_file 300",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "400000",
            "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
        },
    )
    assert found == ControlGroup(8192, 992, 4.0)


def test_a_container_of_version_1_is_told_a_path_that_it_does_not_have(system):
    files = {"memory/memory.limit_in_bytes": "8192", "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}
    found = system("5:memory:/docker/abc\n4:cpu:/docker/abc\n", files)
    assert (found.memory_bytes, found.cpus) == (8192, None)


def test_a_mix_of_both_versions(system):
    own = "4:memory:/\n2:cpu:/\n0::/user.slice\n"
    found = system(own, {"unified/user.slice/cpu.max": "max 100000", "memory/memory.limit_in_bytes": "512"})
    assert found == ControlGroup(512, None, None)


@pytest.mark.parametrize("own", ["", "0::/\n", "0::/../..\n", "nonsense", "3:memory:/x\n"])
def test_what_cannot_be_read_is_no_limit(system, own):
    assert system(own, {"cpu.max": "max", "memory.max": ""}) == ControlGroup()


@pytest.mark.parametrize(("cpus", "threads"), [(None, 8), (64.0, 8), (8.0, 8), (3.9, 3), (1.0, 1), (0.2, 1)])
def test_a_thread_needs_a_whole_processor(cpus, threads):
    assert threads_allowed(cpus, 8) == threads


def test_memory_is_that_of_the_group(monkeypatch):
    monkeypatch.setattr(memory, "control_group", lambda: ControlGroup(3 << 20, 1 << 20, None))
    assert memory.machine_bytes() == 3 << 20
    assert memory.available_bytes() == 1 << 20


def test_threads_are_those_that_the_group_has_time_for(monkeypatch):
    monkeypatch.setattr(machine, "control_group", lambda: ControlGroup(cpus=1.7))
    assert machine.num_threads_of(None) == 1
    assert machine.thread_pool(None).size == 1
    assert machine.num_threads_of(5) == 5  # what is said is said


@pytest.mark.parametrize(("asked", "pinned"), [(None, [0, 2, 4, 6]), (4, [0, 2, 4, 6]), (3, [-1] * 3), (5, [-1] * 5)])
def test_threads_are_pinned_where_they_have_all_cores(monkeypatch, asked, pinned):
    """Two servers of three threads would both have the first three of four cores, and the fourth would be idle."""
    monkeypatch.setattr(machine, "control_group", ControlGroup)
    monkeypatch.setattr(machine._native, "usable_cpus", lambda: [0, 2, 4, 6])
    monkeypatch.setattr(machine._native, "ThreadPool", lambda cpus: cpus)
    assert machine.thread_pool(asked) == pinned
