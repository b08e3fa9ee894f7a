"""MediaLimits: how many pictures and sounds a prompt may have; and how long a sound may be. The name of its field in
EngineConfig is vLLM's.

Checked once, on construction, and frozen afterwards. A leaf module: does not know how pictures are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albireo.errors import ConfigError, short

#: Of one file, before it is decoded.
MAX_SOUND_SECONDS = 4 * 3600
_KINDS = ("image", "audio", "video")
_WANTED = 'an object such as {"image": 4}, or its text in JSON'


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """Most of each kind in one prompt.

    Fields: image: None: any number; 0: the model's part that reads them, and videos, is not loaded. audio, video: None:
    any number.

    Raises: ConfigError naming the value and what is allowed.
    """

    image: int | None = None
    audio: int | None = None
    video: int | None = None

    def __post_init__(self) -> None:
        for kind in _KINDS:
            most = getattr(self, kind)
            if most is not None and (type(most) is not int or most < 0):
                raise ConfigError(
                    f"limit_mm_per_prompt has {kind}={short(most)}; it must be a whole number of at least 0"
                )

    @classmethod
    def of(cls, value: Any) -> MediaLimits:
        """What a caller gave. Raises: ConfigError."""
        if isinstance(value, MediaLimits):
            return value
        given = value
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except (ValueError, RecursionError):
                raise ConfigError(f"limit_mm_per_prompt={short(value)} is not allowed; it must be {_WANTED}") from None
        if given is None:
            return cls()
        if not isinstance(given, Mapping):
            raise ConfigError(f"limit_mm_per_prompt={short(value)} is not allowed; it must be {_WANTED}")
        # of vLLM's options of a kind all but the count are of its trial runs; none of what there is not is no limit
        given = {key: each.get("count") if isinstance(each, Mapping) else each for key, each in given.items()}
        given = {key: each for key, each in given.items() if key in _KINDS or each != 0}
        unknown = [key for key in given if key not in _KINDS]
        if unknown:
            raise ConfigError(f"limit_mm_per_prompt has {short(unknown[0])}; known: {', '.join(_KINDS)}")
        return cls(**given)
