"""The report: what it says, that it is whole and needs nothing else."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET

from albireo.compress.page import page
from albireo.compress.picture import drift_line, sensitivity_map
from albireo.compress.report import text_lines, to_json
from albireo.compress.result import Linear, Outcome, Speed, Speeds, TextQuality
from albireo.verify.quality import Quality


def linear(layer: int, kind: str, error: float, **changes: object) -> Linear:
    values = {
        "module": f"model.layers.{layer}.mlp.{kind}",
        "layer": layer,
        "shape": (8, 64),
        "encoding": "int4.g64" if error else "bfloat16",
        "num_bytes": 300,
        "error": error,
        "alpha": None,
        "note": "",
    }
    return Linear(**{**values, **changes})  # type: ignore[arg-type]


def outcome(max_kl: float = 0.5) -> Outcome:
    quality = Quality(99, 12.6, 12.5, 1.5e-2, 1e-4, max_kl, 0.93, 1.0, 60)
    linears = (linear(0, "up", 0.1, alpha=0.5), linear(0, "down", 0.0), linear(1, "up", 0.01, note="a < b"))
    speeds = Speeds(Speed(25.0, 400.0, 8_000_000), Speed(40.0, 900.0, 4_000_000), 512, 64, 2)
    return Outcome(
        model={"architecture": "llama, 2 layers, width 64", "computed in": "bfloat16"},
        recipe={"scheme": "int4-g64", "method": "gptq"},
        linears=linears,
        bytes_before=4000,
        bytes_after=1000,
        drift=(0.0, 0.02, 0.03),
        qualities=(TextQuality("<held>.txt", 120, quality),),
        is_untied=True,
        speeds=speeds,
    )


def test_lines_and_json_say_the_same() -> None:
    lines = "\n".join(text_lines(outcome()))
    assert "2 int4.g64, 1 bfloat16; 4.69 bits a weight" in lines
    assert "4,000 -> 1,000 (25%)" in lines
    assert "12.5 -> 12.6 (+0.80%)" in lines
    assert "25.0 -> 40.0 tok/s (1.60 x)" in lines and "400 -> 900 tok/s (2.25 x); one request of 512 + 64" in lines
    data = json.loads(json.dumps(to_json(outcome())))
    assert data["format"] == {"name": "albireo-quantization", "version": 1}
    assert data["linears"][0]["module"] == "model.layers.0.mlp.up" and data["linears"][0]["shape"] == [8, 64]
    assert math.isclose(data["qualities"][0]["perplexity_change"], 0.008, rel_tol=1e-6)
    assert data["speeds"]["quantized"] == {
        "decode_tokens_per_s": 40.0,
        "prefill_tokens_per_s": 900.0,
        "weight_bytes": 4_000_000,
    }
    assert math.isclose(data["bits_per_weight"], 8 * 900 / (3 * 512))


def test_json_holds_no_infinities() -> None:
    text = json.dumps(to_json(outcome(math.inf)), allow_nan=False)
    assert json.loads(text)["qualities"][0]["quality"]["max_kl"] == "inf"


def test_the_page_needs_nothing_and_escapes_what_it_shows() -> None:
    found = page(outcome())
    assert not re.search(r"<script|<link|src=|https?://", found)
    assert "&lt;held&gt;.txt" in found and "<held>" not in found and "a &lt; b" in found
    assert found.count("<tr>") == found.count("</tr>")


def test_the_map_has_a_cell_a_linear_and_is_darker_where_it_costs_more() -> None:
    root = ET.fromstring(sensitivity_map(outcome().linears))
    cells = [e for e in root.iter() if e.get("class") == "cell"]
    depths = [float(e.get("fill-opacity", "0")) for e in cells]
    titles = [e.text for e in root.iter() if e.tag == "title"]
    assert len(cells) == 3 and depths[0] > 0.9 > 0.2 > depths[2]
    assert titles[0] == "model.layers.0.mlp.up: int4.g64, 300 bytes, off by 10.000%, inputs scaled with alpha 0.5"
    assert "kept" in [e.text for e in root.iter()]


def test_many_layers_still_fit() -> None:
    many = [linear(layer, kind, 0.01 + layer / 100) for layer in range(80) for kind in ("up", "down")]
    root = ET.fromstring(sensitivity_map(many))
    boxes = [e for e in root.iter() if e.get("class") == "cell"]
    assert len(boxes) == 160 and max(float(e.get("x")) + float(e.get("width")) for e in boxes) <= 884.1
    assert len([e for e in root.iter() if e.get("class") == "tick"]) < 40


def test_the_drift_is_a_point_a_layer() -> None:
    root = ET.fromstring(drift_line(outcome().drift))
    heights = [float(e.get("cy")) for e in root.iter() if e.tag == "circle"]
    assert len(heights) == 3 and heights == sorted(heights, reverse=True)
    assert drift_line(()) == "" and drift_line((0.0, 0.0)) == ""
