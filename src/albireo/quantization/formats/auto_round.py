"""AutoRound (Intel): codes that lie as GPTQ, AWQ or compressed-tensors have them, by its packing_format.

    auto_round:auto_gptq, auto_round:gptq    as AutoGPTQ: a stored zero is one less
    auto_round:gptqmodel, auto_round[:…]     the same with the zero itself; the second of zeros that differ alone
    auto_round:auto_awq                      as AutoAWQ, version gemm
    auto_round:llm_compressor                as compressed-tensors: NVFP4, MXFP4, MXFP8, int8

Older files say the same under backend, and their quant_method is intel/auto-round. Files in the formats themselves
("quant_method": "gptq" and so on) do not come here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from albireo.json_file import Fields, keys
from albireo.quantization.formats.awq import Awq
from albireo.quantization.formats.compressed_tensors import CompressedTensors
from albireo.quantization.formats.gptq import Gptq
from albireo.quantization.formats.grouping import integer_encoding, whole_or
from albireo.quantization.formats.left_out import LeftOut, parse_left_out
from albireo.quantization.formats.matrix import Format
from albireo.quantization.formats.rounding_keys import ROUNDING_KEYS

_DEFAULT = "auto_round:gptq"
_IGNORABLE = ROUNDING_KEYS | keys("quant_method")
#: Of activations, which are quantized token by token here.
_OF_ACTIVATIONS = keys(
    "act_bits act_data_type act_dynamic act_group_size act_sym static_kv_dtype static_kv_granularity"
)
#: What runs words of AutoRound's own, of which only matrices with zeros that differ were written.
_OWN = {"exllamav2", "triton", "tritonv2", "torch", "cuda"}
_PLAIN_NAME = re.compile(r"[\w.\-]+")
_OF_AWQ = {"zero_point": (True, False), "version": ("gemm",)}
#: data_type and bits of compressed-tensors' floats -> what holds them; None: numbers.
_FLOATS = {("mx_fp", 4): "fp4.g32", ("nv_fp", 4): "fp4.g16", ("mx_fp", 8): None}


def parse(fields: Fields) -> Format:
    """Raises: ModelError, UnsupportedModel."""
    backend = fields.text("backend", "auto")
    packing = fields.text("packing_format", _DEFAULT if backend == "auto" else backend)
    words = packing.lower().replace("-", "_").replace("autoround", "auto_round").split(":")
    if words[0] != "auto_round":
        fields.unsupported("packing_format", packing, "supported: auto_round:auto_gptq and others of auto_round")
    bits, group = fields.integer("bits", 1, 32, default=4), fields.integer("group_size", -1, 2**20, default=128)
    left_out = parse_left_out(fields, "modules_to_not_convert", more=_numbers(fields))
    kind = fields.text("data_type", "int")
    if "llm_compressor" in words:
        fields.refuse_unread(_IGNORABLE | _OF_ACTIVATIONS, _OF_AWQ)
        return _compressed(fields, kind, bits, group, left_out)
    if kind != "int":
        fields.unsupported("data_type", kind, f"supported of packing_format {packing}: int")
    act_bits = fields.integer("act_bits", 1, 32, default=16)
    if act_bits < 16:
        fields.unsupported("act_bits", act_bits, f"supported of packing_format {packing}: 16")
    fields.refuse_unread(_IGNORABLE | _OF_ACTIVATIONS, _OF_AWQ)
    if words[-1] in ("auto_awq", "awq"):
        if bits != 4:
            fields.unsupported("bits", bits, f"supported of packing_format {packing}: 4")
        return Awq(group, left_out)
    if not 2 <= bits <= 8:
        fields.unsupported("bits", bits, "supported: 2 to 8")
    if "gptq" in words or "auto_gptq" in words:
        return Gptq(group, 1, bits, False, left_out)
    if "gptqmodel" not in words and (not {*words[1:]} <= _OWN or fields.flag("sym", True)):
        fields.unsupported(
            "packing_format", packing, "its zeros may be stored in two ways; supported: auto_round:auto_gptq"
        )
    return Gptq(group, 0, bits, False, left_out)


def _compressed(fields: Fields, kind: str, bits: int, group: int, left_out: LeftOut) -> CompressedTensors:
    held = _FLOATS.get((kind[:5], bits)) if kind != "int" else integer_encoding(bits, *whole_or(group))
    if kind != "int" and (kind[:5], bits) not in _FLOATS:
        fields.unsupported("data_type", kind, f"of {bits} bits; supported: int, mx_fp of 4 and 8, nv_fp of 4")
    if kind == "int" and bits == 8 and group == -1:
        held = "int8"
    return CompressedTensors((group,) if group > 0 else (), None, False, held, left_out)


def _numbers(fields: Fields) -> Iterator[str]:
    """Patterns of modules that extra_config keeps as numbers: names, or expressions."""
    for name, settings in (fields.table("extra_config") or {}).items():
        bits = settings.get("bits") if isinstance(settings, dict) else None
        if isinstance(bits, int) and bits > 8:
            yield name if _PLAIN_NAME.fullmatch(name) else f"re:{name}"
