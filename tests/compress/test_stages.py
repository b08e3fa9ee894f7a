"""Stages: where a graph is cut, which linears belong together, and where scales may be folded to."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo.compiler.pipeline import run_passes
from albireo.compress.stages import Fold, cut
from albireo.errors import InvariantError, UnsupportedModel
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models import build_graph, load_architecture, load_config
from compress.tiny import JOINED
from representatives import LATENT, REPRESENTATIVES
from tiny_layer_norm import LAYER_NORMS
from tiny_models import MIXTURES, make_checkpoint
from variants import VARIANTS


def graph(path: Path, model_type: str, **changes: object) -> Graph:
    directory = make_checkpoint(path, {**load_architecture(model_type).tiny, **changes})
    return build_graph(load_config(directory), 64)


@pytest.mark.parametrize(
    "model_type", sorted(set(REPRESENTATIVES) - JOINED - set(MIXTURES) - set(LAYER_NORMS) - set(LATENT))
)
def test_a_layer_is_four_groups_each_with_a_place_for_scales(tmp_path: Path, model_type: str) -> None:
    stages = cut(graph(tmp_path, model_type))
    layer = "model.layers.1."
    second = [stage for stage in stages if stage.layer == 1]
    assert [[m.removeprefix(layer) for m in stage.group.modules] for stage in second] == [
        # layer 1 of Gemma 4 has keys for values, and norms them
        [f"self_attn.{p}_proj" for p in ("qk" if model_type == "gemma4_text" else "qkv")],
        ["self_attn.o_proj"],
        ["mlp.gate_proj", "mlp.up_proj"],
        ["mlp.down_proj"],
    ]
    kinds = [
        (stage.group.fold.kind, stage.group.fold.weight.removeprefix(layer)) for stage in second if stage.group.fold
    ]
    # what is stored of a norm is not what multiplies in Gemma, nor in Granite's last; OLMo 2 norms what is added alone
    of_norms = [("norm", f"{place}_layernorm.weight") for place in ("input", "post_attention")]
    if model_type == "gemma4_text":
        of_norms = [("norm", f"{place}_layernorm.weight") for place in ("input", "pre_feedforward")]
    elif model_type.startswith("gemma") or model_type == "olmo2":
        of_norms = []
    assert [kind for kind in kinds if kind[0] == "norm"] == of_norms
    of_values = [] if model_type == "gemma4_text" else [("heads", "self_attn.v_proj.weight")]
    assert [kind for kind in kinds if kind[0] != "norm"] == [*of_values, ("rows", "mlp.up_proj.weight")]
    has_place = model_type == "gemma4_text" or not model_type.startswith(("gemma", "granite"))
    assert stages[-1].group.fold == (Fold("norm", "model.norm.weight") if has_place else None)
    assert stages[-1].group.is_head
    assert stages[-1].group.is_table == load_architecture(model_type).tiny["tie_word_embeddings"]


def test_rows_in_another_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"rows of .*q_proj\.weight are taken in another order.*--quantization"):
        cut(graph(tmp_path, "ernie4_5"))


def test_models_that_write_no_text_are_refused(tmp_path: Path) -> None:
    """Embeddings, classifiers: their graphs end elsewhere."""
    with pytest.raises(UnsupportedModel, match=r"no logits.*--quantization"):
        cut(graph(tmp_path, "qwen3", architectures=["Qwen3Model"]))


def test_linears_that_share_a_tensor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"qkv_proj\.weight holds the rows of several linears.*--quantization"):
        cut(graph(tmp_path, "phi3"))


@pytest.mark.parametrize("model_type", ["hrm_text", "dory"])
def test_layers_that_are_read_several_times_are_refused(tmp_path: Path, model_type: str) -> None:
    """Each under its own rules of how often, none of which all layers share."""
    with pytest.raises(UnsupportedModel, match=r"reads .*weight, as layers\.\d+\..* does.*--quantization"):
        cut(graph(tmp_path, model_type))


def test_what_is_done_to_the_heads_logits_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"^gain behind the head.*--quantization"):
        cut(graph(tmp_path, "dory", n_recurrent_loops=1))


def test_every_node_that_leads_to_the_logits_is_in_one_stage(tmp_path: Path) -> None:
    base = graph(tmp_path, "llama")
    stages = cut(base)
    found = [node for stage in stages for node in (*stage.before, *stage.nodes)]
    assert len(set(map(id, found))) == len(found)
    # all but the other head: its rows, its linear and its best
    assert len(found) == len(base.nodes) - 3
    assert [v.name for v in stages[-1].keep] == [base.outputs["logits"].name]
    assert all(v.type.dtype != "kv" for stage in stages for v in (*stage.keep, *stage.keep_before))
    biased = next(stage.group.fold for stage in stages if stage.group.fold and stage.group.fold.kind == "heads")
    assert biased.bias == "model.layers.0.self_attn.v_proj.bias" and (biased.num_heads, biased.num_kv_heads) == (6, 2)


def test_an_input_with_another_reader_has_no_place_for_scales() -> None:
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (8, 4), "float32"))
    h = b.rms_norm(x, b.weight("norm", (4,), "float32"), 1e-5)
    y = b.add(b.linear(h, b.weight("a.weight", (4, 4), "float32")), h)
    logits = b.linear(b.gather_rows(y, b.logit_rows), b.weight("head.weight", (8, 4), "float32"))
    ids, values = b.top_logits(b.linear(b.gather_rows(y, b.top_rows), b.weight("head.weight", (8, 4), "float32")))
    first, last = cut(b.finish(logits=logits, top_ids=ids, top_values=values))
    assert first.group.fold is None and last.group.fold is None


def test_a_rewritten_graph_is_refused(tmp_path: Path) -> None:
    fused, _ = run_passes(graph(tmp_path, "llama"))
    with pytest.raises(InvariantError, match="base graphs"):
        cut(fused)


def test_layers_that_share_a_cache_are_refused(tmp_path: Path) -> None:
    """An attention of the last layer that writes reads what is its own; the one behind it does not."""
    changes = VARIANTS["gemma4_text, embeddings of layers"]
    with pytest.raises(UnsupportedModel, match=r"layers\.3\.attn.*reads the keys and values of another layer"):
        cut(graph(tmp_path / "shared", "gemma4_text", **changes))
    assert cut(graph(tmp_path / "own", "gemma4_text", **(changes | {"num_kv_shared_layers": 0})))
