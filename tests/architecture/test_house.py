"""Promises about the tree itself that no import linter can hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import albireo

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "albireo"
FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def text_of(path: Path) -> str:
    return path.read_text()


def nodes_of(path: Path) -> list[ast.AST]:
    """Not kept: garbage would be looked for among all nodes of all files until the end of the tests."""
    return list(ast.walk(ast.parse(text_of(path))))


@cache
def imported(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    return frozenset(found)


def room(path: Path) -> str:
    return "/".join(path.relative_to(PACKAGE).parts[:-1])


def users_of(*modules: str) -> set[str]:
    firsts = "|".join({module.partition(".")[0] for module in modules})
    # most files need no parsing to see that they import none of them; a statement stands at the begin of a line
    pattern = re.compile(rf"^[ \t]*(?:from|import)[ \t].*\b(?:{firsts})\b", re.MULTILINE)
    files = [path for path in FILES if pattern.search(text_of(path))]
    return {room(path) for path in files if set(modules) & imported(path)}


def test_the_native_core_is_called_from_the_cpu_backend_only() -> None:
    files = [path for path in FILES if "_native" in text_of(path)]
    assert {room(path) for path in files if "albireo._native" in imported(path)} <= {"backends/cpu"}


def test_wall_clocks_are_read_at_the_front_doors_only() -> None:
    assert users_of("time", "datetime") <= {
        "api",
        "api/machine",
        "bench",
        "bench/serving",
        "cli",
        "cli/bench",
        "engine_process",
        "server",
        "server/batches",
        "server/endpoints",
        "text",
        "tune",
    }


def test_the_environment_is_read_in_one_place() -> None:
    readers = {path.name for path in FILES if "os.environ" in text_of(path) or "getenv" in text_of(path)}
    assert readers == {"devflags.py"}


def test_heavy_libraries_are_fenced() -> None:
    assert users_of("tokenizers", "jinja2", "jinja2.sandbox") <= {"text"}
    assert users_of("huggingface_hub") <= {"api/sources"}
    assert users_of("soundfile", "soxr") <= {"sounds"}
    assert users_of("PIL") <= {"images", "videos", "cli", "api/media"}
    assert users_of("av", "av.error", "av.sidedata") <= {"videos"}
    assert {name.partition("/kernels")[0] for name in users_of("torch", "triton")} == {"backends/cuda"}
    ours = [path for path in FILES if re.search(r"\bray\b", text_of(path))]
    assert {path.parent.name for path in ours if any(n.partition(".")[0] == "ray" for n in imported(path))} == {
        "distributed"
    }
    assert users_of("aiohttp") <= {"bench/serving"}
    assert users_of("llguidance", "llguidance.gbnf_to_lark") <= {"structured/llguidance"}
    assert users_of("xgrammar", "tvm_ffi", "tvm_ffi.libinfo") <= {"structured/xgrammar"}
    assert {name.partition("/")[0] for name in users_of("msgspec")} == {"engine_process", "server"}
    traced = [path for path in FILES if "opentelemetry" in text_of(path)]
    assert traced and {path.name for path in traced} == {"tracing.py"}
    web = users_of("starlette.types", "starlette.responses", "uvicorn", "uvloop", "prometheus_client")
    assert {name.partition("/")[0] for name in web} == {"server"}


def test_nothing_is_unpickled_and_nothing_from_a_model_directory_is_run() -> None:
    assert users_of("pickle", "marshal", "shelve", "dill") == set()
    loads = [path for path in FILES if "torch.load" in text_of(path)]
    calls = [ast.unparse(node.func) for path in loads for node in nodes_of(path) if isinstance(node, ast.Call)]
    assert "torch.load" not in calls, "it may be said how others make safetensors of what we do not read"
    for path in FILES:
        if not re.search(r"\b(?:eval|exec|compile)\b", text_of(path)):
            continue
        calls = [n.func.id for n in nodes_of(path) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        assert not {"eval", "exec", "compile"} & set(calls), path


def says_what_it_is(path: Path) -> bool:
    text = text_of(path)
    # of a text that begins with a string, that is all there is to parse
    head = text[: text.index('"""', 3) + 3] if text.startswith('"""') else text
    return not text.strip() or bool(ast.get_docstring(ast.parse(head)))


def test_modules_say_what_they_are() -> None:
    assert not [path for path in FILES if not says_what_it_is(path)]


def test_the_public_names_resolve() -> None:
    assert all(getattr(albireo, name) is not None for name in albireo.__all__)


def test_no_files_import_each_other_in_a_circle() -> None:
    """Nor where an import is for types alone, or stands in a function: who reads one file would have to read all."""
    files = {".".join(("albireo", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in FILES}
    waits = {name: {other for other in imported(path) if other in files} for name, path in files.items()}
    done: set[str] = set()
    while ready := {name for name, others in waits.items() if name not in done and others <= done}:
        done |= ready
    assert not waits.keys() - done


#: What a start of text waits for no more: whoever needs one of these imports it then (modules, and rooms with all that
#: is in them).
_OF_MEDIA = ("PIL", "av", "soundfile", "ssl", "http.client", "albireo.videos", "albireo.media.sources")
_OF_OTHERS = ("jinja2", "tokenizers", "xgrammar", "llguidance", "huggingface_hub", "tqdm", "torch", "ray")
_OF_FORMATS = ("albireo.models.gguf.tensors", "albireo.structured.xgrammar", "albireo.structured.llguidance.backend")


@pytest.mark.parametrize(
    ("started", "unwanted"),
    [
        (
            ("albireo.cli.generate", "albireo.api.llm", "albireo.engine_process.worker"),
            (
                *(*_OF_MEDIA, *_OF_OTHERS, *_OF_FORMATS, "asyncio", "starlette", "albireo.server", "albireo.replicas"),
                *(
                    "albireo.images.processor",
                    "albireo.sounds",
                    "albireo.models.vision.encoder",
                    "albireo.models.decoders.llama",
                ),
            ),
        ),
        # of which ssl and HTTP are its own
        (
            ("albireo.server.run",),
            (
                *(name for name in _OF_MEDIA if name not in ("ssl", "http.client")),
                *(*_OF_OTHERS, *_OF_FORMATS, "numpy", "albireo.backends", "albireo.compiler", "albireo.images"),
                *("albireo.server.several", "opentelemetry"),
            ),
        ),
        # which begins before the server, to be ready with it
        (("albireo.engine_process.spawned",), ("asyncio", "msgspec", "numpy", "albireo.api", "albireo.config")),
    ],
    ids=["text", "server", "spawned"],
)
def test_a_start_imports_what_it_needs(started: tuple[str, ...], unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {', '.join(started)}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = found.stdout.split()
    assert set(started) <= set(modules)
    assert [name for name in modules if any(name == each or name.startswith(f"{each}.") for each in unwanted)] == []


def test_the_map_names_every_room() -> None:
    text = (PACKAGE.parents[1] / "docs" / "layout.md").read_text()
    tree = text[text.index("src/albireo/\n") : text.index("csrc/\n")]
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)) == rooms
    for path in PACKAGE.glob("*.py"):
        assert path.name.startswith("__") or path.name in tree, f"{path.name} is not on the map"
