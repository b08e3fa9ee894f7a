"""Whole quantizations of tiny models: what is written, read by the compressed-tensors package, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.build import build
from albireo.compress import run
from albireo.compress.recipe import Recipe, fitting
from albireo.compress.result import Outcome
from albireo.compress.run import quantize
from albireo.errors import ConfigError, EngineError, InvariantError, WeightMismatch
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from albireo.models.checkpoint.safetensors_file import SafetensorsFile
from albireo.models.checkpoint.weights import Checkpoint
from albireo.quantization.encoded import Encoded
from albireo.quantization.methods.progressive import METADATA_KEY
from albireo.verify.run import verify
from compress import tiny
from tiny_models import make_checkpoint, random_weights, write_safetensors

TEXT, EVALUATED = tiny.text(), tiny.text(seed=1, num_windows=2)


def made(
    source: Path, target: Path, scheme: str, method: str, monkeypatch: pytest.MonkeyPatch | None = None, **asked: Any
) -> tuple[Outcome, dict[str, Encoded]]:
    """What was done, and the matrices that were written, by module."""
    written: dict[str, Encoded] = {}
    if monkeypatch is not None:
        stored = run.stored

        def noted(module: str, matrix: Encoded, dtype: str) -> Any:
            written[module] = matrix
            return stored(module, matrix, dtype)

        monkeypatch.setattr(run, "stored", noted)
    outcome = quantize(source, target, Recipe(scheme=scheme, method=method, **asked), TEXT, [EVALUATED])
    return outcome, written


def decompressed(directory: Path) -> dict[str, np.ndarray]:
    """Every quantized module as the compressed-tensors package reads it: config, tensors and arithmetic are its own."""
    pytest.importorskip("compressed_tensors")
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.utils import match_named_modules  # noqa: F401
    from safetensors.torch import load_file

    tensors = load_file(directory / "model.safetensors")
    config = QuantizationConfig.model_validate(
        json.loads((directory / "config.json").read_text())["quantization_config"]
    )
    found = {}
    for name in sorted(n.removesuffix(".weight_scale") for n in tensors if n.endswith(".weight_scale")):
        groups = config.config_groups.values()
        (scheme,) = [g for g in groups if g.targets == ["Linear"] or name in g.targets]
        assert name not in (config.ignore or [])
        state = {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.weight")}
        state["weight_scale"] = state["weight_scale"].to(torch.float32)
        compressor = BaseCompressor.get_value_from_registry(scheme.format)
        found[name] = compressor.decompress(state, scheme)["weight"].to(torch.float32).numpy()
    return found


@pytest.mark.parametrize(
    ("scheme", "method", "dtype"),
    [
        ("int8", "smoothquant", "bfloat16"),
        ("int8", "gptq", "float32"),
        ("int4", "gptq", "bfloat16"),
        ("int4-g32", "awq", "bfloat16"),
        ("int4-g64", "gptq", "float16"),
        ("int4-g64", "rtn", "float32"),
        ("fp8", "rtn", "bfloat16"),
        ("fp8-a16", "rtn", "bfloat16"),
    ],
)
def test_compressed_tensors_reads_the_numbers_that_were_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, method: str, dtype: str
) -> None:
    source = tiny.llama(tmp_path / "source", dtype)
    outcome, written = made(source, tmp_path / "out", scheme, method, monkeypatch)
    read = decompressed(tmp_path / "out")
    assert sorted(read) == sorted(written) and len(read) == 14
    for name, matrix in written.items():
        np.testing.assert_array_equal(read[name], matrix.decode(), err_msg=name)
    with Checkpoint(tmp_path / "out") as checkpoint:
        for name, matrix in written.items():
            ours = checkpoint.encoded(f"{name}.weight")
            np.testing.assert_array_equal(ours.decode(), matrix.decode(), err_msg=name)
        assert checkpoint.is_weight_only == (scheme == "fp8-a16")
    assert {linear.encoding for linear in outcome.linears} >= {str(m.encoding) for m in written.values()}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["ignore"] == ["lm_head"]


def changed_header(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = directory / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    path.write_bytes(data[:8] + json.dumps(header).encode().ljust(length) + data[8 + length :])


def test_progressive_int4_is_progressive_again_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, in what is read and in what runs; without the word of the header it is plain int4."""
    source = tiny.llama(tmp_path / "source", hidden_size=128)
    out = tmp_path / "out"
    outcome, written = made(source, out, "int4", "gptq", monkeypatch)
    meant = {f"{linear.module}.weight": linear.encoding for linear in outcome.linears if linear.encoding[:3] == "int"}
    assert "int4p.g64" in meant.values()
    with Checkpoint(out) as checkpoint:
        assert checkpoint.encodings == meant
        for name, matrix in written.items():
            found = checkpoint.encoded(f"{name}.weight")
            assert str(found.encoding) == meant[f"{name}.weight"]
            np.testing.assert_array_equal(found.decode(), matrix.decode(), err_msg=name)
    engine = build(out, tmp_path / "engine").directory
    stages = {stage.name: stage.verdict for stage in verify(engine, str(out), num_tokens=48).stages}
    assert set(stages.values()) == {"passed"}, stages
    kernels = {call["kernel"] for call in json.loads((engine / "program.json").read_text())["calls"]}
    assert any(kernel.startswith("linear.int4p.g64.") for kernel in kernels), kernels

    def unsaid(header: dict[str, Any]) -> None:
        del header["__metadata__"][METADATA_KEY]

    changed_header(out, unsaid)
    with Checkpoint(out) as checkpoint:
        assert set(checkpoint.encodings.values()) == {name.replace("int4p", "int4") for name in meant.values()}


