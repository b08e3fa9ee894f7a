"""What a directory of sentence-transformers says beside the model: how hidden states are pooled, and what comes then.

modules.json names its parts in order, each with a folder: the model itself, pooling, linears (Dense), a LayerNorm,
scaling to length 1; or, of a model that writes text, what makes a score of its logits. Called by the sources of models
in api/. Reads no weight.
"""

from __future__ import annotations

import json
from dataclasses import replace
from os.path import isfile
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
#: A model with its head of masked tokens, and what makes weights of the vocabulary of it.
_MASKED, _SPARSE = "MLMTransformer", "SpladePooling"
#: What a model of vectors of each token has last: which of them count.
_MASK = "MultiVectorMask"
#: What modules call what they are given, and give.
_OF_TEXT, _OF_TOKENS = "sentence_embedding", "token_embeddings"
#: Where types of modules begin whose models give a vector of each token, of length 1 (PyLate's).
_MULTI_VECTOR = "pylate."
_LONGEST_NAME = 200
#: Of config.json: how many values of an embedding may be asked for.
_LENGTHS = "matryoshka_dimensions"
_MODES: dict[str, PoolingType] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
_BY_NAME: dict[str, PoolingType] = {"cls": "cls", "mean": "mean", "max": "max", "lasttoken": "last"}
#: What functions that compare embeddings are called, too.
_SIMILARITIES = {"dot_product": "dot", "MaxSim": "maxsim"}
_ACTIVATIONS: dict[str, HeadActivation] = {
    "torch.nn.modules.linear.Identity": "none",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.SiLU": "silu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}


def with_modules(rule: PoolingRule, directory: Path) -> PoolingRule:
    """The rule of a model, as the directory's modules.json changes it, of a classifier what it says of a cross-encoder;
    where there is none, the rule itself.

    Raises: ModelError for a damaged file; UnsupportedModel for a part that is not computed.
    """
    if rule.task == "classify":
        return _with_activation(rule, directory / SETTINGS)
    similarity, lengths = _similarity(rule, directory / SETTINGS), _lengths(directory / "config.json")
    rule = replace(rule, prompts=_prompts(directory), similarity=similarity, lengths=lengths)
    path = directory / MODULES
    if not path.is_file():
        return rule
    rule = replace(rule, normalizes=False)
    for module in _modules(path):
        home, _, kind = str(module.get("type", "")).rpartition(".")
        folder = str(module.get("path", ""))
        if home.startswith(_MULTI_VECTOR):
            rule = replace(rule, pooling_type="all", normalizes=True)
        elif rule.normalizes and kind not in (_MODEL, _MASKED, _MASK):
            raise UnsupportedModel(f"{path}: {kind} comes behind {_SCALING}, which is computed last")
        if kind == _POOLING:
            rule = _pooled(rule, _pooling(directory, folder), path)
        elif kind == _SPARSE:
            rule = _of_vocabulary(rule, directory, folder)
        elif kind == _DENSE:
            step, is_of_tokens = _dense(directory, folder)
            kind_of_all: PoolingType = "all" if is_of_tokens else rule.pooling_type
            rule = replace(rule, head=(*rule.head, step), pooling_type=kind_of_all)
        elif kind == _NORM:
            rule = replace(rule, head=(*rule.head, HeadStep(folder, eps=1e-5, is_folder=True)))
        elif kind == _SCORE:
            rule = _with_activation(_score(rule, directory, folder), directory / SETTINGS)
        elif kind == _SCALING:
            rule = replace(rule, normalizes=True)
            # most have no folder, and may name none
            if folder and isfile(directory / folder / "config.json") and _is_of_tokens(_inner(directory, folder)):
                rule = replace(rule, pooling_type="all")
        elif kind == _MASK:
            rule = replace(rule, pooling_type="all", normalizes=rule.normalizes)
            _check_mask(directory, folder)
        elif kind not in (_MODEL, _MASKED):
            known = ", ".join((_MODEL, _MASKED, _POOLING, _SPARSE, _DENSE, _NORM, _SCALING, _SCORE, _MASK))
            raise UnsupportedModel(f"{path}: a module of type {short(module.get('type'))}; computed are {known}")
    return rule


def is_of_vocabulary(directory: Path) -> bool:
    """Whether embeddings are weights of a vocabulary. Raises: ModelError for a damaged file."""
    path = directory / MODULES
    return path.is_file() and any(str(each.get("type", "")).endswith(f".{_SPARSE}") for each in _modules(path))


