"""What a caller says of quantization -> a scheme to round to, or none where it names how the files are quantized.

Called by source.py, config_only.py and build.py. Does not know the formats.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from albireo.errors import ConfigError
from albireo.models.gguf.files import is_gguf
from albireo.models.settings.quantized import quantization_method
from albireo.quantization.schemes import SCHEMES, Precision

#: What vLLM's --quantization may say of files, by what the files say themselves (quant_method), or gguf.
_SAID_OF = {
    "awq": ("awq", "awq_marlin"),
    "gptq": ("gptq", "gptq_marlin", "gptq_bitblas"),
    "auto-round": ("auto-round", "auto_round", "inc"),
    "intel/auto-round": ("auto-round", "auto_round", "inc"),
    "compressed-tensors": ("compressed-tensors",),
    "fp8": ("fp8",),
    "fbgemm_fp8": ("fbgemm_fp8", "fp8"),
    "modelopt": ("modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed"),
    "bitsandbytes": ("bitsandbytes",),
    "mxfp4": ("mxfp4", "gpt_oss_mxfp4"),
    "bitnet": ("bitnet",),
    "gguf": ("gguf",),
}


class Asked(Protocol):
    """EngineConfig, or BuildConfig."""

    @property
    def quantization(self) -> str | None: ...

    @property
    def quantization_head(self) -> str | None: ...


def asked_precision(directory: Path, asked: Asked) -> Precision:
    """How a model is to be held, but for what its files say. Raises: ConfigError for another format than the files';
    ModelError for files that cannot be read."""
    return Precision(_scheme(directory, asked.quantization), asked.quantization_head)


def _scheme(directory: Path, name: str | None) -> str | None:
    if name is None or not any(name in said for said in _SAID_OF.values()):
        return name
    method = "gguf" if is_gguf(directory) else quantization_method(directory)
    if name in _SAID_OF.get(method or "", ()):
        return None
    if name in SCHEMES:
        return name
    raise ConfigError(
        f"quantization={name} says how files are quantized, and {directory} "
        + (f"says {method}; leave it out" if method else f"is not; leave it out, or choose {', '.join(SCHEMES)}")
    )
