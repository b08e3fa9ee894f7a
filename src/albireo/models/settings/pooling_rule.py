"""What a model gives that writes no text: an embedding, or scores of a classifier; and what is behind its pooling.

Made by config.py of the class that config.json names, and by sentence_transformers.py; read by api/. Does not know how
hidden states are computed, nor how they are pooled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from albireo.errors import short
from albireo.json_file import Fields
from albireo.params import PoolingTaskName, PoolingType

Task = Literal["embed", "classify"]
#: What a classifier's scores become; vLLM's and transformers' rule by problem_type and the number of labels.
ScoreActivation = Literal["sigmoid", "softmax", "none"]
HeadActivation = Literal["none", "tanh", "gelu", "relu", "silu", "sigmoid"]
#: What makes weights of a vocabulary's numbers: log(1 + max(0, x)), once or twice.
VocabularyWeights = Literal["log1p", "log1p_twice"]
MAX_LABELS = 2**16
#: A key that no config.json has: linears behind pooling, of a GGUF file, which has no modules.json beside it.
GGUF_LINEARS = "albireo_linears_behind_pooling"


@dataclass(frozen=True, slots=True)
class HeadStep:
    """A linear or a LayerNorm of what was pooled, then an activation.

    Fields:
        name: of its module in the checkpoint; of its folder in a directory of sentence-transformers.
        eps: of a LayerNorm; None: it is a linear.
        tokens: it is a linear with one output, of the head that gives logits: that of the first token, less that of
            the second where there is one. Its name is what engine directories call it.
        is_file: it lies in a file of its own, by its name, beside the model's.
        is_residual: what comes to a linear is added to what it gives; where that has another width, a linear of it.
    """

    name: str
    activation: HeadActivation = "none"
    eps: float | None = None
    is_folder: bool = False
    tokens: tuple[int, ...] = ()
    is_residual: bool = False
    is_file: bool = False


@dataclass(frozen=True, slots=True)
class TokenHead:
    """What a model of embeddings makes of each token besides. Fields: task: by which it is asked for. step: what makes
    it of a hidden state. width: values. problem: why it is not computed, as the end of a sentence; empty: it is."""

    task: PoolingTaskName
    step: HeadStep
    width: int
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingRule:
    """What becomes of a prompt's hidden states, where the model's files say so.

    Fields:
        task: what the values are. labels: of a classifier, one a value; empty: it is none.
        pooling_type: cls is the first token's; of all each token has what it gives. normalizes: an embedding is scaled
            to length 1.
        is_causal: tokens do not see what comes behind them, so that a prompt may come in parts.
        activation: of a classifier's scores.
        head: what is computed of the pooled hidden state, step by step.
        vocabulary: an embedding has a weight for each entry of the vocabulary, most of them zero (SPLADE), and is made
            of numbers of the masked language model's head in place of hidden states; None: it has not.
        similarity: how embeddings are compared, in sentence-transformers' words: cosine, dot, maxsim; others are known
            by name alone.
        prompts: names, and what texts begin with that are embedded by them.
        lengths: how many of an embedding's first values are a good embedding, too, by the model's files (Matryoshka);
            empty: they do not say, and any number may be asked for.
        token_heads: see TokenHead; without one of embeddings of tokens these are hidden states.
        is_of_pictures: a prompt is a text or one picture, and what the tower gives of that is its embedding.
        pads_to: texts are made so many tokens long, with the tokenizer's token for it, which count like others; 0: they
            stay as long as they are.
    """

    task: Task = "embed"
    pooling_type: PoolingType = "last"
    normalizes: bool = True
    labels: tuple[str, ...] = ()
    activation: ScoreActivation = "none"
    head: tuple[HeadStep, ...] = ()
    is_causal: bool = True
    vocabulary: VocabularyWeights | None = None
    similarity: str = "cosine"
    prompts: tuple[tuple[str, str], ...] = ()
    lengths: tuple[int, ...] = ()
    token_heads: tuple[TokenHead, ...] = ()
    is_of_pictures: bool = False
    pads_to: int = 0

    @property
    def is_of_logits(self) -> bool:
        """Whether a score is made of what a model would write next."""
        return any(step.tokens for step in self.head)

    @property
    def tasks(self) -> tuple[PoolingTaskName, ...]:
        """What may become of a prompt, first what is meant where nobody says."""
        if self.vocabulary is not None or self.is_of_pictures:
            return ("embed",)
        if self.task == "embed":
            if self.pooling_type == "all":
                return ("token_embed",)
            return ("embed", *dict.fromkeys(("token_embed", *(head.task for head in self.token_heads))))
        return ("token_classify",) if self.pooling_type == "all" else ("classify",)

    def token_head(self, task: PoolingTaskName | None) -> TokenHead | None:
        """What makes that of a token; None: what makes embeddings."""
        return next((head for head in self.token_heads if head.task == task), None)

    @property
    def says(self) -> str:
        """What such a model does, in words that follow "this model"."""
        if self.pooling_type == "all":
            if self.task == "embed":
                return "gives an embedding of each token (encode, score, /pooling)"
            return f"gives scores of {len(self.labels)} labels of each token (encode, /pooling)"
        if self.task == "embed":
            of_what = " of texts and of pictures" * self.is_of_pictures
            return f"gives embeddings{of_what} (embed, /v1/embeddings)"
        return f"gives scores of {len(self.labels)} label{'s' * (len(self.labels) > 1)} (classify, score, /classify)"


def classifier(
    fields: Fields, pooling_type: PoolingType, head: tuple[HeadStep, ...], num_labels: int = 2
) -> PoolingRule:
    """The rule of a ...ForSequenceClassification.

    Args: num_labels: where config.json does not say. Raises: ModelError for labels that are none.
    """
    names = _labels(fields, num_labels)
    problem = fields.raw("problem_type")
    if problem not in (None, "regression", "single_label_classification", "multi_label_classification"):
        fields.fail("problem_type", problem, "is no kind of classification that there is")
    activation: ScoreActivation = "softmax"
    if len(names) == 1 or problem == "multi_label_classification":
        activation = "sigmoid"
    if problem == "regression":
        activation = "none"
    activation = _of_sentence_transformers(fields) or activation
    return PoolingRule(
        task="classify", pooling_type=pooling_type, normalizes=False, labels=names, activation=activation, head=head
    )


def token_classifier(fields: Fields, head: tuple[HeadStep, ...]) -> PoolingRule:
    """The rule of a ...ForTokenClassification: of each token the probabilities of its labels, as transformers' pipeline
    has them. Raises: as classifier()."""
    fields.raw("problem_type")
    return PoolingRule(
        task="classify",
        pooling_type="all",
        normalizes=False,
        labels=_labels(fields),
        activation=_of_sentence_transformers(fields) or "softmax",
        head=head,
    )


def _labels(fields: Fields, num_labels: int = 2) -> tuple[str, ...]:
    given = fields.table("id2label")
    if not given:
        count = fields.integer("num_labels", 1, MAX_LABELS, default=num_labels)
        return tuple(f"LABEL_{i}" for i in range(count))
    fields.raw("num_labels")
    names = {int(key) if key.isdecimal() else -1: label for key, label in given.items()}
    if sorted(names) != list(range(len(given))) or len(given) > MAX_LABELS:
        fields.fail("id2label", short(given), "must name labels 0, 1, ... without a hole")
    return tuple(str(names[i]) for i in range(len(names)))


#: What sentence-transformers writes of cross-encoders.
_ACTIVATIONS: Mapping[str, ScoreActivation] = {
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Softmax": "softmax",
    "torch.nn.modules.linear.Identity": "none",
}


def _of_sentence_transformers(fields: Fields) -> ScoreActivation | None:
    """What is said of scores beside problem_type. Raises: UnsupportedModel for a function that is not known."""
    table: dict[str, Any] = fields.table("sentence_transformers") or {}
    given = table.get("activation_fn") or fields.raw("sbert_ce_default_activation_function")
    return None if given is None else score_activation(fields, "sentence_transformers.activation_fn", given)


def score_activation(fields: Fields, key: str, given: Any) -> ScoreActivation:
    """By the name of its class in torch. Raises: UnsupportedModel for a function that is not known."""
    if given not in _ACTIVATIONS:
        fields.unsupported(key, given, f"supported: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[given]
