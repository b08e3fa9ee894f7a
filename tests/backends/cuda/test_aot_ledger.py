"""When a compilation that is kept answers for one: keys, in other places and processes, and words that are sought."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import triton

from albireo.backends.cuda import aot_ledger
from albireo.backends.cuda.aot import KERNELS, AotCase, cases_of, modules_with_cases
from albireo.backends.cuda.aot_ledger import Facts, Ledger, label_of
from backends.cuda.aot_keys import OTHERS

FILES = {
    "width": "import triton.language as tl\nWIDTH = tl.constexpr(4)\n",
    "called": """import triton
import triton.language as tl

_LEAST = 1

@triton.constexpr_function
def least(count):
    return max(count, _LEAST)

@triton.jit
def doubled(x):
    return x + x
""",
    "small": """import width as numbers
import triton
import triton.language as tl
from called import doubled, least

FACTOR = tl.constexpr(2.0)

@triton.jit
def kernel(x, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    y = doubled(tl.load(x + at, mask=at < n)) * FACTOR + numbers.WIDTH + least(BLOCK)
    tl.store(x + at, y, mask=at < n)
""",
}
#: By directory: what is changed of which file, and whether something else may come of it.
CHANGES = {
    "as it is": ("small", "", "", False),
    "lines of the kernel": ("small", "FACTOR =", "# one more\nFACTOR =", False),
    "lines of what it calls": ("called", "@triton.jit", "# one more\n\n@triton.jit", False),
    "the kernel": ("small", "* FACTOR", "/ FACTOR", True),
    "what it calls": ("called", "x + x", "x * x", True),
    "how that is called": ("called", "@triton.jit", "@triton.jit(noinline=True)", True),
    "a constant": ("small", "2.0", "3.0", True),
    "a constant of a module": ("width", "4", "5", True),
    "a number of what it calls": ("called", "_LEAST = 1", "_LEAST = 2", True),
}


def keys(directory: Path, seed: int) -> dict[str, str]:
    for place, (changed, old, new, _) in CHANGES.items():
        (directory / place).mkdir(parents=True)
        for name, text in FILES.items():
            assert name != changed or old in text
            (directory / place / f"{name}.py").write_text(text.replace(old, new, 1) if name == changed else text)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(Path(__file__).with_name("aot_keys.py")), str(directory)]
    environment["PYTHONHASHSEED"] = str(seed)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_key_is_of_all_that_the_compiler_is_told_and_of_no_place(tmp_path: Path) -> None:
    found = keys(tmp_path / "here", 1)
    assert keys(tmp_path / "there" / "it is", 2) == found
    others = {place: is_other for place, (*_, is_other) in CHANGES.items()} | {"architecture": True}
    others |= {name: is_told for name, (_, is_told) in OTHERS.items()}
    assert found.keys() == others.keys()
    assert {name for name, key in found.items() if key != found["as it is"]} == {n for n in others if others[n]}
    assert len({found[name] for name, is_other in others.items() if is_other}) == sum(others.values())


def facts(key: str, instructions: int = 8, **words: bool) -> Facts:
    return Facts(key, 40, 1024, instructions, 0, 0, words)


def test_an_entry_answers_for_its_key_its_words_and_its_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aot_ledger, "key_of", lambda case, architecture: f"{case.num_warps} {architecture}")
    case = AotCase("some", None, {}, {}, words={90: ("HMMA", "LDG")})
    kept = facts("4 90", HMMA=True, LDG=False)
    ledger = Ledger(triton.__version__, {"module": {label_of(case, 90): kept}})
    assert ledger.facts_of("module", case, 90) is kept
    assert ledger.facts_of("module", case, 80) is None
    assert ledger.facts_of("other", case, 90) is None
    assert ledger.facts_of("module", AotCase("some", None, {}, {}, 8, words=case.words), 90) is None
    assert ledger.facts_of("module", AotCase("some", None, {}, {}, words={90: ("HMMA",)}), 90) is None
    assert Ledger("another", ledger.entries).facts_of("module", case, 90) is None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    kept = {"b for 90": facts("1", HMMA=True), "a for 80": facts("2")}
    ledger = Ledger("3.9.0", {"second": kept, "first": {"c for 90": facts("3")}})
    ledger.write(tmp_path / "ledger.json")
    assert Ledger.read(tmp_path / "ledger.json") == ledger
    lines = (tmp_path / "ledger.json").read_text().splitlines()
    assert [line.split('"')[1] for line in lines if '"key"' in line] == ["c for 90", "a for 80", "b for 90"]


def test_a_sample_is_a_64th_of_each_architecture() -> None:
    many = {f"k{i} for {at}": facts(f"{i * 7 % 64:02} {at}", 10 + i) for i in range(64) for at in (80, 90)}
    ledger = Ledger(
        "3.9.0", {"one": many | {"large for 100": facts("98 100", 5000), "small for 100": facts("99 100", 60)}}
    )
    sample = ledger.sample()
    for at in (80, 90):
        chosen = [each for label, each in many.items() if each.key in sample and label.endswith(str(at))]
        total, limit = sum(each.instructions for each in chosen), sum(10 + i for i in range(64)) // 64
        assert limit - 10 < total <= limit and "00 90" in sample
    assert "98 100" not in sample and "99 100" in sample


@pytest.mark.parametrize("module", modules_with_cases())
def test_what_is_compiled_is_what_is_launched(module: str) -> None:
    """A case may not know more than a launch: what is not specialized is no multiple of 16 to the compiler. And what a
    launch does not say is the default of a Triton, of which there are two: before 3.10 products and sums fuse."""
    nodes = list(ast.walk(ast.parse((KERNELS / f"{module}.py").read_text())))
    hidden: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            told = [word for by in node.decorator_list if isinstance(by, ast.Call) for word in by.keywords]
            names = [ast.literal_eval(word.value) for word in told if word.arg == "do_not_specialize"]
            hidden[node.name] = set(*names)
    for case in cases_of(module):
        assert not hidden[case.kernel.fn.__name__] & set(case.aligned), case.name
    launches = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)]
    assert launches
    for call in launches:
        assert "enable_fp_fusion" in {word.arg for word in call.keywords}, f"line {call.lineno}"
