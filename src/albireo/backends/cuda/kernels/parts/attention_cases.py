"""The ways in which attention is compiled ahead of time, as it is launched for the models there are.

Used by kernels/attention.py, whose kernel it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.attention_plan import AttentionShape, launch_of, merged_rows, turned_block
from albireo.backends.cuda.chip import Chip

_ALIGNED = ("items", "q_stride", "out_stride")
#: What may be added to scores by distance.
_ADDED = ("distances", "from_rows", "from_keys", "columns")


def attention_cases(kernel: Any) -> list[AotCase]:
    def case(
        rows: int,
        cache: str,
        head_dim: int,
        words: Mapping[int, tuple[str, ...]],
        out: str = "*bf16",
        *,
        sinks: bool = False,
        slopes: bool = False,
        value_dim: int = 0,
        both_ways: bool = False,
        row_ends: bool = False,
        first_key: int = 0,
        chosen: bool = False,
        in_chunks: bool = False,
        added: tuple[str, ...] = (),
        **options: Any,
    ) -> AotCase:
        """As it is launched on Hopper, or on all of words where these have little shared memory."""
        architectures = tuple(words)
        chip = Chip(132, 89) if 89 in words else Chip(132)
        kind = {"bf16": "bfloat16", "i8": "int8"}.get(cache, "fp8")
        shape = AttentionShape(32, 8, head_dim, 4096, 0, "bfloat16", kind, chip, value_dim=value_dim)
        launch = launch_of(shape, rows)
        has_spills = (rows == 64 and (head_dim > 128 or cache == "i8" or row_ends or "from_rows" in added)) or (
            cache,
            head_dim,
        ) == (
            "fp8e4nv",
            128,
        )
        return AotCase(
            f"attention.{cache}.d{head_dim}.rows{rows}{'.codes' * (out not in ('*bf16', '*fp32'))}{'.sinks' * sinks}"
            f"{'.slopes' * slopes}"
            f"{'.both_ways' * both_ways}{'.row_ends' * row_ends}{'.first_key' * (first_key > 0)}"
            f"{'.chosen' * chosen}"
            f"{'.entries' * (options.get('EVERY', 1) > 1)}{'.sums' * options.get('SUMS', False)}"
            f"{'.in_chunks' * in_chunks}{''.join('.' + role for role in added)}"
            f"{'.window' * ((both_ways or row_ends) and options.get('WINDOW', True))}",
            kernel,
            {"q": "*bf16", "out": out, "rows_out": "*bf16" if "TOKEN_BLOCK" in options else out}
            | dict.fromkeys(("k", "v"), f"*{cache}")
            | dict.fromkeys(("k_scale", "v_scale", "partial", "partial_ml"), "*fp32")
            | dict.fromkeys(("items", "count", "arrived", "finished", "block_table"), "*i32")
            | dict.fromkeys(("scale", "softcap"), "fp32")
            | dict.fromkeys(("window", "q_stride", "out_stride", "chosen_stride"), "i32")
            | ({"sinks": "*fp32"} if sinks else {})
            | ({"slopes": "*fp32"} if slopes else {})
            | ({"row_ends": "*i32"} if row_ends else {})
            | ({"chosen": "*i32"} if chosen else {})
            | dict.fromkeys(("from_rows_stride", "from_keys_stride"), "i32")
            | {role: "*i32" if role == "columns" else "*fp32" for role in added},
            ({} if sinks else {"sinks": None})
            | ({} if slopes else {"slopes": None})
            | ({} if row_ends else {"row_ends": None})
            | ({} if chosen else {"chosen": None})
            | {role: None for role in _ADDED if role not in added}
            | {
                "KV_HEADS": 8,
                "GROUP": 4,
                "HEAD_DIM": head_dim,
                "STORED_DIM": head_dim,
                "VALUE_DIM": value_dim,
                "BLOCK_DIM": triton.next_power_of_2(value_dim or head_dim),
                "TURNED_BLOCK": turned_block(head_dim, value_dim),
                "PAGE": 16,
                "BM": rows,
                "BN": shape.kv_tile,
                "SPLIT": 512,
                "QK_TYPE": tl.bfloat16,
                "PV_TYPE": tl.bfloat16,
                "CODES": cache != "bf16",
                "WINDOW": True,
                "SOFTCAP": True,
                "STAGES": 1 if chosen or added else launch.stages,
                "MERGED": merged_rows(rows, triton.next_power_of_2(value_dim or head_dim), launch.warps),
                "TOKEN_BLOCK": 0,
                "BOTH_WAYS": both_ways,
                "FIRST_KEY": first_key,
                "IN_CHUNKS": in_chunks,
                "RESULT_DIM": value_dim or head_dim,
                "LIST": 0,
                "REACH": 0,
                "COLUMNS": 0,
                "APART": options.get("KV_HEADS", 8) * 16 * head_dim,
                "BLOCKS": 1,
                "EVERY": 1,
                "SUMS": False,
            }
            | options,
            num_warps=launch.warps,
            num_stages=launch.stages,
            asked_registers=launch.registers,
            # of an item, not of a tile
            max_spills=16 if has_spills else 0,
            aligned=("q", "k", "v", "out", "rows_out", "partial", *_ALIGNED),
            max_shared=(99 if chip.has_little_shared_memory else 146 if head_dim == 512 else 132) << 10,
            words=words,
            architectures=architectures,
        )

    loads = "LDGSTS.E.BYPASS.128"
    latent: dict[str, Any] = {"KV_HEADS": 1, "GROUP": 16, "WINDOW": False, "SOFTCAP": False}
    tokens: dict[str, Any] = {"KV_HEADS": 4, "GROUP": 2, "SOFTCAP": False}
    encoder: dict[str, Any] = {"KV_HEADS": 12, "GROUP": 1, "SOFTCAP": False}
    blocks: dict[str, Any] = {"KV_HEADS": 4, "GROUP": 16, "WINDOW": False, "SOFTCAP": False, "LIST": 2048}
    pooled: dict[str, Any] = {"KV_HEADS": 1, "GROUP": 64, "SOFTCAP": False}
    entries: dict[str, Any] = {"WINDOW": False, "EVERY": 4, "PAGE": 4, "APART": 65536, "SUMS": True}
    columns: dict[str, Any] = {"REACH": 512, "COLUMNS": 512, "WINDOW": False}
    frames: dict[str, Any] = {"REACH": 750, "COLUMNS": 1500, "WINDOW": False, "KV_HEADS": 8}
    listening: dict[str, Any] = {"KV_HEADS": 20, "GROUP": 1, "WINDOW": False, "SOFTCAP": False}
    return [
        case(16, "bf16", 128, {arch: ("HMMA", loads) for arch in (80, 90, 100)}, WINDOW=False, SOFTCAP=False),
        case(64, "bf16", 128, {90: ("HGMMA", loads)}),
        case(16, "bf16", 64, {90: ("HMMA", loads)}, sinks=True, GROUP=8, SOFTCAP=False),
        case(128, "bf16", 128, {90: ("HGMMA", loads)}),
        case(16, "bf16", 128, {90: ("HMMA", loads)}, slopes=True, GROUP=1, WINDOW=False, SOFTCAP=False),
        case(64, "bf16", 256, {90: ("HGMMA", loads)}),
        case(32, "i8", 256, {arch: ("HMMA", loads) for arch in (80, 90, 100)}),
        case(16, "i8", 256, {90: ("HMMA", loads)}),
        case(16, "bf16", 128, {90: ("HMMA",)}, "*u8", TOKEN_BLOCK=4096),
        case(64, "i8", 128, {90: ("HGMMA", loads), 100: (loads,)}),
        case(16, "fp8e4nv", 80, {90: ("HMMA", loads)}),
        case(16, "fp8e4nv", 128, {90: ("HMMA", loads)}, "*fp8e4nv", WINDOW=False, SOFTCAP=False),
        case(128, "fp8e4nv", 128, {90: ("HGMMA", loads)}, "*fp8e4nv", WINDOW=False, SOFTCAP=False),
        case(64, "u8", 128, {80: ("HMMA", loads)}),
        case(16, "bf16", 128, {89: ("HMMA", loads), 120: ("HMMA", loads)}, WINDOW=False, SOFTCAP=False),
        case(64, "bf16", 256, {89: ("HMMA", loads)}),
        case(16, "bf16", 576, {arch: ("HMMA", loads) for arch in (80, 90, 100)}, value_dim=512, **latent),
        case(16, "bf16", 576, {89: ("HMMA", loads)}, value_dim=512, **latent),
        case(16, "bf16", 448, {90: ("HMMA", loads)}, value_dim=384, **latent),
        case(16, "bf16", 576, {90: ("HMMA",), 100: ("HMMA",)}, value_dim=512, chosen=True, **latent),
        case(16, "bf16", 128, {90: ("HMMA",), 100: ("HMMA",)}, chosen=True, **blocks),
        case(16, "bf16", 512, {arch: ("HMMA", loads) for arch in (80, 90, 100)}, WINDOW=False, SOFTCAP=False),
        case(16, "bf16", 512, {89: ("HMMA", loads)}, WINDOW=False, SOFTCAP=False),
        case(16, "bf16", 512, {90: ("HMMA", loads)}, "*fp32", value_dim=512, sinks=True, **pooled),
        case(16, "bf16", 512, {90: ("HMMA", loads)}, "*fp32", value_dim=512, SUMS=True, **pooled),
        case(16, "bf16", 512, {90: ("HMMA",)}, "*fp32", value_dim=512, chosen=True, **pooled | entries),
        case(
            16,
            "bf16",
            512,
            {arch: ("HMMA", loads) for arch in (80, 90, 100)},
            "*fp32",
            value_dim=512,
            **pooled | entries | {"EVERY": 128, "PAGE": 1, "BLOCKS": 8},
        ),
        case(16, "i8", 512, {100: ("HMMA", loads)}, WINDOW=False, SOFTCAP=False),
        case(16, "bf16", 192, {90: ("HMMA", loads)}, sinks=True, SOFTCAP=False, RESULT_DIM=128),
        case(16, "bf16", 128, {90: ("HMMA", loads)}, in_chunks=True, SOFTCAP=False),
        case(64, "bf16", 128, {90: ("HGMMA", loads)}, in_chunks=True, SOFTCAP=False),
        case(128, "bf16", 64, {90: ("HGMMA", loads)}, both_ways=True, WINDOW=False, **encoder),
        case(64, "bf16", 64, {80: ("HMMA", loads), 90: ("HGMMA", loads), 100: (loads,)}, both_ways=True, **encoder),
        case(16, "bf16", 64, {90: ("HMMA", loads)}, both_ways=True, WINDOW=False, **encoder),
        case(
            128,
            "bf16",
            64,
            {90: ("HGMMA",)},
            both_ways=True,
            added=("distances",),
            **encoder | {"WINDOW": False, "REACH": 127},
        ),
        case(64, "bf16", 64, {80: ("HMMA",), 100: ()}, both_ways=True, added=_ADDED[1:], **encoder | columns),
        case(64, "bf16", 64, {90: ("HGMMA",)}, both_ways=True, added=_ADDED[1:], **encoder | columns),
        case(
            64,
            "bf16",
            128,
            {80: ("HMMA",), 90: ("HGMMA",), 100: ()},
            both_ways=True,
            added=("from_rows",),
            **encoder | frames,
        ),
        case(16, "bf16", 128, {90: ("HMMA",)}, both_ways=True, added=("from_rows",), **encoder | frames),
        case(16, "bf16", 64, {arch: ("HMMA", loads) for arch in (80, 90, 100)}, first_key=1500, **listening),
        case(64, "bf16", 256, {80: ("HMMA", loads), 90: ("HGMMA", loads)}, row_ends=True, **tokens),
        case(64, "bf16", 128, {90: ("HGMMA", loads), 100: (loads,)}, row_ends=True, **tokens),
        case(16, "bf16", 256, {arch: ("HMMA", loads) for arch in (80, 90, 100)}, row_ends=True, WINDOW=False, **tokens),
    ]
