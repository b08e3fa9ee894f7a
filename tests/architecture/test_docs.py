"""What README.md and docs/ name is there: pages, places, files, flags, routes, metrics, variables, fields, functions.

The journal is left out: it tells what was.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import click
import pytest

from albireo import vllm_flags
from albireo.cli.main import main
from albireo.cli.other_flags import all_others
from albireo.compiler import pipeline
from albireo.compress.recipe import METHODS, SCHEMES
from albireo.graph.tuning import ALLOWED
from albireo.models.gguf.architectures import ARCHITECTURES
from albireo.models.gguf.projectors.table import HEARING, SEEING
from albireo.server.settings import REASONING_PARSERS, TOOL_CALL_PARSERS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path: path.read_text() for path in PAGES if path.name != "journal.md"}

EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])

#: Folders of the repository.
ROOMS = (".ci", "benchmarks", "csrc", "deploy", "docs", "examples", "src", "tests", "tools")
#: Other programs' flags: curl's, Docker's, pip's, Ray's, compilers', load generators' and pytest's here.
FOREIGN_FLAGS = frozenset(
    (
        *("--address", "--cap-add", "--cpus", "--fuse-qkv", "--gemm", "--no-deps", "--thorough", "--unix-socket"),
        *("--use-server-token-count", "--help", "--install", "-h"),
    )
)
#: Names of others that stand beside ours: what is refused, or said of them.
FOREIGN_NAMES = frozenset(
    (
        *("EngineArgs", "GGML_AVX_VNNI", "LimitAS", "OLLAMA_HOST"),
        *("OTEL_RESOURCE_ATTRIBUTES", "PaddlePaddle", "Qwen2ForProcessRewardModel", "Qwen2ForRewardModel"),
        *("SparseStaticEmbedding", "VideoLLaMA3", "aggregation_strategy", "apply_model"),
        *("arch_prctl", "chat_template_content_format", "collective_rpc", "convert_hf_to_gguf"),
        *("default_prompt_name", "extra_args", "flat_logprobs", "get_metrics"),
        *("longest_first", "max_seq_length", "namespace__name", "num_ctas"),
        *("sparse_config", "tokenization_kwargs", "tool_call_parser_invocations", "tools_ts_str"),
        *("q8_0", "use_full_rank_gate", "warp_specialize"),
    )
)


def test_links_lead_to_pages_and_to_places_in_them() -> None:
    places = {path.resolve(): places_of(path.read_text()) for path in PAGES}
    astray = []
    for path, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", text):
            file, _, place = "".join(target).partition("#")
            if file.startswith(("http:", "https:")):
                continue
            found = (path.parent / file).resolve() if file else path.resolve()
            if not found.exists() or (place and place not in places.get(found, ())):
                astray.append(f"{path.name} links to {''.join(target)}")
    assert astray == []


def places_of(text: str) -> set[str]:
    """What a link may name of a page: its headings, as GitHub writes them, and anchors."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line) for line in re.findall(r"^#+ (.*)$", prose, re.MULTILINE)]
    names = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return names | set(re.findall(r'<a id="([^"]+)"', text))


def test_every_page_is_found_from_the_first_one() -> None:
    found, to_read = set(), ["README.md"]
    while to_read:
        if (name := to_read.pop()) not in found:
            found.add(name)
            text = next((text for path, text in TEXTS.items() if path.name == name), "")
            to_read += re.findall(r"\]\((?:docs/)?([\w-]+\.md)", text)
    assert [path.name for path in PAGES if path.name not in found] == []


@cache
def flags() -> dict[str, set[str]]:
    """Command -> its flags."""
    found: dict[str, set[str]] = {}

    def look(command: click.Command, name: str) -> None:
        found[name] = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
        if isinstance(command, click.Group):
            ctx = click.Context(command)
            for each in command.list_commands(ctx):
                below = command.get_command(ctx, each)
                assert below is not None
                look(below, f"{name} {each}".strip())

    look(main, "")
    return found


def test_flags_are_some_commands() -> None:
    scripts = [*ROOT.glob("tools/**/*.py"), *ROOT.glob("benchmarks/**/*.py"), Path(vllm_flags.__file__)]
    known = {flag for path in scripts for flag in re.findall(r'"(--[a-z][\w-]*)"', path.read_text())}
    known |= FOREIGN_FLAGS.union(*flags().values())
    missing = []
    for path, text in TEXTS.items():
        if path.name == "migrating.md":  # what stands at the left is others'
            text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)
        for flag in re.findall(r"(?<![\w-])(--[a-z][\w-]*)", text):
            off = flag.replace("--no-", "--", 1)
            if not {flag, flag.replace("_", "-"), off} & known:
                missing.append(f"{path.name}: {flag}")
    assert missing == []


