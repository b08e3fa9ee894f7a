"""How long sequences of a model may be: what its config.json says, and what its rotation was stretched to.

Called by whoever sets max_model_len. Does not know memory.
"""

from __future__ import annotations

from albireo.errors import ConfigError
from albireo.models.config import ModelConfig


def default_context(config: ModelConfig) -> int:
    """Positions of a sequence where max_model_len is not said: max_position_embeddings, or what yarn stretches the
    context of pretraining to, where that is more: files that were given it later keep the number they had, as Qwen's
    do."""
    return _stretched(config, ("yarn",))


def longest_context(config: ModelConfig) -> int:
    """Positions that max_model_len may ask for. Linear and dynamic scaling stretch max_position_embeddings, which some
    files have multiplied already."""
    return _stretched(config, ("yarn", "linear", "dynamic"))


def check_context(config: ModelConfig, max_model_len: int) -> None:
    """Raises: ConfigError for more than longest_context()."""
    limit, said = longest_context(config), config.max_position_embeddings
    if max_model_len > limit:
        stretched = f", which its rotation stretches to {limit}" if limit > said else ""
        raise ConfigError(
            f"max_model_len={max_model_len} exceeds the model's max_position_embeddings={said}{stretched}; lower it"
        )


def _stretched(config: ModelConfig, rope_types: tuple[str, ...]) -> int:
    """Of a model whose layers rotate differently, the number is that of all of them."""
    rope, said = config.rope, config.max_position_embeddings
    if config.local_rope is not None or rope.rope_type not in rope_types:
        return said
    longest = int(rope.original_max_position_embeddings * rope.factor)
    index = config.blocks.index
    if index is not None and said <= index.count:  # so nothing is chosen, and no more may be seen
        longest = min(longest, index.count)
    return max(said, longest)
