"""CudaCatalog: the kernels of this backend, as the compiler asks for them.

Implements backends.backend.KernelCatalog. Needs neither torch nor a GPU, so that a program for one can be compiled, and
looked at, anywhere. A kernel here is a launcher of kernels/: it picks tiles by shape where it is launched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from albireo.backends.backend import BLOCK_GROUPS, EIGHT_BY_EIGHT_FLOATS, FOUR_BY_SIXTEEN, SHARED_EXPERTS, Variant
from albireo.dtypes import COMPUTE_DTYPES, FP8_TOKEN, ROW_CODES
from albireo.encodings import is_encoding
from albireo.errors import ConfigError, UnsupportedModel
from albireo.graph.op_numbers import RECURRENT
from albireo.graph.program import Program
from albireo.graph.program_spec import ACTS, GATED_ACTS
from albireo.graph.tuning import Tuning

#: The level in kernels' identities: linear.bfloat16.triton.
LEVEL = "triton"
#: Abilities by which several small calls are one; benchmarks/gpu/launches.py counts what each is worth.
SMALL_CALLS = frozenset(
    {"turned rows", "streams at once", "columns in place", "clipped gates", "rounded rows", "two norms", SHARED_EXPERTS}
)
#: Of the least compute capability, 8.0, as targets write it.
MIN_CAPABILITY = 80
#: Ada: the first whose matrix units multiply e4m3, and that write it.
FP8_CAPABILITY = 89
#: Numbers of a head of attention, of which keys and values are stored; kernels/attention.py.
MAX_HEAD_DIM = 512
#: Channels of a latent, at least: what a matrix unit takes at once.
LEAST_LATENT = 16
#: Families that read a matrix, and may read one in few bits.
_MATRICES = ("embed", "linear", "linear_norm", "linear_parts", "qkv_rope_kv", "head_top", "expert_linear")
#: Families that read a matrix of numbers.
_ROWS_OF_NUMBERS = ("head_linear", "head_rows", "causal_conv", "depthwise_conv")
#: Families that can write, copy, or read rows of 8-bit codes.
_OF_TOKENS = ("norm", "elementwise", "gather", "adapter")
_ROUTED = ("route", "combine", "combine_norm", "gate_rows")
_OTHERS = (
    *_ROUTED,
    "add_parts",
    "row_map",
    "balance",
    "read_streams",
    "mix_streams",
    "join_sums",
    "pool_rows",
    "norm",
    "two_norms",
    "gather",
    "all_reduce",
    "all_reduce_norm",
    "given",
    "add_given",
    "add_given_norm",
    "choose_keys",
    "attention",
    "head_norm",
    "rope",
    "kv_write",
    "elementwise",
    "slice",
    "top",
    "join_heads",
    "gated_delta_rule",
    "selective_state",
    "selective_scan",
    "output_gate",
    "adapter",
)
#: Rows up to which a linear streams its weight through tiles that are as wide as its tokens; kernels/matmul_smallm.py.
FEW_TOKENS = 64
_REGIMES = {
    "items": "a work list made on the device: tiles of 16, 64 or 128 query rows, splits of 512 positions",
    "rows": "a program a row, or a part of one",
    "sequences": "a program a sequence, and some channels or columns of a head: all its rows, one after another",
    "pairs": "tiles of an expert's pairs, listed on the device: 64 weight rows by 8 to 64 pairs, or 128 by 128",
    "few": f"up to {FEW_TOKENS} rows: 64 weight rows by 8 to 64 tokens a tile, K cut by a constant of the shape",
    "many": "tiles of tokens and outputs, K in the same parts",
}
_GPU_TARGET = re.compile(r"cuda(?::(\d+))?")


class CudaCatalog:
    """What can be launched; the same on every GPU, but for products of e4m3.

    Args: capability: 90 is 9.0; None: of any GPU.
    """

    def __init__(self, capability: int | None = None) -> None:
        able = {BLOCK_GROUPS, FOUR_BY_SIXTEEN, "attention to codes", "norms in linears", "gated outputs"}
        able |= SMALL_CALLS
        if capability is not None and capability >= FP8_CAPABILITY:
            able.add(EIGHT_BY_EIGHT_FLOATS)
        #: See KernelCatalog.
        self.abilities: frozenset[str] = frozenset(able)

    def variants(self, family: str, dtype: str, attrs: Mapping[str, Any]) -> tuple[Variant, ...]:
        """See KernelCatalog.

        Raises: UnsupportedModel for latents that are too small, and for heads that are too large.
        """
        if family == "attention" and "value_dim" not in attrs and attrs["head_dim"] > MAX_HEAD_DIM:
            raise UnsupportedModel(
                f"head_dim={attrs['head_dim']}: on a GPU {MAX_HEAD_DIM} is the most; choose --device cpu"
            )
        if attrs.get("value_dim", LEAST_LATENT) < LEAST_LATENT:
            key = "head_dim" if attrs["value_dim"] == attrs["head_dim"] else "kv_lora_rank"
            raise UnsupportedModel(
                f"{key}={attrs['value_dim']}: on a GPU {LEAST_LATENT} is the least; choose --device cpu"
            )
        if attrs.get("act", "none") not in (ACTS if family == "linear" else GATED_ACTS):
            return ()
        if attrs.get("chunks", 1) != 1 and (dtype not in COMPUTE_DTYPES or attrs.get("act", "none") != "none"):
            return ()  # leaves of weights in few bits are linears of their own
        identity = f"{family}.{dtype}.{LEVEL}"
        if family in _ROWS_OF_NUMBERS:
            return (Variant(identity, "one", f"row.{dtype}"),) if dtype in COMPUTE_DTYPES else ()
        if family in _MATRICES and (dtype in COMPUTE_DTYPES or is_encoding(dtype)):
            return (Variant(identity, "one", f"row.{dtype}"),)
        if family in _OTHERS and (dtype in COMPUTE_DTYPES or (dtype in ROW_CODES and family in _OF_TOKENS)):
            return (Variant(identity, "one"),)
        return ()

    def regimes(self, identity: str, rows: Iterable[int], tuning: tuple[Tuning, ...] = ()) -> tuple[str, ...]:
        """See ExplainedCatalog."""
        family = identity.partition(".")[0]
        if family == "attention":
            return ("items",)
        if family == "expert_linear":
            return ("pairs",)
        if family in RECURRENT:
            return ("sequences",)
        if family == "embed" or family not in _MATRICES:
            return ("rows",)
        return tuple(dict.fromkeys("few" if count <= FEW_TOKENS else "many" for count in rows))

    def regime_text(self, identity: str, regime: str) -> str:
        """See ExplainedCatalog."""
        return _REGIMES[regime]


def catalog_of(program: Program) -> CudaCatalog:
    """The catalog that a program for a GPU was compiled with."""
    has_rows = any(buffer.dtype == FP8_TOKEN for buffer in program.buffers.values())
    return CudaCatalog(FP8_CAPABILITY if has_rows else None)


def is_gpu_target(target: str) -> bool:
    """Whether a build's target is a GPU: cuda, or cuda:90 for compute capability 9.0."""
    return _GPU_TARGET.fullmatch(target) is not None


def capability_of(target: str) -> int | None:
    """Of a target that is a GPU; None: any. Raises: ConfigError for one that kernels do not compile for."""
    found = _GPU_TARGET.fullmatch(target)
    if found is None or found[1] is None:
        return None
    if int(found[1]) < MIN_CAPABILITY:
        raise ConfigError(
            f"target={target!r}: compute capability {MIN_CAPABILITY / 10:.1f} is the least; choose "
            f"cuda:{MIN_CAPABILITY} (A100), cuda:90 (H100, H200), cuda:100 (B200), or cuda"
        )
    return int(found[1])
