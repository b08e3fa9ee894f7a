"""How much worse than float32 a compute type or a KV cache may make a model; the verdict on what quality.py measured.

Called by run.py. Limits by compute type; a coarser type of weights brings limits of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from albireo.dtypes import KV_CODES
from albireo.encodings import ENCODINGS, plain_encoding
from albireo.graph.node import Graph
from albireo.verify.quality import CLEAR, Quality
from albireo.verify.result import Stage
from albireo.verify.text import TokenText

PROVES = (
    "The model predicts text as well as it should: its distribution at every place of a text against the same "
    "checkpoint computed in float32 by the same engine. Limits are those of the compute type."
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that is allowed.

    Fields:
        mean_kl: nats a token. perplexity_change: fraction, up or down.
        clear_top1_disagreement: fraction of the places where the oracle has a clear first choice.
    """

    mean_kl: float
    perplexity_change: float
    clear_top1_disagreement: float


#: float32 against itself differs in last bits, where kernels do. The others are far above what models that are right
#: show (the bundled one and random ones of 0.5 B and 1.2 B: bfloat16 1e-5 to 1e-4 nats, float16 2e-7), because trained
#: ones with a few large channels lose more. They are for losses that no single call shows, and are not sharp.
LIMITS = {
    "float32": Limits(1e-6, 1e-4, 0.0),
    "float16": Limits(1e-4, 1e-3, 0.002),
    "bfloat16": Limits(2e-3, 1e-2, 0.01),
    "fp8": Limits(2e-2, 2e-2, 0.03),
    "int8": Limits(2e-2, 2e-2, 0.03),
    "int4": Limits(0.3, 0.25, 0.2),
    # rounding turns a choice between experts that are nearly equal: a random mixture of 24, four a token, 2e-3 nats
    "experts in 16 bits": Limits(1e-2, 2e-2, 0.03),
    # the bundled model: int8 6e-5 nats, fp8 8e-4
    "int8 KV cache": Limits(2e-3, 1e-2, 0.01),
    "fp8 KV cache": Limits(1e-2, 2e-2, 0.02),
}


def coarsest(graph: Graph, dtype: str) -> str:
    """The key of LIMITS for a graph that computes in dtype: its matrices of fewest bits decide. K types of GGUF, which
    nothing rounds, count as what they become without nests."""
    if graph.top_k and dtype != "float32":
        dtype = "experts in 16 bits"
    types = (value.type.dtype for value in graph.constants.values())
    found = [plain_encoding(ENCODINGS[dtype]) for dtype in types if dtype in ENCODINGS]
    if not found:
        return dtype
    worst = min(found, key=lambda item: item.bits)
    return f"int{worst.bits}" if worst.kind != "float" else "fp8"


def of_cache(kv_dtype: str) -> str:
    """The key of LIMITS for a type of KV cache."""
    return f"{kv_dtype} KV cache" if kv_dtype in KV_CODES else kv_dtype


def quality_stage(found: Quality, text: TokenText, window: int, kinds: Sequence[str]) -> Stage:
    """The verdict by the widest of the limits that hold: of a compute type, weights in few bits, a KV cache.

    Args: kinds: keys of LIMITS.
    """
    name = max(kinds, key=lambda kind: LIMITS[kind].mean_kl)
    limits = LIMITS[name]
    change = found.perplexity / found.oracle_perplexity - 1
    rows = [
        ("mean KL divergence", found.mean_kl, limits.mean_kl),
        ("change of perplexity", abs(change), limits.perplexity_change),
        (
            f"disagreement where float32 is clear (first choice {CLEAR:g} times the next)",
            1 - found.clear_top1_agreement,
            limits.clear_top1_disagreement,
        ),
    ]
    finding = next(
        (f"{what} is {value:.3g}, {name} allows {limit:.3g}" for what, value, limit in rows if not value <= limit), ""
    )
    summary = (
        f"perplexity {found.perplexity:.6g}, float32 {found.oracle_perplexity:.6g} ({change:+.3%}); "
        f"KL {found.mean_kl:.2e} mean, {found.max_kl:.2e} max; "
        f"top-1 agrees at {found.top1_agreement:.2%} of {found.num_predictions:,} places"
    )
    figures = {
        **asdict(found),
        "perplexity_change": change,
        "limits": asdict(limits),
        "text": text.name,
        "is_text": text.is_text,
        "num_tokens": len(text.token_ids),
        "num_tokens_left_out": text.num_left_out,
        "window": window,
    }
    return Stage("quality", PROVES, "failed" if finding else "passed", summary, finding, figures)
