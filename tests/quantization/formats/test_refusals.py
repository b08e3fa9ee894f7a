"""Damaged and unsupported quantized checkpoints are refused with the name of what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albireo.errors import ModelError, UnsupportedModel, WeightMismatch
from albireo.json_file import Fields
from albireo.models import build_graph, load_config, open_checkpoint
from albireo.models.checkpoint.weights import Checkpoint
from albireo.quantization.formats import awq, gptq, read_format
from quantization.formats.writers import WRITERS, write_model

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
MODULE = "model.layers.0.mlp.up_proj"
Tensors = dict[str, Any]


def damaged(path: Path, name: str, change: Callable[[Tensors], object]) -> Path:
    """A model of a writer whose tensors went through change."""
    write_model(path, WRITERS[name])
    tensors = safetensors.load_file(path / "model.safetensors")
    change(tensors)
    safetensors.save_file(tensors, path / "model.safetensors")
    return path


def read_all(directory: Path) -> None:
    with open_checkpoint(directory, build_graph(load_config(directory), 64)) as checkpoint:
        for name in checkpoint.encodings:
            checkpoint.encoded(name)
        for name in checkpoint.names:
            checkpoint.tensor(name)
            checkpoint.release(name)


def put(part: str, index: Any, value: float) -> Callable[[Tensors], object]:
    return lambda tensors: tensors[f"{MODULE}.{part}"].__setitem__(index, value)


def put_byte(part: str, index: Any, value: int) -> Callable[[Tensors], object]:
    return lambda tensors: tensors[f"{MODULE}.{part}"].view(torch.uint8).__setitem__(index, value)


def cut(part: str) -> Callable[[Tensors], object]:
    """The last row away."""
    return lambda tensors: tensors.update({f"{MODULE}.{part}": tensors[f"{MODULE}.{part}"][:-1].contiguous()})


def gone(part: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(f"{MODULE}.{part}")


def other(part: str, tensor: Any) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({f"{MODULE}.{part}": tensor})


STATE = "weight.quant_state.bitsandbytes__nf4"
INF, NAN = float("inf"), float("nan")
CASES: list[tuple[str, Callable[[Tensors], object], str]] = [
    ("gptq", put("scales", (0, 3), INF), rf"'{MODULE}\.scales' holds inf at \[0, 3\].*finite"),
    ("awq", put("scales", (1, 0), NAN), rf"{MODULE}\.scales' holds nan at \[1, 0\]"),
    ("compressed-tensors W8A8 channel", put("weight_scale", (2, 0), NAN), r"weight_scale' holds nan at \[2, 0\]"),
    ("compressed-tensors W4A16 g128", put("weight_scale", (2, 0), -INF), r"weight_scale' holds -inf"),
    ("compressed-tensors fp8 channel", put("weight_scale", (9, 0), INF), r"weight_scale' holds inf"),
    ("fp8 blocks", put("weight_scale_inv", (1, 0), INF), r"weight_scale_inv' holds inf"),
    (
        "fp8 blocks",
        lambda t: t[f"{MODULE}.weight"].view(torch.uint8).__setitem__((3, 4), 0xFF),
        r"holds nan at \[3, 4\]",
    ),
    ("mxfp4", put("weight_scales", (4, 1), 255), r"weight_scales' holds nan \(e8m0 code 255\) at \[4, 1\]"),
    ("bitsandbytes int8", put("SCB", 7, NAN), r"SCB' holds nan at \[7\]"),
    ("bitsandbytes nf4", put("weight.absmax", 7, NAN), r"absmax' holds nan"),
    ("bitsandbytes nf4 nested", put("weight.nested_absmax", 0, INF), r"nested_absmax' holds inf"),
    ("bitnet", put("weight_scale", 0, NAN), r"weight_scale' holds nan at \[0\]"),
    ("bitnet", put("weight_scale", 0, 0.0), r"weight_scale' holds 0.0; a scale must be above 0"),
    ("bitnet", put("weight", (2, 5), 0xFF), r"weight' holds code 3 at \[2, 5\] of the matrix"),
    ("bitnet", gone("weight_scale"), r"there is no tensor '.*weight_scale'"),
    ("bitnet", other("weight", torch.zeros(256, 128)), r"weight' has type F32; it must be U8"),
    ("bitnet", other("weight_scale", torch.ones(2)), r"weight_scale' is \[2\]; its neighbours imply \[1\]"),
    ("bitnet online", other("weight", torch.zeros((256, 128), dtype=torch.uint8)), r"has type U8; it must be F16"),
    ("gptq", gone("scales"), r"there is no tensor '.*scales', which its neighbours need"),
    ("gptq", gone("qzeros"), r"there is no tensor '.*qzeros'"),
    ("awq", gone("qzeros"), r"there is no tensor '.*qzeros'"),
    ("awq gemv", cut("qzeros"), r"qzeros' is \[255, 2\]; its neighbours imply \[256, 2\]"),
    ("awq gemv", other("scales", torch.ones((256, 8))), r"scales' is \[256, 8\]; its neighbours imply \[256, 16\]"),
    ("awq gemv", gone("scales"), r"there is no tensor '.*scales'"),
    ("compressed-tensors W4A16 g128", gone("weight_shape"), r"there is no tensor '.*weight_shape'"),
    ("compressed-tensors W8A8 channel", gone("weight_scale"), r"there is no tensor '.*weight_scale'"),
    ("gptq desc_act", gone("g_idx"), r"there is no tensor '.*g_idx', which its neighbours need"),
    ("compressed-tensors W8A8 asymmetric", gone("weight_zero_point"), r"there is no tensor '.*weight_zero_point'"),
    ("compressed-tensors W4A16 g64 asymmetric", gone("weight_zero_point"), r"there is no tensor '.*weight_zero_point'"),
    ("fp8 static", gone("weight_scale"), r"there is no tensor '.*weight_scale'"),
    ("bitsandbytes int8", gone("weight"), r"there is no tensor '.*up_proj\.weight'"),
    ("mxfp4", gone("weight_scales"), r"there is no tensor '.*weight_scales'"),
    ("gptq", cut("scales"), r"g_idx|qzeros.*no width of a code"),
    ("gptq", cut("qweight"), r"g_idx.*neighbours imply"),
    ("awq", cut("qweight"), r"up_proj\.weight is \[256, 127\], config.json implies"),
    ("awq", cut("qzeros"), r"qzeros' is \[1, 32\]; its neighbours imply \[2, 32\]"),
    ("compressed-tensors W4A16 g128", cut("weight_packed"), r"not 4 bits each"),
    ("compressed-tensors W4A16 g128", cut("weight_scale"), r"weight_scale' is \[255, 1\] for 256 outputs"),
    ("compressed-tensors W4A16 g64 asymmetric", cut("weight_zero_point"), r"zero_point.*neighbours imply"),
    ("fp8 blocks", cut("weight_scale_inv"), r"weight_scale_inv' is \[1, 1\]; its neighbours imply \[2, 1\]"),
    ("mxfp4", cut("weight_scales"), r"weight_scales' is \[255, 4\]; its neighbours imply \[256, 4\]"),
    ("bitsandbytes nf4", cut("weight"), r"does not hold the 256 x 128 numbers"),
    ("bitsandbytes nf4", cut("weight.absmax"), r"absmax' is \[511\]; its neighbours imply \[512\]"),
    ("gptq", put("g_idx", 5, 99), r"names groups from 0 to 99 of 4"),
    ("gptq", put("g_idx", 5, -1), r"names groups from -1 to 3 of 4"),
    ("compressed-tensors W4A16 actorder", put("weight_g_idx", 5, 99), r"names group 99 of 4"),
    ("compressed-tensors W4A16 g128", put("weight_shape", 1, 2**40), r"not 4 bits each"),
    ("compressed-tensors W4A16 g128", put("weight_shape", 1, -5), r"not 4 bits each"),
    ("gptq", other("qweight", torch.zeros(16, 256)), r"qweight' has type F32; it must be I32"),
    ("gptq", other("weight", torch.zeros(256, 128)), r"is there twice, as numbers and quantized"),
    ("gptq", other("qweight", torch.zeros(16, dtype=torch.int32)), r"must be a matrix"),
    ("gptq", other("qweight", torch.zeros((0, 256), dtype=torch.int32)), r"must be a matrix"),
    ("bitsandbytes int8", put("weight_format", (), 1), r"weight_format' is not 0"),
    (
        "bitsandbytes nf4",
        other(STATE, torch.zeros(9000, dtype=torch.uint8)),
        "at most",
    ),
    ("bitsandbytes nf4", other(STATE, torch.zeros(9, dtype=torch.uint8)), "JSON"),
    ("compressed-tensors nvfp4", put("weight_global_scale", 0, 0.0), r"weight_global_scale' holds inf"),
    ("modelopt nvfp4", other("weight_scale_2", torch.ones(2)), r"weight_scale_2' is \[2\]; it must be one number"),
    ("modelopt nvfp4", gone("weight"), r"there is no tensor '.*up_proj\.weight'"),
    ("mxfp4", other("experts_blocks", torch.zeros((2, 2, 2, 16), dtype=torch.uint8)), "several experts"),
]


@pytest.mark.parametrize(("name", "change", "message"), CASES)
def test_damage_is_named(name: str, change: Callable[[Tensors], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message) as error:
        read_all(damaged(tmp_path, name, change))
    assert str(tmp_path) in str(error.value)


def test_a_missing_module_is_missing_by_the_name_of_its_weight(tmp_path: Path) -> None:
    def without(tensors: Tensors) -> None:
        for part in ("qweight", "qzeros", "scales"):
            del tensors[f"{MODULE}.{part}"]

    with pytest.raises(WeightMismatch, match=rf"1 missing: {MODULE}\.weight"):
        read_all(damaged(tmp_path, "awq", without))


def test_what_is_not_encoded_says_so(tmp_path: Path) -> None:
    write_model(tmp_path, WRITERS["gptq desc_act"])
    with Checkpoint(tmp_path) as checkpoint:
        for name in (f"{MODULE}.weight", "lm_head.weight", "ghost"):
            with pytest.raises(WeightMismatch, match=f"'{name}' is not encoded"):
                checkpoint.encoded(name)
        with pytest.raises(WeightMismatch, match="there is no tensor 'ghost'"):
            checkpoint.tensor("ghost")
        with pytest.raises(WeightMismatch, match="there is no tensor"):
            checkpoint.shape(f"{MODULE}.qweight")  # a part of a weight is none


def group(**weights: Any) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"quant_method": "hqq"}, "quant_method='hqq' is not supported; supported: compressed-tensors, awq, gptq"),
    ({"quant_method": "gptq", "bits": 1}, "bits=1 is not supported; supported: 2 to 8"),
    ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format='marlin'.*gptq_v2"),
    ({"quant_method": "gptq", "bits": 4, "pack_dtype": "int8"}, "pack_dtype='int8'.*int32"),
    ({"quant_method": "gptq", "bits": 4, "lattice": 8}, "1 keys are not supported.*'lattice': 8"),
    ({"quant_method": "awq", "bits": 8}, "bits=8 is not supported; supported: 4"),
    ({"quant_method": "awq", "bits": 4, "version": "gemv_fast"}, "version='gemv_fast'.*gemm"),
    ({"quant_method": "awq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format='marlin'.*gemm, gemv"),
    ({"quant_method": "awq", "bits": 4, "backend": "llm-awq"}, "backend='llm-awq' is not supported; its words"),
    ({"quant_method": "awq", "bits": 4, "pack_dtype": "int16"}, "pack_dtype='int16'.*int32"),
    ({"quant_method": "gptq", "bits": 4, "rotation": "hadamard"}, "'rotation': 'hadamard'"),
    ({"quant_method": "gptq", "bits": 4, "is_marlin_format": True}, "'is_marlin_format': True"),
    ({"quant_method": "exl2", "bits": 4.25}, "quant_method='exl2'.*the original checkpoint, which quantization="),
    ({"quant_method": "auto-round", "packing_format": "mlx"}, "packing_format='mlx'.*auto_round:auto_gptq"),
    ({"quant_method": "auto-round", "packing_format": "auto_round:exllamav2", "sym": True}, "zeros may be stored"),
    (
        {"quant_method": "auto-round", "packing_format": "auto_round:fp8_static", "data_type": "fp"},
        "data_type='fp'.*int",
    ),
    ({"quant_method": "auto-round", "packing_format": "auto_round:fp8_static", "sym": False}, "packing_format='auto_r"),
    ({"quant_method": "auto-round", "act_bits": 8}, "act_bits=8 .*16"),
    ({"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 6}, "bits=6.*auto_awq: 4"),
    ({"quant_method": "auto-round", "bits": 1}, "bits=1 .*2 to 8"),
    ({"quant_method": "auto-round", "rotation_config": {"a": 1}}, "'rotation_config'"),
    (
        {"quant_method": "auto-round", "packing_format": "auto_round:llm_compressor", "data_type": "nv_fp", "bits": 8},
        "data_type='nv_fp'.*of 8 bits",
    ),
    ({"quant_method": "fp8", "fmt": "e5m2"}, "fmt='e5m2'.*e4m3"),
    ({"quant_method": "fp8", "activation_scheme": "block"}, "activation_scheme='block'"),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4_AWQ"}, "quant_algo='NVFP4_AWQ'.*FP8.*NVFP4"),
    (
        {
            "quant_method": "modelopt",
            "quant_algo": "MIXED_PRECISION",
            "quantized_layers": {"a": {"quant_algo": "W4A8_AWQ"}},
        },
        "quantized_layers.a='W4A8_AWQ'.*NVFP4",
    ),
    ({"quant_method": "fp8", "expert_dtype": "nf4"}, "expert_dtype='nf4'.*fp8.*fp4"),
    ({"quant_method": "fp8", "modules_to_convert": ["embed_tokens"]}, "'modules_to_convert'"),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 32}, "group_size=32.*NVFP4: 16"),
    ({"quant_method": "bitnet", "linear_class": "ternary"}, "linear_class='ternary'.*bitlinear, autobitlinear"),
    ({"quant_method": "bitnet", "quantization_mode": "both"}, "quantization_mode='both'.*offline, online"),
    ({"quant_method": "bitnet", "quantization_mode": "online"}, "of linear_class bitlinear matrices lie packed"),
    ({"quant_method": "bitnet", "use_rms_norm": True}, "'use_rms_norm': True"),
    ({"quant_method": "bitsandbytes", "bnb_4bit_quant_type": "int4"}, "bnb_4bit_quant_type='int4'.*nf4, fp4"),
    ({"quant_method": "compressed-tensors", "format": "marlin-24"}, "format='marlin-24'.*pack-quantized"),
    ({"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config="),
    ({"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"R1": {}}}}, "transform_config="),
    (group(num_bits=1), r"config_groups\.group_0\.weights: num_bits=1 is not supported; of type 'int'"),
    (group(num_bits=4, type="float", group_size=64), "group_size=64 is not supported; supp.* 32.*16"),
    (group(num_bits=8, rounding="up"), "'rounding': 'up'"),
]


@pytest.mark.parametrize(("config", "message"), UNSUPPORTED)
def test_what_is_not_read_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        read_format(config, "config.json: quantization_config")


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({}, "quant_method is missing"),
    ({"quant_method": ["gptq"]}, "quant_method=.*must be a string"),
    ({"quant_method": "gptq"}, "bits is missing"),
    ({"quant_method": "gptq", "bits": True}, "bits=True must be a whole number"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "group_size=0 must be"),
    ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size=.*two whole numbers"),
    ({"quant_method": "fp8", "weight_block_size": [0, 128]}, "weight_block_size=.*two whole numbers"),
    ({"quant_method": "compressed-tensors", "config_groups": []}, r"config_groups=\[\] must be an object"),
    ({"quant_method": "awq", "version": "gemv", "format": "gemm"}, "version='gemv' contradicts format"),
    ({"quant_method": "auto-round", "extra_config": []}, r"extra_config=\[\] must be an object"),
    ({"quant_method": "auto-round", "extra_config": {"a(": {"bits": 16}}}, "'re:a\\(' is no regular expression"),
    (
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": 4}},
        "quantized_layers.a=4 ",
    ),
    ({"quant_method": "compressed-tensors", "config_groups": {"a": 1}}, r"config_groups\.a=1 must be an object"),
]


@pytest.mark.parametrize(("config", "message"), IMPOSSIBLE)
def test_impossible_values_are_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_format(config, "config.json: quantization_config")


def test_a_config_that_names_no_format_reads_no_quantized_tensors(tmp_path: Path) -> None:
    write_model(tmp_path, WRITERS["awq"])
    config = json.loads((tmp_path / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightMismatch, match=r"7 missing: .*21 extra: "):
        read_all(tmp_path)


def test_an_order_that_the_config_names_is_not_left_out(tmp_path: Path) -> None:
    damaged(tmp_path, "compressed-tensors W4A16 actorder", gone("weight_g_idx"))
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["config_groups"]["group_0"]["weights"]["actorder"] = "group"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightMismatch, match=r"there is no tensor '.*weight_g_idx', which its neighbours need"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    ("parse", "said", "problem"),
    [
        (awq.parse, {"bits": 4, "w_bit": 8}, "w_bit=8 contradicts bits=4"),
        (awq.parse, {"group_size": 64, "q_group_size": 128}, "q_group_size=128 contradicts group_size=64"),
        (
            gptq.parse,
            {"bits": 4, "checkpoint_format": "gptq", "format": "gptq_v2"},
            "checkpoint_format='gptq' contradicts format='gptq_v2'",
        ),
    ],
)
def test_names_of_one_key_that_say_different_things(parse: Any, said: dict[str, Any], problem: str) -> None:
    """Widths of groups and what a stored zero is would silently be the older name's."""
    with pytest.raises(ModelError, match=problem):
        parse(Fields(said, "quantization_config"))
    first, second = list(said)[-2:]
    parse(
        Fields({"bits": 4, **said, second: said[first]} | ({} if parse is gptq.parse else {"bits": 4, "w_bit": 4}), "q")
    )
