"""Formats of quantized checkpoints, one file each: what lies in tensors as an Encoded, or as numbers.

read_format() is called by models with the quantization_config of a checkpoint. Adding a format: a file with
parse(fields) -> Format, and its name in _FORMATS.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from albireo.errors import UnsupportedModel, short
from albireo.json_file import Fields
from albireo.quantization.formats.matrix import Format

#: quant_method -> the file that reads it.
_FORMATS = {
    "compressed-tensors": "compressed_tensors",
    "awq": "awq",
    "gptq": "gptq",
    "auto-round": "auto_round",
    "intel/auto-round": "auto_round",
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "modelopt": "modelopt",
    "bitsandbytes": "bitsandbytes",
    "mxfp4": "mxfp4",
    "bitnet": "bitnet",
}


def read_format(config: Mapping[str, Any], where: str) -> Format:
    """The format that a quantization_config names, with its settings.

    Args: where: names the file and key in errors.
    Raises: ModelError for an impossible value; UnsupportedModel naming what is not read.
    """
    fields = Fields(config, where)
    # ModelOpt's older files name the algorithm only
    method = fields.text("quant_method", "modelopt" if "quant_algo" in config else None)
    if method not in _FORMATS:
        raise UnsupportedModel(
            f"{where}: quant_method={short(method)} is not supported; supported: {', '.join(_FORMATS)}. Take the "
            "original checkpoint, which quantization=… rounds as it is loaded, or one in a format of these"
        )
    # as NVIDIA's files of DeepSeek V4 have it, whose experts alone are ModelOpt's
    method = "modelopt" if method == "fp8" and config.get("quant_algo") == "MIXED_PRECISION" else method
    parsed: Format = importlib.import_module(f"{__name__}.{_FORMATS[method]}").parse(fields)
    return parsed
