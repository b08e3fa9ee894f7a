"""PromptMedia: pictures, sounds and videos of a prompt, put where it has marks of them, or the reason why it has none.

Owned by admission.py, for prompts that are answered and for those that are pooled. Threads may share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from albireo.api.media.places import Place, Placed, Places
from albireo.api.requests.prompts import Prompt
from albireo.engine.settings import EngineSettings
from albireo.errors import UnsupportedFeature
from albireo.image_input import GivenImage, GivenSound, GivenVideo, MediaKind

if TYPE_CHECKING:
    from albireo.api.media.reader import MediaReader


class PromptMedia:
    """Of one model."""

    def __init__(self, settings: EngineSettings, reader: MediaReader | None) -> None:
        """Args: reader: what reads pictures, sounds and videos; None where prompts have none, or without a
        tokenizer."""
        self._settings, self._reader = settings, reader

    def marked(self, prompt: Prompt) -> Prompt:
        """A prompt of text with pictures, with marks where letters spell them. Raises: InvalidParams."""
        place = self.place("image") if prompt.images else None
        if place is None or prompt.text is None or prompt.token_ids is not None:
            return prompt
        return replace(prompt, text=place.marked(prompt.text))

    def placed(
        self,
        ids: list[int],
        pictures: Sequence[GivenImage],
        sounds: Sequence[GivenSound],
        videos: Sequence[GivenVideo],
    ) -> Placed:
        """A prompt with its pictures, sounds and videos in place, or behind its sound.

        Raises: UnsupportedFeature where none are read; InvalidParams.
        """
        media: dict[MediaKind, Sequence[Any]] = {"image": pictures, "sound": sounds, "video": videos}
        for kind, given in media.items():
            if given and (problem := self.problem(kind)):
                raise UnsupportedFeature(f"the prompt has {len(given)} {kind}s, and {problem}")
        if self._reader is None:
            return ids, ()
        if isinstance(self._reader, Places):
            return self._reader.placed(ids, media)
        return self._reader.placed(ids, sounds)

    def place(self, kind: MediaKind) -> Place | None:
        """Of one kind in a prompt; None where none are read."""
        return self._reader.kinds.get(kind) if isinstance(self._reader, Places) else None

    def problem(self, kind: MediaKind) -> str:
        """Why prompts have none of a kind; empty: they may have some."""
        settings = self._settings
        problems = {"image": settings.image_problem, "sound": settings.sound_problem, "video": settings.video_problem}
        problem = problems[kind]
        if self._reader is None and not problem:
            return "they need a tokenizer and skip_tokenizer_init is set; leave it out"
        if isinstance(self._reader, Places) and not problem:
            return self._reader.problems.get(kind, "")
        return problem
