"""A model directory, opened: its architecture, its config, its graph and its weights.

An architecture is found by the name of its file, so adding one touches nothing here. Imported when one of its names is
first asked of the room; what reads a GGUF file, when there is one.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from albireo.errors import ModelError, UnsupportedModel, WeightMismatch, short
from albireo.graph.node import Graph
from albireo.json_file import read_json
from albireo.models import architectures, encoder_types, speech_types
from albireo.models.checkpoint.left_out import IGNORABLE_WEIGHTS, TIED_WEIGHTS
from albireo.models.checkpoint.opened import Opened
from albireo.models.checkpoint.safetensors_files import INDEX_FILE, SINGLE_FILE
from albireo.models.checkpoint.task_adapters import as_transformers_has_it
from albireo.models.checkpoint.weights import Checkpoint, check_weights
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEAD_DIM, parse_config
from albireo.models.gguf.files import is_gguf
from albireo.models.settings.class_names import MASKED, SPARSE, TEXT_CLASSES
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.quantized import quantization_format, without_quantization
from albireo.models.settings.retrievers import HEAD, is_retriever
from albireo.models.settings.sentence_transformers import MODULES, is_of_vocabulary
from albireo.models.settings.text_part import inner, is_whole, text_settings, text_type

#: What embeddings that are the head's rows, too, are said by; LFM2 has a name of its own.
_TIE = ("tie_word_embeddings", "tie_embedding")
#: Bytes by which two tables of numbers are told apart.
_BEGINNING = 2**16


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture file: a tiny config.json for tests, its reading of keys, its graph, for sequences of up to so
    many tokens; and patterns of tensors that its classes keep beside what the graph reads; and of these, numbers that
    must be what the graph has anyway; and tensors of which the first rows alone may be read.
    """

    model_type: str
    tiny: Mapping[str, Any]
    rules: ConfigRules
    build: Callable[[ModelConfig, int], Graph]
    unused: tuple[str, ...] = ()
    fixed: Mapping[str, float] = field(default_factory=dict)
    longer: tuple[str, ...] = ()


def load_architecture(model_type: str) -> Architecture:
    """The file named after model_type. Raises: UnsupportedModel listing those there are."""
    name = model_type.replace("-", "_")
    rooms = {"decoders": architectures(), "encoders": encoder_types(), "speech": speech_types()}
    folders = {each: room for room, names in rooms.items() for each in names}
    if name not in folders:
        raise UnsupportedModel(f"model_type {short(model_type)} is not supported; supported: {', '.join(folders)}")
    module = importlib.import_module(f"{__package__}.{folders[name]}.{name}")
    unused = getattr(module, "IGNORABLE_WEIGHTS", ())
    fixed = getattr(module, "FIXED", {})
    longer = getattr(module, "LONGER_WEIGHTS", ())
    return Architecture(model_type, module.TINY, module.CONFIG, module.build, unused, fixed, longer)


def load_config(directory: str | Path, default_dtype: str | None = None, opened: Opened | None = None) -> ModelConfig:
    """Read and check config.json of a model directory, or the settings of a GGUF file.

    Args:
        default_dtype: when the file names none; None: the weights'.
        opened: of this directory, for who reads its weights afterwards; None: what has to be looked at is closed again.
    Raises: ModelError for a bad file or value; UnsupportedModel naming what is not computed.
    """
    directory = Path(directory)
    if is_gguf(directory):
        return _gguf_config(directory)
    if not directory.is_dir():
        raise ModelError(f"{directory}: is not a directory; give a model directory in Hugging Face layout")
    path = directory / "config.json"
    if not path.exists() and not path.is_symlink():
        raise ModelError(
            f"{directory}: there is no config.json in it; give the directory that a model's config.json, weights and "
            "tokenizer are in"
        )
    data = read_json(path)
    model_type = data.get("model_type")
    if model_type is None:
        raise ModelError(
            f"{path}: model_type is missing, so the file is not as transformers writes it; take the model's files in "
            "that format (of state-spaces/mamba-130m those of mamba-130m-hf), or convert them"
        )
    if not isinstance(model_type, str):
        raise ModelError(f"{path}: model_type={short(model_type)} must be a string")
    if not is_whole(data):
        load_architecture(model_type)
    # the graph is that of the float model; the weights know how they are written
    quantization_format(directory, data)
    said = data
    data = text_settings(as_transformers_has_it(without_quantization(data), str(path)), str(path))
    rules = load_architecture(data["model_type"]).rules
    weights = opened or Opened(directory)
    try:
        if default_dtype is None:
            is_said = data.get("dtype") is not None or data.get("torch_dtype") is not None
            default_dtype = "float32" if is_said else weights.get().dtype
        lies = _tied_as_it_lies(
            _as_it_lies(_sparse_as_said(data, directory), rules, directory, weights), rules, said, directory, weights
        )
        lies = _with_frequencies(lies, rules, directory, weights)
    finally:
        if opened is None:
            weights.close()
    return parse_config(lies, rules, where=str(path), default_dtype=default_dtype)