def test_a_header_that_calls_plain_int4_progressive_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    made(tiny.llama(tmp_path / "source", hidden_size=128), out, "int4-g64", "gptq")
    name = "model.layers.0.mlp.gate_proj"
    changed_header(out, lambda header: header["__metadata__"].update({METADATA_KEY: name}))
    with Checkpoint(out) as checkpoint:
        assert checkpoint.encodings[f"{name}.weight"] == "int4p.g64"
        with pytest.raises(WeightMismatch, match=rf"{re.escape(name)}.weight' is said to be progressive"):
            checkpoint.encoded(f"{name}.weight")


def test_a_mixed_scheme_is_several_groups_within_its_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny.llama(tmp_path / "source")
    outcome, written = made(source, tmp_path / "out", "mixed", "rtn", monkeypatch, target_bits=6.5)
    read = decompressed(tmp_path / "out")
    for name, matrix in written.items():
        np.testing.assert_array_equal(read[name], matrix.decode(), err_msg=name)
    linears = [linear for linear in outcome.linears if linear.module != "lm_head"]
    assert len({linear.encoding for linear in linears}) > 1
    bits = 8 * sum(x.num_bytes for x in linears) / sum(x.shape[0] * x.shape[1] for x in linears)
    # weight_shape is 16 bytes a matrix, which matters in matrices this small
    assert 5.5 < bits < 6.5 + 8 * 16 * 14 / sum(x.shape[0] * x.shape[1] for x in linears)
    by_group = {x.module.rpartition(".")[2]: x.encoding for x in linears if ".0." in x.module}
    assert by_group["q_proj"] == by_group["k_proj"] == by_group["v_proj"]


def test_a_tied_head_becomes_a_matrix_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny.llama(tmp_path / "source", tie_word_embeddings=True)
    outcome, written = made(source, tmp_path / "out", "int8", "smoothquant", monkeypatch, head="int4-g32")
    read = decompressed(tmp_path / "out")
    np.testing.assert_array_equal(read["lm_head"], written["lm_head"].decode())
    assert outcome.is_untied and len(read) == 15
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False and config["quantization_config"]["ignore"] == []
    before, after = (SafetensorsFile(d / "model.safetensors") for d in (source, tmp_path / "out"))
    name = "model.embed_tokens.weight"
    assert bytes(before.tensor(name).buffer) == bytes(after.tensor(name).buffer)


def test_what_is_kept_stays_to_the_byte(tmp_path: Path) -> None:
    source = tiny.llama(tmp_path / "source")
    outcome, _ = made(source, tmp_path / "out", "int4-g32", "rtn", keep=("down_proj", "model.layers.0.self_attn.*"))
    before, after = (SafetensorsFile(d / "model.safetensors") for d in (source, tmp_path / "out"))
    kept = [x.module for x in outcome.linears if x.encoding == "bfloat16"]
    assert len(kept) == 4 + 2 + 1
    for name in [f"{module}.weight" for module in kept] + ["model.norm.weight"]:
        assert bytes(before.tensor(name).buffer) == bytes(after.tensor(name).buffer)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert sorted(config["quantization_config"]["ignore"]) == sorted(kept)


