"""Quantized checkpoints as other programs write them: by compressed-tensors itself, or from published definitions.

A writer turns one matrix into the tensors of its module and into the numbers that the format's own rule gives them
back; write_model() makes a tiny model of it. Nothing here uses albireo.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tiny_latent import with_up_projections_joined
from tiny_models import random_weights

torch = pytest.importorskip("torch")
library = pytest.importorskip("compressed_tensors")
save_file = pytest.importorskip("safetensors.torch").save_file

Array = NDArray[np.float32]
#: Parts of a module's tensors by the end of their names, and the numbers they stand for.
Written = tuple[dict[str, Any], Array]
TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


@dataclass(frozen=True)
class Writer:
    """Fields: config: the quantization_config. write: a matrix [N, K]. encoding: what it should be read as."""

    config: dict[str, Any]
    write: Callable[[Array], Written]
    encoding: str | None


def compressed(fmt: str, scale_type: str = "bfloat16", **weights: Any) -> Writer:
    """By the library: fmt and the arguments of config_groups.group_0.weights."""
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.lifecycle.forward import dequantize
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    args = QuantizationArgs(**weights)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format=fmt)
    compressor = BaseCompressor.get_value_from_registry(fmt)
    group, strategy = weights.get("group_size"), weights["strategy"]

    def write(weight: Array) -> Written:
        w = torch.tensor(weight).to(torch.bfloat16)
        n, k = w.shape
        state: dict[str, Any] = {"weight": w}
        view = w
        if strategy in ("group", "tensor_group"):
            view = view.reshape(n, -1, group)
            low, high = view.amin(-1), view.amax(-1)
        elif strategy == "block":
            view = torch.nn.functional.pad(w, (0, -k % 128, 0, -n % 128)).reshape(-(-n // 128), 128, -(-k // 128), 128)
            low, high = view.amin((1, 3)), view.amax((1, 3))
        else:
            low, high = (
                (w.amin(1, keepdim=True), w.amax(1, keepdim=True)) if strategy == "channel" else (w.min(), w.max())
            )
        scale, zero = calculate_qparams(low.float(), high.float(), args)
        state["weight_scale"] = scale.to(getattr(torch, scale_type))
        if strategy == "tensor_group":
            state["weight_global_scale"] = generate_gparam(w.float().min(), w.float().max())
            scale, zero = calculate_qparams(low.float(), high.float(), args, global_scale=state["weight_global_scale"])
            state["weight_scale"] = scale
        if not weights.get("symmetric", True):
            state["weight_zero_point"] = zero
        state = dict(compressor.compress(dict(state), scheme))
        back = {
            key: value.float() if key == "weight_scale" and fmt[:2] != "mx" else value for key, value in state.items()
        }
        if strategy == "tensor_group":  # what decompress() does, without its rounding to bfloat16
            codes = unpack_fp4_from_uint8(state["weight_packed"], n, k, dtype=torch.float32)
            scale = state["weight_scale"].float()
            numbers = dequantize(codes, scale, args=args, global_scale=state["weight_global_scale"], dtype=codes.dtype)
        else:
            numbers = compressor.decompress(back, scheme)["weight"]
        return {key: value.contiguous() for key, value in state.items()}, numbers.float().numpy()

    fields = {"dynamic": False, "observer": "minmax", "symmetric": True, "type": "int", "group_size": None} | weights
    config = {
        "quant_method": "compressed-tensors",
        "format": fmt,
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": fields, "input_activations": None}},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "sparsity_config": {},
        "transform_config": {},
        "version": library.__version__,
    }
    kind = {"int": "int", "float": "fp8"}[fields["type"]]
    if fmt == "mxfp4-pack-quantized":
        encoding: str | None = "fp4.g32"
    elif fmt == "nvfp4-pack-quantized":
        encoding = "fp4.g16"
    elif kind == "fp8":
        encoding = {"block": "fp8.g128", "group": None}.get(strategy, "fp8")
    elif weights["num_bits"] == 8 and strategy != "group" and fields["symmetric"]:
        encoding = "int8"
    else:
        encoding = f"int{4 if weights['num_bits'] <= 4 else 8}.g{group or 128}"
    return Writer(config, write, encoding)


def pack(codes: NDArray[np.integer], bits: int) -> Any:
    """[rows, n] -> [rows, n * bits / 32] words, the first code in the lowest bits."""
    if 32 % bits:  # as one long number
        whole = [sum(int(code) << (bits * place) for place, code in enumerate(row)) for row in codes]
        data = b"".join(number.to_bytes(codes.shape[1] * bits // 8, "little") for number in whole)
        return torch.tensor(np.frombuffer(data, "<i4").reshape(len(codes), -1).copy())
    per_word = 32 // bits
    grouped = np.ascontiguousarray(codes, np.uint64).reshape(len(codes), -1, per_word)
    words = (grouped << (np.arange(per_word, dtype=np.uint64) * bits)).sum(axis=2, dtype=np.uint64)
    return torch.tensor(np.ascontiguousarray(words, np.uint32).view(np.int32)).contiguous()


def steps(weight: Array, group: int, bits: int, sym: bool) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Round to nearest: scale (float16) and zero [N, groups], codes [N, K]."""
    n, k = weight.shape
    grouped = weight.reshape(n, k // group, group)
    top = (1 << bits) - 1
    low, high = np.minimum(grouped.min(2), 0), np.maximum(grouped.max(2), 0)
    if sym:
        high = np.maximum(high, -low)
        low = -high
    scale = ((high - low) / top).astype(np.float16).astype(np.float32)
    zero = np.full(scale.shape, (top + 1) // 2) if sym else np.clip(np.rint(-low / scale), 1, top).astype(np.int64)
    codes = np.clip(np.rint(grouped / scale[:, :, None]) + zero[:, :, None], 0, top).astype(np.int64)
    return scale, zero, codes.reshape(n, k)


def numbers_of(codes: NDArray[np.int64], zero: NDArray[np.int64], scale: Array, index: NDArray[np.int64]) -> Array:
    return (codes - zero[:, index]).astype(np.float32) * scale[:, index]


def compressed_in_any_order() -> Writer:
    """actorder "group", which the library wrote once: input i is in group weight_g_idx[i]."""
    plain = compressed("pack-quantized", num_bits=4, strategy="group", group_size=32)

    def write(weight: Array) -> Written:
        scale, zero, codes = steps(weight, 32, 4, True)
        index = np.random.default_rng(3).permutation(np.arange(weight.shape[1]) // 32)
        tensors = {
            "weight_packed": pack(codes, 4),
            "weight_scale": torch.tensor(scale).to(torch.float16),
            "weight_shape": torch.tensor(weight.shape),
            "weight_g_idx": torch.tensor(index, dtype=torch.int32),
        }
        return tensors, numbers_of(codes, zero, scale, index)

    return Writer(plain.config, write, None)


def gptq(
    bits: int = 4, group: int = 32, sym: bool = True, fmt: str | None = None, desc_act: bool = False, **said: Any
) -> Writer:
    """As AutoGPTQ's QuantLinear.pack(): words along the inputs; version 1 stores zero - 1. said: another config."""

    def write(weight: Array) -> Written:
        size = weight.shape[1] if group == -1 else group
        scale, zero, codes = steps(weight, size, bits, sym)
        index = np.arange(weight.shape[1]) // size
        if desc_act:
            index = np.random.default_rng(5).permutation(index)
        tensors = {
            "qweight": pack(codes, bits).t().contiguous(),
            "qzeros": pack((zero - (fmt != "gptq_v2")).T, bits),
            "scales": torch.tensor(scale.T.copy()).to(torch.float16),
            "g_idx": torch.tensor(index, dtype=torch.int32),
        }
        return tensors, numbers_of(codes, zero, scale, index)

    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": desc_act, "sym": sym}
    config |= {"true_sequential": True, "damp_percent": 0.01} | ({"checkpoint_format": fmt} if fmt else {})
    config = {"bits": bits, "group_size": group, "sym": sym, **said} if said else config
    width = 4 if bits <= 4 else 8
    return Writer(config, write, None if desc_act else f"int{width}.g{128 if group == -1 else group}")


def awq(group: int = 64, sym: bool = False, **said: Any) -> Writer:
    """As AutoAWQ's WQLinear_GEMM: words along the outputs; nibble i holds output order[i] of eight."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def swizzled(codes: NDArray[np.int64]) -> Any:
        return pack(codes.reshape(len(codes), -1, 8)[:, :, order].reshape(len(codes), -1), 4)

    def write(weight: Array) -> Written:
        size = weight.shape[1] if group == -1 else group
        scale, zero, codes = steps(weight, size, 4, sym)
        tensors = {"qweight": swizzled(codes.T), "qzeros": swizzled(zero.T)}
        tensors["scales"] = torch.tensor(scale.T.copy()).to(torch.float16)
        return tensors, numbers_of(codes, zero, scale, np.arange(weight.shape[1]) // size)

    config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
    config |= {"modules_to_not_convert": None, **said}
    return Writer(config, write, f"int4.g{128 if group == -1 else group}")


def awq_by_rows(group: int = 64) -> Writer:
    """As AutoAWQ's WQLinear_GEMV: words along the inputs; room for more groups than there are."""

    def write(weight: Array) -> Written:
        size = weight.shape[1] if group == -1 else group
        scale, zero, codes = steps(weight, size, 4, False)
        # as wide as its kernel reads at once
        room = 8 * max(1, 128 // size) * -(-scale.shape[1] // (8 * max(1, 128 // size)))
        padded = np.zeros((2, len(weight), room))
        padded[:, :, : scale.shape[1]] = scale, zero
        tensors = {"qweight": pack(codes, 4), "qzeros": pack(padded[1].astype(np.int64), 4)}
        tensors["scales"] = torch.tensor(padded[0]).to(torch.float16)
        return tensors, numbers_of(codes, zero, scale, np.arange(weight.shape[1]) // size)

    config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemv"}
    return Writer(config, write, f"int4.g{128 if group == -1 else group}")


def fp8(block: int | None, scale_name: str, extra: dict[str, Any], height: int | None = None) -> Writer:
    """Blocks of height x block, else of block x block, or one scale a tensor; rounded by ml_dtypes."""
    import ml_dtypes

    def write(weight: Array) -> Written:
        n, k = weight.shape
        size = block or max(n, k)
        tall = height or size
        rows, columns = -(-n // tall), -(-k // size)
        padded = np.zeros((rows * tall, columns * size), np.float32)
        padded[:n, :k] = weight
        scale = np.abs(padded.reshape(rows, tall, columns, size)).max((1, 3)) / np.float32(448)
        spread = np.repeat(np.repeat(scale, tall, 0), size, 1)[:n, :k]
        codes = (weight / spread).astype(ml_dtypes.float8_e4m3fn)
        stored = torch.tensor(scale) if block else torch.tensor(scale[0, 0])
        tensors = {"weight": torch.tensor(codes.view(np.uint8)).view(torch.float8_e4m3fn), scale_name: stored}
        if extra.get("quant_algo") == "FP8_PB_WO":
            tensors[scale_name] = stored[:, None, :, None]
        if extra.get("activation_scheme") == "static":
            tensors["input_scale" if scale_name == "weight_scale" else "activation_scale"] = torch.tensor(0.5)
        return tensors, codes.astype(np.float32) * spread

    return Writer(extra, write, "fp8.g128" if block else "fp8")


def bitsandbytes_int8() -> Writer:
    """LLM.int8: 127 / the largest of each row."""

    def write(weight: Array) -> Written:
        largest = np.abs(weight).max(1)
        codes = np.rint(weight * (127 / largest)[:, None]).astype(np.int8)
        tensors = {
            "weight": torch.tensor(codes),
            "SCB": torch.tensor(largest),
            "weight_format": torch.tensor(0, dtype=torch.uint8),
        }
        return tensors, codes.astype(np.float32) * (largest[:, None] / np.float32(127))

    return Writer({"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0}, write, "int8")


#: The sixteen numbers of nf4 (QLoRA, appendix E), rounded to three places: the file carries its own table.
NF4 = [-1, -0.696, -0.525, -0.395, -0.284, -0.185, -0.091, 0, 0.080, 0.161, 0.246, 0.338, 0.441, 0.563, 0.723, 1]


def bitsandbytes_nf4(nested: bool) -> Writer:
    """Blocks of 64 of the flattened matrix; with nested, their scales in bytes by a table, blocks of 256."""
    table = np.array(NF4, np.float32)

    def write(weight: Array) -> Written:
        flat = weight.reshape(-1, 64)
        absmax = np.abs(flat).max(1)
        state: dict[str, Any] = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(weight.shape)}
        tensors: dict[str, Any] = {}
        if nested:
            offset = float(absmax.mean())
            steps_of_scale = np.linspace(-1, 1, 256, dtype=np.float32)
            blocks = np.arange(len(absmax)) // 256
            top = np.array([np.abs(absmax - np.float32(offset))[blocks == b].max() for b in range(blocks[-1] + 1)])
            codes = np.abs((absmax - np.float32(offset))[:, None] / top[blocks][:, None] - steps_of_scale).argmin(1)
            absmax = steps_of_scale[codes] * top[blocks] + np.float32(offset)
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
            tensors["weight.absmax"] = torch.tensor(codes.astype(np.uint8))
            tensors["weight.nested_absmax"] = torch.tensor(top)
            tensors["weight.nested_quant_map"] = torch.tensor(steps_of_scale)
        else:
            tensors["weight.absmax"] = torch.tensor(absmax)
        index = np.abs((flat / absmax[:, None])[:, :, None] - table).argmin(2).reshape(-1, 2).astype(np.uint8)
        tensors["weight"] = torch.tensor((index[:, 0] << 4 | index[:, 1])[:, None])
        tensors["weight.quant_map"] = torch.tensor(table)
        tensors["weight.quant_state.bitsandbytes__nf4"] = torch.tensor(
            list(json.dumps(state).encode()), dtype=torch.uint8
        )
        return tensors, (table[index.reshape(-1, 64)] * absmax[:, None]).reshape(weight.shape)

    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    return Writer({**config, "bnb_4bit_use_double_quant": nested}, write, None)


def compressed_nvfp4() -> Writer:
    form = {"type": "float", "strategy": "tensor_group", "group_size": 16}
    return compressed("nvfp4-pack-quantized", "float32", num_bits=4, **form)


def modelopt_nvfp4() -> Writer:
    """As compressed-tensors has it, which reads ModelOpt's with the reciprocal of the tensor's scale."""
    theirs = compressed_nvfp4()

    def write(weight: Array) -> Written:
        state, numbers = theirs.write(weight)
        tensors = {
            "weight": state["weight_packed"],
            "weight_scale": state["weight_scale"],
            "weight_scale_2": 1 / state["weight_global_scale"].reshape(()),
            "input_scale": torch.tensor(0.01),
        }
        return tensors, numbers

    config = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}
    config |= {"producer": {"name": "modelopt"}, "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    return Writer(config, write, "fp4.g16")


def mxfp4() -> Writer:
    """Names and order of OpenAI's gpt-oss: blocks [N, K / 32, 16], scales e8m0."""
    table = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)

    def write(weight: Array) -> Written:
        n, k = weight.shape
        groups = weight.reshape(n, k // 32, 32)
        exponent = np.floor(np.log2(np.abs(groups).max(2))) - 2
        scale = np.exp2(exponent).astype(np.float32)
        codes = np.abs(groups[..., None] / scale[:, :, None, None] - table).argmin(3).astype(np.uint8)
        blocks = codes[:, :, 0::2] | codes[:, :, 1::2] << 4
        tensors = {
            "weight_blocks": torch.tensor(blocks),
            "weight_scales": torch.tensor((exponent + 127).astype(np.uint8)),
        }
        return tensors, (table[codes] * scale[:, :, None]).reshape(n, k)

    return Writer({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, write, "fp4.g32")


_BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]}
_STATIC = {"quant_method": "fp8", "activation_scheme": "static"}
_MODELOPT = {
    "quant_method": "modelopt",
    "quant_algo": "FP8",
    "activation_scheme": "static",
    "kv_cache_quant_algo": "FP8",
}


#: What AutoRound writes beside bits and groups.
_OF_AUTO_ROUND: dict[str, Any] = {
    **{
        "data_type": "int",
        "autoround_version": "0.6.0",
        "iters": 1000,
        "lr": 0.001,
        "minmax_lr": 0.001,
        "nsamples": 512,
    },
    **{"amp": True, "batch_size": 4, "enable_quanted_input": False, "low_gpu_mem_usage": True, "seqlen": 4096},
    **{"gradient_accumulate_steps": 2, "scale_dtype": "torch.float32", "to_quant_block_names": "model.layers"},
    "extra_config": {"lm_head": {"bits": 16, "data_type": "float"}, ".*mlp\\.gate$": {"bits": 16}},
}


def auto_round_nvfp4() -> Writer:
    """As compressed-tensors has it; the config is AutoRound's."""
    config = {"quant_method": "auto-round", "packing_format": "auto_round:llm_compressor", "data_type": "nv_fp"}
    config |= {"bits": 4, "group_size": 16, "sym": True, "act_bits": 4, "act_data_type": "nv_fp4_with_static_gs"}
    return Writer({**config, "act_dynamic": True, "iters": 0}, compressed_nvfp4().write, "fp4.g16")


def modelopt_mxfp8() -> Writer:
    """As compressed-tensors has it."""
    form = {"type": "float", "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}
    theirs = compressed("mxfp8-quantized", "float32", num_bits=8, **form)
    return Writer({"quant_method": "modelopt", "quant_algo": "MXFP8", "ignore": ["lm_head"]}, theirs.write, None)


def bitnet(linear_class: str, mode: str = "offline") -> Writer:
    """By transformers: packed, or rounded from numbers as its layers do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda function: function)  # which would be dearer than what it compiles
        from transformers.integrations.bitnet import WeightQuant, pack_weights, unpack_weights

    def write(weight: Array) -> Written:
        rounded = WeightQuant.forward(None, torch.tensor(weight))
        if mode == "online":
            return {"weight": torch.tensor(weight)}, rounded.numpy()
        scale = rounded.abs().max().reshape(1)
        packed = pack_weights(torch.round(rounded / scale))
        ones = unpack_weights(packed, torch.float32)
        stored = scale if linear_class == "autobitlinear" else 1 / scale
        found = ones * stored if linear_class == "autobitlinear" else ones / stored
        return {"weight": packed, "weight_scale": stored}, found.numpy()

    return Writer({"quant_method": "bitnet", "linear_class": linear_class, "quantization_mode": mode}, write, "int8")


WRITERS: dict[str, Writer] = {
    "compressed-tensors W8A8 channel": compressed("int-quantized", num_bits=8, strategy="channel"),
    "compressed-tensors W8A8 tensor": compressed("int-quantized", num_bits=8, strategy="tensor"),
    "compressed-tensors W8A8 asymmetric": compressed("int-quantized", num_bits=8, strategy="channel", symmetric=False),
    "compressed-tensors W8A16 channel": compressed("pack-quantized", num_bits=8, strategy="channel"),
    "compressed-tensors W8A16 g32": compressed("pack-quantized", num_bits=8, strategy="group", group_size=32),
    "compressed-tensors W4A16 g128": compressed("pack-quantized", num_bits=4, strategy="group", group_size=128),
    "compressed-tensors W4A16 g64 asymmetric": compressed(
        "pack-quantized", num_bits=4, strategy="group", group_size=64, symmetric=False
    ),
    "compressed-tensors W4A16 g32 float16": compressed(
        "pack-quantized", "float16", num_bits=4, strategy="group", group_size=32
    ),
    "compressed-tensors W4A16 channel": compressed("pack-quantized", num_bits=4, strategy="channel"),
    "compressed-tensors W4A16 actorder": compressed_in_any_order(),
    "compressed-tensors fp8 tensor": compressed("float-quantized", num_bits=8, type="float", strategy="tensor"),
    "compressed-tensors fp8 channel": compressed("float-quantized", num_bits=8, type="float", strategy="channel"),
    "compressed-tensors fp8 block": compressed(
        "float-quantized", num_bits=8, type="float", strategy="block", block_structure=[128, 128]
    ),
    "compressed-tensors fp8 g64": compressed(
        "float-quantized", num_bits=8, type="float", strategy="group", group_size=64
    ),
    "compressed-tensors mxfp8": compressed(
        "mxfp8-quantized",
        "float32",
        num_bits=8,
        type="float",
        strategy="group",
        group_size=32,
        scale_dtype="torch.uint8",
    ),
    **{
        f"compressed-tensors W{bits}A16 g64": compressed(
            "pack-quantized", num_bits=bits, strategy="group", group_size=64, symmetric=bits != 3
        )
        for bits in (2, 3, 5, 6, 7)
    },
    "compressed-tensors naive": compressed("naive-quantized", num_bits=8, type="float", strategy="channel"),
    "compressed-tensors mxfp4": compressed(
        "mxfp4-pack-quantized", "float32", num_bits=4, type="float", strategy="group", group_size=32
    ),
    "compressed-tensors nvfp4": compressed_nvfp4(),
    "modelopt nvfp4": modelopt_nvfp4(),
    "gptq": gptq(),
    "gptq g128 asymmetric": gptq(4, 128, sym=False),
    "gptq whole rows": gptq(4, -1),
    "gptq v2 asymmetric": gptq(4, 32, sym=False, fmt="gptq_v2"),
    "gptq 8 bits": gptq(8, 64),
    "gptq 8 bits v2 asymmetric": gptq(8, 32, sym=False, fmt="gptq_v2"),
    "gptq 2 bits": gptq(2, 32),
    "gptq 3 bits": gptq(3, 64, sym=False),
    "gptq 3 bits v2": gptq(3, 64, fmt="gptq_v2"),
    "gptq 5 bits": gptq(5, 32),
    "gptq 6 bits": gptq(6, 32, sym=False),
    "gptq 7 bits": gptq(7, 32),
    "gptq of AutoRound": gptq(**_OF_AUTO_ROUND, quant_method="gptq", desc_act=False, provider="auto-round"),
    "auto-round": gptq(**_OF_AUTO_ROUND, quant_method="auto-round", packing_format="auto_round:auto_gptq"),
    "auto-round 3 bits": gptq(3, **_OF_AUTO_ROUND, quant_method="auto-round", packing_format="auto_round:auto_gptq"),
    "auto-round of old": gptq(quant_method="intel/auto-round", backend="auto_round:gptq:exllamav2", train_bs=8),
    "auto-round asymmetric": gptq(
        4, 64, False, "gptq_v2", quant_method="auto-round", packing_format="auto_round:exllamav2"
    ),
    "auto-round awq": awq(sym=True, quant_method="auto-round", packing_format="auto_round:auto_awq"),
    "auto-round nvfp4": auto_round_nvfp4(),
    "gptq desc_act": gptq(4, 32, desc_act=True),
    "awq": awq(),
    "awq g128": awq(128),
    "awq whole rows": awq(-1),
    "awq symmetric, of AutoRound": awq(sym=True, **_OF_AUTO_ROUND, zero_point=False, provider="auto-round"),
    "awq gemv": awq_by_rows(),
    "awq gemv g32": awq_by_rows(32),
    "awq gemv whole rows": awq_by_rows(-1),
    "awq of GPTQModel": awq(
        **{"format": "gemm", "checkpoint_format": "gemm", "pack_dtype": "int32", "desc_act": False, "lm_head": False},
        meta={"quantizer": ["gptqmodel:5.8.0"], "mse": 0.0},
    ),
    "fp8 blocks": fp8(128, "weight_scale_inv", _BLOCKS),
    "fp8 blocks of few rows": fp8(128, "weight_scale_inv", {**_BLOCKS, "weight_block_size": [32, 128]}, height=32),
    "fp8 static": fp8(None, "weight_scale", _STATIC),
    "fp8 static of transformers": fp8(None, "weight_scale_inv", {**_STATIC, "weight_block_size": None}),
    "modelopt fp8 blocks": fp8(128, "weight_scale", {"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}),
    "modelopt mxfp8": modelopt_mxfp8(),
    "modelopt fp8": fp8(None, "weight_scale", _MODELOPT),
    "bitsandbytes int8": bitsandbytes_int8(),
    "bitsandbytes nf4": bitsandbytes_nf4(False),
    "bitsandbytes nf4 nested": bitsandbytes_nf4(True),
    "mxfp4": mxfp4(),
    "bitnet": bitnet("autobitlinear"),
    "bitnet divided": bitnet("bitlinear"),
    "bitnet online": bitnet("autobitlinear", "online"),
}


def write_model(path: Path, writer: Writer, seed: int = 0, **config: Any) -> dict[str, Array]:
    """A model whose linears, but for the head, are quantized. Returns: every weight as the numbers it stands for."""
    path.mkdir(parents=True, exist_ok=True)
    whole = {**TINY, **config}
    numbers, tensors = random_weights(whole, seed), {}
    if "kv_lora_rank" in whole:
        numbers = with_up_projections_joined(whole, numbers)
    for name, weight in list(numbers.items()):
        if name.endswith("_proj.weight"):
            module = name.removesuffix(".weight")
            parts, numbers[name] = writer.write(weight)
            tensors |= {f"{module}.{part}": tensor for part, tensor in parts.items()}
        else:
            tensors[name] = torch.tensor(weight)
    save_file(tensors, str(path / "model.safetensors"))
    (path / "config.json").write_text(json.dumps({**whole, "quantization_config": writer.config}))
    return numbers
