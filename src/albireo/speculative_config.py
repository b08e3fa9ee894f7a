"""SpeculativeConfig: how an engine guesses ahead. Names are vLLM's where the meaning is the same.

Checked once, on construction, and frozen afterwards. A leaf module: does not know how a guess is made or judged.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from albireo.errors import ConfigError, short

METHODS = ("ngram", "draft_model", "mtp", "eagle", "eagle3")
#: Those by a head that reads the model's hidden states.
HEADS = ("mtp", "eagle", "eagle3")
#: What vLLM called mtp, by the model that it is of.
_OLD_NAMES = frozenset(
    f"{model}_mtp"
    for model in ("deepseek", "ernie", "exaone4", "glm4_moe", "glm4_moe_lite", "longcat_flash", "mimo", "nemotron_h")
) | {"qwen3_next_mtp", "qwen3_5_mtp", "pangu_ultra_moe_mtp", "mimo_v2_flash_mtp", "glm_ocr_mtp"}
#: Drafts of one sequence in one step, and of a step in all: each takes a row of the step.
MAX_DRAFTS = 64
#: Longer n-grams than this tell nothing that it does not.
MAX_LOOKUP = 64
LOOKUP_MAX, LOOKUP_MIN = 5, 2
#: No model has more tokens.
MAX_VOCAB = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculativeConfig:
    """How drafts are made.

    Fields:
        method: ngram: what followed the last few tokens where they stood before, in the prompt or the output;
            draft_model: what a model says that takes less time; mtp: what the layer says that the model was published
            with to guess further tokens; eagle, eagle3: what a head says that was trained for the model.
        num_speculative_tokens: most drafts of one sequence in one step.
        model: that draft model or head: a directory or a name, as EngineConfig has it; None: the model itself,
            rounded, or its own layer.
        quantization: what the draft model's or head's weights are held in, as in EngineConfig; None: as they are, and
            of a head as the model's.
        draft_vocab_size: tokens that a head guesses among: the commonest, and those that were said lately; None: 32,768
            where the model has more than twice as many; 0: all, as always on a GPU.
        prompt_lookup_max: longest n-gram that is looked up.
        prompt_lookup_min: shortest; drafts are made where so many tokens stood before.

    Raises: ConfigError naming field, value and limit.
    """

    method: Literal["ngram", "draft_model", "mtp", "eagle", "eagle3"]
    num_speculative_tokens: int = 5
    model: str | None = None
    quantization: str | None = None
    draft_vocab_size: int | None = None
    prompt_lookup_max: int = LOOKUP_MAX
    prompt_lookup_min: int = LOOKUP_MIN

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(
                f"speculative_config.method={short(self.method)} is unknown; there is {', '.join(METHODS)}"
            )
        _check_model(self)
        limits = {
            "num_speculative_tokens": MAX_DRAFTS,
            "prompt_lookup_max": MAX_LOOKUP,
            "prompt_lookup_min": MAX_LOOKUP,
        }
        for name, high in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= high:
                limit = f"it must be a whole number from 1 to {high}"
                raise ConfigError(f"speculative_config.{name}={short(value)} is not allowed; {limit}")
        if self.prompt_lookup_min > self.prompt_lookup_max:
            raise ConfigError(
                f"speculative_config.prompt_lookup_min={self.prompt_lookup_min} exceeds "
                f"prompt_lookup_max={self.prompt_lookup_max}; lower it or raise prompt_lookup_max"
            )

    @classmethod
    def of(cls, value: Any) -> SpeculativeConfig | None:
        """From what callers give: None, an instance, an object with its fields, or the text of one in JSON.

        Raises: ConfigError.
        """
        if value is None or isinstance(value, cls):
            return value
        given = _parsed(value) if isinstance(value, str) else value
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"speculative_config={short(value)} is not allowed; it must be an object, such as "
                '{"method": "ngram", "num_speculative_tokens": 5}'
            )
        if "method" not in given and "model" in given:
            given = {**given, "method": "draft_model"}
        if isinstance(given.get("method"), str) and given["method"] in _OLD_NAMES:
            given = {**given, "method": "mtp"}
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"its keys are {', '.join(known)}"
                raise ConfigError(f"speculative_config has no key {short(name)}; {hint}")
        if "method" not in given:
            raise ConfigError(f"speculative_config names no method; there is {', '.join(METHODS)}")
        return cls(**given)


def _check_model(config: SpeculativeConfig) -> None:
    for name in ("model", "quantization"):
        value = getattr(config, name)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"speculative_config.{name}={short(value)} is not allowed; it must be a name")
        if value is not None and config.method == "ngram":
            raise ConfigError(
                f"speculative_config.{name}={short(value)} is of method draft_model, or of a head; leave it out"
            )
    size = config.draft_vocab_size
    if size is not None and config.method not in HEADS:
        raise ConfigError(
            f"speculative_config.draft_vocab_size={short(size)} is of a head that drafts, {', '.join(HEADS)}; "
            "leave it out"
        )
    if size is not None and (type(size) is not int or not 0 <= size <= MAX_VOCAB):
        limit = f"it must be a whole number from 0 (all) to {MAX_VOCAB}"
        raise ConfigError(f"speculative_config.draft_vocab_size={short(size)} is not allowed; {limit}")
    if config.method == "ngram":
        return
    if config.model is None and config.method in ("eagle", "eagle3"):
        raise ConfigError(
            f"speculative_config: method {config.method} needs a model: where the head is that was trained for this one"
        )
    if config.method == "draft_model" and config.model is None and config.quantization is None:
        raise ConfigError(
            "speculative_config: method draft_model needs a model, or a quantization in which the model itself is the "
            'draft model, such as {"method": "draft_model", "quantization": "int4"}'
        )
    if (config.prompt_lookup_max, config.prompt_lookup_min) != (LOOKUP_MAX, LOOKUP_MIN):
        raise ConfigError(
            "speculative_config: prompt_lookup_max and prompt_lookup_min are of method ngram; leave them out"
        )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"speculative_config={short(text)} is not JSON: {error}") from None
