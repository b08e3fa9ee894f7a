"""A checkpoint as load() sees it."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copy

import pytest

from albireo import LLM, ModelError
from albireo.api.programs import compile_program
from albireo.api.sources.checkpoint_source import CheckpointSource
from albireo.api.sources.locate import BUNDLED
from albireo.config import EngineConfig
from albireo.models.checkpoint.safetensors_file import SafetensorsFile
from albireo.models.checkpoint.safetensors_files import SINGLE_FILE
from albireo.quantization.schemes import Precision


def test_a_graph_is_built_once_for_a_length_and_compiling_leaves_it_as_it_is() -> None:
    """Loading asks for it to compile it, and again to read the weights that it names."""
    source = CheckpointSource(BUNDLED, "bfloat16", precision=Precision("int8"))
    graph = source.graph(512)
    nodes = [str(node) for node in graph.nodes]
    compile_program(graph, EngineConfig(model=str(BUNDLED), device="cpu"), 512)
    assert source.graph(512) is graph and [str(node) for node in graph.nodes] == nodes
    shorter = source.graph(256)
    assert shorter is not graph and source.graph(256) is shorter and len(shorter.nodes) == len(nodes)


def test_that_there_are_no_weights_is_said_before_whether_they_would_fit(tmp_path: Path) -> None:
    said = json.loads((BUNDLED / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**said, "num_hidden_layers": 4000, "vocab_size": 2**24}))
    with pytest.raises(ModelError, match=r"has neither model\.safetensors nor .* is the download complete\?"):
        LLM(str(tmp_path), skip_tokenizer_init=True)


def test_weights_are_opened_once_for_what_is_asked_of_them_and_for_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where their types say what is computed in. A file that takes the place of another meanwhile is not what was
    checked, and is not read."""
    said = json.loads((BUNDLED / "config.json").read_text())
    for key in ("dtype", "torch_dtype"):
        said.pop(key, None)
    (tmp_path / "config.json").write_text(json.dumps(said))
    copy(BUNDLED / SINGLE_FILE, tmp_path)
    opened = list[Path]()
    usual = SafetensorsFile.__init__

    def watched(self: SafetensorsFile, path: Path) -> None:
        opened.append(path)
        usual(self, path)

    monkeypatch.setattr(SafetensorsFile, "__init__", watched)
    source = CheckpointSource(tmp_path, "auto")
    (tmp_path / "other").write_bytes(b"no weights at all")
    (tmp_path / "other").replace(tmp_path / SINGLE_FILE)
    with source.weights(source.graph(64)) as weights:
        assert "model.embed_tokens.weight" in weights
    assert opened == [tmp_path / SINGLE_FILE]
    with pytest.raises(ModelError, match="header of"), source.weights(source.graph(64)):
        pass
