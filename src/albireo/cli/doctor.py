"""Say what this machine is, how fast, and what is missing.

Works without the native core too: then that is what is missing.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import click

from albireo import devflags
from albireo.api.sources.locate import BUNDLED
from albireo.backends.cuda.device import gpu_facts
from albireo.bench.machine import MachineFacts, machine_facts
from albireo.cli.terminal import row, size
from albireo.dtypes import COMPUTE_DTYPES
from albireo.errors import EngineFileError, OutOfMemory

#: Larger than most last-level caches, so that memory is read and not a cache.
READ_BYTES = 256 << 20
_REPEATS = 7
#: What is measured of a GPU, and how often: a probe is many launches already, and float32 takes 0.2 s.
_GPU_DTYPES, _GPU_REPEATS = ("float32", "bfloat16"), 3
#: Extra -> package, what is installed for it, and what it is good for. Those that serve a machine of their own are not
#: missed: cuda has a line, otlp a collector, ray a cluster.
EXTRAS = {
    "serve": ("uvicorn", "uvicorn", "server (serve, run-batch)"),
    "hub": ("huggingface_hub", "huggingface_hub", "downloading models by their hub name"),
    "images": ("PIL", "pillow", "pictures in prompts"),
    "audio": ("soundfile", "soundfile", "sounds but WAV"),
    "video": ("av", "av", "videos but GIF, WebP and APNG"),
    "bench": ("aiohttp", "aiohttp", "load for servers (bench serve)"),
    "structured": ("llguidance", "llguidance", "structured outputs"),
    "xgrammar": ("xgrammar", "xgrammar", "structured outputs by another library"),
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@click.option("--num-threads", type=click.IntRange(1), help="Measure with this many threads; by default one per core.")
def command(as_json: bool, num_threads: int | None) -> None:
    """Say what this machine is, how fast, and what is missing.

    Measures for about a second. Numbers are the best and the median of a few short repeats.
    """
    facts = machine_facts()
    found: dict[str, Any] = {
        "cuda": _cuda(),
        "machine": asdict(facts),
        "extras": _extras(),
        "native": _native(num_threads),
    }
    found["bundled_model"] = (BUNDLED / "config.json").exists()
    found["missing"] = missing(facts, found)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo("\n".join(_lines(facts, found)))


def missing(facts: MachineFacts, found: dict[str, Any]) -> list[dict[str, str]]:
    """What is missing and how to fix it, the gravest first."""
    native = found["native"]
    problems: list[tuple[str, str]] = []
    if native["error"] is not None:
        problems.append((f"The native core does not load: {native['error']}", "pip install . with a C++20 compiler"))
    else:
        problems += _native_problems(facts, native)
    if facts.huge_pages == "never":
        problems.append(
            (
                "Huge pages are off: reading weights is up to 15 % slower",
                "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
            )
        )
    cuda = found["cuda"]
    if facts.gpus and cuda["problem"] is not None:
        problems.append((f"The GPU is not used: {cuda['problem']}", cuda["fix"]))
    if not found["bundled_model"]:
        problems.append(("The bundled model is not installed", "reinstall albireo, or name a model directory"))
    for extra, state in found["extras"].items():
        if state is None:
            package, _, use = EXTRAS[extra]
            problems.append((f"{package} is not installed: no {use}", f"pip install 'albireo[{extra}]'"))
    return [{"what": what, "fix": fix} for what, fix in problems]


def _native_problems(facts: MachineFacts, native: dict[str, Any]) -> list[tuple[str, str]]:
    problems = []
    if native["isa_cap"] is not None:
        problems.append((f"ALBIREO_ISA_MAX={native['isa_cap']} caps the kernels", "unset ALBIREO_ISA_MAX"))
    for level, reason in native["refused_levels"].items():
        problems.append((f"Kernels of level {level} are off: {reason}", "nothing to do; the next level computes"))
    best = native["isa_levels"][0]
    if best == "scalar" and native["isa_cap"] is None:
        problems.append(
            ("No vector instructions that kernels exist for: 10 to 50 times slower", "use a newer processor")
        )
    if native["numa"]["spreads"] is False:
        problems.append(
            (
                "The system does not let memory be spread over NUMA nodes: the KV cache may lie in one of them",
                "run the container with --cap-add SYS_NICE",
            )
        )
    if facts.cpu_quota is not None and facts.cpu_quota < native["num_threads"]:
        problems.append(
            (
                f"{native['num_threads']} threads compete for the {facts.cpu_quota:g} processors of the control group",
                f"--num-threads {max(1, int(facts.cpu_quota))}, or raise the limit",
            )
        )
    return problems


def _cuda() -> dict[str, Any]:
    """What is found of a GPU, and its limits; None where it is not used. limits_error: why they were not measured."""
    facts = gpu_facts()
    found: dict[str, Any] = {"read_bytes_per_s": None, "dot_flops_per_s": None, "limits_error": None}
    if facts.problem is None:
        try:
            found |= _gpu_limits()
        except (
            OutOfMemory,
            RuntimeError,
        ) as error:  # torch's are RuntimeErrors, as of a build without this GPU's kernels
            found["limits_error"] = str(error).partition("\n")[0]
    return {**asdict(facts), **found}


def _gpu_limits() -> dict[str, Any]:
    """Best and median of a few probes, each of which is the best of some launches. Raises: OutOfMemory."""
    from albireo.backends.cuda.probe import open_probe

    dots = {}
    for dtype in _GPU_DTYPES:
        probe = open_probe(dtype)
        dots[dtype] = _best_and_median([probe.dot() for _ in range(_GPU_REPEATS)])
        reads = [probe.read() for _ in range(_GPU_REPEATS)]
        del probe  # its buffers are the next one's
    return {"read_bytes_per_s": _best_and_median(reads), "dot_flops_per_s": dots}


def _native(num_threads: int | None) -> dict[str, Any]:
    """What the native core finds and measures; error says why there is none."""
    try:
        from albireo.backends.cpu import machine, nodes
    except ImportError as error:
        return {"error": str(error)}
    levels = machine.isa_levels()
    pool = machine.thread_pool(num_threads)
    return {
        "error": None,
        "isa_levels": list(levels),
        "isa_cap": devflags.isa_max(),
        "refused_levels": machine.refused_levels(),
        "num_threads": pool.size,
        "numa": nodes.report(pool),
        **_measured(pool),
        "kernels": _kernels(levels),
        "tuning": _tuning(num_threads),
    }


def _measured(pool: Any) -> dict[str, Any]:
    from albireo.backends.cpu.probe import SpeedProbe

    probe = SpeedProbe(pool, READ_BYTES)
    return {
        "read_bytes_per_s": _best_and_median([probe.read() for _ in range(_REPEATS)]),
        "dot_flops_per_s": {
            dtype: _best_and_median([probe.dot(dtype) for _ in range(_REPEATS)])
            for dtype in ("int8", "bfloat16", "float32")
        },
    }


def _kernels(levels: tuple[str, ...]) -> dict[str, dict[str, str | None]]:
    """family -> dtype -> the variant that would be chosen."""
    from albireo.backends.cpu.catalog import CpuCatalog
    from albireo.graph.program_spec import COMMON_FAMILIES

    catalog = CpuCatalog(levels)
    chosen: dict[str, dict[str, str | None]] = {}
    for family in COMMON_FAMILIES:
        found = {dtype: catalog.variants(family, dtype, {}) for dtype in COMPUTE_DTYPES}
        chosen[family] = {dtype: variants[0].identity if variants else None for dtype, variants in found.items()}
    return chosen


def _tuning(num_threads: int | None) -> dict[str, Any]:
    """The user's tuning table for this machine: where it is, and how many choices it holds; None: there is none."""
    from albireo.api.machine.tuning import fingerprint
    from albireo.artifact.tuning_files import cache_path, read_table

    here = fingerprint(num_threads)
    path = cache_path(here)
    try:
        table = read_table(path, here) if path is not None else None
    except EngineFileError as error:
        return {"path": str(path), "choices": None, "error": str(error)}
    return {"path": path and str(path), "choices": table and len(table.entries), "error": None}


