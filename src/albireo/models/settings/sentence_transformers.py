"""What a directory of sentence-transformers says beside the model: how hidden states are pooled, and what comes then.

modules.json names its parts in order, each with a folder: the model itself, pooling, linears (Dense), a LayerNorm,
scaling to length 1; or, of a model that writes text, what makes a score of its logits. Called by the sources of models
in api/. Reads no weight.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from albireo.errors import ModelError, UnsupportedModel, short
from albireo.json_file import Fields, read_json
from albireo.models.settings.pooling_rule import HeadActivation, HeadStep, PoolingRule, score_activation
from albireo.params import PoolingType
from albireo.speculative_config import MAX_VOCAB

MODULES = "modules.json"
#: Where newer versions say of a cross-encoder what config.json said before.
SETTINGS = "config_sentence_transformers.json"
#: The last part of a module's type, which begins with sentence_transformers.models or where newer versions keep it.
_MODEL, _POOLING, _DENSE, _NORM, _SCALING = "Transformer", "Pooling", "Dense", "LayerNorm", "Normalize"
_SCORE = "LogitScore"
#: Where types of modules begin whose models give a vector of each token, of length 1 (PyLate's).
_MULTI_VECTOR = "pylate."
_LONGEST_NAME = 200
_MODES: dict[str, PoolingType] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
_BY_NAME: dict[str, PoolingType] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
_ACTIVATIONS: dict[str, HeadActivation] = {
    "torch.nn.modules.linear.Identity": "none",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.SiLU": "silu",
}


def with_modules(rule: PoolingRule, directory: Path) -> PoolingRule:
    """The rule of a model, as the directory's modules.json changes it, of a classifier what it says of a cross-encoder;
    where there is none, the rule itself.

    Raises: ModelError for a damaged file; UnsupportedModel for a part that is not computed.
    """
    if rule.task == "classify":
        return _with_activation(rule, directory / SETTINGS)
    path = directory / MODULES
    if not path.is_file():
        return rule
    try:
        modules = json.loads(path.read_bytes())
    except RecursionError:
        raise ModelError(f"{path}: is nested too deeply to be a real file") from None
    except ValueError as error:
        raise ModelError(f"{path}: is no JSON: {error}") from None
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules):
        raise ModelError(f"{path}: must be a list of modules")
    rule = replace(rule, normalizes=False)
    for module in modules:
        home, _, kind = str(module.get("type", "")).rpartition(".")
        folder = str(module.get("path", ""))
        if home.startswith(_MULTI_VECTOR):
            rule = replace(rule, pooling_type="all", normalizes=True)
        elif rule.normalizes and kind != _MODEL:
            raise UnsupportedModel(f"{path}: {kind} comes behind {_SCALING}, which is computed last")
        if kind == _POOLING:
            rule = replace(rule, pooling_type=_pooling(directory, folder))
        elif kind == _DENSE:
            rule = replace(rule, head=(*rule.head, _dense(directory, folder)))
        elif kind == _NORM:
            rule = replace(rule, head=(*rule.head, HeadStep(folder, eps=1e-5, is_folder=True)))
        elif kind == _SCORE:
            rule = _with_activation(_score(rule, directory, folder), directory / SETTINGS)
        elif kind == _SCALING:
            rule = replace(rule, normalizes=True)
        elif kind != _MODEL:
            known = ", ".join((_MODEL, _POOLING, _DENSE, _NORM, _SCALING, _SCORE))
            raise UnsupportedModel(f"{path}: a module of type {short(module.get('type'))}; computed are {known}")
    return rule


def _with_activation(rule: PoolingRule, path: Path) -> PoolingRule:
    given = read_json(path).get("activation_fn") if path.is_file() else None
    if given is None:
        return rule
    return replace(rule, activation=score_activation(Fields({}, str(path)), "activation_fn", given))


def _inner(directory: Path, folder: str) -> Fields:
    """The settings of a module. Raises: ModelError when its folder leaves the directory."""
    is_name = 0 < len(folder) <= _LONGEST_NAME and folder.isprintable()  # nothing the system could not look up
    if not is_name or Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise ModelError(f"{directory / MODULES}: path={short(folder)} is no folder of this directory")
    path = directory / folder / "config.json"
    return Fields(read_json(path), str(path))


def _pooling(directory: Path, folder: str) -> PoolingType:
    fields = _inner(directory, folder)
    fields.raw("word_embedding_dimension"), fields.raw("embedding_dimension")
    chosen = [kind for key, kind in _MODES.items() if fields.flag(key, False)]
    named: Any = fields.raw("pooling_mode")
    if isinstance(named, str) and named in _BY_NAME:
        chosen = [_BY_NAME[named]]
    elif named is not None:
        fields.unsupported("pooling_mode", named, f"supported: {', '.join(_BY_NAME)}")
    # which tokens are those of a prompt is told by the prompt's author, and all are pooled here
    fields.refuse_unread((), {"include_prompt": (True,)})
    if len(chosen) != 1:
        fields.unsupported("pooling_mode", chosen, f"supported is one of {', '.join(_MODES)}")
    return chosen[0]


def _score(rule: PoolingRule, directory: Path, folder: str) -> PoolingRule:
    """One score of the logits behind the last token: of a token that says yes, less one that says no."""
    fields = _inner(directory, folder)
    tokens: tuple[int, ...] = (fields.integer("true_token_id", 0, MAX_VOCAB - 1),)
    if (other := fields.optional_integer("false_token_id", 0, MAX_VOCAB - 1)) is not None:
        tokens = (*tokens, other)
    fields.refuse_unread((), {"module_input_name": ("causal_logits",)})
    if rule.head or not rule.is_causal:
        fields.unsupported("true_token_id", tokens[0], "supported where the model itself, which writes text, is before")
    head = (HeadStep("score_of_tokens", tokens=tokens),)
    return replace(rule, task="classify", pooling_type="last", labels=("LABEL_0",), activation="sigmoid", head=head)


def _dense(directory: Path, folder: str) -> HeadStep:
    fields = _inner(directory, folder)
    for key in ("in_features", "out_features", "bias"):
        fields.raw(key)
    given = fields.one_of("activation_function", _ACTIVATIONS, "torch.nn.modules.activation.Tanh")
    of_a_text = ("sentence_embedding",)
    fields.refuse_unread((), {"module_input_name": of_a_text, "module_output_name": of_a_text})
    return HeadStep(folder, _ACTIVATIONS[given], is_folder=True)