def _as_it_lies(data: Mapping[str, Any], rules: ConfigRules, directory: Path, weights: Opened) -> Mapping[str, Any]:
    """A model made to embed that names the class with a head that gives logits, and has none of its own, as
    Qwen3-Embedding-8B: named as the class without."""
    classes, is_tied = data.get("architectures"), {**rules.defaults, **data}.get("tie_word_embeddings")
    said = (directory / MODULES).is_file() and _has_weights(directory)
    if not said or is_tied or rules.pooled is not None or not isinstance(classes, list):
        return data
    checkpoint = weights.get()
    if "lm_head.weight" in checkpoint or "model.embed_tokens.weight" not in checkpoint:
        return data
    return {**data, "architectures": [str(name).replace("ForCausalLM", "Model") for name in classes]}


def _sparse_as_said(data: Mapping[str, Any], directory: Path) -> Mapping[str, Any]:
    """A masked language model whose modules.json makes weights of the vocabulary: named as the class that does."""
    classes = data.get("architectures")
    if not isinstance(classes, list) or not is_of_vocabulary(directory):
        return data
    return {**data, "architectures": [str(name).replace(MASKED, SPARSE) for name in classes]}


def _tied_as_it_lies(
    data: Mapping[str, Any], rules: ConfigRules, said: Mapping[str, Any], directory: Path, weights: Opened
) -> Mapping[str, Any]:
    """Where embeddings are tied as nothing is said, they are not if there is a head of other numbers, as of Mistral
    Small 3.1. Where a whole and its text part say different things, as in files from when a text part was a model by
    itself, they are if there is no such head. What is said plainly is left alone, and refused where it is not so."""
    whole = inner(said)
    text = whole["text_config"] if isinstance(whole.get("text_config"), Mapping) else {}
    asked = {bool(of[key]) for of in (whole, text) for key in _TIE if of.get(key) is not None}
    implied = {**rules.defaults, **data}.get(_TIE[0])
    if rules.pooled is not None or len(asked) == 1 or not (asked or implied) or not _has_weights(directory):
        return data
    checkpoint = weights.get()
    names = next((pair for pair in TIED_WEIGHTS.items() if pair[0] in checkpoint), None)
    if names is None:
        return data
    return {**data, _TIE[0]: names[1] not in checkpoint or _begin_alike(checkpoint, *names)}


def _with_frequencies(
    data: Mapping[str, Any], rules: ConfigRules, directory: Path, weights: Opened
) -> Mapping[str, Any]:
    """Where weights say by what frequencies are multiplied: with these numbers among the rotary settings.

    Raises: WeightMismatch where the weights lack them, or have more than a head has.
    """
    if not rules.frequencies or not _has_weights(directory):
        return data
    checkpoint = weights.get()
    if rules.frequencies not in checkpoint:
        raise WeightMismatch(f"{directory}: there is no tensor {rules.frequencies}, which frequencies are made of")
    shape = checkpoint.shape(rules.frequencies)
    if (count := math.prod(shape)) > MAX_HEAD_DIM // 2:
        raise WeightMismatch(
            f"{directory}: tensor {rules.frequencies} has {count} numbers, {short(list(shape))}; frequencies of a "
            f"head are {MAX_HEAD_DIM // 2} at most"
        )
    found = checkpoint.tensor(rules.frequencies).to_float32().reshape(-1).tolist()
    name = "rope_scaling" if data.get("rope_scaling") else "rope_parameters"
    table = data.get(name) or rules.defaults.get(name, {})
    return {**data, name: {**table, "log_factors": found}} if isinstance(table, Mapping) else data


def _begin_alike(checkpoint: Checkpoint, table: str, head: str) -> bool:
    """Whether one may be a copy of the other, of which check_weights() makes sure."""
    if checkpoint.shape(table) != checkpoint.shape(head) or checkpoint.kind(table) != checkpoint.kind(head):
        return False
    first, second = (checkpoint.tensor(name) for name in (table, head))
    is_alike = bytes(first.buffer[:_BEGINNING]) == bytes(second.buffer[:_BEGINNING])
    for name in (table, head):
        checkpoint.release(name)
    return is_alike


def _has_weights(directory: Path) -> bool:
    return any((directory / name).is_file() for name in (SINGLE_FILE, INDEX_FILE))


