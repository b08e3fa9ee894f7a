"""build, and every command on what it built."""

from __future__ import annotations

import pytest

from albireo.api.locate import BUNDLED


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The bundled model as an engine directory."""
    from albireo import build

    return build(None, tmp_path_factory.mktemp("built") / "story").directory


def test_the_summary(albireo, tmp_path):
    out = tmp_path / "engine"
    result = albireo("build", BUNDLED, "-o", out, "--max-model-len", "128", "--max-num-batched-tokens", "64")
    assert result.exit_code == 0, result.stderr
    assert str(out) in result.stdout
    assert "ops 140 -> 49 calls" in result.stdout
    assert "B per token" in result.stdout
    assert "up to 64 tokens of 64 sequences of up to 128 tokens" in (out / "report.md").read_text()


def test_ranks(albireo, tmp_path):
    """Built for two, shown, run; on another number refused with the command; planned not at all."""
    out = tmp_path / "engine"
    result = albireo("build", BUNDLED, "-o", out, "--tp", "2")
    assert result.exit_code == 0, result.stderr
    assert "ranks         2; what follows is of one\n" in result.stdout
    assert "ops 140 -> 61 calls" in result.stdout
    shown = albireo("inspect", out).stdout
    assert "tensor_parallel_size 2" in shown and "ranks         2; the program is of one, the memory of all" in shown
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
    assert "plan counts and predicts a model on one rank, tensor_parallel_size=2 is asked for" in result.stderr


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
    assert "format        albireo-engine 2.1, created by albireo 0." in result.stdout
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
