"""What a processor is called, so that generations and sizes are told apart."""

from __future__ import annotations

import pytest

from albireo import system
from albireo.backends.cpu.fingerprint import cache_bytes, caches_text, cpu_name, cpu_text

_CPUINFO = "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nstepping\t: 1\n"


def test_generations_of_one_name_differ() -> None:
    assert cpu_text(_CPUINFO) == "AMD EPYC, family 26, model 2, stepping 1"
    assert cpu_text(_CPUINFO.replace("26", "25")) != cpu_text(_CPUINFO)
    assert cpu_text("") != ""
    assert cpu_text() == cpu_text()


_ARM = "BogoMIPS\t: 2000.00\nCPU implementer\t: 0x41\nCPU variant\t: 0x0\nCPU part\t: 0xd4f\nCPU revision\t: 1\n"


def test_what_arms_processors_say_of_themselves_is_a_name() -> None:
    assert cpu_name(_ARM) == "Neoverse V2"
    assert cpu_text(_ARM) == "Neoverse V2, implementer 0x41, part 0xd4f, variant 0x0, revision 1"
    assert cpu_name(_ARM.replace("0xd4f", "0xfff")) is None
    assert cpu_text(_ARM.replace("0xd4f", "0xfff")).endswith("part 0xfff, variant 0x0, revision 1")
    assert cpu_name("") is None


def test_the_first_processors_name_is_the_machines() -> None:
    assert cpu_name(_CPUINFO + "model name : other\n") == "AMD EPYC"


def test_caches_are_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [("L1d", "48K"), ("", "64K"), ("L2", "1M"), ("L3", "32768K")]
    monkeypatch.setattr(system, "caches", lambda: said)
    assert caches_text.__wrapped__() == "L1d 48K, L2 1M, L3 32768K"
    assert cache_bytes.__wrapped__() == 32 << 20
    said.clear()
    assert caches_text.__wrapped__() == "" and cache_bytes.__wrapped__() == 0