def _gguf_config(path: Path) -> ModelConfig:
    from albireo.models.gguf.config import config_of
    from albireo.models.gguf.tensors import GgufFile

    with contextlib.closing(GgufFile(path)) as file:
        data = config_of(file)
    rules, rope = load_architecture(data["model_type"]).rules, data.get("rope_parameters") or {}
    if rules.has_local_rope and rope and not any(isinstance(value, Mapping) for value in rope.values()):
        # of layers without a window, which is what rope_scaling was before there was a table for each kind
        data = {**data, "rope_parameters": None, "rope_scaling": rope}
    config = parse_config(data, rules, where=str(path))
    # such files hold a norm's weights as they are multiplied
    return replace(config, multipliers=replace(config.multipliers, norm_plus=0.0))


def build_graph(config: ModelConfig, max_model_len: int) -> Graph:
    """The base graph of config.model_type, computed in config.dtype, for sequences up to max_model_len tokens."""
    return load_architecture(config.model_type).build(config, max_model_len)


def open_checkpoint(directory: str | Path, graph: Graph, opened: Opened | None = None) -> Checkpoint:
    """The weights of a directory, checked against a graph; the caller closes it.

    Args: opened: of this directory, whose checkpoint is taken; None: it is opened.
    Raises: ModelError, WeightMismatch.
    """
    checkpoint = Checkpoint(directory) if opened is None else opened.take()
    try:
        own = _own(checkpoint)
        ignorable = (*IGNORABLE_WEIGHTS, *_unused_weights(checkpoint))
        check_weights(graph, checkpoint, ignorable, TIED_WEIGHTS, () if own is None else own.longer)
        _check_fixed(checkpoint, {} if own is None else own.fixed)
    except ModelError:
        checkpoint.close()
        raise
    return checkpoint


def _own(checkpoint: Checkpoint) -> Architecture | None:
    """The architecture that config.json names, or that of its text part."""
    path = checkpoint.directory / "config.json"
    kind = text_type(read_json(path) if path.exists() else {})
    return load_architecture(kind) if kind in architectures() else None


def _check_fixed(checkpoint: Checkpoint, fixed: Mapping[str, float]) -> None:
    """Raises: WeightMismatch for a number that the graph does not read and would have to."""
    for pattern, wanted in fixed.items():
        for name in fnmatch.filter(checkpoint.names, pattern):
            found = checkpoint.tensor(name).to_float32()
            if not np.allclose(found, wanted, rtol=2**-7, atol=0):
                raise WeightMismatch(f"{checkpoint.directory}: {name} is {found.tolist()}; {wanted:g} is computed")


def _unused_weights(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Patterns of tensors of layers behind the last that guess further tokens, and of what makes keys and values in
    layers that read another's; architectures say who may have such. And of what is behind layers whose hidden states
    are pooled.
    """
    path = checkpoint.directory / "config.json"
    data = read_json(path) if path.exists() else {}
    kind = text_type(data)
    behind_layers: tuple[str, ...] = ("lm_head.*", f"{HEAD}.*") if is_retriever(data) else ()
    data = data["text_config"] if isinstance(data.get("text_config"), dict) else data
    behind_layers += _behind_layers(data)
    if kind in (*architectures(), *encoder_types()):
        behind_layers += load_architecture(kind).unused
    layers, sharing = data.get("num_hidden_layers"), data.get("num_kv_shared_layers") or 0
    keys = ("num_nextn_predict_layers", "num_mtp_modules", "num_mtp_layers")
    guessing = next((data[key] for key in keys if data.get(key)), 0)
    if not isinstance(layers, int) or not isinstance(sharing, int) or not isinstance(guessing, int):
        return behind_layers
    behind = (f"model.layers.{layers + i}.*" for i in range(min(guessing, MAX_LAYERS)))
    made = ("k_proj", "v_proj", "k_norm", "v_norm")
    of_sharing = range(max(0, layers - sharing), min(layers, MAX_LAYERS))
    return (*behind_layers, *behind, *(f"model.layers.{i}.self_attn.{part}.*" for i in of_sharing for part in made))


def _behind_layers(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Patterns of what a class has behind its layers that is not of the graph."""
    model_type, classes = data.get("model_type"), data.get("architectures") or ()
    if not isinstance(model_type, str):
        return ()
    if model_type.replace("-", "_") in (*encoder_types(), *speech_types()):
        return load_architecture(model_type).unused
    writes_text = data.get("is_causal") is not False and any(str(name).endswith(TEXT_CLASSES) for name in classes)
    return () if writes_text or not classes else ("lm_head.*", "score.*", "v_head.*")
