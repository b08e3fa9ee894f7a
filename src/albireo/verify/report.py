"""A verification as lines, as Markdown and as JSON; and the files of the report, each put in place whole.

Called by cli/verify.py. What the page looks like is page.py's. Knows no path but the directory that is written to.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from albireo.artifact import layout
from albireo.verify.page import page
from albireo.verify.result import Stage, Verification

_FORMAT, _VERSION = "albireo-verify", 1
_MARKS = {"passed": "passed", "failed": "FAILED", "not judged": "not judged"}


def text_lines(found: Verification) -> list[str]:
    """A line a stage, what is wrong, and what was not run."""
    lines = []
    for stage in found.stages:
        lines.append(f"{stage.name:<14}{_MARKS[stage.verdict]:<12}{stage.summary}")
        if stage.finding:
            lines.append(f"{'':<14}{stage.finding}")
    if found.not_run:
        lines.append(f"{'not run':<14}{', '.join(found.not_run)}")
    return lines


def markdown(found: Verification, environment: Mapping[str, str]) -> str:
    """The whole report for reading, without the single calls."""
    verdict = "Verified" if found.is_verified else "Out of tolerance"
    lines = [f"# {verdict}", ""]
    if found.finding:
        lines += [f"**{found.finding}**", ""]
    lines += ["| stage | verdict | found |", "| --- | --- | --- |"]
    lines += [f"| {s.name} | {_MARKS[s.verdict]} | {_cell(s.summary)} |" for s in found.stages]
    lines += [f"| {name} | not run | |" for name in found.not_run]
    for stage in found.stages:
        lines += ["", f"## {stage.name}", "", stage.proves, "", *_figures(stage)]
    lines += ["", "## What, where and when", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in {**found.model, **environment}.items()]
    return "\n".join(lines) + "\n"


def to_json(found: Verification, environment: Mapping[str, str]) -> dict[str, Any]:
    """Everything, the single calls included. Numbers that are not finite become strings."""
    stages = [
        {
            "name": stage.name,
            "verdict": stage.verdict,
            "proves": stage.proves,
            "summary": stage.summary,
            "finding": stage.finding,
            "figures": finite(stage.figures),
        }
        for stage in found.stages
    ]
    return {
        "format": {"name": _FORMAT, "version": _VERSION},
        "verified": found.is_verified,
        "finding": found.finding,
        "stages": stages,
        "not_run": list(found.not_run),
        "model": dict(found.model),
        "environment": dict(environment),
    }


def write_reports(directory: Path, found: Verification, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Write the three forms into the engine directory, each in one step, over those that were there.

    Raises: OSError when the directory cannot be written to; each file is whole then, old or new.
    """
    files = {
        layout.VERIFY_TEXT: markdown(found, environment).encode(),
        layout.VERIFY_JSON: layout.json_bytes(to_json(found, environment)),
        layout.VERIFY_PAGE: page(found, environment).encode(),
    }
    for name, data in files.items():
        _replace(directory / name, data)
    return tuple(directory / name for name in files)


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _figures(stage: Stage) -> Iterator[str]:
    figures = stage.figures
    if stage.finding:
        yield f"First wrong: {stage.finding}"
        yield ""
    if not figures:
        yield stage.summary
    elif stage.name == "ops":
        yield from ("| kernel | calls | values | equal | of the tolerance |", "| --- | --- | --- | --- | --- |")
        for row in figures["families"]:
            exact = row["num_exact"] / max(1, row["num_values"])
            yield f"| {row['kernel']} | {row['num_calls']} | {row['num_values']:,} | {exact:.2%} | {row['used']:.3g} |"
    elif stage.name == "layers":
        yield from ("| behind | off by | tolerance |", "| --- | --- | --- |")
        for row in figures["layers"]:
            yield f"| {row['name']} | {row['error']:.3e} | {row['tolerance']:.3e} |"
    elif stage.name == "quality":
        yield from ("| | |", "| --- | --- |")
        for key, value in figures.items():
            if key != "limits":
                yield f"| {key} | {value:.6g} |" if isinstance(value, float) else f"| {key} | {_cell(str(value))} |"
        for key, value in figures["limits"].items():
            yield f"| at most: {key} | {value:g} |"
    else:
        yield stage.summary


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def finite(value: Any) -> Any:
    """For JSON: numbers that are not are words."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
