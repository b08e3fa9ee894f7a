"""ModelOpt (NVIDIA): its FP8, which fp8.py reads, and its NVFP4.

Source: hf_quant_config.json and config.json as ModelOpt 0.2x to 0.4x write them.
"""

from __future__ import annotations

from albireo.json_file import Fields, keys
from albireo.quantization.formats import fp8
from albireo.quantization.formats.left_out import parse_left_out
from albireo.quantization.formats.matrix import Format
from albireo.quantization.formats.nvfp4 import Nvfp4

_NVFP4 = ("NVFP4", "W4A16_NVFP4")
_IGNORABLE = keys(
    "quant_method kv_cache_quant_algo kv_cache_scheme config_groups producer dequantize",
)


def parse(fields: Fields) -> Format:
    """Raises: ModelError, UnsupportedModel."""
    algorithm = fields.text("quant_algo", "FP8").upper()
    if algorithm in fp8.ALGORITHMS:
        return fp8.parse(fields)
    if algorithm not in _NVFP4:
        fields.unsupported("quant_algo", algorithm, f"supported: {', '.join((*fp8.ALGORITHMS, *_NVFP4))}")
    group = fields.integer("group_size", 1, 2**20, default=16)
    if group != 16:
        fields.unsupported("group_size", group, "supported for NVFP4: 16")
    left_out = parse_left_out(fields, "exclude_modules", "ignore")
    fields.refuse_unread(_IGNORABLE, {})
    return Nvfp4(left_out)
