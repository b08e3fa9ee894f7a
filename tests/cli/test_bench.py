"""bench: vLLM's flags in, vLLM's keys out, and a fraction of the limit beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from albireo import models

QUICK = ("--input-len", "8", "--output-len", "6", "--num-iters", "2")
LATENCY = ("bench", "latency", *QUICK, "--batch-size", "3", "--num-iters-warmup", "1")
THROUGHPUT = ("bench", "throughput", *QUICK, "--num-prompts", "5", "--random-range-ratio", "0.5")


def figures(albireo, tmp_path, *args):
    file = tmp_path / "figures.json"
    result = albireo(*args, "--output-json", file)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(file.read_text()), result.stdout


def check_common(found):
    parts = found["fraction_of_limit"]
    assert parts["whole"]["min"] <= parts["whole"]["median"] <= parts["whole"]["max"]
    assert parts["whole"]["min"] > 0
    assert 0 <= parts["outside_steps"]["median"] < 1
    assert 0 <= parts["compute_bound"]["median"] <= 1
    assert found["limits"]["read_bytes_per_s"]["min"] > 0
    assert found["machine"]["isa_levels"][-1] == "scalar"
    assert len(found["outputs_sha256"]) == 64
    assert found["decode_step_s"]["min"] > 0
    assert found["time_to_first_token_s"]["min"] > 0
    predicted = found["predicted"]
    assert predicted["elapsed_s"]["min"] > 0
    assert predicted["decode_step_s"]["min"] > 0
    assert -1 < predicted["whole_error"]["min"] <= predicted["whole_error"]["max"]


def test_latency(albireo, tmp_path):
    found, shown = figures(albireo, tmp_path, *LATENCY)
    assert len(found["latencies"]) == 2
    assert found["avg_latency"] == pytest.approx(sum(found["latencies"]) / 2)
    assert list(found["percentiles"]) == ["10", "25", "50", "75", "90", "99"]
    assert found["percentiles"]["50"] == pytest.approx(found["avg_latency"])  # of two
    assert (found["num_prompt_tokens"], found["num_output_tokens"], found["num_steps"]) == (24, 18, 6)
    check_common(found)
    assert "of the limit" in shown
    assert "of measured; decode step" in shown
    assert found["outputs_sha256"][:16] in shown


def test_throughput(albireo, tmp_path):
    found, shown = figures(albireo, tmp_path, *THROUGHPUT)
    assert found["num_requests"] == 5
    assert found["total_num_tokens"] == found["num_prompt_tokens"] + found["num_output_tokens"]
    assert found["requests_per_second"] == pytest.approx(5 / found["elapsed_time"])
    assert found["tokens_per_second"] == pytest.approx(found["total_num_tokens"] / found["elapsed_time"])
    assert len(found["elapsed_times"]) == 2
    check_common(found)
    assert "of the limit" in shown


def test_the_same_seed_gives_the_same_tokens_however_they_are_run(albireo, tmp_path):
    first, _ = figures(albireo, tmp_path, *THROUGHPUT)
    chunked, _ = figures(albireo, tmp_path, *THROUGHPUT, "--max-num-batched-tokens", "7", "--num-threads", "1")
    other, _ = figures(albireo, tmp_path, *THROUGHPUT, "--seed", "1")
    assert first["outputs_sha256"] == chunked["outputs_sha256"]
    assert first["outputs_sha256"] != other["outputs_sha256"]
    assert chunked["num_steps"] > first["num_steps"]


def test_n_continuations(albireo, tmp_path):
    found, _ = figures(albireo, tmp_path, *THROUGHPUT, "--n", "2")
    assert found["total_num_tokens"] == found["num_prompt_tokens"] + found["num_output_tokens"]


def test_a_shared_prefix_is_computed_once(albireo, tmp_path):
    found, _ = figures(albireo, tmp_path, *THROUGHPUT, "--prefix-len", "64")
    assert found["num_cached_tokens"] >= 4 * 64
    plain, _ = figures(albireo, tmp_path, *THROUGHPUT, "--prefix-len", "64", "--no-enable-prefix-caching")
    assert plain["num_cached_tokens"] == 0
    assert plain["outputs_sha256"] == found["outputs_sha256"]


def test_without_a_tokenizer(albireo, tmp_path):
    found, _ = figures(albireo, tmp_path, *LATENCY, "--skip-tokenizer-init", "--temperature", "0")
    assert found["num_output_tokens"] == 18


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--input-len", "600"), "the context is 512"),
        (("--input-len", "0"), "input_len=0"),
        (("--num-iters", "0"), "num_iters=0"),
        (("--batch-size", "0"), "batch_size=0"),
        (("--model", "./no/such/model"), "./no/such/model"),
    ],
)
def test_refusals(albireo, args, said):
    result = albireo("bench", "latency", *args)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert said in result.stderr


def test_the_range_ratio_has_a_range(albireo):
    result = albireo("bench", "throughput", "--random-range-ratio", "1")
    assert result.exit_code == 1
    assert "random_range_ratio=1.0 is outside [0, 1)" in result.stderr


def test_nothing_but_the_report_without_a_terminal(process):
    child = process(*LATENCY)
    stdout, stderr = child.communicate()
    assert child.returncode == 0
    assert stderr == b""
    assert b"\r" not in stdout


def test_a_model_is_named_once(albireo) -> None:
    few = ("--num-iters", "1", "--num-iters-warmup", "0", "--batch-size", "1", "--input-len", "2", "--output-len", "2")
    result = albireo("bench", "latency", Path(models.__file__).parent / "bundled" / "story", *few)
    assert result.exit_code == 0, result.stderr
    result = albireo("bench", "latency", "here", "--model", "there", *few)
    assert result.exit_code == 1 and result.stderr == "error: MODEL here and --model there are both given; keep one\n"


def test_startup_of_a_checkpoint_and_of_what_is_built_from_it(albireo, tmp_path):
    rounds = ("--num-iters-cold", "1", "--num-iters-warmup", "0", "--num-iters-warm", "0")
    file = tmp_path / "figures.json"
    result = albireo("bench", "startup", *rounds, "--built", "--max-model-len", "128", "--output-json", file)
    assert result.exit_code == 0, result.stderr
    found = json.loads(file.read_text())
    assert (found["kind"], found["built"]["kind"]) == ("checkpoint", "engine directory")
    for figures in (found, found["built"]):
        parts = figures["cold_parts"]
        assert sum(part["median"] for part in parts.values()) == pytest.approx(figures["avg_cold_startup_time"])
        assert list(parts) == ["interpreter", "import", "load", "first_token"]
    assert result.stdout.count("cold start") == 2


def test_a_file_that_cannot_be_written_is_found_before_the_run(albireo, tmp_path):
    (tmp_path / "file").write_text("")
    few = ("bench", "throughput", "--num-prompts", "1", "--input-len", "4", "--output-len", "2", "--num-iters", "1")
    result = albireo(*few, "--output-json", tmp_path / "file" / "x.json")
    assert result.exit_code == 2 and "cannot be made a folder" in result.stderr and result.stdout == ""
    result = albireo(*few, "--output-json", tmp_path / "new" / "x.json")
    assert result.exit_code == 0 and json.loads((tmp_path / "new" / "x.json").read_text())["num_requests"] == 1
    told = albireo(*few, "--hf-overrides", '{"rope_theta": 5}', "--output-json", tmp_path / "other.json")
    assert 'overrides     {"rope_theta": 5}' in told.stdout
    assert json.loads((tmp_path / "other.json").read_text())["hf_overrides"] == {"rope_theta": 5}
    assert json.loads((tmp_path / "new" / "x.json").read_text())["hf_overrides"] is None
    if Path("/dev/full").exists():
        result = albireo(*few, "--output-json", "/dev/full")
        assert result.exit_code == 1 and "tok/s" in result.stdout, "the figures are told all the same"
