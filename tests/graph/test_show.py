"""What is printed: golden pieces of a two-layer decoder."""

from __future__ import annotations

import re

from albireo.compiler.pipeline import compile_graph, run_passes
from albireo.graph.private_norms import few_barriers
from albireo.graph.program import Program
from albireo.graph.report import PassRecord, Refusal
from albireo.graph.show import show_graph, show_program, show_report, totals
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, D, Decoder, E, F, FakeCatalog, H, K, V


def program(decoder: Decoder) -> Program:
    return compile_graph(
        decoder.graph(), FakeCatalog(), maxima=MAXIMA, block_size=BLOCK_SIZE, max_positions=MAX_POSITIONS
    )


def test_graph() -> None:
    text = show_graph(Decoder(layers=2).graph())
    assert text.startswith("inputs     %token_ids: int32[T], %positions: int32[T], %logit_rows: int32[R]")
    assert "  %0: float32[T, 24] = embed(ids=%token_ids, table=%table)\n" in text
    assert "  %2: bfloat16[T, 24] = cast(x=%1, dtype=bfloat16)    # layers.0.attn\n" in text
    assert "outputs    logits = %" in text


def test_like_layers_are_shown_once() -> None:
    graph = Decoder(layers=3).graph()
    folded, whole = show_graph(graph), show_graph(graph, fold=False)
    assert "layers 0 to 2, 3 alike:" in folded and "# layers.1.attn" not in folded
    assert "alike" not in whole and whole.count("kv_write(") == 3
    assert len(whole.splitlines()) == len(graph.nodes) + 3


def test_layers_that_differ_are_all_shown() -> None:
    class Windows(Decoder):
        def attend(self, q, i, **attrs):
            return super().attend(q, i, window=9 if i == 1 else None)

    text = show_graph(Windows(layers=4).graph())
    assert re.findall(r"layers .* alike", text) == ["layers 2 to 3, 2 alike"]
    assert "# layers.0.attn" in text and "# layers.1.attn" in text and "# layers.3.attn" not in text
    calls = show_program(program(Windows(layers=5)))
    assert re.findall(r"layers .* alike", calls) == ["layers 2 to 3, 2 alike"]
    assert "layer=4" in calls  # the last layer takes the rows that leave the model


def test_bodies_are_shown_when_asked() -> None:
    graph, _ = run_passes(Decoder().graph())
    text = show_graph(graph, expand=True)
    assert "      | %1: float32[T, 24] = rms_norm(x=%x, weight=%weight, eps=1e-05, num_heads=1)\n" in text
    assert "|" not in show_graph(graph)


def test_program() -> None:
    text = show_program(program(Decoder(layers=3)))
    for line in (
        "           p64.bfloat16: 13 of ",
        "           x: float32[T, 24] at ",
        "kv         3 layers x 2 heads x 8 bfloat16, blocks of 4\n",
        "  x = embed(ids=token_ids, table=table; width=24)    # embed.bfloat16.p64, T rows, barrier\n",
        "layers 0 to 1, 2 alike:\n",
        "  x = linear(x=a, weight=layers.0.o.weight, residual=x; n=24, k=32, act=none)    # linear.bfloat16.fake, T",
        "  a_S = gather(x=a, rows=out_rows)    # gather.bfloat16.fake, S rows\n",
        "  top_ids, top_values = head_top(x=h_G, weight=table; n=70, k=24)    # head_top.bfloat16.fake, G panels\n",
        "outputs    logits=logits, top_ids=top_ids, top_values=top_values",
    ):
        assert line in text


def test_report() -> None:
    text = show_report(program(Decoder(layers=2)))
    golden = """
  fired 2×, saves 2 ops and 512 B per T row
  before  %10: float32[T, 32] = attention(q=%9, kv=%8, layer=0, num_heads=4, num_kv_heads=2, head_dim=8, scale=0.25, \
window=None, softcap=None)
          %11: bfloat16[T, 32] = cast(x=%10, dtype=bfloat16)
  after   %11: bfloat16[T, 32] = attention(q=%9, kv=%8, layer=0, num_heads=4, num_kv_heads=2, head_dim=8, scale=0.25, \
window=0, softcap=0.0)
"""
    assert golden in text
    assert re.search(r"^fuse_attention_cast · .* \(exact\)$", text, re.M)
    assert re.search(r"^rows_before_head [^\n]*\n  fired 1×, saves 288 B per T row, costs 2 ops$", text, re.M)
    assert re.search(r"^fold_scale [^\n]*\n  not fired, because there is nothing for it to rewrite$", text, re.M)
    assert re.search(r"^plan_memory · [^\n]*\n  \d+ activations in 15 buffers, 4 written in place$", text, re.M)
    assert text.splitlines()[-1].startswith("total: ops 52 -> 21 calls, ")
    assert text.count("residual=%") == 1
    assert show_report(program(Decoder(layers=2)), every=True).count("residual=%") == 4


def test_report_says_why_a_pass_did_not_fire() -> None:
    class Hidden(Decoder):
        def head(self, y):
            return super().head(y) | {"hidden": y}

    graph, records = run_passes(Hidden().graph())
    p = program(Decoder())
    text = show_report(Program(p.calls, p.buffers, p.constants, p.kv, p.maxima, 0, p.outputs, tuple(records)))
    assert "  not fired at head: gather_rows %25, because %24 is needed for all rows, by an output\n" in text
    assert "%24" in show_graph(graph)


def test_places_where_a_pass_did_not_fire_for_the_same_reason_are_one_line() -> None:
    record = PassRecord("p", "why", "exact", 9)
    record.refusals += [Refusal((f"layers.{i}.mlp: linear %{i}",), f"%{i} has 2 users") for i in range(3, 6)]
    record.refusals += [Refusal(("head: linear %9",), "the head has a bias")]
    assert record.outcome == "" and record.refused == [
        "not fired at layers.3.mlp: linear %3, because %3 has 2 users; 2 more places like it",
        "not fired at head: linear %9, because the head has a bias",
    ]


def test_totals() -> None:
    p = program(Decoder(layers=2, tied=False))
    t = totals(p)
    assert (t.ops_before, t.ops_after) == (52, 21) and t.arena_bytes == p.arena_bytes
    assert t.many_barriers == sum(call.barrier for call in p.calls) > t.barriers == few_barriers(p)
    assert t.kv_bytes_per_position == 2 * 2 * K * 16 * 2
    assert t.weight_bytes == sum(c.num_bytes for c in p.constants.values())
    qkv, gate_up = 64 * E * 2, 128 * E * 2
    layer = 2 * E * 4 + qkv + 64 * H * D * 2 + gate_up + 64 * F * 2 + D * 4
    activations = E * 4 + 2 * (2 * E * (4 + 2) + 2 * E * 2 + 3 * H * D * 2 + H * D * 2 + 4 * E * 4 + 2 * F * 2)
    gathers = 2 * H * D * 2 + 2 * E * 4
    head = E * 4 + E * 4 + E * 2 + E * 2 + 128 * E * 2 + 65 * (4 + 4)
    assert t.bytes_per_token == E * 2 + 2 * layer + activations + gathers + head
    assert V <= 128
