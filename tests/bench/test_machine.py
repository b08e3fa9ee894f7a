"""What the operating system says, read rightly."""

from __future__ import annotations

import os
import stat

import pytest

from albireo.bench import machine
from albireo.bench.machine import (
    machine_facts,
    parse_huge_pages,
)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("always [madvise] never\n", "madvise"),
        ("[always] madvise never", "always"),
        ("always madvise [never]", "never"),
        ("", None),
    ],
)
def test_huge_pages(text, word):
    assert parse_huge_pages(text) == word


def test_this_machine():
    facts = machine_facts()
    assert facts.cpu
    assert facts.num_cpus == len(os.sched_getaffinity(0))
    assert 0 < facts.available_bytes <= facts.memory_bytes
    assert facts.python.startswith("3.")


def _command(folder, text):
    file = folder / "nvidia-smi"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_gpus_by_their_command(tmp_path, monkeypatch):
    _command(tmp_path, "echo 'NVIDIA H200, 143771 MiB'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert machine_facts().gpus == ("NVIDIA H200, 143771 MiB",)


def test_a_driver_that_does_not_answer(tmp_path, monkeypatch):
    _command(tmp_path, "exit 9")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(machine, "_GPU_DRIVER", tmp_path / "missing")
    assert machine_facts().gpus == ()
    (tmp_path / "version").write_text("NVRM")
    monkeypatch.setattr(machine, "_GPU_DRIVER", tmp_path / "version")
    assert machine_facts().gpus == ("NVIDIA, of unknown kind",)
