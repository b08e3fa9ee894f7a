"""The table of kernels: every call once, and for few and many rows what the kernels really do."""

from __future__ import annotations

import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.compiler.pipeline import compile_graph
from albireo.graph.program import Program
from albireo.inspect.kernels import BUCKETS, bucket_names, kernel_kinds, kernel_lines, legend
from compiler.examples import Decoder, model_graph
from inspect_programs import LEVELS, compiled
from representatives import ALL_REPRESENTATIVES

CATALOG = CpuCatalog(LEVELS)
#: Families with calls that none of the representatives has: keys chosen by an indexer, and by blocks.
WITH_CALLS_OF_THEIR_OWN = ("deepseek_v32", "minimax_m3_vl_text")


@pytest.mark.parametrize("model_type", [*ALL_REPRESENTATIVES, *WITH_CALLS_OF_THEIR_OWN])
def test_every_call_is_counted_once(model_type: str) -> None:
    program = compiled(model_graph(model_type, "bfloat16")).program
    kinds = kernel_kinds(program, CATALOG)
    assert sum(kind.count for kind in kinds) == len(program.calls)
    assert {kind.kernel for kind in kinds} == {call.kernel for call in program.calls}
    assert all(len(kind.cells) == len(BUCKETS) == len(bucket_names()) for kind in kinds)


def test_rows_that_a_step_never_has_are_left_empty() -> None:
    kinds = kernel_kinds(compiled(Decoder(layers=2).graph()).program, CATALOG)
    cells = {(kind.what, kind.rows): kind.cells for kind in kinds}
    linear = next(cells[key] for key in cells if key[0].startswith("linear 24 x 32") and key[1] == "T")
    # at most 32 tokens, 3 rows for their arg max
    assert linear == (("tall",), ("tall",), ("tall", "blocks"), (), (), ())
    assert next(cells[key] for key in cells if key[0].startswith("head_top")) == (("tall",), ("tall",), (), (), (), ())


def test_text() -> None:
    lines = kernel_lines(compiled(Decoder(layers=3, bias="qkv").graph()).program, CATALOG)
    assert lines[0].split() == ["rows", "of", "the", "call", "1", "2-8", "16-64", "128", "512", "2,048"]
    assert "qkv_rope_kv 64 x 24 + bias" in lines[3] and "3x T" in lines[3]
    assert any(line.startswith("linear 128 x 24 silu_mul") for line in lines)
    assert any(line.startswith("tall    up to 28 rows x 16 columns in registers") for line in lines)
    assert lines[-1] == "-       a step never has so many of these rows: T up to 32, R up to 5, G up to 3, S up to 8"


def test_levels_that_do_not_agree_are_told_apart() -> None:
    program = compiled(Decoder().graph()).program
    kinds = kernel_kinds(program, CATALOG)
    mixed = [*kinds, *kernel_kinds(compiled_for("avx2"), CpuCatalog(("avx2",)))]
    texts = [text for regime, text in legend(mixed, CATALOG) if regime == "blocks"]
    assert len(texts) == 2 and texts[0].endswith("(avx512bf16)") and texts[1].endswith("(avx2)")


def compiled_for(level: str) -> Program:
    maxima = {"T": 99, "R": 5, "G": 3}
    return compile_graph(Decoder().graph(), CpuCatalog((level,)), maxima=maxima, block_size=4, max_positions=64)
