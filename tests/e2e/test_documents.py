"""What a new user tries first: every example, and every Python block of the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from albireo.backends.cpu.machine import isa_levels
from albireo.models import architectures, load_architecture
from albireo.models.settings.wholes import WHOLES

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def run(code: list[str]) -> str:
    result = subprocess.run([sys.executable, *code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


#: Runs files one after the other, and says after each how many words it said.
ALL = """
import contextlib, io, runpy, sys
for path in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        runpy.run_path(path, run_name="__main__")
    print(len(said.getvalue().split()))
"""


def test_examples_and_blocks_of_the_readme_run_and_say_something(tmp_path: Path) -> None:
    """In one process: the imports are more than what they do."""
    assert len(EXAMPLES) > 3 and len(BLOCKS) > 2
    for path in EXAMPLES:
        assert len(path.read_text().splitlines()) <= 30, path
    blocks = [tmp_path / f"block_{i}.py" for i in range(len(BLOCKS))]
    for path, block in zip(blocks, BLOCKS, strict=True):
        path.write_text(block)
    words = [int(line) for line in run(["-c", ALL, *map(str, [*EXAMPLES, *blocks])]).splitlines()]
    assert len(words) == len(EXAMPLES) + len(BLOCKS)
    assert min(words[: len(EXAMPLES)]) > 5 and min(words) > 0, words


def test_every_architecture_is_described_and_among_its_kind() -> None:
    """There by its model_type; a text part is what those that read images have, too, and has no word of its own."""
    kinds, each_one = (ROOT / "docs" / "models.md").read_text().split("## What is honoured of each")
    types = {load_architecture(name).tiny["model_type"] for name in architectures()} | {*WHOLES}
    assert not [name for name in types if f"`{name}`" not in each_one]
    names = {name: (f"`{name}`", f"`{name.removesuffix('_text')}`") for name in types}
    assert not [name for name, either in names.items() if not any(word in kinds for word in either)]


def test_the_picture_is_the_one_this_version_draws(tmp_path: Path) -> None:
    if isa_levels()[0] != "avx512bf16":
        pytest.skip("the picture names the kernels of avx512bf16")
    run(["-m", "albireo", "inspect", "--graph", str(tmp_path / "fusion.svg")])
    drawn, stored = ((folder / "fusion.svg").read_text() for folder in (tmp_path, ROOT / "docs"))
    assert drawn == stored, "draw it again and look at it: albireo inspect --graph docs/fusion.svg"
