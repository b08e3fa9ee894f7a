"""Checkpoints: single and sharded files, what fits a graph and what does not, damaged directories."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from albireo.errors import ModelError, WeightMismatch
from albireo.graph.node import Graph
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from albireo.models.checkpoint.weights import Checkpoint
from tiny_models import make_checkpoint, random_weights, shared_data, weight_shapes, write_safetensors

LLAMA = load_architecture("llama").tiny
TIED = load_architecture("qwen3").tiny


def graph_of(directory: Path) -> Graph:
    return build_graph(load_config(directory), 64)


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_checkpoint_equals_the_librarys_reading(tmp_path: Path, shards: int, dtype: str) -> None:
    torch_format = pytest.importorskip("safetensors.torch")
    make_checkpoint(tmp_path, LLAMA, seed=4, dtype=dtype, shards=shards)
    theirs = {}
    for file in tmp_path.glob("*.safetensors"):
        theirs |= torch_format.load_file(file)
    with open_checkpoint(tmp_path, graph_of(tmp_path)) as checkpoint:
        assert list(checkpoint.names) == sorted(theirs)
        assert checkpoint.dtype == dtype
        for name, expected in theirs.items():
            assert checkpoint.shape(name) == tuple(expected.shape)
            np.testing.assert_array_equal(checkpoint.tensor(name).to_float32(), expected.float().numpy())
            checkpoint.release(name)
            np.testing.assert_array_equal(checkpoint.tensor(name).to_float32(), expected.float().numpy())


@pytest.mark.parametrize("name", ["stories260k", "stories260k-bf16", "story-5m"])
def test_real_checkpoints_fit(name: str) -> None:
    directory = shared_data("models", name)
    with open_checkpoint(directory, graph_of(directory)) as checkpoint:
        assert checkpoint.dtype == load_config(directory).dtype


def rewrite(directory: Path, change: Callable[[dict[str, np.ndarray]], None], config: object = LLAMA) -> Path:
    """A llama checkpoint whose tensors went through change."""
    make_checkpoint(directory, config)  # type: ignore[arg-type]
    tensors = random_weights(config, 0)  # type: ignore[arg-type]
    change(tensors)
    write_safetensors(directory / "model.safetensors", tensors, "float32")
    return directory


def refusal(directory: Path) -> str:
    with pytest.raises(WeightMismatch) as error:
        open_checkpoint(directory, graph_of(directory))
    return str(error.value)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    message = refusal(rewrite(tmp_path, lambda t: t.pop("model.layers.1.mlp.up_proj.bias")))
    assert "1 missing: model.layers.1.mlp.up_proj.bias" in message


def test_extra_tensors_are_named(tmp_path: Path) -> None:
    extra = {"model.layers.0.self_attn.sinks": np.zeros(6, np.float32)}
    assert "1 extra: model.layers.0.self_attn.sinks" in refusal(rewrite(tmp_path, lambda t: t.update(extra)))


def test_misshapen_tensors_are_named_with_both_shapes(tmp_path: Path) -> None:
    wrong = {"model.norm.weight": np.zeros((48, 1), np.float32)}
    message = refusal(rewrite(tmp_path, lambda t: t.update(wrong)))
    assert "1 misshapen: model.norm.weight is [48, 1], config.json implies [48]" in message


def test_many_are_counted_and_ten_named(tmp_path: Path) -> None:
    rewrite(tmp_path, lambda t: [t.pop(n) for n in list(t) if n.startswith("model.layers.")])
    message = refusal(tmp_path)
    assert f"{len(weight_shapes(LLAMA)) - 3} missing: " in message
    assert message.count("model.layers.") == 10 and message.endswith("…")


def test_all_three_kinds_are_reported_at_once(tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["new"] = tensors.pop("lm_head.weight")
        tensors["model.norm.weight"] = np.zeros(3, np.float32)

    message = refusal(rewrite(tmp_path, change))
    assert all(part in message for part in ("1 missing: lm_head", "1 misshapen: model.norm", "1 extra: new"))


def test_old_rotary_tensors_are_ignored(tmp_path: Path) -> None:
    extra = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.zeros(6, np.float32) for i in range(3)}
    rewrite(tmp_path, lambda t: t.update(extra))
    with open_checkpoint(tmp_path, graph_of(tmp_path)) as checkpoint:
        assert set(extra) < set(checkpoint.names)


def test_layers_that_guess_further_tokens_are_left_where_they_lie(tmp_path: Path) -> None:
    """As many as config.json says, behind the last; one more is an error."""
    config = load_architecture("glm4_moe").tiny
    layers = config["num_hidden_layers"]
    extra = {f"model.layers.{layers}.eh_proj.weight": np.zeros((4, 8), np.float32)}
    rewrite(tmp_path, lambda t: t.update(extra), config)
    open_checkpoint(tmp_path, graph_of(tmp_path)).close()
    extra[f"model.layers.{layers + 1}.eh_proj.weight"] = np.zeros((4, 8), np.float32)
    rewrite(tmp_path, lambda t: t.update(extra), config)
    assert f"1 extra: model.layers.{layers + 1}.eh_proj.weight" in refusal(tmp_path)


def test_a_second_copy_of_a_tied_head_is_ignored(tmp_path: Path) -> None:
    rewrite(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}), TIED)
    with open_checkpoint(tmp_path, graph_of(tmp_path)) as checkpoint:
        assert "lm_head.weight" in checkpoint


def test_a_head_that_differs_from_what_it_is_tied_to_is_refused(tmp_path: Path) -> None:
    rewrite(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] * 2}), TIED)
    assert "lm_head.weight differs from model.embed_tokens.weight" in refusal(tmp_path)


def test_an_unreadable_type_is_refused(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    make_checkpoint(tmp_path, LLAMA)
    tensors = random_weights(LLAMA, 0) | {"model.norm.weight": np.ones(48, np.float64)}
    library.save_file(tensors, tmp_path / "model.safetensors")
    assert "tensor 'model.norm.weight' has type F64" in refusal(tmp_path)


def test_only_safetensors_are_opened(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, LLAMA)
    (tmp_path / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "pytorch_model.bin")  # opening it would hang
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin.*can run code.*save_pretrained"):
        Checkpoint(tmp_path)


def test_safetensors_by_other_names_are_told_what_is_missing(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, LLAMA)
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(ModelError, match=r"but model-00001-of-00002\.safetensors.*copy it from the model's repository"):
        Checkpoint(tmp_path)


def test_a_directory_without_weights_or_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor.*download complete"):
        Checkpoint(tmp_path)
    with pytest.raises(ModelError, match="is not a directory"):
        Checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "shard",
    [
        "../evil.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "pytorch_model.bin",
        "..",
        "",
        3,
        None,
        "a\\b.safetensors",
        "x.safetensors\n",
        ".hidden.safetensors",
        "a\0.safetensors",
    ],
)
def test_a_shard_must_be_a_plain_file_name(tmp_path: Path, shard: object) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(ModelError, match=r"weight_map\['w'\]=.*plain"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("weight_map", [None, [], {}, "x"])
def test_an_index_without_a_map(tmp_path: Path, weight_map: object) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError, match=r"weight_map=.*must be an object"):
        Checkpoint(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, LLAMA, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00003\.safetensors: cannot be read"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.norm.weight", "ghost"])
def test_a_tensor_that_is_not_in_its_shard_is_named(tmp_path: Path, name: str) -> None:
    make_checkpoint(tmp_path, LLAMA, shards=2)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    shards = sorted(set(index["weight_map"].values()))
    wrong = next(shard for shard in shards if shard != index["weight_map"].get(name))
    index["weight_map"][name] = wrong
    path.write_text(json.dumps(index))
    with pytest.raises(WeightMismatch, match=f"'{name}' is not in {wrong}"):
        Checkpoint(tmp_path)


def test_a_tensor_in_two_shards_is_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, LLAMA, shards=2)
    for i in (1, 2):
        tensors = {"model.norm.weight": np.ones(48, np.float32)}
        write_safetensors(tmp_path / f"model-0000{i}-of-00002.safetensors", tensors, "float32")
    with pytest.raises(WeightMismatch, match=r"'model\.norm\.weight' is in both"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 100, 5000, -1])
def test_a_truncated_download_is_named(tmp_path: Path, keep: int) -> None:
    make_checkpoint(tmp_path, LLAMA)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightMismatch, match="truncated"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_link_to_nothing_is_named_with_where_it_leads(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("blobs/gone")
    with pytest.raises(ModelError, match=rf"{name}: cannot be read: No such file .*\(a link to blobs/gone\)"):
        Checkpoint(tmp_path)


def test_a_linked_file_is_followed(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "blobs", LLAMA)
    (tmp_path / "snapshot").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "snapshot" / name).symlink_to(tmp_path / "blobs" / name)
    with open_checkpoint(tmp_path / "snapshot", graph_of(tmp_path / "snapshot")) as checkpoint:
        assert len(checkpoint.names) == len(weight_shapes(LLAMA))


def test_an_unknown_name_is_an_error(tmp_path: Path) -> None:
    with (
        Checkpoint(make_checkpoint(tmp_path, LLAMA)) as checkpoint,
        pytest.raises(WeightMismatch, match="no tensor 'x'"),
    ):
        checkpoint.tensor("x")


def test_rows_behind_those_that_a_head_knows_are_left(tmp_path: Path) -> None:
    config = load_architecture("apertus1p5_text").tiny
    make_checkpoint(tmp_path, config)
    graph = build_graph(load_config(tmp_path), 64)
    with open_checkpoint(tmp_path, graph) as checkpoint:
        assert checkpoint.shape("model.embed_tokens.weight") == (141, 48)
    for wrong in (np.ones((120, 48), np.float32), np.ones((141, 46), np.float32)):
        weights = random_weights(config, 0) | {"model.embed_tokens.weight": wrong}
        write_safetensors(tmp_path / "model.safetensors", weights, "float32")
        with pytest.raises(
            WeightMismatch, match=r"embed_tokens.weight is \[1.., 4.\], config.json implies \[121, 48\]"
        ):
            open_checkpoint(tmp_path, graph)
    longer = random_weights(config, 0) | {"lm_head.weight": np.ones((141, 48), np.float32)}
    write_safetensors(tmp_path / "model.safetensors", longer, "float32")
    with pytest.raises(WeightMismatch, match=r"lm_head.weight is \[141, 48\], config.json implies \[121, 48\]"):
        open_checkpoint(tmp_path, graph)


def test_a_number_that_is_computed_whatever_a_file_says_is_checked(tmp_path: Path) -> None:
    """Of xIELU, whose slope at 0 lies in checkpoints and is the same in all of them."""
    config = load_architecture("apertus").tiny
    make_checkpoint(tmp_path, config, dtype="bfloat16")
    graph = build_graph(load_config(tmp_path), 64)
    open_checkpoint(tmp_path, graph).close()
    weights = random_weights(config, 0) | {"model.layers.1.mlp.act_fn.beta": np.asarray(np.float32(0.25))}
    write_safetensors(tmp_path / "model.safetensors", weights, "bfloat16")
    with pytest.raises(WeightMismatch, match=r"act_fn\.beta is 0\.25; 0\.5 is computed"):
        open_checkpoint(tmp_path, graph)
