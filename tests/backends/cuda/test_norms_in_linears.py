"""Norms inside linears: what the linear before leaves, what the one behind makes of it, and the pass that says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.backend import EIGHT_BY_EIGHT_FLOATS
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.kernels.matmul import matmul
from albireo.backends.cuda.kernels.matmul_smallm import matmul_smallm
from albireo.backends.cuda.kernels.parts.epilogue import Finish, act_code
from albireo.backends.cuda.kernels.parts.row_squares import RowSquares
from albireo.backends.cuda.kernels.parts.tiles import Tile
from albireo.backends.cuda.kernels.row_factors import row_factors
from albireo.backends.cuda.linear import linear, workspace_size
from albireo.backends.cuda.matmul_plan import Plan
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.compiler.pipeline import PASSES, passes_for, run_passes
from albireo.graph.spec import check_graph
from backends.cuda.linears import EPS, parts_of, random
from backends.cuda.test_model import NUM_BLOCKS, graph_of, steps, weights_of

K = 1152


def matrix_of(n: int, seed: int) -> DeviceMatrix:
    return DeviceMatrix("bfloat16", n, K, random(n, K, seed=seed, dtype=torch.bfloat16))


@pytest.mark.parametrize("n", [64, 200])
def test_what_a_linear_leaves_of_its_rows(n: int) -> None:
    """Few tokens in any company, and many: the same bits; and they are what they say."""
    x, residual, gain = random(70, K, seed=1, dtype=torch.bfloat16), random(70, n, seed=2), random(n, seed=3)
    matrix, space = matrix_of(n, 4), torch.zeros(workspace_size("bfloat16", n, K), dtype=torch.uint8)
    out, parts = torch.empty(70, n), parts_of(gain, 70)
    matmul(x, matrix, Finish(out, n, residual=residual, parts_out=parts), plan=Plan(Tile(128, 128, 128, 1, 8)))
    assert torch.equal(parts.scaled, (out * gain).bfloat16())
    padded = torch.nn.functional.pad(out.double().square(), (0, -n % 64)).view(70, -1, 64)
    assert (parts.squares - padded.sum(2)).abs().max() <= 8 * EPS * padded.sum(2).max()
    for tokens in (1, 20):
        few_out, few = torch.empty(tokens, n), parts_of(gain, tokens)
        order = torch.arange(70).flip(0)[:tokens]
        matmul_smallm(x[order], matrix, Finish(few_out, n, residual=residual[order], parts_out=few), workspace=space)
        for ours, theirs in ((few_out, out), (few.scaled, parts.scaled), (few.squares, parts.squares)):
            assert torch.equal(ours, theirs[order])


@pytest.mark.parametrize("act", ["none", "silu_mul"])
def test_rows_are_divided_behind_the_product(act: str) -> None:
    n = 64
    x, matrix = random(70, K, seed=1, dtype=torch.bfloat16) / 256, matrix_of(n, 4)
    space = torch.zeros(workspace_size("bfloat16", n, K), dtype=torch.uint8)
    squares = random(70, K // 64, seed=5).square()
    rows = RowSquares(squares, torch.full((70,), torch.nan), 1e-3, K)
    n_out = n if act == "none" else n // 2
    out = torch.full((70, n_out), torch.nan)
    row_factors(rows, rows.factors)
    matmul(x, matrix, Finish(out, n_out, act=act_code(act)), factors=rows.factors, plan=Plan(Tile(64, 128, 128, 1)))
    if act == "none":
        wanted = x.double() @ matrix.codes.double().T / (squares.double().sum(1, keepdim=True) / K + 1e-3).sqrt()
        size = x.double().abs() @ matrix.codes.double().abs().T / (squares.double().sum(1, keepdim=True) / K).sqrt()
        assert ((out - wanted).abs() <= (K + 32) * EPS * size).all()
    for tokens in (1, 20):
        few = torch.full((tokens, n_out), torch.nan)
        of_few = RowSquares(squares[:tokens], rows.factors, 1e-3, K)
        linear(x[:tokens], matrix, few, act=act, workspace=space, squares=of_few)
        assert torch.equal(few, out[:tokens])


@pytest.mark.parametrize(("name", "encoding"), [("llama", None), ("qwen3", None), ("qwen3", "fp8")])
def test_the_pass_computes_the_same_function(name: str, encoding: str | None) -> None:
    """In float64 sums: as near as a rounding that comes before the division leaves it. Of rows of e4m3, whose scales
    take up the division, the same codes but at ties."""
    graph, weights = graph_of(name, "bfloat16", encoding), weights_of(name, "bfloat16")
    plain, _ = run_passes(graph, passes_for([EIGHT_BY_EIGHT_FLOATS] if encoding else [], PASSES))
    folded, records = run_passes(graph, passes_for(CudaCatalog(90).abilities, PASSES))
    check_graph(folded)
    (record,) = [each for each in records if each.name == "fold_norm"]
    layers = sum(node.family == "attention" for node in folded.nodes)
    assert sum(node.family == "norm" for node in folded.nodes) == 3, "the first of all, and the head's two"
    assert sum(node.family == "linear_norm" for node in folded.nodes) == 2 * layers - 1
    assert any("picked rows" in refusal.reason for refusal in record.refusals)
    caches = [ReferenceKV(NUM_BLOCKS, 8, "bfloat16") for _ in range(2)]
    for step in steps():
        one, other = (interpret(g, step, weights, kv)["logits"] for g, kv in zip((plain, folded), caches, strict=True))
        off = np.linalg.norm(one - other)
        assert (off > 0 or encoding == "fp8") and off <= 2e-2 * np.linalg.norm(one)


def test_biases_of_experts_come_behind_the_division() -> None:
    """Of each pair that of its expert, in the function that a program is verified with."""
    graph, weights = graph_of("gpt_oss", "bfloat16"), weights_of("gpt_oss", "bfloat16")
    plain, _ = run_passes(graph)
    folded, _ = run_passes(graph, passes_for(["norms in linears"], PASSES))
    check_graph(folded)
    experts = [node for node in folded.nodes if node.family == "expert_linear" and "squares" in node.inputs]
    assert experts and all("bias" in node.inputs for node in experts)
    caches = [ReferenceKV(NUM_BLOCKS, 8, "bfloat16") for _ in range(2)]
    for step in steps():
        one, other = (interpret(g, step, weights, kv)["logits"] for g, kv in zip((plain, folded), caches, strict=True))
        assert 0 < np.linalg.norm(one - other) <= 2e-2 * np.linalg.norm(one)


def test_float16_keeps_its_norms() -> None:
    folded, records = run_passes(graph_of("llama", "float16"), passes_for(CudaCatalog().abilities, PASSES))
    assert not [node for node in folded.nodes if node.family == "linear_norm"]
    assert any("float16" in refusal.reason for record in records for refusal in record.refusals)
