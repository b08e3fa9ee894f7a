"""Ops of the model are found again in the groups that replaced them, and bytes add up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.errors import ConfigError, InvariantError
from albireo.inspect.story import explain, layer_of, layer_story, layers_of, op_bytes, row_bytes
from compiler.examples import D, Decoder, E, F, H, K, model_graph
from in_turn import in_turn
from inspect_programs import compiled
from representatives import ALL_REPRESENTATIVES


@in_turn(("dtype", ["float32", "bfloat16"]), ("model_type", ALL_REPRESENTATIVES))
def test_members_are_those_of_the_body(model_type: str, dtype: str) -> None:
    explained = compiled(model_graph(model_type, dtype))
    for layer in layers_of(explained.base):
        story = layer_story(explained, layer)
        ops = [op for group in story.groups for op in group.members]
        assert len(ops) == len(set(ops)) == story.num_ops
        assert {op for op in explained.base.nodes if layer_of(op.origin) == layer} <= set(ops)
        assert [group.idx for group in story.groups] == sorted(group.idx for group in story.groups)
        for group in story.groups:
            names = {v.name for op in group.members for v in op.outputs}
            inside = {v.name for op in group.node.body.nodes for v in op.outputs}
            # a merged linear and the gathers that a pass adds are not the model's
            added = {name for name in inside if name.endswith(("m", "s"))}
            if group.node.family == "slice":  # the parts of a linear that a pass merged
                assert names <= inside
                continue
            assert names == inside - added


def test_bytes_before_less_saved_are_bytes_after() -> None:
    explained = compiled(Decoder(layers=2).graph())
    norm, qkv, attention, o, norm2, gate_up, down = layer_story(explained, 0).groups
    kv = 2 * K * 16 * 2
    assert (norm.before_bytes, norm.after_bytes) == (E * (4 + 4 + 4 + 2), E * (4 + 2))
    projected = (H + 2 * K) * D * 4
    rotated = 2 * (H + K) * D * 4
    assert qkv.before_bytes == 3 * E * 2 + projected + rotated + 2 * K * D * 4 + kv + H * D * (4 + 2)
    assert qkv.after_bytes == E * 2 + H * D * 2 + kv
    assert (attention.before_bytes, attention.after_bytes) == (H * D * (2 + 4 + 4 + 2), H * D * (2 + 2))
    assert o.after_bytes == H * D * 2 + 2 * E * 4 and o.saved_bytes == 2 * E * 4
    assert gate_up.before_bytes == 2 * (E * 2 + F * 4) + 2 * F * 4 + 3 * F * 4 + F * (4 + 2)
    assert gate_up.after_bytes == E * 2 + F * 2
    assert norm2.saved_bytes == norm.saved_bytes and down.saved_bytes == 2 * E * 4


def test_savings_are_those_of_the_report() -> None:
    explained = compiled(Decoder(layers=3).graph())
    passes = ("merge_qkv", "merge_gate_up", "fuse_qkv_rope_kv", "fuse_norm", "fuse_epilogue", "fuse_attention_cast")
    records = {record.name: record for record in explained.program.report}
    story = layer_story(explained, 1)
    reported = sum(records[name].saved_bytes["T"] for name in passes)
    # the last layer's attention and MLP work on other rows, and what they save is counted there
    last = [group for group in layer_story(explained, 2).groups if group.call.rows == "T"]
    saved = 2 * (story.before_bytes - story.after_bytes) + sum(group.saved_bytes for group in last)
    merged = 1 * E * 2  # merge_gate_up saves a read in the last layer too, before its rows change
    rounded = 2 * H * D * 4  # and fuse_attention_cast a pass over float32 attention
    assert reported == saved + merged + rounded


def test_a_layer_that_a_pass_changed_has_calls_of_its_own() -> None:
    explained = compiled(Decoder(layers=2).graph())
    story = layer_story(explained, 1)
    gathers = [group for group in story.groups if group.call.family == "gather"]
    assert len(gathers) == 1 and not any(group.members for group in gathers)
    assert story.num_ops == layer_story(explained, 0).num_ops
    assert len(story.groups) == len(layer_story(explained, 0).groups) + 1


def test_an_op_that_changes_nothing_is_dropped_where_its_reader_is() -> None:
    class Idle(Decoder):
        def attend(self, q, i, **attrs):
            return super().attend(self.b.scale(q, 1.0), i, **attrs)

    story = layer_story(compiled(Idle().graph()), 0)
    dropped = [op.op for group in story.groups for op in group.dropped]
    assert dropped == ["scale"] and story.groups[2].dropped


def test_layers_are_counted_and_asked_for() -> None:
    explained = compiled(Decoder(layers=4).graph())
    assert layers_of(explained.base) == [0, 1, 2, 3] and layer_story(explained).layer == 1
    for layer in (-1, 4):
        with pytest.raises(ConfigError, match="the model has layers 0 to 3"):
            layer_story(explained, layer)
    assert (
        layer_of(f"layers.{'9' * 5000}.x") is None
        and layer_of("head.logits") is None
        and layer_of("layers.12.attn.q") == 12
    )


def test_another_program_is_noticed() -> None:
    explained = compiled(Decoder().graph())
    with pytest.raises(InvariantError, match="calls are not the"):
        explain(explained.base, replace(explained.program, calls=explained.program.calls[1:]))


def test_what_moves_no_row_counts_nothing() -> None:
    explained = compiled(Decoder().graph())
    base = explained.base
    assert row_bytes(base.inputs["positions"]) == row_bytes(base.inputs["kv"]) == 0
    assert all(row_bytes(value) == 0 for value in base.constants.values())
    embed = base.nodes[0]
    assert op_bytes(embed, explained.program) == E * 4


def test_origins_that_a_stranger_wrote() -> None:
    class Sparse(Decoder):
        def norm(self, x, name):
            with self.b.part("layers.999999999"):
                return super().norm(x, name)

    class Nameless(Decoder):
        def graph(self):
            graph = super().graph()
            for node in graph.nodes:
                node.origin = ""
            return graph

    explained = compiled(Sparse(layers=2).graph())
    assert layers_of(explained.base) == [0, 1, 999999999] and layer_story(explained).layer == 1
    with pytest.raises(ConfigError, match="no layers to draw"):
        layer_story(compiled(Nameless().graph()))
