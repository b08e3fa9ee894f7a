"""Kernel choice: what the catalog is asked, and which answer is taken."""

from __future__ import annotations

import pytest

from albireo.compiler.pipeline import run_passes
from albireo.compiler.select import select_kernels
from albireo.errors import UnsupportedModel
from compiler.examples import D, Decoder, E, FakeCatalog, H, K


def test_the_catalog_is_asked_family_dtype_and_attributes() -> None:
    catalog = FakeCatalog()
    select_kernels(run_passes(Decoder("float16").graph())[0], catalog)
    asked = {family: (dtype, attrs) for family, dtype, attrs in catalog.asked}
    assert set(asked) == {"embed", "norm", "gather", "qkv_rope_kv", "attention", "linear", "head_top"}
    assert {dtype for family, dtype, _ in catalog.asked if family != "gather"} == {"float16"}
    assert {dtype for family, dtype, _ in catalog.asked if family == "gather"} == {"float16", "float32"}
    shape = {"layer": 0, "num_heads": H, "num_kv_heads": K, "head_dim": D}
    assert asked["qkv_rope_kv"][1] == shape | {"eps": 0.0}
    assert asked["attention"][1] == shape | {"scale": 0.25, "window": 0, "softcap": 0.0}
    assert asked["embed"][1] == {"width": E}


def test_the_first_answer_is_taken_and_counted() -> None:
    graph, _ = run_passes(Decoder(tied=False).graph())
    chosen, record = select_kernels(graph, FakeCatalog())
    assert {v.identity for n, v in chosen.items() if n.family == "linear"} == {"linear.bfloat16.fake"}
    assert "linear.bfloat16.fake 4x" in record.notes and "embed.bfloat16.row 1x" in record.notes


@pytest.mark.parametrize(("tied", "kernel"), [(True, "embed.bfloat16.p64"), (False, "embed.bfloat16.row")])
def test_an_embed_reads_what_the_head_has(tied: bool, kernel: str) -> None:
    graph, _ = run_passes(Decoder(tied=tied).graph())
    chosen, _ = select_kernels(graph, FakeCatalog())
    assert next(v.identity for n, v in chosen.items() if n.family == "embed") == kernel


def test_no_kernel_is_an_error_that_names_the_node() -> None:
    graph, _ = run_passes(Decoder().graph())
    with pytest.raises(UnsupportedModel, match=r"layers\.0\.attn: attention %\d+: .* no attention kernel"):
        select_kernels(graph, FakeCatalog(refused="attention"))


def test_operands_of_two_types_are_refused() -> None:
    class Mixed(Decoder):
        def mlp(self, x, i):
            self.dtype = "float16"
            return super().mlp(x, i)

        def weight(self, name, *dims):
            return self.b.weight(name, dims, "bfloat16" if len(dims) == 2 else "float32")

    with pytest.raises(UnsupportedModel, match=r"layers\.0\.mlp: linear %\d+: multiplies float16 with bfloat16"):
        select_kernels(run_passes(Mixed().graph())[0], FakeCatalog())