def _modules(path: Path) -> list[dict[str, Any]]:
    try:
        modules = json.loads(path.read_bytes())
    except RecursionError:
        raise ModelError(f"{path}: is nested too deeply to be a real file") from None
    except ValueError as error:
        raise ModelError(f"{path}: is no JSON: {error}") from None
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules):
        raise ModelError(f"{path}: must be a list of modules")
    return modules


def _of_vocabulary(rule: PoolingRule, directory: Path, folder: str) -> PoolingRule:
    """Raises: UnsupportedModel for a sum over tokens, and where there are hidden states in place of logits."""
    fields = _inner(directory, folder)
    for key in ("embedding_dimension", "word_embedding_dimension", "chunk_size"):
        fields.raw(key)
    fields.one_of("pooling_strategy", ("max",), "max")
    kind = fields.one_of("activation_function", ("relu", "log1p_relu"), "relu")
    if rule.vocabulary is None or rule.head:
        fields.unsupported("type", _SPARSE, f"supported directly behind {_MASKED} of BERT, RoBERTa and their kin")
    return replace(rule, vocabulary="log1p" if kind == "relu" else "log1p_twice")


def _similarity(rule: PoolingRule, path: Path) -> str:
    """How embeddings are compared. One that is not known does no harm until somebody wants a score."""
    given = Fields(read_json(path), str(path)).text("similarity_fn_name", "") if path.is_file() else ""
    return _SIMILARITIES.get(given, given) or rule.similarity


def _lengths(path: Path) -> tuple[int, ...]:
    """How many values of embeddings are good ones, too. Raises: ModelError for what is no such list."""
    if not path.is_file():
        return ()
    fields = Fields(read_json(path), str(path))
    given = fields.raw(_LENGTHS)
    if given is None:
        return ()
    if not isinstance(given, list) or not all(type(each) is int and each > 0 for each in given):
        fields.fail(_LENGTHS, short(given), "must be a list of numbers of values, each at least 1")
    return tuple(sorted(set(given)))


def _prompts(directory: Path) -> tuple[tuple[str, str], ...]:
    """What texts begin with, by name: of sentence-transformers' settings, or of config.json as Jina's files have it.

    Raises: ModelError for what is no text.
    """
    for name, key in ((SETTINGS, "prompts"), ("config.json", "task_instructions")):
        path = directory / name
        given = Fields(read_json(path), str(path)).table(key) if path.is_file() else None
        if not given:
            continue
        for each, text in given.items():
            if not isinstance(text, str) and text is not None:
                raise ModelError(f"{path}: {key} has {short(text)} by the name {short(each)}; it must be a text")
        return tuple((each, text or "") for each, text in given.items())
    return ()


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


def _pooled(rule: PoolingRule, kind: PoolingType, path: Path) -> PoolingRule:
    """A rule with what its tokens are pooled to. Raises: UnsupportedModel where what each token was given first is more
    than a linear, which a mean of what it gives is as good as."""
    if any(step.activation != "none" or step.eps is not None for step in rule.head) and kind not in ("cls", "last"):
        raise UnsupportedModel(
            f"{path}: {_DENSE} or {_NORM} of each token before a {kind} of them is computed without an activation alone"
        )
    if rule.head and kind == "max":
        raise UnsupportedModel(f"{path}: {_DENSE} before {_POOLING} is computed where that takes a mean, or one token")
    return replace(rule, pooling_type=kind)


def _check_mask(directory: Path, folder: str) -> None:
    """What of a document counts is the caller's to say: words that are left out are tokens like others here.

    Raises: UnsupportedModel where all but a few tokens are left out."""
    fields = _inner(directory, folder)
    fields.raw("skiplist_words"), fields.raw("skiplist_tasks")
    fields.refuse_unread((), {})


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


def _dense(directory: Path, folder: str) -> tuple[HeadStep, bool]:
    """And whether it is given what each token has, before pooling."""
    fields = _inner(directory, folder)
    for key in ("in_features", "out_features", "bias"):
        fields.raw(key)
    given = fields.one_of("activation_function", _ACTIVATIONS, "torch.nn.modules.activation.Tanh")
    is_residual = fields.flag("use_residual", False)
    is_of_tokens = _is_of_tokens(fields)
    fields.refuse_unread((), {})
    return HeadStep(folder, _ACTIVATIONS[given], is_folder=True, is_residual=is_residual), is_of_tokens


def _is_of_tokens(fields: Fields) -> bool:
    """Whether a module is given what each token has; else what a text has. Raises: UnsupportedModel where what it gives
    is something else."""
    given = fields.one_of("module_input_name", (_OF_TEXT, _OF_TOKENS), _OF_TEXT)
    made = fields.raw("module_output_name")
    if made not in (None, given):
        fields.unsupported("module_output_name", made, f"supported: {given}, which it is given")
    return given == _OF_TOKENS