def test_commands_that_are_shown_would_run() -> None:
    """Their arguments are read as the command reads them; files need not be there. A command that is only named, or
    stands with flags alone, lacks what it needs."""
    wrong, ctx = [], click.Context(main)
    for path, text in TEXTS.items():
        for line in re.findall(r"(?:^(?:\$ )?|`)albireo ([^\n`]*)", re.sub(r"\\\n\s*", " ", text), re.MULTILINE):
            shown = re.sub(r"\[[^\]]*\]", "", re.split(r"\s[#|>]|\s{4,}", line)[0])
            args = shlex.split(re.sub(r" N\b", " 2", shown.replace("--scheme S", "--scheme int8")))
            command: click.Command | None = main
            while isinstance(command, click.Group) and args:
                command = command.get_command(ctx, args.pop(0))
            if command is None or isinstance(command, click.Group) or not args:
                continue
            try:
                command.make_context(command.name, [*args], parent=ctx)
            except click.UsageError as error:
                lacks = args[0].startswith("-") and "Missing" in error.format_message()
                if not lacks and "does not exist" not in error.format_message():
                    wrong.append(f"{path.name}: albireo {shown}: {error.format_message()}")
    assert wrong == []


def test_flags_of_others_are_answered_as_they_are_told() -> None:
    """Those at the left of docs/migrating.md's tables of servers."""
    text = TEXTS[ROOT / "docs/migrating.md"]
    rows = re.findall(r"^\| ([^|]+) \|", text[text.index("## vLLM") : text.index("## Ollama")], re.MULTILINE)
    told = {
        flag for row in rows for code in re.findall(r"`([^`]+)`", row) for flag in re.findall(r"(?<!\S)-[-\w]+", code)
    }
    answered = {*all_others(), *vllm_flags.known(), *flags()["serve"]}
    assert len(told) > 40 and sorted(told - answered) == []


def routes_in(*files: str) -> set[str]:
    """Routes that files of the server write, {} for what varies."""
    texts = [path.read_text() for file in files for path in (ROOT / "src/albireo/server").glob(file)]
    return {re.sub(r"\{[^}]*\}", "{}", route) for text in texts for route in re.findall(r'"(/[\w/{}:.-]*)"', text)}


def test_every_route_is_described() -> None:
    """By its last name: many stand together."""
    said = frozenset(re.findall(r"[\w.-]+", "\n".join(TEXTS.values())))
    last = {route.rsplit("/", 1)[-1].partition(":")[0] for route in routes_in("app.py", "endpoints/docs.py")}
    assert sorted(name for name in last - said if name and "{" not in name) == []


def test_routes_that_are_named_are_there() -> None:
    known, missing = routes_in("**/*.py"), []
    for path, text in TEXTS.items():
        for route in re.findall(r"`(?:(?:POST|GET|DELETE|HEAD|OPTIONS) )(/[^\s`?]*)", text):
            if re.sub(r"\{[^}]*\}", "{}", route) not in known:
                missing.append(f"{path.name}: {route}")
    assert missing == []


@pytest.mark.parametrize("page", ["docs", "dashboard"])
def test_metrics_are_told(page: str) -> None:
    """By their whole names. What the client library adds to a counter and a histogram counts as theirs."""
    made = "\n".join(path.read_text() for path in (ROOT / "src/albireo/server").rglob("*.py"))
    texts = TEXTS.values() if page == "docs" else [(ROOT / "deploy/grafana-dashboard.json").read_text()]
    named = {name for text in texts for name in re.findall(r"\b(?:vllm|albireo):(\w+)", text)}
    assert len(named) > 5
    ends = re.compile(r"_(?:total|bucket|sum|count|created|info)$")
    assert [name for name in sorted(named) if ends.sub("", name).removeprefix("spec_decode_") not in made] == []


def test_variables_are_read() -> None:
    """Of ours; others' stand in cli/environment.py."""
    source = "\n".join(
        path.read_text() for path in (ROOT / "src/albireo").rglob("*.py") if path.parent.name != "kernels"
    )
    named = {
        name for text in TEXTS.values() for name in re.findall(r"\b((?:ALBIREO|VLLM|OLLAMA|LLAMA)_[A-Z_]+)\b", text)
    }
    assert sorted(named - set(re.findall(r"\b[A-Z_]{4,}\b", source)) - FOREIGN_NAMES) == []


