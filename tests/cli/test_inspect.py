"""inspect: every architecture, its sizes counted by hand; graph and program as text and as pictures; differences."""

from __future__ import annotations

import json
import math
import re
from xml.etree import ElementTree

import pytest

from albireo import BuildConfig, build
from albireo.api.sources.locate import BUNDLED
from albireo.models import load_architecture, load_config
from representatives import REPRESENTATIVES
from tiny_models import has_experts, make_checkpoint, weight_shapes


@pytest.fixture(params=REPRESENTATIVES)
def tiny(request, tmp_path):
    config = dict(load_architecture(request.param).tiny)
    return config, make_checkpoint(tmp_path / "model", config)


def test_sizes(albireo, tiny):
    config, directory = tiny
    result = albireo("inspect", directory)
    assert result.exit_code == 0, result.stderr
    parameters = sum(math.prod(shape) for shape in weight_shapes(config).values())
    if config["model_type"] == "opt":  # the first two rows of positions are those of padding
        parameters -= 2 * config["hidden_size"]
    assert f"({parameters:,})" in result.stdout
    parsed = load_config(directory)
    stored = sum(kv_heads * -(-head_dim // 16) * 16 for kv_heads, head_dim in parsed.kv_shapes)
    parts = 2 if parsed.blocks.latent is None else 1
    assert f"{parts * stored * 4:,} B per token" in result.stdout
    has_others = config["model_type"] == "gemma4_text"
    assert (", elsewhere of 32, 1 for keys and values" in result.stdout) == has_others
    assert f"architecture  {config['model_type']}: {parsed.num_layers} layers" in result.stdout
    assert f"{len(weight_shapes(config))} tensors of float32" in result.stdout
    assert "no usable tokenizer" in result.stdout


@pytest.mark.parametrize(
    ("model_type", "wanted"),
    [
        (
            "deepseek_v4",
            "4 heads of 20, 1 for keys and values, window 13 in 3 layers, entries of 4 positions in 1 layers, "
            "entries of 16 positions in 1 layers, ",
        ),
        ("deepseek_v32", "1 for keys and values, rope"),
        ("glm5_next_text", "4 heads of 32, 1 for keys and values, positions chosen 4 together in 2 layers, rope"),
    ],
)
def test_keys_that_choose_are_no_layer_s(albireo, tmp_path, model_type, wanted):
    directory = make_checkpoint(tmp_path, dict(load_architecture(model_type).tiny))
    (line,) = re.findall("^attention .*", albireo("inspect", directory).stdout, re.MULTILINE)
    assert wanted in line


def test_graph_program_and_report(albireo, tiny):
    config, directory = tiny
    # which norm all heads of q and k at once, or v too, or have no values to write
    qkv = "kv_write(" if config["model_type"] in ("olmo2", "gemma4_text", "youtu") else "qkv_rope_kv("
    graph = albireo("inspect", directory, "--graph").stdout
    program = albireo("inspect", directory, "--program").stdout
    report = albireo("inspect", directory, "--report").stdout
    assert "rms_norm(" in graph
    assert "qkv_rope_kv(" not in graph
    assert qkv in program
    assert "fuse_qkv_rope_kv" in report
    assert albireo("inspect", directory, "--graph", "--program", "--report").stdout == "\n".join(
        [graph, program, report]
    )
    assert len(albireo("inspect", directory, "--graph", "--full").stdout) >= len(graph)


def test_settings_count(albireo):
    default = albireo("inspect").stdout
    assert str(BUNDLED) in default
    assert "computed in bfloat16" in default
    wide = albireo("inspect", "--dtype", "float32").stdout
    assert "computed in float32" in wide
    assert "3,072 B per token" in default
    assert "6,144 B per token" in wide
    blocks = albireo("inspect", "--num-gpu-blocks-override", "9", "--block-size", "8").stdout
    assert "8 of 8 tokens: 64 tokens, sequences of up to 64" in blocks


def test_a_model_that_does_not_fit_is_still_described(albireo):
    result = albireo("inspect", "--memory-utilization", "0.000001")
    assert result.exit_code == 1
    assert "parameters" in result.stdout
    assert "memory_utilization" in result.stderr


def test_the_program_of_a_model_that_does_not_fit_is_shown(albireo, tmp_path):
    fits = albireo("inspect", "--kernels", "--program", "--report", "--arena")
    small = ("--memory-utilization", "0.000001")
    assert albireo("inspect", *small, "--kernels", "--program", "--report", "--arena").stdout == fits.stdout
    result = albireo("inspect", *small, "--graph", tmp_path / "x.html")
    assert result.exit_code == 0, result.stderr
    assert "the model needs " in (tmp_path / "x.html").read_text()


def test_a_directory_without_weights(albireo, tmp_path):
    (tmp_path / "config.json").write_text((BUNDLED / "config.json").read_text())
    result = albireo("inspect", tmp_path)
    assert result.exit_code == 0
    assert "no weights in this directory" in result.stdout


def test_a_directory_without_weights_counts_those_that_its_config_tells_of(albireo, tmp_path):
    """A published config of few bits, and one that names no dtype, as plan reads them."""
    said = json.loads((BUNDLED / "config.json").read_text())
    del said["dtype"]
    blocks = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    sizes = []
    for more in ({}, {"quantization_config": blocks}):
        (tmp_path / "config.json").write_text(json.dumps(said | more))
        result = albireo("inspect", tmp_path)
        assert result.exit_code == 0, result.stderr
        assert "computed in bfloat16" in result.stdout
        sizes.append(float(re.search(r"memory +weights ([\d.]+) MiB", result.stdout)[1]))
    embeddings = 2 * said["vocab_size"] * said["hidden_size"] / 2**20
    assert sizes[1] - embeddings == pytest.approx((sizes[0] - embeddings) / 2, rel=0.1)
    both = re.search(r"weight bytes ([\d,]+) B -> ([\d,]+) B", albireo("inspect", "--diff", tmp_path).stdout)
    plain, few = (int(each.replace(",", "")) / 2**20 - embeddings for each in both.groups())
    assert few == pytest.approx(plain / 2, rel=0.1)


def test_weights_that_do_not_fit_the_config_are_named(albireo, tmp_path):
    config = dict(load_architecture("llama").tiny)
    directory = make_checkpoint(tmp_path / "model", config)
    wider = json.loads((directory / "config.json").read_text())
    wider["intermediate_size"] *= 2
    (directory / "config.json").write_text(json.dumps(wider))
    result = albireo("inspect", directory)
    assert result.exit_code == 1
    assert "mlp" in result.stderr


def test_kernels_and_arena_as_text(albireo, tiny):
    _, directory = tiny
    kernels = albireo("inspect", directory, "--kernels").stdout
    arena = albireo("inspect", directory, "--arena").stdout
    assert kernels.startswith("rows of the call") and "16-64" in kernels and "attention" in kernels
    assert arena.startswith("arena      ") and "lives from call to call" in arena and "logits" in arena
    assert albireo("inspect", directory, "--kernels", "--arena").stdout == f"{kernels}\n{arena}"


def test_pictures(albireo, tiny, tmp_path):
    config, directory = tiny
    others = {"gemma2": 9, "gemma3_text": 9, "gemma4_text": 19, "olmo2": 15, "cohere": 6, "falcon": 6, "phi": 6}
    others |= {"youtu": 20}
    calls = others.get(config["model_type"], 7)
    calls = 10 if has_experts(config, 0) else calls
    for name in ("x.svg", "x.html"):
        result = albireo("inspect", directory, "--graph", tmp_path / name, "--layer", "0")
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith(f"{tmp_path / name}: layer 0, ") and f"ops -> {calls} calls" in result.stdout
    root = ElementTree.fromstring((tmp_path / "x.svg").read_bytes())
    assert sum(each.get("data-call") is not None for each in root.iter()) == calls
    assert f"One layer of a {config['model_type']} model" in (tmp_path / "x.html").read_text()
    both = albireo("inspect", directory, "--graph", tmp_path / "x.svg", "--report").stdout
    assert "fuse_norm" in both and f"{tmp_path / 'x.svg'}: layer " in both


@pytest.mark.parametrize("ranks", [("-tp", "2"), ("-tp", "4", "--quantization", "int8")], ids=str)
def test_a_layer_of_one_of_several_ranks_is_drawn(albireo, tmp_path, ranks):
    result = albireo("inspect", *ranks, "--graph", tmp_path / "x.svg")
    assert result.exit_code == 0, result.stderr
    picture = (tmp_path / "x.svg").read_text()
    assert f"-> {picture.count('data-call=')} calls" in result.stdout
    # one behind attention and one behind the FFN, before fusion and after it
    assert picture.count(">all_reduce<") == 4


def test_the_graph_as_text_has_two_names(albireo):
    assert albireo("inspect", "--graph").stdout == albireo("inspect", "--graph", "-").stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--graph", "x.png"), "a picture is written into a file that ends in .svg or .html"),
        (("--layer", "0"), "--layer is of pictures"),
        (("--graph", "x.svg", "--layer", "6"), "layer 6 is asked for, the model has layers 0 to 5"),
        (("--graph", "nowhere/x.svg"), "there is no directory nowhere"),
    ],
)
def test_flags_that_do_not_go_together(albireo, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    result = albireo("inspect", *flags)
    assert result.exit_code == 1 and words in result.stderr
    assert not list(tmp_path.iterdir())


def test_diff_has_the_exit_codes_of_diff(albireo, tmp_path):
    build(None, tmp_path / "a", BuildConfig())
    build(None, tmp_path / "b", BuildConfig(max_num_seqs=8))
    same = albireo("inspect", tmp_path / "a", "--diff", BUNDLED)
    assert (same.exit_code, same.stdout) == (0, "no difference; the weights of a checkpoint are not compared\n")
    equal = albireo("inspect", tmp_path / "a", "--diff", tmp_path / "a")
    assert (equal.exit_code, equal.stdout) == (0, "no difference\n")
    other = albireo("inspect", tmp_path / "a", "--diff", tmp_path / "b")
    assert other.exit_code == 1 and "options       max_num_seqs 64 -> 8\n" in other.stdout
    for flags, words in (
        ((tmp_path / "nowhere",), "there is no directory"),
        ((tmp_path / "b", "--report"), "--diff compares, and shows nothing else"),
        ((tmp_path / "b", "--max-num-seqs", "8"), "max_num_seqs: given for a comparison of engine directories"),
    ):
        trouble = albireo("inspect", tmp_path / "a", "--diff", *flags)
        assert trouble.exit_code == 2 and words in trouble.stderr and not trouble.stdout


def test_options_of_a_build_are_words(albireo, tmp_path):
    albireo("build", "-o", str(tmp_path / "built"), "--no-measure", "--tp-invariant")
    (line,) = (x for x in albireo("inspect", str(tmp_path / "built")).stdout.splitlines() if x.startswith("built for"))
    assert "tp_invariant yes" in line and "quantization none" in line and "None" not in line


def test_names_give_no_orders_to_a_terminal(albireo, tmp_path):
    directory = make_checkpoint(tmp_path / "e\x1b[31m", dict(load_architecture("llama").tiny))
    result = albireo("inspect", directory)
    assert result.exit_code == 0 and "\x1b" not in result.stdout and "e\ufffd[31m" in result.stdout
