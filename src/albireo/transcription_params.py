"""TranscriptionParams: what a caller may ask of one sound. Names are those of OpenAI's API and of Whisper.

Checked once, on construction; frozen afterwards. A leaf module: does not know tokens or models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from albireo.errors import InvalidParams, short

Task = Literal["transcribe", "translate"]
TASKS = ("transcribe", "translate")
_LANGUAGE = re.compile(r"[a-z]{2,3}")
#: Far more than any context has room for.
MAX_PROMPT_CHARS = 1 << 16
MAX_TEMPERATURES, MAX_TEMPERATURE = 16, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionParams:
    """Fields:
        language: that is spoken, by its code (en, de, yue); None: the model says which. A region (pt-BR) says nothing.
        task: transcribe, or translate into English.
        prompt: what was said before, or how words are spelt; its last tokens are read.
        timestamps: when each part was said, too. words: when each word was, of models that tell it.
        temperatures: at which a window is written again, in turn, where what the model wrote is doubtful: it repeats
            itself, or is not likely. Only where it was asked at temperature 0, and of Whisper; none: never.

    Raises: InvalidParams naming field, value and what is allowed.
    """

    language: str | None = None
    task: Task = "transcribe"
    prompt: str = ""
    timestamps: bool = False
    words: bool = False
    temperatures: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)

    def __post_init__(self) -> None:
        if self.language is not None:
            code = re.split("[-_]", self.language.lower())[0] if isinstance(self.language, str) else ""
            if not _LANGUAGE.fullmatch(code):
                raise InvalidParams(
                    f"language={short(self.language)} must be a code of two or three letters, such as en"
                )
            object.__setattr__(self, "language", code)
        if self.task not in TASKS:
            raise InvalidParams(f"task={short(self.task)} is not supported; it must be {' or '.join(TASKS)}")
        if not isinstance(self.prompt, str) or len(self.prompt) > MAX_PROMPT_CHARS:
            raise InvalidParams(f"prompt={short(self.prompt)} must be text, of at most {MAX_PROMPT_CHARS:,} characters")
        for name, value in (("timestamps", self.timestamps), ("words", self.words)):
            if not isinstance(value, bool):
                raise InvalidParams(f"{name}={short(value)} must be true or false")
        given = self.temperatures
        is_list = isinstance(given, (tuple, list)) and len(given) <= MAX_TEMPERATURES
        if not is_list or not all(type(each) in (int, float) and 0 < each <= MAX_TEMPERATURE for each in given):
            raise InvalidParams(
                f"temperatures={short(given)} must be at most {MAX_TEMPERATURES} numbers above 0 and up to "
                f"{MAX_TEMPERATURE:g}"
            )
        object.__setattr__(self, "temperatures", tuple(map(float, given)))
