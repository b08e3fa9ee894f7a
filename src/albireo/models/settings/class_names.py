"""Which classes of a model_type are computed, and what is behind the layers of each: a head that writes text, or what
embeds or classifies.

Called by config.py; opening.py asks what writes text. Does not know the rest of a config.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from albireo.errors import short
from albireo.json_file import Fields
from albireo.models.settings.pooling_rule import HeadStep, PoolingRule, classifier, token_classifier
from albireo.models.settings.retrievers import CLASS_END, HEAD

#: What classes of models that write text end with.
TEXT_CLASSES = ("ForCausalLM", "LMHeadModel")
#: And those that classify texts, or each token.
_CLASSIFIER, _OF_TOKENS = "ForSequenceClassification", "ForTokenClassification"
#: Qwen's and InternLM 2's, which were published with code of their own: a text's worth, and of each token whether a
#: step that ends there is right.
_REWARDS, _REWARDS_STEPS = "ForRewardModel", "ForProcessRewardModel"
_REWARD_HEAD = HeadStep("score.0", "relu"), HeadStep("score.2")
_SCORE = (HeadStep("score"),)
#: What vLLM calls a class whose embeddings are weights of the vocabulary, in place of what transformers calls it.
SPARSE, MASKED = "SpladeSparseEmbeddingModel", "ForMaskedLM"
#: By model_type, where it is another than Qwen's.
_WORTH_HEADS = {"internlm2": (HeadStep("v_head"),)}


def class_names(model_type: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """What architectures may name. Args: given: by the architecture; empty: model_type and ForCausalLM."""
    return given or ("".join(part.capitalize() for part in model_type.split("_")) + "ForCausalLM",)


def is_own_code(auto_map: Any, names: tuple[str, ...]) -> bool:
    """Whether the code beside a checkpoint is that of the class which is computed here: from before transformers had
    it, as Phi-3, Falcon and ERNIE 4.5 came out, or that it does not have, as those of rewards. It is never run."""
    places = auto_map if isinstance(auto_map, dict) else {}
    code, headless = (str(places.get(key)).rpartition(".")[2] for key in ("AutoModelForCausalLM", "AutoModel"))
    rewards = (f"{stem}{end}" for stem in _stems(names) for end in (_REWARDS, _REWARDS_STEPS))
    return code in names or headless in rewards


def pooling_of_class(
    fields: Fields,
    model_type: str,
    names: tuple[str, ...],
    pooled: Callable[[Fields, str], PoolingRule] | None,
    token_head: Callable[[Fields], tuple[HeadStep, ...]],
    has_vocabulary: bool,
) -> PoolingRule | None:
    """What is behind the layers of the class that config.json names; None: a head that writes text.

    Args: names: of class_names(). pooled, token_head, has_vocabulary: see ConfigRules.
    Raises: UnsupportedModel for another class of the same model_type.
    """
    classes = fields.texts("architectures")
    found = {name.lower() for name in classes}
    if pooled is not None:
        name = next((name for name in names if name.lower() in found), None if classes else names[0])
        if name is not None:
            return pooled(fields, name)
        if any(name.replace(_CLASSIFIER, _OF_TOKENS).lower() in found for name in names if _CLASSIFIER in name):
            pooled(fields, names[0])  # reads the keys of what it does not do
            return token_classifier(fields, token_head(fields))
        if has_vocabulary and any(name.replace(MASKED, SPARSE).lower() in found for name in names if MASKED in name):
            pooled(fields, names[0])
            return _of_vocabulary(fields)
    elif not classes or found.intersection(name.lower() for name in names):
        return None
    else:
        stems = _stems(names)
        ending = next((end for end in _ENDINGS if any(f"{stem}{end}".lower() in found for stem in stems)), None)
        if ending == _REWARDS:
            return _reward(fields, _WORTH_HEADS.get(model_type, _REWARD_HEAD))
        if ending is not None:
            return _ENDINGS[ending](fields)
    what = f"model_type {short(model_type)} is computed as {', '.join(names)}"
    fields.unsupported("architectures", list(classes), what)


def _stems(names: tuple[str, ...]) -> list[str]:
    """Names of classes that write text without their ends."""
    return [stem for name in names for end in TEXT_CLASSES if (stem := name.removesuffix(end)) != name]


def _of_vocabulary(fields: Fields) -> PoolingRule:
    if not fields.flag("tie_word_embeddings", True):
        fields.unsupported("tie_word_embeddings", False, "supported: true, where weights of a vocabulary are wanted")
    return PoolingRule(pooling_type="max", normalizes=False, vocabulary="log1p", similarity="dot")


def _reward(fields: Fields, head: tuple[HeadStep, ...]) -> PoolingRule:
    return replace(classifier(fields, "last", head, num_labels=1), activation="none")


#: What the name of a class of a decoder's layers ends with that writes no text -> what it gives.
_ENDINGS: Mapping[str, Callable[[Fields], PoolingRule]] = {
    _CLASSIFIER: lambda fields: classifier(fields, "last", _SCORE),
    _OF_TOKENS: lambda fields: token_classifier(fields, _SCORE),
    _REWARDS_STEPS: lambda fields: token_classifier(fields, _REWARD_HEAD),
    _REWARDS: lambda fields: _reward(fields, _REWARD_HEAD),
    CLASS_END: lambda _: PoolingRule(pooling_type="all", head=(HeadStep(HEAD),)),
    "Model": lambda _: PoolingRule(),
}
