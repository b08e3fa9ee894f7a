"""plan: what a model takes and gives, from config.json alone; errors have the numbers."""

from __future__ import annotations

import json

import click
import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.cli.plan import byte_count

QUICK = ("--input-len", "8", "--output-len", "4", "--concurrency", "2")


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("16GiB", 16 << 30),
        ("16 gib", 16 << 30),
        ("1.5G", 3 << 29),
        ("500MB", 500_000_000),
        ("2kb", 2000),
        ("1T", 1 << 40),
        ("17179869184", 16 << 30),
        ("12B", 12),
    ],
)
def test_amounts(text, num_bytes):
    assert byte_count(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1G", "1.G", "1XB", "16iB", "1e9", "nan", "sixteen"])
def test_no_amounts(text):
    with pytest.raises(click.BadParameter, match="16GiB"):
        byte_count(text)


def test_for_reading(albireo):
    result = albireo("plan", *QUICK, "--memory", "1GiB")
    assert result.exit_code == 0, result.stderr
    assert str(BUNDLED) in result.stdout
    for part in ("1.00 GiB allowed", "weights", "KV cache", "activations", "overhead", "fits", "2 at once", "tok/s"):
        assert part in result.stdout
    assert result.stderr == ""


def test_as_json(albireo):
    result = albireo("plan", *QUICK, "--memory", "1GiB", "--num-threads", "1", "--json")
    found = json.loads(result.stdout)
    assert found["memory"]["budget_bytes"] == 1 << 30
    assert found["workload"] == {"concurrency": 2, "input_len": 8, "output_len": 4, "temperature": 1.0}
    assert found["limits"]["num_threads"] == 1
    assert found["settings"]["num_threads"] == 1
    assert found["one_request"]["first_token_s"]["expected"] > 0


def test_the_config_json_itself(albireo, tmp_path):
    (tmp_path / "config.json").write_text((BUNDLED / "config.json").read_text())
    of_file, of_directory = (
        json.loads(albireo("plan", path, *QUICK, "--json").stdout) for path in (tmp_path / "config.json", tmp_path)
    )
    assert of_file["memory"] == of_directory["memory"] and of_file["model"] == of_directory["model"]


def test_a_directory_with_nothing_but_config_json(albireo, tmp_path):
    (tmp_path / "config.json").write_text((BUNDLED / "config.json").read_text())
    found = json.loads(albireo("plan", tmp_path, *QUICK, "--dtype", "float32", "--json").stdout)
    whole = json.loads(albireo("plan", *QUICK, "--dtype", "float32", "--json").stdout)
    assert found["memory"] == whole["memory"]
    assert found["dtype"] == "float32"


def test_what_drafts_would_bring(albireo):
    asked = '{"method": "draft_model", "quantization": "int8", "num_speculative_tokens": 2}'
    found = json.loads(albireo("plan", *QUICK, "--speculative-config", asked, "--device", "cpu", "--json").stdout)
    assert found["speculative"]["weight_bytes"] == found["memory"]["drafter_bytes"] > 0
    assert [each["num_drafts"] for each in found["speculative"]["one_request"]["by_number"]] == [1, 2]
    shown = albireo("plan", *QUICK, "--speculative-config", asked, "--device", "cpu").stdout
    assert "drafts        draft_model, at most 2 of a request in a step" in shown
    assert "90% come true: " in shown


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--speculative-config", '{"method": "mtp"}', "--device", "cpu"), "has no layers that guess"),
        (("--memory", "64MiB"), "0.06 GiB are allowed"),
        (("--memory", "330MiB", "--concurrency", "60"), "60 requests of 256 tokens need"),
        (("--concurrency", "0"), "concurrency=0"),
        (("--input-len", "600"), "the context is 512"),
        (("./no/such/model",), "./no/such/model"),
    ],
)
def test_refusals(albireo, args, said):
    result = albireo("plan", *args)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert result.stdout == ""


def test_no_amount_is_a_usage_error(albireo):
    result = albireo("plan", "--memory", "lots")
    assert result.exit_code == 2
    assert "'lots' is no amount of memory" in result.stderr
