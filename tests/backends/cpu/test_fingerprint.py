"""What a processor is called, so that generations and sizes are told apart."""

from __future__ import annotations

from pathlib import Path

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


def test_caches(tmp_path: Path) -> None:
    for i, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "1M")]
    ):
        (tmp_path / f"index{i}").mkdir()
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (tmp_path / f"index{i}" / name).write_text(value + "\n")
    assert caches_text(tmp_path) == "L1d 48K, L2 1M"
    assert caches_text(tmp_path / "missing") == ""
    assert cache_bytes(tmp_path / "missing") == 0


def test_the_largest_cache(tmp_path: Path) -> None:
    for index, size in enumerate(("48K", "32768K", "1024K")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    assert cache_bytes(tmp_path) == 32 << 20
