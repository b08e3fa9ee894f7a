"""ModelOpt (NVIDIA): its FP8, which fp8.py reads, its NVFP4, and checkpoints that have some matrices in each.

Source: hf_quant_config.json and config.json as ModelOpt 0.2x to 0.4x write them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from albireo.json_file import Fields, keys
from albireo.quantization.formats import fp8
from albireo.quantization.formats.left_out import LeftOut, parse_left_out
from albireo.quantization.formats.matrix import Format, Plan, StoredTensors
from albireo.quantization.formats.nvfp4 import Nvfp4

_NVFP4 = ("NVFP4", "W4A16_NVFP4")
_MIXED, _NUMBERS = "MIXED_PRECISION", "UNQUANTIZED"
_IGNORABLE = keys(
    "quant_method kv_cache_quant_algo kv_cache_scheme config_groups producer dequantize",
)
#: Of files whose other matrices are fp8 as they were; experts are what quantized_layers says.
_OF_OTHERS = keys("moe_quant_algo expert_dtype activation_scheme scale_fmt fmt")
_HELD = {
    **dict.fromkeys(_NVFP4, "fp4.g16"),
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    fp8.WEIGHT_ONLY: "fp8.g128",
}


@dataclass(frozen=True, slots=True)
class Mixed:
    """What a matrix is, its tensors say. Fields: algorithms: module, or what modules are in -> its algorithm; others
    are fp8 in blocks where there are any."""

    fp8: fp8.Fp8
    nvfp4: Nvfp4
    algorithms: dict[str, str]

    def foreseen(self, module: str) -> str | None:
        """See Format."""
        parts = module.split(".")
        names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
        found = next((self.algorithms[name] for name in names if name in self.algorithms), None)
        if found is None:
            return None if self.fp8.block is None else self.fp8.foreseen(module)
        return None if module in self.nvfp4.left_out else _HELD.get(found)

    def plan(self, stored: StoredTensors) -> Plan:
        floats, both = self.fp8.plan(stored), self.nvfp4.plan(stored)
        return Plan({**floats.matrices, **both.matrices}, both.unread, floats.is_weight_only)


def parse(fields: Fields) -> Format:
    """Raises: ModelError, UnsupportedModel."""
    algorithm = fields.text("quant_algo", "FP8").upper()
    if algorithm in fp8.ALGORITHMS:
        return fp8.parse(fields)
    if algorithm not in (*_NVFP4, _MIXED):
        supported = ", ".join((*fp8.ALGORITHMS, *_NVFP4, _MIXED))
        fields.unsupported("quant_algo", algorithm, f"supported: {supported}")
    group = fields.integer("group_size", 1, 2**20, default=16)
    if group != 16:
        fields.unsupported("group_size", group, "supported for NVFP4: 16")
    algorithms = _algorithms(fields) if algorithm == _MIXED else {}
    left_out = parse_left_out(fields, "exclude_modules", "ignore")
    block = fp8.parse_block(fields, "weight_block_size") if algorithm == _MIXED else None
    fields.refuse_unread(_IGNORABLE if block is None else _IGNORABLE | _OF_OTHERS, {})
    if algorithm == _MIXED:
        # what is left out beside blocks stays what it was: fp8
        of_fp8 = _fp8(algorithms, LeftOut() if block else left_out, block)
        return Mixed(of_fp8, Nvfp4(left_out), algorithms)
    return Nvfp4(left_out)


def _algorithms(fields: Fields) -> dict[str, str]:
    """Of quantized_layers. Raises: ModelError; UnsupportedModel for one that is not read."""
    found: dict[str, str] = {}
    for module, layer in (fields.table("quantized_layers") or {}).items():
        key = f"quantized_layers.{module}"
        name: Any = layer.get("quant_algo") if isinstance(layer, dict) else None
        if not isinstance(name, str):
            fields.fail(key, layer, "must be an object with a quant_algo")
        found[_here(module)] = name.upper()
        if name.upper() not in (*fp8.ALGORITHMS, *_NVFP4, _NUMBERS):
            fields.unsupported(key, name, f"supported: {', '.join((*fp8.ALGORITHMS, *_NVFP4))}")
    return found


def _here(module: str) -> str:
    """What a module is called in a model of text alone; those of DeepSeek V4's authors have names of their own."""
    if module.startswith("layers.") and ".ffn." in module:
        return f"model.{module}".replace(".ffn.", ".mlp.")
    return module.replace("language_model.", "")


def _fp8(algorithms: dict[str, str], left_out: LeftOut, block: tuple[int, int] | None = None) -> fp8.Fp8:
    """How its matrices in e4m3 are read. Activations keep 16 bits beside all of them where they do beside any."""
    return fp8.Fp8(block, fp8.WEIGHT_ONLY in algorithms.values(), left_out)