@cache
def tracked() -> frozenset[str]:
    """Files that git has, and that are there; all of the rooms where there is no git, or no repository of its own."""
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        names = listed.stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        names = []
    found = frozenset(name for name in names if name and (ROOT / name).is_file())
    if "README.md" not in found:
        rooms = (path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file())
        found = frozenset(str(path.relative_to(ROOT)) for path in (*rooms, *ROOT.glob("*.*"), ROOT / "Makefile"))
    return found


@cache
def words() -> frozenset[str]:
    """All names of the sources, and of files."""
    found = {name for path in tracked() for name in re.findall(r"\w+", path)}
    for path in tracked():
        if path.startswith(("src/", "csrc/", "tools/", "benchmarks/")) and path.endswith((".py", ".cc", ".h", ".inl")):
            found.update(re.findall(r"[A-Za-z_]\w*", (ROOT / path).read_text()))
    return frozenset(found | FOREIGN_NAMES)


def test_names_are_in_the_sources() -> None:
    """Every name in `code` that has a _ or a capital within, so that it is no word of the language; or in tests, which
    write what sources put together of parts."""
    missing: dict[str, str] = {}
    for path, text in TEXTS.items():
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        # what is refused or missing has others' names
        prose = re.sub(r"^## Refused, or missing.*?(?=^## |\Z)", "", prose, flags=re.MULTILINE | re.DOTALL)
        for code in re.findall(r"`([^`\n]+)`", prose):
            for name in re.findall(r"(?<![\w.\\…*-])[A-Za-z]\w*", code):
                if name not in words() and re.search(r"_\w|[a-z][A-Z]", name) and not name.endswith("_"):
                    missing[name] = path.name
    tests = "\n".join((ROOT / path).read_text() for path in tracked() if path.endswith(".py") and "tests/" in path)
    missing = {name: page for name, page in missing.items() if name not in tests}
    assert missing == {}, "mend these names; one that is another program's is added to FOREIGN_NAMES"


def test_paths_are_files_or_folders() -> None:
    """Of the repository, from its root, from a room of it or below the folder that a page speaks of."""
    there = {"/" + path for path in tracked()}
    there |= {folder for path in there for folder in (str(each) for each in Path(path).parents)}
    ends = tuple(there)
    missing = []
    for path, text in TEXTS.items():
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for name in re.findall(r"`((?:[\w-]+/)+[\w.-]*(?:\.(?:py|cc|h|inl|md|txt)|/))`", prose):
            where = "/" + name.rstrip("/")
            if not any(each.endswith(where) for each in ends) and name not in ("config/", "tokenizer/", "vision/"):
                missing.append(f"{path.name}: {name}")
    assert missing == []


def passes() -> set[str]:
    """Those that a program may meet, as files."""
    every = (*pipeline.PASSES, *(run for _, _, run in pipeline.ABLE_PASSES))
    return {pipeline.pass_name(run) for run in every}


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("structured-output.md", {*TOOL_CALL_PARSERS, *REASONING_PARSERS}),
        ("checkpoints.md", {*ARCHITECTURES, *SEEING, *HEARING}),
        ("compiler.md", passes()),
        ("tuning.md", set(ALLOWED)),
        ("quantization.md", {*SCHEMES, *METHODS}),
        ("troubleshooting.md", EXTRAS - {"test"}),
    ],
    ids=["parsers", "gguf", "passes", "tuning", "schemes", "extras"],
)
def test_lists_are_whole(page: str, names: set[str]) -> None:
    said = set(re.findall(r"[\w.-]+", " ".join(re.findall(r"`([^`\n]+)`", TEXTS[ROOT / "docs" / page]))))
    assert sorted(names - said) == []


def test_messages_that_are_looked_up_are_said() -> None:
    """The first cells of docs/troubleshooting.md."""
    texts = (path.read_text() for path in (ROOT / "src/albireo").rglob("*.py") if path.parent.name != "kernels")
    said = re.sub(r'"\s*f?"', "", "\n".join(texts))
    cells = re.findall(r"^\| ([^|]*`[^|]*) \|", TEXTS[ROOT / "docs/troubleshooting.md"], re.MULTILINE)
    messages = [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    assert len(messages) > 20
    assert [message for message in messages if message not in said] == []


def test_python_blocks_are_python() -> None:
    for path, text in TEXTS.items():
        for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            try:
                ast.parse(block)
            except SyntaxError as error:
                pytest.fail(f"{path.name}: {error}")
