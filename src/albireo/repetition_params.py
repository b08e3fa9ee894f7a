"""RepetitionDetectionParams: when an output that only repeats itself is ended. Names and meanings are vLLM's.

Leaf module, validated once, on construction; frozen afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from albireo.errors import InvalidParams, short

#: Longest pattern: what is compared at each token is at most that many times min_count tokens, for each length.
MAX_PATTERN_SIZE = 256
#: stop_reason of an output that was ended so.
REASON = "repetition_detected"


@dataclass(frozen=True, slots=True)
class RepetitionDetectionParams:
    """An output ends once its last tokens are one pattern, min_count times in a row.

    Fields:
        max_pattern_size: tokens of the longest pattern that is looked for; 0: none is.
        min_pattern_size: of the shortest; 0 is 1.
        min_count: how often it is there, 2 or more.

    Raises: InvalidParams naming field, value and limit.
    """

    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 0:
                raise _wrong(f"{field.name}={short(value)} to be a whole number, 0 or more")
        if self.max_pattern_size > MAX_PATTERN_SIZE:
            raise _wrong(f"max_pattern_size={self.max_pattern_size} to be at most {MAX_PATTERN_SIZE}")
        if self.min_pattern_size > self.max_pattern_size:
            raise _wrong(
                f"min_pattern_size={self.min_pattern_size} to be at most max_pattern_size={self.max_pattern_size}"
            )
        if self.max_pattern_size and self.min_count < 2:
            raise _wrong(f"min_count={self.min_count} to be at least 2, or max_pattern_size to be 0")

    @classmethod
    def of(cls, value: Any) -> RepetitionDetectionParams:
        """From what callers give: an instance, or an object with its fields. Raises: InvalidParams."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise InvalidParams(
                f"repetition_detection must be RepetitionDetectionParams or an object, got {type(value).__name__}"
            )
        known = [field.name for field in fields(cls)]
        for name in value:
            if name not in known:
                there = ", ".join(known)
                raise InvalidParams(
                    f"repetition_detection holds {name!r:.60}, which is no field of it; there are {there}"
                )
        return cls(**{name: item for name, item in value.items() if item is not None})

    def ends(self, token_ids: Sequence[int]) -> bool:
        """Whether an output ends here. Cost: O(max_pattern_size), but for what does repeat itself."""
        num, count = len(token_ids), self.min_count
        for size in range(self.min_pattern_size or 1, self.max_pattern_size + 1):
            if size * count > num:
                return False
            # each token of all but the first pattern is the one a pattern before; most sizes fail at the last
            if token_ids[-1] == token_ids[-1 - size] and all(
                token_ids[-k] == token_ids[-k - size] for k in range(2, size * (count - 1) + 1)
            ):
                return True
        return False


def _wrong(what: str) -> InvalidParams:
    return InvalidParams(f"repetition_detection needs {what}")
