"""The embedding of a prompt as the engine sees it: what it may ask for, and how far it is.

Used by request.py and engine.py. Does not know hidden states: it keeps sums that it is given, and counts.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace

from albireo.engine.settings import EngineSettings
from albireo.errors import InvalidParams, PromptTooLong, UnsupportedFeature
from albireo.params import PoolingParams, PoolingType
from albireo.step import Floats, PoolingTask

#: Most that one prompt may be made of where each token has values of its own: 64 MiB.
MAX_VALUES = 2**24


@dataclass(slots=True)
class Pooling:
    """How far one embedding is. Invariant: sums are of the hidden states of the first num_summed prompt tokens.

    What was summed stays when the sequence is preempted; its tokens are computed again, but not summed again. So does
    what each token has of its own: rows, one behind the other.
    """

    params: PoolingParams
    num_summed: int = 0
    sums: Floats = ()
    rows: array[float] = field(default_factory=lambda: array("f"))

    @property
    def needs_all(self) -> bool:
        """Whether other hidden states than the last are wanted, so that no token may come from the prefix cache."""
        return self.params.pooling_type != "last"

    def task(self, start: int, end: int, num_prompt: int) -> PoolingTask | None:
        """What is wanted of a step that computes prompt tokens start .. end-1; None: nothing."""
        is_last = end == num_prompt
        if self.params.pooling_type == "cls":  # whoever sees both ways has all tokens in one step
            return PoolingTask(self.params, 1, 0, (), is_last)
        first = max(start, self.num_summed) if self.needs_all else end - is_last
        if first >= end:
            return None
        return PoolingTask(self.params, end - first, self.num_summed, self.sums, is_last)

    def take(self, task: PoolingTask, found: Floats) -> None:
        """A step that did not end the prompt was executed."""
        self.num_summed += task.num_rows
        if self.params.pooling_type == "all":
            self.rows.extend(found)
        else:
            self.sums = found

    def ended(self, found: Floats) -> Floats:
        """What the prompt was pooled to. Args: found: by the step that ended it."""
        if not self.rows:
            return found
        self.rows.extend(found)
        return self.rows


def pooling_of(params: PoolingParams, settings: EngineSettings) -> Pooling:
    """What a request asks for, or else the model's files say."""
    return Pooling(replace(params, pooling_type=_kind(params, settings)))


def _kind(params: PoolingParams, settings: EngineSettings) -> PoolingType:
    return params.pooling_type or settings.pooling_rule.pooling_type


def num_token_values(num_prompt: int, params: PoolingParams, settings: EngineSettings) -> int:
    """Of all tokens of a prompt together, where each has values of its own; else 0."""
    width = params.dimensions or token_width(params, settings)
    return num_prompt * width if _kind(params, settings) == "all" else 0


def token_width(params: PoolingParams, settings: EngineSettings) -> int:
    """Values of a token, where each has some, before they are cut."""
    head = settings.pooling_rule.token_head(params.task)
    return settings.embedding_size if head is None else head.width


def check_pooling(prompt_token_ids: list[int], params: PoolingParams, settings: EngineSettings) -> int:
    """Refuse what can never run. The prompt may fill the context: nothing is produced behind it.

    Returns: one more than the prompt's length, which the sequence never reaches.
    Raises: InvalidParams, PromptTooLong, with the numbers; UnsupportedFeature.
    """
    if settings.embedding_size == 0:
        raise UnsupportedFeature("this model gives no embeddings: its head has an unknown shape; take another model")
    width = token_width(params, settings) if _kind(params, settings) == "all" else settings.embedding_size
    if params.dimensions is not None and params.dimensions > width:
        raise InvalidParams(
            f"dimensions={params.dimensions} is more than this model's {width}; ask for fewer, or leave it out"
        )
    lengths = settings.pooling_rule.lengths
    if params.dimensions not in (None, width, *lengths) and lengths:
        raise InvalidParams(
            f"dimensions={params.dimensions}: this model's files say that {', '.join(map(str, lengths))} of its "
            f"{width} values are an embedding, too; ask for one of these, or leave it out"
        )
    num_prompt = len(prompt_token_ids)
    _check_rule(params, settings)
    num_values = num_token_values(num_prompt, params, settings)
    if num_values > MAX_VALUES:
        raise InvalidParams(
            f"{num_prompt} tokens have {num_values // num_prompt} values each, {num_values} in all; at most "
            f"{MAX_VALUES} are given: shorten the prompt, or ask for fewer dimensions"
        )
    if params.type_start is not None and (settings.num_token_types < 2 or params.type_start > num_prompt):
        types, start = settings.num_token_types, params.type_start
        raise InvalidParams(
            f"type_start={start} of {num_prompt} tokens; this model tells {types} types of tokens apart; leave it out"
            + (", or begin within the prompt" if types > 1 else "")
        )
    if num_prompt > settings.max_model_len:
        raise PromptTooLong(
            f"the prompt has {num_prompt} tokens, max_model_len={settings.max_model_len}; shorten it or raise "
            "max_model_len"
        )
    if num_prompt > settings.capacity_tokens:
        raise PromptTooLong(
            f"the prompt's {num_prompt} tokens do not fit the KV cache, which has room for {settings.capacity_tokens}; "
            "shorten it or raise kv_cache_memory_bytes"
        )
    return num_prompt + 1


def _check_rule(params: PoolingParams, settings: EngineSettings) -> None:
    """Whether what is asked for is what the model gives. Raises: InvalidParams."""
    rule = settings.pooling_rule
    kind = _kind(params, settings)
    if kind == "cls" and settings.is_causal:
        raise InvalidParams(
            "pooling_type=cls is the hidden state of the first token, which sees no other in this model; use last or "
            "mean"
        )
    if rule.vocabulary is not None and (kind != rule.pooling_type or params.dimensions is not None):
        asked = f"pooling_type={kind}" if kind != rule.pooling_type else f"dimensions={params.dimensions}"
        raise InvalidParams(
            f"{asked}: this model's embedding has a weight for each entry of its vocabulary; leave it out"
        )
    if params.task == "token_classify" and rule.task == "embed" and params.dimensions is not None:
        raise InvalidParams(f"dimensions={params.dimensions}: each token has one weight; leave it out")
    if rule.is_of_pictures and kind != rule.pooling_type:
        raise InvalidParams(
            f"pooling_type={kind}: this model's embedding of a text is that of its {rule.pooling_type} token, as that "
            "of a picture goes with it; leave it out"
        )
    if rule.task == "embed":
        return
    if kind != rule.pooling_type or params.dimensions is not None:
        asked = f"pooling_type={kind}" if kind != rule.pooling_type else f"dimensions={params.dimensions}"
        raise InvalidParams(f"{asked}: the scores of this classifier are those of {rule.pooling_type}; leave it out")
