"""build, and every command on what it built."""

from __future__ import annotations

import re

import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.artifact.layout import MAJOR, MINOR
from albireo.backends.cpu.machine import isa_levels


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The bundled model as an engine directory."""
    from albireo import build

    return build(None, tmp_path_factory.mktemp("built") / "story").directory


def test_the_summary(albireo, tmp_path):
    out = tmp_path / "engine"
    result = albireo("build", BUNDLED, "-o", out, "--max-model-len", "80", "--max-num-batched-tokens", "64")
    assert result.exit_code == 0, result.stderr
    assert str(out) in result.stdout
    assert "ops 140 -> 48 calls" in result.stdout
    assert "B per token" in result.stdout
    assert "(nothing fused: " in result.stdout
    assert re.search(r"^predicted +first token .* ms .*decode .* tok/s$", result.stdout, re.M)
    assert re.search(
        r"^measured +first token .* ms, decode .* tok/s +\(one request, 64 \+ 16 tokens", result.stdout, re.M
    )
    assert "up to 64 tokens of 64 sequences of up to 80 tokens" in (out / "report.md").read_text()


def test_the_options_of_a_build(albireo, tmp_path, monkeypatch):
    out = tmp_path / "engine"
    flags = ("--target", "avx2", "--profile", "latency", "--without", "fuse_head,fuse_norm", "--no-measure")
    result = albireo("build", BUNDLED, "-o", out, *flags)
    assert result.exit_code == 0, result.stderr
    assert "kernels for avx2" in result.stdout
    assert "measured" not in result.stdout and "predicted" not in result.stdout
    shown = albireo("inspect", out).stdout
    assert "profile latency, without fuse_head, fuse_norm" in shown
    greedy = ("Once upon", "--temperature", "0", "--max-tokens", "12")
    monkeypatch.setenv("ALBIREO_ISA_MAX", "avx2")
    assert albireo("generate", out, *greedy).stdout == albireo("generate", *greedy).stdout
    result = albireo("build", BUNDLED, "-o", tmp_path / "x", "--target", "avx3")
    assert result.exit_code == 1 and "choose one of native, amx, avx512bf16" in result.stderr
    result = albireo("build", BUNDLED, "-o", tmp_path / "x", "--without", "speed")
    assert result.exit_code == 1 and "choose among fold_scale, merge_qkv" in result.stderr


def test_profiles_and_passes_left_out_change_no_text(albireo):
    flags = ("Once upon", "--temperature", "0", "--max-tokens", "12")
    plain = albireo("generate", *flags).stdout
    for more in (("--profile", "latency"), ("--profile", "throughput"), ("--without", "fuse_head,merge_qkv,fuse_norm")):
        assert albireo("generate", *flags, *more).stdout == plain
    program = albireo("inspect", "--program", "--without", "merge_qkv").stdout
    assert "rope(" in program and "kv_write(" in program and "qkv_rope_kv" not in program
    refused = albireo("generate", *flags, "--without", "fuse_gather")
    assert refused.exit_code == 1 and "nothing else gives a gather its kernel" in refused.stderr


def test_a_target_this_machine_cannot_run_is_not_measured(albireo, tmp_path, monkeypatch):
    monkeypatch.setenv("ALBIREO_ISA_MAX", "scalar")
    result = albireo("build", BUNDLED, "-o", tmp_path / "x", "--target", "avx512")
    assert result.exit_code == 0, result.stderr
    assert "not measured: kernels of avx512 do not run here, where the best are of scalar" in result.stdout


def test_a_lower_target_is_measured_and_not_predicted(albireo, tmp_path):
    if isa_levels()[0] in ("avx2", "scalar"):
        pytest.skip("this run has no better level")
    result = albireo("build", BUNDLED, "-o", tmp_path / "x", "--target", "avx2")
    assert "predicted     not for avx2" in result.stdout and "measured      first token" in result.stdout


def test_ranks(albireo, tmp_path):
    """Built for two, shown, run; on another number refused with the command; planned not at all."""
    out = tmp_path / "engine"
    result = albireo("build", BUNDLED, "-o", out, "--tp", "2")
    assert result.exit_code == 0, result.stderr
    assert "ranks         2; what follows is of one\n" in result.stdout
    assert "ops 140 -> 60 calls" in result.stdout
    shown = albireo("inspect", out).stdout
    assert "tensor_parallel_size 2" in shown and "ranks         2; the program is of one, the memory of all" in shown
    memory = re.search(r"of one at most: weights ([\d.]+) MiB, .* KV cache ([\d.]+) MiB\n", shown)
    of_all = re.search(r"memory +weights ([\d.]+) MiB, .* KV cache ([\d.]+) MiB, ", shown)
    assert (
        memory
        and of_all
        and [float(each) / 2 for each in of_all.groups()]
        == pytest.approx([float(each) for each in memory.groups()], abs=0.1)
    )
    flags = ("Once upon a time", "--temperature", "0", "--max-tokens", "12")
    assert albireo("generate", out, *flags).stdout == albireo("generate", *flags).stdout
    assert albireo("generate", "-tp", "4", *flags).stdout == albireo("generate", *flags).stdout
    result = albireo("generate", out, *flags, "--tensor-parallel-size", "1")
    assert result.exit_code == 1
    assert result.stderr.endswith(f"build it again: albireo build MODEL -o {out} --force --tp 1\n")
    result = albireo("build", "-o", tmp_path / "x", "-tp", "8")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: tensor_parallel_size=8 is not possible for this model: 4 query heads do not divide by 8; "
        "possible for this model: 1, 2, 4\n"
    )
    result = albireo("plan", "-tp", "2")
    assert result.exit_code == 1
    assert "a model on one rank, tensor_parallel_size=2 is asked for; leave it out, or name a GPU" in result.stderr


def test_the_order_of_ranks_on_one(albireo, tmp_path):
    assert albireo("build", "-o", tmp_path / "x", "--tp-invariant").exit_code == 0
    assert "sums in the order of several ranks" in (tmp_path / "x" / "report.md").read_text()


def test_refusals_are_one_line(albireo, story, tmp_path):
    result = albireo("build", BUNDLED, "-o", story)
    assert result.exit_code == 1
    assert result.stderr == f"error: {story} is there already; --force replaces it\n"
    result = albireo("build", "-o", tmp_path / "x", "--dtype", "int3")
    assert result.exit_code == 1
    assert "choose auto" in result.stderr
    assert not (tmp_path / "x").exists()
    assert albireo("build", BUNDLED).exit_code == 2


def test_force(albireo, tmp_path):
    assert albireo("build", "-o", tmp_path / "x").exit_code == 0
    assert albireo("build", "-o", tmp_path / "x", "--force", "--dtype", "float32").exit_code == 0
    assert "computed in float32" in albireo("inspect", tmp_path / "x").stdout


def test_generate(albireo, story):
    flags = ("Once upon", "--temperature", "0", "--max-tokens", "12")
    expected = albireo("generate", *flags)
    result = albireo("generate", story, *flags)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == expected.stdout
    assert albireo("generate", story, *flags, "--verify-hashes").stdout == expected.stdout


def test_chat(albireo, story):
    flags = ("--temperature", "0", "--max-tokens", "6")
    result = albireo("chat", story, *flags, stdin="Tell me a story\n")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == albireo("chat", *flags, stdin="Tell me a story\n").stdout


def test_inspect(albireo, story):
    result = albireo("inspect", story)
    assert result.exit_code == 0, result.stderr
    assert f"format        albireo-engine {MAJOR}.{MINOR}, created by albireo 0." in result.stdout
    assert "built for     dtype bfloat16, max_model_len 512, max_num_seqs 64" in result.stdout
    assert "tokenizer/tokenizer.json " in result.stdout and "graph.json " in result.stdout
    assert "39 constants" in result.stdout
    for flag in ("--graph", "--program", "--report"):
        assert albireo("inspect", story, flag).stdout == albireo("inspect", flag).stdout


def test_a_damaged_directory(albireo, story, tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    result = albireo("generate", tmp_path, "Once")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'manifest.json'}: is not valid JSON")
    assert f"albireo build MODEL -o {tmp_path}" in result.stderr
