"""Whether a model's files can be loaded, as far as that can be known without memory for it.

Called by server/several.py before another model gives its memory back. Does not know devices, nor how much fits.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.api.sources.locate import locate_model
from albireo.api.sources.source import open_source
from albireo.config import EngineConfig


def check_files(config: EngineConfig) -> None:
    """Read the configuration and the heads of the files of weights; hashes are for who loads them.

    Raises: ModelError, ConfigError: what load() would say.
    """
    source = open_source(locate_model(config.model), replace(config, verify_hashes=False))
    with source.weights(source.graph(source.default_model_len)):
        pass