def test_a_constant_made_of_several_tensors_is_written_as_these(tmp_path: Path) -> None:
    """Apertus' activation has numbers of its own, two a layer."""
    config = load_architecture("apertus").tiny
    source = make_checkpoint(tmp_path / "source", config, seed=3, dtype="bfloat16")
    drawn = tiny.text(config["vocab_size"], 2, 24)
    quantize(source, tmp_path / "out", Recipe(scheme="int8", method="rtn"), drawn, [drawn])
    before, after = (SafetensorsFile(d / "model.safetensors") for d in (source, tmp_path / "out"))
    names = [name for name in before.names if ".act_fn." in name]
    assert len(names) == 4 * config["num_hidden_layers"], "of which the graph reads two; other programs read the others"
    for name in names:
        assert bytes(before.tensor(name).buffer) == bytes(after.tensor(name).buffer)
    open_checkpoint(tmp_path / "out", build_graph(load_config(tmp_path / "out"), 64)).close()


def test_quality_is_that_of_the_written_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More bits, nearer to the original; and the errors said are errors of outputs."""
    source = tiny.llama(tmp_path / "source")
    found = {scheme: made(source, tmp_path / scheme, scheme, "rtn")[0] for scheme in ("int8", "int4-g32", "int4-g64")}
    kl = {scheme: outcome.qualities[0].quality.mean_kl for scheme, outcome in found.items()}
    assert 0 < kl["int8"] < kl["int4-g32"] / 10 < kl["int4-g64"]
    sizes = {scheme: outcome.bytes_after for scheme, outcome in found.items()}
    assert sizes["int4-g64"] < sizes["int4-g32"] < sizes["int8"] < found["int8"].bytes_before
    assert found["int8"].qualities[0].quality.num_predictions == 2 * 39
    assert len(found["int8"].drift) == 3 and found["int8"].drift[0] == 0
    for linear in found["int8"].linears:
        assert (0 < linear.error < 0.05) == (linear.encoding != "bfloat16")


def test_later_layers_see_what_quantized_layers_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With layer 0 kept and with it in four bits, GPTQ must come to other codes for layer 1."""
    source = tiny.llama(tmp_path / "source")
    codes = []
    for index, keep in enumerate(((), ("model.layers.0.*",))):
        _, written = made(source, tmp_path / str(index), "int4-g32", "gptq", monkeypatch, keep=keep)
        codes.append(written["model.layers.1.mlp.down_proj"].codes)
        monkeypatch.undo()
    assert not np.array_equal(*codes)


def test_gptq_is_better_than_rounding(tmp_path: Path) -> None:
    source = tiny.llama(tmp_path / "source")
    kl = {}
    for method in ("rtn", "gptq"):
        quantize(source, tmp_path / method, Recipe(scheme="int4-g64", method=method), tiny.text(num_windows=40), [])
        outcome, _ = made(source, tmp_path / f"{method}-measured", "int4-g64", method)
        kl[method] = outcome.qualities[0].quality.mean_kl
    assert kl["gptq"] < kl["rtn"]


