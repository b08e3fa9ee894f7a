"""Names and sizes of element types, and the shape letters used in every comment.

Leaf module. Does not know numpy: sizes are integers, names are the ones of config.json.

T tokens in a step · B requests in a step · S sequence length · L layers · H query heads · K KV heads ·
D head size · E model width · F FFN width · V vocabulary · N blocks · P positions per block.
A linear is [M, K] x [N, K]^T -> [M, N] with its own local letters.
"""

from __future__ import annotations

from albireo.errors import ConfigError, short

#: Activations as 8-bit codes, a scale for each row: x[t, k] = code[t, k] * scale[t].
TOKEN = "int8.token"
#: The same as e4m3 numbers, which GPUs from Ada on multiply, a scale for each FP8_GROUP of a row.
FP8_TOKEN = "fp8.g128.token"
#: Rows of codes with their scales behind them. Whoever writes one needs as much at once as shares a scale.
ROW_CODES = (TOKEN, FP8_TOKEN)
#: Of a row of TOKEN: codes in whole lines of this many, then the scale and sums of codes, one each so many.
_TOKEN_LINE, _TOKEN_SUMS = 64, 16
#: Of a row of FP8_TOKEN: codes in whole groups of this many, then their scales.
FP8_GROUP = 128

SIZES: dict[str, int] = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    TOKEN: 1,
    FP8_TOKEN: 1,
    "int8": 1,
    "fp8": 1,
}

#: Types a model can be computed in.
COMPUTE_DTYPES = ("float32", "float16", "bfloat16")

#: Types of a KV cache whose elements are codes, and the largest of them: a number is code * scale, with a float32 scale
#: for each position and head. fp8 is e4m3.
KV_CODES = {"int8": 127, "fp8": 448}

_ALIASES = {
    "float": "float32",
    "f32": "float32",
    "fp32": "float32",
    "half": "float16",
    "f16": "float16",
    "fp16": "float16",
    "bf16": "bfloat16",
}


def itemsize(dtype: str) -> int:
    """Bytes of one element."""
    return SIZES[dtype]


def natural_stride(dtype: str, cols: int) -> int:
    """Elements that a row of cols takes; of codes with what stands behind them, see csrc's tokens.h."""
    if dtype not in ROW_CODES:
        return cols
    line, each = (_TOKEN_LINE, _TOKEN_SUMS) if dtype == TOKEN else (FP8_GROUP, FP8_GROUP)
    codes, tail = -(-cols // line) * line, 4 * -(-cols // each) + (8 if dtype == TOKEN else 0)
    return -(-(codes + tail) // _TOKEN_LINE) * _TOKEN_LINE


def compute_dtype(name: str) -> str:
    """Canonical name of a compute dtype given by a user or a config.json ("torch.bfloat16", "bf16", …).

    Raises: ConfigError for anything else.
    """
    plain = name.removeprefix("torch.")
    dtype = _ALIASES.get(plain, plain)
    if dtype not in COMPUTE_DTYPES:
        raise ConfigError(f"dtype {name!r} is not supported; choose auto, {', '.join(COMPUTE_DTYPES)}")
    return dtype


def kv_cache_dtype(name: str) -> str | None:
    """Canonical name of the type of a KV cache given by a user; None for auto: the compute type.

    Raises: ConfigError for anything else.
    """
    if name == "auto":
        return None
    plain = (name if isinstance(name, str) else short(name)).removeprefix("torch.")
    dtype = {"fp8_e4m3": "fp8", "float8_e4m3fn": "fp8"}.get(plain, _ALIASES.get(plain, plain))
    if dtype not in COMPUTE_DTYPES and dtype not in KV_CODES:
        raise ConfigError(f"kv_cache_dtype={short(name)} is not supported; choose auto, bf16, f16, f32, int8 or fp8")
    return dtype
