"""What a model's author recommends for sampling, wherever the model says so.

Called by load.py, and by build.py, so that nothing is built whose recommendation would be refused when it is loaded.
"""

from __future__ import annotations

from pathlib import Path

from albireo.models.gguf.files import is_gguf
from albireo.models.settings.generation import GenerationDefaults, read_generation_defaults


def recommended(place: Path) -> GenerationDefaults:
    """Args: place: a directory with a generation_config.json or without one, or a GGUF file. Raises: ModelError."""
    if not is_gguf(place):
        return read_generation_defaults(place)
    from albireo.models.gguf.recommended import read_recommended

    return read_recommended(place)