def poisoned(path: Path, name: str, change: Callable[[np.ndarray], None]) -> Path:
    """A checkpoint with one tensor changed."""
    source = tiny.llama(path, "float32")
    file = SafetensorsFile(source / "model.safetensors")
    tensors = {each: file.tensor(each).to_float32() for each in file.names}
    change(tensors[name])
    write_safetensors(source / "model.safetensors", tensors, "float32")
    return source


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named_and_refused(tmp_path: Path, value: float) -> None:
    def change(weight: np.ndarray) -> None:
        weight[5, 7] = value

    source = poisoned(tmp_path / "source", "model.layers.1.mlp.up_proj.weight", change)
    with pytest.raises(WeightMismatch, match=r"model\.layers\.1\.mlp\.up_proj\.weight is (nan|inf) at \[5, 7\]"):
        made(source, tmp_path / "out", "int8", "rtn")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_that_no_text_comes_by_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """Of a table that is not the head one row was read for each token of the text, and the rest copied."""
    monkeypatch.setattr("albireo.compress.source._SLICE", 500)
    weights = random_weights({**load_architecture("llama").tiny, **tiny.LLAMA}, 3)
    weights["model.embed_tokens.weight"][130, 7] = np.nan
    config = {**load_architecture("llama").tiny, **tiny.LLAMA, "tie_word_embeddings": False}
    source = make_checkpoint(tmp_path / "source", config, dtype=dtype, weights=weights)
    with pytest.raises(WeightMismatch, match=r"model\.embed_tokens\.weight is nan at \[130, 7\]"):
        quantize(source, tmp_path / "out", Recipe(scheme="int8", method="rtn"), tiny.text(130), [tiny.text(130)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_calibration_that_overflows_is_named_and_refused(tmp_path: Path) -> None:
    def change(weight: np.ndarray) -> None:
        weight *= np.float32(1e25)

    source = poisoned(tmp_path / "source", "model.layers.0.mlp.up_proj.weight", change)
    with pytest.raises(ConfigError, match=r"model\.layers\.0\.mlp\.down_proj: an input of"):
        made(source, tmp_path / "out", "int8", "gptq")


def test_zero_rows_and_an_outlier_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(weight: np.ndarray) -> None:
        weight[3] = 0
        weight[4, 9] = 1e4

    name = "model.layers.0.mlp.gate_proj"
    source = poisoned(tmp_path / "source", f"{name}.weight", change)
    for scheme, method in (("int8", "smoothquant"), ("int4", "gptq"), ("int4-g64", "awq"), ("fp8", "rtn")):
        _, written = made(source, tmp_path / scheme, scheme, method, monkeypatch)
        decoded = written[name].decode()
        assert (decoded[3] == 0).all() and np.isfinite(decoded).all() and np.abs(decoded[4]).argmax() == 9
        np.testing.assert_array_equal(decompressed(tmp_path / scheme)[name], decoded)
        monkeypatch.undo()


def test_a_target_that_is_not_empty_and_a_quantized_source_are_refused(tmp_path: Path) -> None:
    source = tiny.llama(tmp_path / "source")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep me")
    with pytest.raises(ConfigError, match="is not empty"):
        made(source, tmp_path / "out", "int8", "rtn")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    made(source, tmp_path / "new", "int8", "rtn")
    with pytest.raises(ConfigError, match="is quantized already"):
        made(tmp_path / "new", tmp_path / "again", "int8", "rtn")


def test_layers_that_are_gone_through_several_times_are_refused(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", load_architecture("ouro").tiny)
    with pytest.raises(ConfigError, match=r"ouro goes through its layers 3 times.*--quantization"):
        made(source, tmp_path / "out", "int8", "rtn")
    assert not (tmp_path / "out").exists()


def test_a_head_that_is_divided_as_it_is_read_stays_as_it_is(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", {**load_architecture("baichuan").tiny, "z_loss_weight": 0})
    with pytest.raises(ConfigError, match=r"head='int8': a baichuan like this divides its head.*for bf16"):
        made(source, tmp_path / "out", "int8", "rtn", head="int8")
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny.llama(tmp_path / "source")

    def fails(*_: object) -> None:
        raise InvariantError("on purpose")

    with pytest.raises(EngineError, match="on purpose"):
        quantize(source, tmp_path / "out", Recipe(scheme="int8", method="rtn"), TEXT, [], finish=fails)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"scheme": "int3"}, "scheme 'int3' is not known; choose int8"),
        ({"scheme": "mixed"}, "target_bits goes with scheme mixed"),
        ({"scheme": "int8", "target_bits": 5.0}, "target_bits goes with scheme mixed"),
        ({"scheme": "mixed", "target_bits": 3.0}, "above 4 and at most 16"),
        ({"scheme": "int8", "method": "magic"}, "method 'magic' is not known"),
        ({"scheme": "int8", "head": "int2"}, "head 'int2' is not known"),
        ({"scheme": "int8", "head": "int8", "keep": ("lm_head",)}, "contradict each other"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Recipe(**{"method": "rtn", **asked})


def test_a_pattern_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    source = tiny.llama(tmp_path / "source")
    with pytest.raises(ConfigError, match="keep 'dwon_proj' fits no linear"):
        made(source, tmp_path / "out", "int8", "rtn", keep=("dwon_proj",))
    with pytest.raises(ConfigError, match="no linear to quantize"):
        made(source, tmp_path / "out", "int8", "rtn", keep=("model.*",))


def test_widths_that_groups_do_not_divide_get_what_fits() -> None:
    names = [str(fitting(name, width)) for name, width in (("int4.g64", 704), ("int4.g128", 704), ("int4p.g64", 96))]
    assert names == ["int4.g64", "int4.g64", "int4p.g32"]
    assert str(fitting("int4.g64", 172)) == "int8" and str(fitting("int8", 172)) == "int8"
