"""The report in its three forms: what it says, that it needs nothing else, and how it is put in place."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import pytest

from albireo.verify.chart import layers_chart
from albireo.verify.layers import LayerError
from albireo.verify.limits import quality_stage
from albireo.verify.numerics import Numerics, layers_stage, ops_stage
from albireo.verify.ops import CallCheck, Worst
from albireo.verify.page import page
from albireo.verify.quality import Quality
from albireo.verify.report import markdown, text_lines, to_json, write_reports
from albireo.verify.result import Stage, Verification
from albireo.verify.text import TokenText

ENVIRONMENT = {"processor": "a <fast> one", "date": "2026-11-26 12:00 UTC"}
MODEL = {"architecture": "qwen3, 2 layers, width 8", "computed in": "bfloat16"}
WRONG = Worst("v7", (2, 5), 1.5, 1.25, 0.0, math.inf)


def check(num_wrong: int = 0) -> CallCheck:
    return CallCheck(3, 0, "layers.1.mlp.down", "linear", "linear.bfloat16.avx2", 16, 12, num_wrong, WRONG)


def verified() -> Verification:
    quality = Quality(99, 12.5, 12.49, 1.5e-5, 1e-6, 2e-4, 0.99, 1.0, 60)
    stages = (
        Stage("graph", "the graph is the graph", "passed", "9 nodes"),
        ops_stage(Numerics([check()]), []),
        layers_stage([LayerError("embed", 0.0, 0.0), LayerError("layers.0", 1e-3, 2e-3)]),
        quality_stage(quality, TokenText("a & b", range(100), True, 3), 512, ["bfloat16"]),
    )
    return Verification(MODEL, stages, ())


def failed() -> Verification:
    found = Numerics([check(4)], wrong=check(4))
    return Verification(MODEL, (ops_stage(found, []),), ("layers", "quality"))


def test_lines() -> None:
    assert text_lines(verified())[0] == "graph         passed      9 nodes"
    lines = text_lines(failed())
    assert lines[0].startswith("ops           FAILED")
    assert lines[1].strip() == (
        "layers.1.mlp.down (linear, linear.bfloat16.avx2), call 3 of step 1: %v7[2, 5] is 1.5, wanted 1.25 ± 0 "
        "(equality is wanted); 4 of 16 values are out of tolerance"
    )
    assert lines[2] == "not run       layers, quality"


def test_markdown() -> None:
    text = markdown(verified(), ENVIRONMENT)
    assert text.startswith("# Verified\n")
    assert "| linear.bfloat16.avx2 | 1 | 16 | 75.00% |" in text
    assert "| layers.0 | 1.000e-03 | 2.000e-03 |" in text
    assert "| date | 2026-11-26 12:00 UTC |" in text
    text = markdown(failed(), ENVIRONMENT)
    assert text.startswith("# Out of tolerance\n\n**ops: layers.1.mlp.down")
    assert "| quality | not run | |" in text


def test_json_holds_everything_and_no_number_that_is_none() -> None:
    data = json.loads(json.dumps(to_json(failed(), ENVIRONMENT), allow_nan=False))
    assert data["verified"] is False
    assert data["not_run"] == ["layers", "quality"]
    (stage,) = data["stages"]
    assert stage["figures"]["calls"][0]["worst"]["used"] == "inf"
    assert stage["figures"]["calls"][0]["worst"]["at"] == [2, 5]
    assert data["finding"] == f"ops: {stage['finding']}"
    assert to_json(verified(), ENVIRONMENT)["verified"] is True


@pytest.mark.parametrize("found", [verified(), failed()])
def test_the_page_needs_nothing_and_believes_nothing(found: Verification) -> None:
    text = page(found, ENVIRONMENT)
    assert not re.search(r"<script|<link|<img|src=|url\(|https?:|@import", text)
    assert "a &lt;fast&gt; one" in text and "<fast>" not in text
    for stage in found.stages:
        assert stage.verdict in ("passed", "failed")
    if found.is_verified:
        assert "Verified</h1>" in text and "a &amp; b" in text and "<svg" in text and "1.50 × 10⁻⁵" in text
    else:
        assert "Out of tolerance</h1>" in text and 'class="finding"' in text and text.count("not run</span>") == 2


def test_the_chart_has_a_point_a_layer() -> None:
    names = ["embed", *(f"layers.{i}" for i in range(40)), "logits"]
    errors = [0.0, *(1e-4 * (i + 1) for i in range(41))]
    text = layers_chart(names, errors, [0.0, *[1e-2] * 41])
    assert text.count("<circle") == 41
    assert "layers.7: off by 8.000e-04, tolerance 1.000e-02" in text
    assert text.count('text-anchor="middle"') <= 16
    assert "dot wrong" not in text
    assert "dot wrong" in layers_chart(["layers.0"], [1.0], [1e-3])
    assert layers_chart(["embed"], [0.0], [0.0]) == ""


def test_files_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "verify.md").write_text("old")
    assert {path.name for path in write_reports(tmp_path, verified(), ENVIRONMENT)} == set(os.listdir(tmp_path))
    assert (tmp_path / "verify.md").read_text().startswith("# Verified")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_reports(tmp_path, failed(), ENVIRONMENT)
    assert sorted(os.listdir(tmp_path)) == ["verify.html", "verify.json", "verify.md"]
    assert (tmp_path / "verify.md").read_text().startswith("# Verified")