def _best_and_median(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"best": ordered[-1], "median": ordered[len(ordered) // 2]}


def _extras() -> dict[str, str | None]:
    """Extra -> version of its package, or None."""
    found: dict[str, str | None] = {}
    for extra, (package, distribution, _) in EXTRAS.items():
        try:
            found[extra] = version(distribution) if find_spec(package) else None
        except PackageNotFoundError:
            found[extra] = "of unknown version"
    return found


# -- as text -----------------------------------------------------------------------------------------------------------


def _lines(facts: MachineFacts, found: dict[str, Any]) -> list[str]:
    native = found["native"]
    quota = "" if facts.cpu_quota is None else f", {facts.cpu_quota:g} allowed by the control group"
    lines = [
        row("processor", f"{facts.cpu}, {facts.num_cpus} logical{quota}"),
        row("memory", f"{size(facts.memory_bytes)}, {size(facts.available_bytes)} available"),
        row("huge pages", facts.huge_pages or "not known here"),
        row("GPU", gpus_text(facts, found["cuda"])),
        row("CUDA", _cuda_text(found["cuda"])),
        *_gpu_limit_lines(found["cuda"]),
        row("system", f"{facts.system}, Python {facts.python}"),
        row("extras", ", ".join(f"{name} {state or 'not installed'}" for name, state in found["extras"].items())),
        row("bundled model", "installed" if found["bundled_model"] else "not installed"),
    ]
    if native["error"] is not None:
        lines.append(row("native core", f"missing: {native['error']}"))
    else:
        lines += _native_lines(native)
    lines += ["", "what is missing and how to fix it"]
    lines += [f"  {problem['what']}\n    -> {problem['fix']}" for problem in found["missing"]] or ["  nothing"]
    return lines


def gpus_text(facts: MachineFacts, cuda: dict[str, Any]) -> str:
    """Their names. The driver's list is not there in every container: then that of the one which CUDA would use."""
    return "; ".join(facts.gpus) or cuda.get("name") or "none found"


def _cuda_text(cuda: dict[str, Any]) -> str:
    if cuda["problem"] is not None:
        return f"not used: {cuda['problem']}"
    return (
        f"{cuda['name']}, compute capability {'.'.join(map(str, cuda['capability']))}, {size(cuda['free_bytes'])} of "
        f"{size(cuda['memory_bytes'])} free; driver for CUDA {cuda['driver']}, torch {cuda['torch']}, Triton "
        f"{cuda['triton']}"
    )


def _gpu_limit_lines(cuda: dict[str, Any]) -> list[str]:
    if cuda["problem"] is not None:
        return []
    if cuda["limits_error"] is not None:
        return [row("GPU read", f"not measured: {cuda['limits_error']}")]
    return _limit_lines(cuda, "GPU ")


def _limit_lines(measured: dict[str, Any], whose: str = "") -> list[str]:
    """Of a processor or a GPU, whose lines say so."""
    read, dot = measured["read_bytes_per_s"], measured["dot_flops_per_s"]
    lines = [row(f"{whose}read", f"{read['best'] / 1e9:.1f} GB/s best, {read['median'] / 1e9:.1f} median")]
    for dtype, speed in dot.items():
        text = (
            f"{speed['best'] / 1e9:.0f} Gflop/s best, {speed['median'] / 1e9:.0f} median"
            if speed["best"]
            else "not known"
        )
        lines.append(row(f"{whose}dot {_short(dtype)}", text))
    return lines


def _nodes_text(numa: dict[str, Any]) -> str:
    """Of one memory there is nothing to say."""
    num, used = len(numa["processors"]), len(numa["nodes"])
    if num < 2:
        return ""
    return f" on {used} of {num} NUMA nodes, weights beside them" if used else f", kept to none of {num} NUMA nodes"


def _native_lines(native: dict[str, Any]) -> list[str]:
    cap = "" if native["isa_cap"] is None else f"   (capped by ALBIREO_ISA_MAX={native['isa_cap']})"
    lines = [
        row("ISA levels", f"{' '.join(native['isa_levels'])}{cap}"),
        row("threads", f"{native['num_threads']}{_nodes_text(native['numa'])}"),
        *_limit_lines(native),
    ]
    lines.append(row("tuning", _tuning_text(native["tuning"])))
    table = [["kernels", *COMPUTE_DTYPES]]
    for family, by_dtype in native["kernels"].items():
        levels = (identity.split(".")[2] if identity else "none" for identity in by_dtype.values())
        table.append([f"  {family}", *levels])
    width = max(len(cells[0]) for cells in table) + 2
    lines += [
        "",
        *((f"{first:<{width}}" + "".join(f"{cell:<16}" for cell in cells)).rstrip() for first, *cells in table),
    ]
    return lines


def _tuning_text(tuning: dict[str, Any]) -> str:
    if tuning["path"] is None:
        return "no cache directory"
    state = "nothing measured yet: albireo tune" if tuning["choices"] is None else f"{tuning['choices']} choices"
    return f"{tuning['path']} ({tuning['error'] or state})"


def _short(dtype: str) -> str:
    return {"bfloat16": "bf16", "float32": "f32"}.get(dtype, dtype)
